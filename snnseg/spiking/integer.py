"""Integer neurons: up to D spikes at a step in training, as many binary sub-steps at inference (Luo et al. 2024, SpikeYOLO, I-LIF).

    u <- leak u + I;    k = round(clip(u / threshold, 0, D));    u <- u - threshold k

The soft reset takes a threshold for each spike; a hard one forgets u where k > 0. Backward, dk/du is 1 / threshold where
0 <= u / threshold <= D and 0 elsewhere, and no gradient goes through the reset, as for binary spikes. Halves are rounded to even.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from snnseg.spiking.surrogate import Surrogate


@dataclass(frozen=True)
class Integer(Surrogate):
    """The spike function of such a neuron, of m = u / threshold - 1 as all are; times `scale` backward."""

    levels: int = 4

    def fire(self, m: Tensor) -> Tensor:
        return (m + 1).clamp(0, self.levels).round()

    def slope(self, m: Tensor) -> Tensor:
        return self.scale * ((m >= -1) & (m <= self.levels - 1)).to(m.dtype)


def levels(spike: Callable[[Tensor], Tensor]) -> int:
    """D as compiled loops know it: 0 for a neuron that fires once a step at most, which does not round."""
    return spike.levels if isinstance(spike, Integer) else 0


def expand(k_TBCHW: Tensor, substeps: int) -> Tensor:
    """The same spikes in T D sub-steps of 0 and 1, [T * substeps, B, C, H, W]: k of them at the first k sub-steps of a step.

    What is linear gives the sum over a step's sub-steps that it gives for k.
    """
    turn_D = torch.arange(substeps, device=k_TBCHW.device).view(1, -1, 1, 1, 1, 1)
    return (k_TBCHW[:, None] > turn_D).to(k_TBCHW.dtype).flatten(0, 1)
