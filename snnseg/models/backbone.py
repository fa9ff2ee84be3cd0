"""What both nets are built of: convolutions on folded (T*B), then normalisation and neuron, which know T.

A net and its twin share every line but this: a spiking `Neurons` has T steps, its norm and the LIF; an analog one has a
single step, batch norm without gamma and beta, and ReLU.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnseg.spiking import neuron as lif
from snnseg.spiking import ways
from snnseg.spiking.norm import BNTT, BatchNorm, PastTrained


def folded(layer: Callable[[Tensor], Tensor], x_TBCHW: Tensor) -> Tensor:
    """Apply a layer that knows nothing of time to every step at once."""
    return layer(x_TBCHW.flatten(0, 1)).unflatten(0, x_TBCHW.shape[:2])


def exact(x: Tensor) -> Tensor:
    """bf16 as float32: a membrane potential in bf16 would lose as much to rounding as to its leak."""
    return x.float() if x.dtype == torch.bfloat16 else x


@dataclass(frozen=True)
class Spiking:
    """Leaky integrate-and-fire neurons behind BNTT, tdBN, BN or no norm."""

    timesteps: int
    neuron: lif.LIF = lif.LIF()
    norm: str = "bntt"
    past_trained: PastTrained = "hold"
    way: str = "auto"           # how norm and neuron are run: reference, cpu, triton, or what fits best

    def make_norm(self, channels: int) -> nn.Module:
        if self.norm == "bntt":
            return BNTT(channels, self.timesteps, self.past_trained)
        if self.norm == "none":
            return nn.Identity()
        return BatchNorm(channels, gamma=float(self.neuron.threshold) if self.norm == "tdbn" else 1.0)

    def respond(self, norm: nn.Module, y_TBCHW: Tensor) -> Tensor:
        """Spikes of the layer's input currents, in their dtype."""
        normal = None if isinstance(norm, nn.Identity) else norm.normal(len(y_TBCHW))
        fired = ways.run(y_TBCHW, normal, self.neuron, self.way)
        if fired.mean_TC is not None:
            norm.remember(fired.mean_TC, fired.var_TC, y_TBCHW[:, :, 0].numel() // len(fired.mean_TC))
        return fired.spikes_TBCHW

    def between_upsamplings(self, x_TBCHW: Tensor) -> Tensor:
        return ways.run(x_TBCHW, None, self.neuron, self.way).spikes_TBCHW


@dataclass(frozen=True)
class Analog:
    """Rectified units behind batch norm: one step, no memory."""

    timesteps: int = 1

    def make_norm(self, channels: int) -> nn.Module:
        return BatchNorm(channels, gamma=None)

    def respond(self, norm: nn.Module, y_TBCHW: Tensor) -> Tensor:
        return F.relu(norm(exact(y_TBCHW)))

    def between_upsamplings(self, x_TBCHW: Tensor) -> Tensor:
        return x_TBCHW      # the authors' ANN-FCN has no ReLU there


Neurons = Spiking | Analog


class ConvUnit(nn.Module):
    """Convolution without bias, norm, neuron: x_TBCHW -> spikes (or activations) of the same height and width."""

    def __init__(self, in_channels: int, out_channels: int, neurons: Neurons, dilation: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm = neurons.make_norm(out_channels)
        self.neurons = neurons

    def forward(self, x_TBCHW: Tensor) -> Tensor:
        return self.neurons.respond(self.norm, folded(self.conv, x_TBCHW))


def pool(x_TBCHW: Tensor) -> Tensor:
    """Average of 3x3, stride 2, padding 1 counted in, after the spikes: what leaves it is no longer binary."""
    return folded(lambda x: F.avg_pool2d(x, 3, 2, 1), x_TBCHW)


def initialise(net: nn.Module) -> None:
    """Xavier uniform with gain 2 for every convolution, zero biases, as the authors' code."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight, gain=2)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def scaled(channels: int, width: float) -> int:
    """`channels` of the paper at a net of another width; at least one."""
    return max(1, round(channels * width))
