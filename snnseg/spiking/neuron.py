"""Leaky integrate-and-fire dynamics.

On the way of the data: normalised input currents -> **spikes** -> next convolution.
Shapes: T time steps, B pictures, C channels, H x W pixels.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from snnseg.spiking.surrogate import Triangle


class LIF(NamedTuple):
    """What a neuron is. `leak` and `threshold` are floats or tensors that broadcast to [C, 1, 1]."""

    leak: float | Tensor = 0.99
    threshold: float | Tensor = 1.0
    spike: Callable[[Tensor], Tensor] = Triangle()   # step forward, surrogate backward; `integer.Integer` fires more than once a step
    soft_reset: bool = True

    @property
    def levels(self) -> int:
        """Spikes that it may fire at one step."""
        return getattr(self.spike, "levels", 1)


def step(current_BCHW: Tensor, potential_BCHW: Tensor, neuron: LIF) -> tuple[Tensor, Tensor]:
    """One time step: spikes and the membrane potential that remains.

        u <- leak * u + I                      (paper, eq. 2)
        s  = 1 if u > threshold else 0         (eq. 3; an integer neuron's is 0 to D)
        u <- u - threshold * s                 (soft reset; no gradient flows through the spike)
        u <- 0 where s > 0                     (hard reset, likewise)
    """
    u = neuron.leak * potential_BCHW + current_BCHW
    s = neuron.spike(u / neuron.threshold - 1)
    reset = neuron.threshold * s.detach() if neuron.soft_reset else u * s.detach().clamp(max=1)
    return s, u - reset


def run(current_TBCHW: Tensor, neuron: LIF, potential_BCHW: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """All time steps: spikes [T, B, C, H, W] and the last potential. The oracle of every faster form."""
    u = torch.zeros_like(current_TBCHW[0]) if potential_BCHW is None else potential_BCHW
    spikes = []
    for current_BCHW in current_TBCHW:
        s, u = step(current_BCHW, u, neuron)
        spikes.append(s)
    return torch.stack(spikes), u
