"""What a net's layers did over a set of pictures, in whole numbers: inputs, products, spikes, step by step.

On the way of the data: pictures, coded -> net -> **activity** -> spike rates (`spikes`), operations, bytes, energy.
All counts are sums over the pictures, so neither their order nor how they come in batches matters. A net is run in
evaluation mode and without gradients, one batch after the other; of a batch nothing is kept but counts. k spikes of an integer
neuron at one step are counted as k, as the sub-steps of 0 and 1 that they stand for.
Shapes: T time steps, R of them at which a layer's synapses work, B pictures, C channels, H x W pixels.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor, nn

from snnseg.evaluation import synapses
from snnseg.evaluation.layers import INPUT, Layer, convolution, layers
from snnseg.evaluation.signals import watched
from snnseg.models.backbone import mean_over_time
from snnseg.spiking import pooling
from snnseg.spiking.encode import Coded, Constant, whole
from snnseg.spiking.timed import Timed


@dataclass(frozen=True)
class Activity:
    """A layer's counts, summed over `pictures`. R is T, or 1 where the input is the same at each step (direct coding) or a mean."""

    layer: Layer
    pictures: int
    steps: int                              # T of the net
    of_spikes: bool                         # what it reads is -1, 0 and 1 alone, or 1 times a power of two that is the whole step's
    signed: bool                            # and some of it is negative
    inputs_R: tuple[int, ...]               # not zero, as the convolution sees them
    products_R: tuple[int, ...]             # of input and weight, neither of them zero
    pooled_R: tuple[int, ...]               # inputs that the pool adds up or compares, not zero; 0 where there is none
    resized_R: tuple[int, ...]              # products of the bilinear resizing, at the steps at which it is done
    fired_TC: tuple[tuple[int, ...], ...] | None        # spikes, of an ANN's rectified units those not zero; None where neither ends the layer
    weighted: bool = False                  # the spikes that it reads stand for that power of two (weighted phase)

    @property
    def runs(self) -> int:
        return len(self.products_R)

    @property
    def accumulates(self) -> bool:
        """A product is an addition: the convolution sees spikes. Behind an average they are multiples of 1/9."""
        return self.of_spikes and not self.layer.pooled

    @property
    def density(self) -> float:
        """Share of the convolution's inputs that are not zero, of all sub-steps."""
        times = self.runs * (1 if self.layer.pooled else self.layer.substeps)
        return sum(self.inputs_R) / (self.pictures * times * prod(self.layer.in_CHW))

    @property
    def spikes(self) -> int:
        """Of a layer that fires; 0 of others."""
        return sum(map(sum, self.fired_TC)) if self.layer.ends == "fires" else 0


class Meter:
    """Counts what it is shown (`signals.Watcher`). The counts stay on the device until `activities` reads them."""

    def __init__(self, of: Sequence[Layer], convolutions: Mapping[str, nn.Conv2d | nn.ConvTranspose2d]):
        self.layers, self.convolutions = {layer.name: layer for layer in of}, convolutions
        self.pictures, self.shape, self.counts, self.weighted = 0, None, {}, False

    def see(self, signal: str, x: Tensor | Coded) -> None:
        """Count for the layer that made it and for those that read it. Raises ValueError where T or a picture's shape is not the one before."""
        if signal == INPUT:
            self._begin(x)
        x_RBCHW = x.steps(0, 1) if isinstance(x, Constant) else whole(x)
        if len(x_RBCHW) > 1 and x_RBCHW.stride(0) == 0:     # a view of one step
            x_RBCHW = x_RBCHW[:1]
        if signal == INPUT:
            self.weighted = isinstance(x, Timed) and x.weighted
            told = x.spikes(0, x.timesteps).to(x_RBCHW.dtype) if self.weighted else x_RBCHW
            self._add(INPUT, torch.stack([((told != 0) & (told.abs() != 1)).sum(), (told < 0).sum()]))
        elif (layer := self.layers[signal]).ends in ("fires", "rectifies"):
            self._add(signal, torch.stack([synapses.active(x_BCHW, layer.levels).sum((1, 2)) for x_BCHW in x_RBCHW]))
        for layer in self.layers.values():
            if layer.reads == signal:
                self._read(layer, mean_over_time(x_RBCHW)[None] if layer.averaged else x_RBCHW)

    def see_grid(self, layer: str, y_RBCHW: Tensor) -> None:
        """Count the products of a layer's resizing."""
        met_HW = self._grid[layer].to(y_RBCHW.device)
        self._add(f"{layer} resized", torch.stack([synapses.products(synapses.active(y_BCHW), met_HW) for y_BCHW in y_RBCHW]))

    def _read(self, layer: Layer, x_RBCHW: Tensor) -> None:
        fan_out_CHW, windows_HW = self._fan_out[layer.name], self._windows.get(layer.name)
        rows = []
        for x_BCHW in x_RBCHW:
            spikes = synapses.active(x_BCHW, layer.substeps)
            active = synapses.active(pooling.plain(x_BCHW)) if layer.pooled else spikes      # the pool has added a step's sub-steps up
            if layer.maxed:         # of each sub-step by itself
                active = synapses.active(pooling.largest(x_BCHW), layer.substeps)
            added = synapses.products(spikes, windows_HW) if layer.behind_pool else fan_out_CHW.new_zeros(())
            rows.append(torch.stack([active.sum().double(), synapses.products(active, fan_out_CHW), added]))
        self._add(f"{layer.name} reads", torch.stack(rows))

    def _begin(self, x: Tensor | Coded) -> None:
        T, B, *shape = x.shape
        if self.shape not in (None, (T, *shape)):
            raise ValueError(f"pictures of one activity have one shape: T, C, H, W = {(T, *shape)} after {self.shape}")
        self.shape, self.pictures = (T, *shape), self.pictures + B

    def _add(self, name: str, counts: Tensor) -> None:
        """Raises ValueError where a layer works at another number of steps than before: direct coding among other inputs."""
        before = self.counts.setdefault(name, counts.new_zeros(counts.shape, dtype=torch.int64))
        if before.shape != counts.shape:
            raise ValueError(f"{name}: inputs that are the same at each step and others cannot be counted together")
        before += counts.long()

    @cached_property
    def _fan_out(self) -> dict[str, Tensor]:
        return {name: synapses.of_convolution(self.convolutions[name], *layer.in_CHW[1:]) for name, layer in self.layers.items()}

    @cached_property
    def _windows(self) -> dict[str, Tensor]:
        return {name: synapses.of_pool(*layer.read_CHW[1:], self._fan_out[name].device) for name, layer in self.layers.items() if layer.behind_pool}

    @cached_property
    def _grid(self) -> dict[str, Tensor]:
        return {name: synapses.of_resizing(*layer.out_CHW[1:], *layer.resized_HW) for name, layer in self.layers.items() if layer.resized_HW}

    def activities(self) -> tuple[Activity, ...]:
        """One a layer, of all that was seen."""
        read = {name: counts.tolist() for name, counts in self.counts.items()}
        values, negative = read[INPUT]
        out = []
        for name, layer in self.layers.items():
            of_spikes = layer.of_spikes if layer.of_spikes is not None else not values
            inputs_R, products_R, pooled_R = zip(*read[f"{name} reads"], strict=True)
            fired_TC = tuple(map(tuple, read[name])) if name in read else None
            out.append(Activity(layer, self.pictures, self.shape[0], of_spikes, of_spikes and layer.reads == INPUT and negative > 0,
                                inputs_R, products_R, pooled_R, tuple(read.get(f"{name} resized", ())), fired_TC,
                                self.weighted and layer.reads == INPUT))
        return tuple(out)


@torch.no_grad()
def measure(model: nn.Module, inputs: Iterable[Tensor | Coded]) -> tuple[Activity, ...]:
    """Run a DeepLab or an FCN over batches x_TBCHW, there or coded, on its device; its layers' activity. The net is left as it was.

    Raises ValueError if there is no batch, or if batches differ in T or in the shape of their pictures; TypeError for another net.
    """
    training, meter = model.training, None
    model.eval()
    try:
        for x in inputs:
            if meter is None:
                of = layers(model, *x.shape[-2:])
                meter = Meter(of, {layer.name: convolution(model, layer.name) for layer in of})
            with watched(model, meter):
                model(x)
    finally:
        model.train(training)
    if meter is None:
        raise ValueError("activity is that of one batch or more: there is none")
    return meter.activities()
