"""What both nets are built of: convolutions on folded (T*B), then normalisation and neuron, which know T.

A net and its twin share every line but this: a spiking `Neurons` has T steps, its norm and the LIF; an analog one has a
single step, batch norm without gamma and beta, and ReLU.
"""
from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from snnseg.spiking import neuron as lif
from snnseg.spiking import pooling, readout, unit, ways
from snnseg.spiking.cell import Cell, Learned
from snnseg.spiking.encode import Coded, whole
from snnseg.spiking.norm import BNTT, BatchNorm, PastTrained
from snnseg.spiking.shared import Share

Pool = Literal["average", "max"]


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
    recompute: bool = False     # convolve anew in the backward pass instead of keeping what was convolved
    recompute_coded: bool = False   # likewise, the layer alone whose input is made anew in any case
    learn_leak: Learned = "none"    # one a layer or a channel, beginning at the neuron's
    learn_threshold: Learned = "none"
    share: Share | None = None      # adds a tensor up over all processes that train the net: their batches are normalised as one
    substeps: bool = False          # integer spikes are convolved as sub-steps of 0 and 1, as spike-driven hardware does; the same answer, slower

    def make_norm(self, channels: int) -> nn.Module:
        if self.norm == "bntt":
            return BNTT(channels, self.timesteps, self.past_trained, self.share)
        if self.norm == "none":
            return nn.Identity()
        return BatchNorm(channels, gamma=float(self.neuron.threshold) if self.norm == "tdbn" else 1.0, share=self.share)

    def make_cell(self, channels: int) -> Cell:
        return Cell(self.neuron, channels, self.learn_leak, self.learn_threshold)

    def respond(self, conv: nn.Conv2d, norm: nn.Module, cell: Cell, x: Tensor | Coded, pooled: bool, of_spikes: bool) -> Tensor:
        """Spikes of the layer, in the dtype of its input currents."""
        normal = None if isinstance(norm, nn.Identity) else norm.normal(x.shape[0])
        substeps = self.neuron.levels if self.substeps and of_spikes else 1
        recompute = self.recompute or self.recompute_coded and not isinstance(x, Tensor)
        fired = unit.run(x, conv.weight, unit.Wiring(conv.dilation[0], pooled, of_spikes, recompute, substeps), normal, cell(), self.way)
        if fired.mean_TC is not None:
            values = fired.spikes_TBCHW[:, :, 0].numel() // len(fired.mean_TC) if fired.count is None else fired.count
            norm.remember(fired.mean_TC, fired.var_TC, values)
        return fired.spikes_TBCHW

    def read(self, conv: nn.Conv2d, x_TBCHW: Tensor) -> Tensor:
        """A convolution of the layer's spikes at every step, without norm or neuron."""
        if self.substeps:
            def weighted(s_TBCHW: Tensor) -> Tensor:
                return folded(lambda s_NCHW: F.conv2d(s_NCHW, conv.weight), s_TBCHW)

            return unit.in_substeps(weighted, x_TBCHW, self.neuron.levels) + conv.bias.view(-1, 1, 1)
        return folded(conv, x_TBCHW) if self.plainly else unit.Tap.apply(x_TBCHW, conv.weight, conv.bias)

    def score(self, conv: nn.Conv2d | nn.ConvTranspose2d, x_NCHW: Tensor) -> Tensor:
        """A convolution of what is no spikes: their mean, or scores."""
        return conv(x_NCHW) if self.plainly else readout.linear(conv, x_NCHW)

    def largest(self, x_TBCHW: Tensor) -> Tensor:
        """Spikes behind a max pool; of integer ones, each sub-step's largest is what the largest number of them tells."""
        return folded(pooling.largest, x_TBCHW) if self.plainly else pooling.Largest.apply(x_TBCHW)

    @property
    def plainly(self) -> bool:
        """Spikes are not kept as bits, which do not tell more than 0 and 1."""
        return self.way == "reference" or self.neuron.levels > 1

    def between_upsamplings(self, cell: Cell, x_TBCHW: Tensor) -> Tensor:
        return ways.run(x_TBCHW, None, cell(), self.way).spikes_TBCHW


@dataclass(frozen=True)
class Analog:
    """Rectified units behind batch norm: one step, no memory."""

    timesteps: int = 1
    share: Share | None = None

    def make_norm(self, channels: int) -> nn.Module:
        return BatchNorm(channels, gamma=None, share=self.share)

    def make_cell(self, channels: int) -> nn.Module:
        return nn.Identity()

    def respond(self, conv: nn.Conv2d, norm: nn.Module, cell: nn.Module, x: Tensor | Coded, pooled: bool, of_spikes: bool) -> Tensor:
        return F.relu(norm(exact(unit.analog(whole(x), conv.weight, unit.Wiring(conv.dilation[0], pooled)))))

    def read(self, conv: nn.Conv2d, x_TBCHW: Tensor) -> Tensor:
        return folded(lambda x_NCHW: readout.linear(conv, x_NCHW), x_TBCHW)

    def score(self, conv: nn.Conv2d | nn.ConvTranspose2d, x_NCHW: Tensor) -> Tensor:
        return readout.linear(conv, x_NCHW)

    def largest(self, x_TBCHW: Tensor) -> Tensor:
        return folded(pooling.largest, x_TBCHW)

    def between_upsamplings(self, cell: nn.Module, x_TBCHW: Tensor) -> Tensor:
        return x_TBCHW      # the authors' ANN-FCN has no ReLU there


Neurons = Spiking | Analog


class ConvUnit(nn.Module):
    """(Pool,) convolution without bias, norm, neuron: x_TBCHW -> spikes (or activations) of the same height and width, or half of it.

    `of_spikes`: the input comes from neurons, not from pictures or events. A max pool is a step of its own, so that its convolution
    sees spikes; an average is made within the unit.
    """

    def __init__(self, in_channels: int, out_channels: int, neurons: Neurons, dilation: int = 1, pool: Pool | None = None, of_spikes: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm, self.cell = neurons.make_norm(out_channels), neurons.make_cell(out_channels)
        self.neurons, self.pooled, self.maxed, self.of_spikes = neurons, pool == "average", pool == "max", of_spikes

    def forward(self, x: Tensor | Coded) -> Tensor:
        return self.neurons.respond(self.conv, self.norm, self.cell, self.behind_max(x), self.pooled, self.of_spikes)

    def behind_max(self, x: Tensor | Coded) -> Tensor | Coded:
        """What a max pool leaves of x; without one, x."""
        return self.neurons.largest(x) if self.maxed else x


class _Mean(torch.autograd.Function):
    """Over time, in float32; its gradient is one step's, seen at all of them. torch's own would be as large as x, twice under autocast."""

    @staticmethod
    def forward(ctx, x_TBCHW):
        ctx.shape, ctx.dtype = x_TBCHW.shape, x_TBCHW.dtype
        if x_TBCHW.dtype == torch.bfloat16 and not x_TBCHW.is_cuda:     # torch's sum would first make all of it float32
            mean_BCHW = x_TBCHW[0].float()
            step_BCHW = torch.empty_like(mean_BCHW)     # one for all: adding bfloat16 itself, torch makes one a step
            for x_BCHW in x_TBCHW[1:]:
                mean_BCHW += step_BCHW.copy_(x_BCHW)
            return mean_BCHW.div_(len(x_TBCHW))
        with torch.autocast(x_TBCHW.device.type, enabled=False):        # added up as it lies in memory, in rows: torch's mean would walk it across
            mean_BHWC = x_TBCHW.permute(0, 1, 3, 4, 2).sum(0, dtype=torch.float32 if x_TBCHW.dtype == torch.bfloat16 else x_TBCHW.dtype) / len(x_TBCHW)
        return mean_BHWC.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_BCHW):
        return (g_BCHW / ctx.shape[0]).to(ctx.dtype).expand(ctx.shape)


def mean_over_time(x_TBCHW: Tensor) -> Tensor:
    """[B, C, H, W], float32 of bfloat16."""
    return _Mean.apply(x_TBCHW)


def spike_driven(net: nn.Module) -> nn.Module:
    """A copy of a net of integer neurons, units and reads of which see each step as D sub-steps of 0 and 1: the same answer but for the order of sums.

    What reads a mean over time, and the FCN's transposed convolutions, are linear and see a step's sum as before.
    """
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(getattr(module, "neurons", None), Spiking):
            module.neurons = replace(module.neurons, substeps=True)
    return net


def initialise(net: nn.Module) -> None:
    """Xavier uniform with gain 2 for every convolution, zero biases, as the authors' code; weights channels last, as x is."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight, gain=2)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    net.to(memory_format=torch.channels_last)


def scaled(channels: int, width: float) -> int:
    """`channels` of the paper at a net of another width; at least one."""
    return max(1, round(channels * width))
