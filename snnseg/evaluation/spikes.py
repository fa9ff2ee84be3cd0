"""How much a net's neurons fire: rates by layer and time step, and channels that never fire or always do.

    R_s(l) = spikes of layer l over all time steps / neurons of layer l        (eq. 8; a picture's mean, 0 to T, of integer neurons to T D)

Layers that fire are eight in a Spiking-DeepLab and eleven in a Spiking-FCN (figure 14); an ANN has none.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from snnseg.evaluation.activity import Activity
from snnseg.evaluation.layers import Layer

Silent = tuple[int, ...]        # numbers of channels


@dataclass(frozen=True)
class SpikeRate:
    """How a layer fires, the mean over pictures."""

    layer: str
    channels: int
    neurons: int
    spikes: float                       # a picture, all steps
    rate: float                         # eq. 8: spikes a neuron over all steps
    per_step: tuple[float, ...]         # spikes a neuron at each step, 0 to 1 (D); their sum is the rate
    dead: Silent                        # channels that fired at no step, place and picture
    saturated: Silent                   # channels that fired at (nearly) all of them


def neurons(layer: Layer) -> int:
    """What a layer ends in: spiking neurons, rectified units or accumulators; 0 where values pass on."""
    return 0 if layer.ends == "passes" else prod(layer.out_CHW if layer.ends == "accumulates" else layer.result_CHW)


def rates(activities: Sequence[Activity], saturated: float = 1.0) -> tuple[SpikeRate, ...]:
    """One for each layer that fires. A channel is saturated that fires at `saturated` of all steps, places and pictures, or more."""
    return tuple(_rate(a, saturated) for a in activities if a.layer.ends == "fires")


def _rate(a: Activity, saturated: float) -> SpikeRate:
    count, channels = neurons(a.layer), a.layer.out_CHW[0]
    at_most = a.pictures * a.steps * a.layer.levels * count // channels
    of_channel = [sum(fired_T) for fired_T in zip(*a.fired_TC, strict=True)]
    per_step = tuple(sum(fired_C) / (a.pictures * count) for fired_C in a.fired_TC)
    return SpikeRate(a.layer.name, channels, count, a.spikes / a.pictures, a.spikes / (a.pictures * count), per_step,
                     tuple(c for c, n in enumerate(of_channel) if n == 0), tuple(c for c, n in enumerate(of_channel) if n >= saturated * at_most))


def of_each_layer(activities: Sequence[Activity]) -> dict[str, float]:
    """R_s of each layer for eq. 10; empty for an ANN.

    The paper names none for a layer that does not fire (score, skips, classifier, last stage): it has that of the layer it reads.
    """
    fire = {r.layer: r.rate for r in rates(activities)}
    return {a.layer.name: fire[a.layer.name if a.layer.name in fire else a.layer.reads] for a in activities} if fire else {}
