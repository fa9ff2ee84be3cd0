"""A trained ANN twin converted as `config.conversion` says, and scored after each number of time steps (section 3, figures 3 and 13)."""
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from snnseg import seeds
from snnseg.data.store import Split
from snnseg.evaluation import anytime, evaluate
from snnseg.models import balancing, conversion, folding
from snnseg.models.conversion import PIECE, Converted
from snnseg.models.quantised import quantise
from snnseg.models.thresholds import Rule, Thresholds
from snnseg.sections import Config
from snnseg.spiking import counter


@dataclass(frozen=True)
class Point:
    """A converted net after T steps: mIoU in per cent, and the spikes of a neuron until then."""

    timesteps: int
    miou: float
    spikes: float


class Spikes:
    """How many spikes all neurons of a converted net fired at each step, counted as they fire; the device is not waited for."""

    def __init__(self, longest: int, device: torch.device):
        self.fired_T = torch.zeros(longest + PIECE, dtype=torch.float64, device=device)
        self.neurons = 0        # of all pictures
        self.step: dict[nn.Module, int] = {}

    def see(self, cell: nn.Module, arguments: tuple[Tensor, Tensor | None], fired: tuple[Tensor, Tensor]) -> None:
        """A forward hook of `Integrator`: some more steps of a layer, its first ones where no potential was given."""
        spikes_TBCHW, begins = fired[0], arguments[1] is None
        first = 0 if begins else self.step[cell]
        self.neurons += spikes_TBCHW[0].numel() if begins else 0
        self.step[cell] = first + len(spikes_TBCHW)
        self.fired_T[first:self.step[cell]] += spikes_TBCHW.sum((1, 2, 3, 4))

    def after(self, timesteps: int) -> float:
        """Spikes a neuron and picture until then."""
        return float(self.fired_T[:timesteps].sum()) / self.neurons

    @contextlib.contextmanager
    def counting(self, net: Converted) -> Iterator[None]:
        handles = [layer.cell.register_forward_hook(self.see) for layer in folding.layers(net.net).values()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def coding(config: Config) -> anytime.Coding:
    """How the config's items are given to a converted net: frames of events as they are."""
    return "direct" if config.data.events else config.conversion.coding


def balanced(model: nn.Module, split: Split, config: Config, device: torch.device) -> tuple[Converted, Thresholds]:
    """The twin as a spiking net, with thresholds found on pictures of `split`, the training one.

    Raises ConfigError for a net that is no twin, DataError for too few pictures, NotFinite.
    """
    asked, folded = config.conversion, folding.fold(model)
    pictures_NCHW = balancing.calibration_set(split, config, asked.calibration, device)
    rule = Rule(asked.per, asked.percentile, asked.scale)
    if asked.thresholds == "activations":
        found = balancing.of_activations(folded, pictures_NCHW, rule)
    else:
        own = [seeds.seed_of("calibrate_spikes", config.train.seed, k) for k in range(len(pictures_NCHW))]
        key_N = None if coding(config) == "direct" else counter.keys(own, device)
        found = balancing.of_currents(folded, pictures_NCHW, rule, asked.balance_timesteps, key_N, asked.leak, asked.start)
    return conversion.convert(folded, found, asked.leak, asked.start).to(device), found


def quantised(model: nn.Module, calibration: Split, split: Split, config: Config, device: torch.device) -> dict[int, float]:
    """mIoU in per cent of the twin with activations of each number of `conversion.bits`, calibrated as `balanced` is, and its errors.

    In float32 whatever the twin was trained in: levels and folded weights would be rounded once more.
    """
    if not config.conversion.bits:
        return {}
    config = config.model_copy(update={"train": config.train.model_copy(update={"precision": "fp32"})})
    folded, found = folding.fold(model), {}
    pictures_NCHW = balancing.calibration_set(calibration, config, config.conversion.calibration, device)
    for bits in np.unique(config.conversion.bits).tolist():
        confusion = evaluate.confusion(quantise(folded, pictures_NCHW, bits), split, config, device)
        assert confusion is not None, "nothing asks this evaluation to stop"
        found[bits] = 100 * confusion.miou()
    return found


def curve(net: Converted, split: Split, config: Config, device: torch.device) -> list[Point]:
    """The converted net's scores after each T of `conversion.timesteps`, from one pass. Raises OutOfMemory."""
    at = np.unique(config.conversion.timesteps).tolist()
    spikes = Spikes(at[-1], device)
    with spikes.counting(net):
        found = anytime.confusions(net, split, config, device, at, coding(config))
    assert found is not None, "nothing asks this evaluation to stop"
    return [Point(T, 100 * confusion.miou(), spikes.after(T)) for T, confusion in found.items()]
