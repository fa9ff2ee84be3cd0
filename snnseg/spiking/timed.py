"""Codes in which the time of a spike tells the byte: latency, weighted phase, burst. Nothing is drawn.

All are functions of a pixel's level, 0 to 255, in whole numbers, so they have the same bits on any device. The steps count from 0,
T is their number, and any stretch of them can be made alone.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

WHITE = 255
PERIOD = 8          # steps of weighted phase: the bits of a byte
MOST = 5            # spikes in a burst (Guo et al. 2021, N_max)
CLOSEST = 1         # steps between two spikes of the brightest burst (T_min, there 2 ms)

Timing = Literal["latency", "phase", "burst"]


def latency(level_BCHW: Tensor, step_T: Tensor, timesteps: int) -> Tensor:
    """One spike a pixel and channel, the brighter the earlier: bool [len(step_T), B, C, H, W].

        t = round((T - 1) (1 - x)),     x = level / 255

    White is the first step and black the last, as in SpikingJelly's linear LatencyEncoder; the code is Thorpe's (1990) time to first spike.
    """
    return step_T == (2 * (timesteps - 1) * (WHITE - level_BCHW) + WHITE) // (2 * WHITE)


def phase(level_BCHW: Tensor, step_T: Tensor, timesteps: int) -> Tensor:
    """The bits of the byte, the most significant first, again every 8 steps (Kim et al. 2018, weighted spikes): bool.

    Fewer than 8 steps see the upper bits alone. A spike at step t stands for `phase_weight(t)`, so those of a period add up to level / 256.
    """
    return (level_BCHW >> (PERIOD - 1 - step_T % PERIOD)) & 1 == 1


def phase_weight(step_T: Tensor) -> Tensor:
    """2^-(1 + t mod 8), float32: what a spike of weighted phase stands for (Kim et al. 2018). Neurons behind the input fire as ever."""
    return torch.exp2(-(1.0 + step_T % PERIOD))


def burst(level_BCHW: Tensor, step_T: Tensor, timesteps: int) -> Tensor:
    """A burst from the first step on, the brighter the more spikes and the closer (Guo et al. 2021): bool.

        N(x) = ceil(N_max x)                            spikes, N_max = 5, or T where there are fewer steps
        ISI(x) = ceil(T_max - (T_max - T_min) x)        steps between them, T_max = T, T_min = 1 step

    at 0, ISI, 2 ISI, ...; spikes beyond the last step are lost. Black has none. (In Park et al. 2019 bursts are of hidden neurons, whose
    threshold grows within a burst: this is the input's code alone.)
    """
    most = min(MOST, timesteps)
    count_BCHW = (most * level_BCHW + WHITE - 1) // WHITE
    apart_BCHW = timesteps - (timesteps - CLOSEST) * level_BCHW // WHITE
    return (step_T % apart_BCHW == 0) & (step_T // apart_BCHW < count_BCHW)


CODES = {"latency": latency, "phase": phase, "burst": burst}


@dataclass(frozen=True)
class Timed:
    """Spikes of x in [0, 1] by one of the codes, made when they are asked for; x is taken to the nearest of 256 levels."""

    x_BCHW: Tensor
    timesteps: int
    timing: Timing

    @property
    def shape(self) -> tuple[int, ...]:
        return self.timesteps, *self.x_BCHW.shape

    @property
    def weighted(self) -> bool:
        """A spike stands for a power of two that hangs on the step, not for 1."""
        return self.timing == "phase"

    def spikes(self, first: int, last: int) -> Tensor:
        """Where there is one: bool [last - first, B, C, H, W]."""
        level_BCHW = (self.x_BCHW * WHITE).round().to(torch.int32)
        return CODES[self.timing](level_BCHW, self._step(first, last), self.timesteps)

    def steps(self, first: int, last: int) -> Tensor:
        """x_TBCHW of those steps, in x's dtype: 0, and 1 or the step's weight."""
        spike_TBCHW = self.spikes(first, last).to(self.x_BCHW.dtype)
        return spike_TBCHW * phase_weight(self._step(first, last)) if self.weighted else spike_TBCHW

    def _step(self, first: int, last: int) -> Tensor:
        return torch.arange(first, last, dtype=torch.int32, device=self.x_BCHW.device).view(-1, 1, 1, 1, 1)
