"""Batch norm of a trained ANN twin folded into the convolution before it (Rueckauer et al. 2017, batch-normalisation layers).

    w' = w gamma / sqrt(var + eps)          b' = beta - mean gamma / sqrt(var + eps)

with the running statistics, so what is left is relu(w' * x + b'), which neurons with a constant bias current can stand for. The
twins' norms have neither gamma nor beta (1 and 0). A folded net answers as the net did in evaluation mode.
"""
from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnseg.errors import ConfigError
from snnseg.models.backbone import Analog, ConvUnit, exact
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.spiking import unit
from snnseg.spiking.encode import Coded, whole

Net = DeepLab | FCN


def weighted(conv: nn.Conv2d, x_TBCHW: Tensor, pooled: bool) -> Tensor:
    """The weighted input of a layer, bias included: [T, B, O, H, W], of half the height and width if it is pooled before.

    An input that is the same at every step (an expanded view) is convolved once, and so are its currents.
    """
    steps, x_TBCHW = len(x_TBCHW), x_TBCHW[:1] if x_TBCHW.stride(0) == 0 else x_TBCHW
    # for one picture alone torch takes a CPU kernel that adds in another order; bits are not to depend on how time is cut
    alone = x_TBCHW.shape[:2] == (1, 1)
    x_TBCHW = x_TBCHW.expand(2, -1, -1, -1, -1) if alone else x_TBCHW
    y_TBCHW = exact(unit.plain(x_TBCHW, conv.weight, unit.Wiring(conv.dilation[0], pooled))).add_(conv.bias.view(-1, 1, 1))
    return (y_TBCHW[:1] if alone else y_TBCHW).expand(steps, -1, -1, -1, -1)


@dataclass(frozen=True)
class Folded(Analog):
    """Rectified units whose norm is in weight and bias of their convolution."""

    def make_norm(self, channels: int) -> nn.Module:
        return nn.Identity()

    def respond(self, conv: nn.Conv2d, norm: nn.Module, cell: nn.Module, x: Tensor | Coded, pooled: bool, of_spikes: bool) -> Tensor:
        return F.relu(weighted(conv, whole(x), pooled))


def layers(net: Net) -> dict[str, ConvUnit]:
    """The layers that have neurons, by name, in the order that a picture passes them."""
    return {name: module for name, module in net.named_modules() if isinstance(module, ConvUnit)}


def fold(model: Net) -> Net:
    """A copy of an ANN twin without norms, in evaluation mode. Raises ConfigError for any other net, and for one with max pools."""
    if not isinstance(model, DeepLab | FCN) or any(type(layer.neurons) is not Analog for layer in layers(model).values()):
        raise ConfigError(f"{type(model).__name__} is no ANN twin with its batch norm: nothing else is converted. Take a trained ann_deeplab or ann_fcn.")
    if any(layer.maxed for layer in layers(model).values()):
        raise ConfigError("this twin has max pools, and the largest of spikes is not the spike of the largest rate: it is not converted. "
                          "Train one with model.pool: average.")
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    neurons = Folded(next(iter(layers(model).values())).neurons.timesteps)
    for layer in layers(folded).values():
        _fold(layer.conv, layer.norm.norm)
        layer.norm, layer.neurons = neurons.make_norm(layer.conv.out_channels), neurons
    folded.neurons = neurons
    return folded


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """In float64, so that nothing is lost but the last rounding."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    beta = 0 if norm.bias is None else norm.bias
    conv.weight.copy_(conv.weight * scale.view(-1, 1, 1, 1))
    conv.bias = nn.Parameter((beta - norm.running_mean * scale).to(conv.weight.dtype), requires_grad=False)
