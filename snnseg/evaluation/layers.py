"""What the layers of a net are: what each reads, of which shape, how it ends, and its multiply-accumulates (eq. 9).

A layer is what has weights: 9 in a DeepLab, 16 in an FCN (nine convolutions, the score, three skips, three transposed
convolutions). Pool, norm, neuron, bilinear resizing and the joining of a skip belong to the layer that they stand at.
Shapes: C channels, H x W pixels.
"""
from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from torch import nn

from snnseg.models.backbone import ConvUnit, Spiking
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.spiking.cell import Cell
from snnseg.spiking.norm import BNTT

INPUT = "input"     # the name of what the net is given, where others have that of the layer that made it
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Layer:
    """One layer with weights. What it reads is named by the layer that made it, or INPUT.

    It ends in neurons that fire, is rectified, passes its values on, or accumulates voltage over all steps, without leak.
    """

    name: str                           # of the module: block1.0, score, ups.2
    kind: Literal["convolution", "transposed"]
    reads: str
    read_CHW: Shape                     # as it lies in memory
    in_CHW: Shape                       # as the convolution sees it, behind the pool
    out_CHW: Shape                      # as the convolution gives it, before any resizing
    kernel: int
    biases: int
    ends: Literal["fires", "rectifies", "passes", "accumulates"]
    spiking: bool                       # the net is
    of_spikes: bool | None              # what lies in memory is spikes; None: the net's input, which its coding decides
    pooled: bool = False                # averaged 3x3, stride 2, first
    maxed: bool = False                 # or the largest of them taken
    averaged: bool = False              # reads the mean over time (an ANN's last stage), so it works once a picture
    norm: Literal["none", "static", "step"] = "none"    # step: other numbers at each time step (BNTT)
    leaky: bool = False                 # a leak of exactly 1 multiplies nothing
    soft_reset: bool = False
    resized_HW: tuple[int, int] | None = None           # brought to this size, bilinear, behind the convolution
    joins: str | None = None            # the skip that is then added
    levels: int = 1                     # spikes that the net's neurons may fire at one step, in as many sub-steps

    @property
    def weights(self) -> int:
        return self.kernel**2 * self.in_CHW[0] * self.out_CHW[0]

    @property
    def macs(self) -> int:
        """Eq. 9, k^2 O^2 C_in C_out, for maps of any sides. A transposed convolution is counted on its output's grid, as the paper's figures are."""
        return self.weights * prod(self.out_CHW[1:])

    @property
    def substeps(self) -> int:
        """Sub-steps of 0 and 1 in a step of what it reads."""
        return self.levels if self.of_spikes else 1

    @property
    def behind_pool(self) -> bool:
        return self.pooled or self.maxed

    @property
    def result_CHW(self) -> Shape:
        """As it is behind the resizing."""
        return self.out_CHW if self.resized_HW is None else (self.out_CHW[0], *self.resized_HW)

    @property
    def finished_once(self) -> bool:
        """Bias, resizing and joining are done once a picture, on what was accumulated or averaged, not once a step."""
        return self.averaged or self.ends == "accumulates"


def pooled(side: int) -> int:
    """A side behind the pool."""
    return (side + 1) // 2


def convolution(model: nn.Module, name: str) -> nn.Conv2d | nn.ConvTranspose2d:
    """The convolution of the layer of that name."""
    module = model.get_submodule(name)
    return module if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) else module.conv


def layers(model: DeepLab | FCN, height: int, width: int) -> tuple[Layer, ...]:
    """The layers of a net that sees pictures of so many pixels, in the order of the way of the data. Reads no weight: `meta` will do.

    Raises TypeError for another net.
    """
    if not isinstance(model, DeepLab | FCN):
        raise TypeError(f"layers are known of DeepLab and FCN, not of {type(model).__name__}")
    units = _units(model, height, width)
    rest = _deeplab(model, units[-1], height, width) if isinstance(model, DeepLab) else _fcn(model, {u.name: u for u in units})
    neurons = next(module.neurons for module in model.modules() if isinstance(module, ConvUnit))
    levels = neurons.neuron.levels if isinstance(neurons, Spiking) else 1
    return tuple(replace(layer, levels=levels) for layer in (*units, *rest))


def _units(model: nn.Module, height: int, width: int) -> list[Layer]:
    """The chain of convolutions that end in neurons."""
    chain, reads, size = [], INPUT, (height, width)
    for name, unit in model.named_modules():
        if not isinstance(unit, ConvUnit):
            continue
        spiking, conv = isinstance(unit.neurons, Spiking), unit.conv
        inside = (pooled(size[0]), pooled(size[1])) if unit.pooled or unit.maxed else size
        chain.append(Layer(
            name, "convolution", reads, (conv.in_channels, *size), (conv.in_channels, *inside), (conv.out_channels, *inside), conv.kernel_size[0], 0,
            "fires" if spiking else "rectifies", spiking, spiking if unit.of_spikes else None, unit.pooled, unit.maxed,
            norm="none" if isinstance(unit.norm, nn.Identity) else "step" if isinstance(unit.norm, BNTT) else "static", **_neuron(unit.cell)))
        reads, size = name, inside
    return chain


def _neuron(cell: nn.Module) -> dict[str, bool]:
    """A learned leak is a sigmoid, which is never 1."""
    if not isinstance(cell, Cell):
        return {}
    return {"leaky": cell.leak is not None or float(cell.neuron.leak) != 1, "soft_reset": cell.neuron.soft_reset}


def _pixelwise(name: str, conv: nn.Conv2d, of: Layer, last: bool, resized_HW: tuple[int, int] | None = None) -> Layer:
    """A 1x1 convolution of a unit's output, behind which nothing fires; `last`: nothing fires on the whole way from it to the logits."""
    out_CHW, biases = (conv.out_channels, *of.out_CHW[1:]), 0 if conv.bias is None else len(conv.bias)
    return Layer(name, "convolution", of.name, of.out_CHW, of.out_CHW, out_CHW, conv.kernel_size[0], biases,
                 "accumulates" if last and of.spiking else "passes", of.spiking, of.spiking, averaged=last and not of.spiking, resized_HW=resized_HW)


def _deeplab(model: DeepLab, head: Layer, height: int, width: int) -> list[Layer]:
    return [_pixelwise("classifier", model.classifier, head, True, (height, width))]


def _fcn(model: FCN, units: dict[str, Layer]) -> list[Layer]:
    full, half, quarter, head = (units[name] for name in ("block1.1", "block2.1", "block3.2", "head.1"))
    spiking = head.spiking
    score = _pixelwise("score", model.score, head, False)
    skips = [_pixelwise(f"skips.{k}", model.skips[k], feature, k == 0) for k, feature in enumerate((full, half, quarter))]
    ups, below = [], score
    for k, (up, skip) in enumerate(zip(model.ups, reversed(skips), strict=True)):
        last, conv = k == 2, up.conv
        C, H, W = below.result_CHW
        grid = (conv.out_channels, *((n - 1) * conv.stride[0] + conv.kernel_size[0] for n in (H, W)))
        ends = "passes" if not spiking else "accumulates" if last else "fires"
        below = Layer(f"ups.{k}", "transposed", below.name, (C, H, W), (C, H, W), grid, conv.kernel_size[0], 0, ends, spiking, below.ends == "fires",
                      averaged=last and not spiking, resized_HW=skip.out_CHW[1:], joins=skip.name, **({} if last else _neuron(model.cells[k])))
        ups.append(below)
    return [score, *skips, *ups]
