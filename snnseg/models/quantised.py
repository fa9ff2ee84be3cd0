"""A folded ANN twin whose activations have few levels: what a number of spikes from 0 to n tells, told at once.

    q(x) = top / n * round(min(n x / top, n)),  x >= 0,  n = 2^bits - 1

It is the fair rival of a spiking net of n steps (Yan, Bai, Wong 2024, arXiv 2409.08290), without any training, as `conversion` is.
Each channel has the `top` that loses least over a calibration set, layer after layer, while those before are quantised already.
Weights, biases and pictures keep their floats.
"""
from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnseg.errors import ConfigError
from snnseg.models.conversion import check_folded
from snnseg.models.folding import Folded, Net, layers
from snnseg.spiking.encode import Coded

TRIED = 24      # tops a channel: even shares of its largest activation
BATCH = 32


class Levels(nn.Module):
    """Activations of a layer as one of n + 1 values a channel, 0 the least. `top_C` is the largest."""

    def __init__(self, top_C: Tensor, n: int):
        super().__init__()
        self.register_buffer("part", (top_C / n).view(-1, 1, 1))
        self.n = n

    def forward(self, x_TBCHW: Tensor) -> Tensor:
        return x_TBCHW.div(self.part).round_().clamp_(0, self.n).mul_(self.part)


@dataclass(frozen=True)
class Quantised(Folded):
    """Folded units whose answers are few levels."""

    def respond(self, conv: nn.Conv2d, norm: nn.Module, cell: nn.Module, x: Tensor | Coded, pooled: bool, of_spikes: bool) -> Tensor:
        return cell(super().respond(conv, norm, cell, x, pooled, of_spikes))


@torch.no_grad()
def quantise(folded: Net, pictures_NCHW: Tensor, bits: int) -> Net:
    """A copy of a folded ANN with activations of so many bits. Raises ConfigError for a net that is not folded, and for less than one bit."""
    check_folded(folded)
    if bits < 1:
        raise ConfigError(f"{bits} bits tell nothing. Take 1 or more.")
    net, n = copy.deepcopy(folded), 2**bits - 1
    net.neurons = Quantised(folded.neurons.timesteps)
    seen = pictures_NCHW[None].split(BATCH, 1)
    for layer in layers(net).values():
        seen = [layer(x_TBCHW) for x_TBCHW in seen]
        layer.cell, layer.neurons = Levels(tops(seen, n), n), net.neurons
        seen = [layer.cell(x_TBCHW) for x_TBCHW in seen]
    return net


def tops(parts: Sequence[Tensor], n: int) -> Tensor:
    """[C]: each channel's largest level, of those tried the one with the least squared error over all parts [T, B, C, H, W]; 1 where all is 0."""
    largest_C = torch.stack([x_TBCHW.amax((0, 1, 3, 4)) for x_TBCHW in parts]).amax(0)
    largest_C = torch.where(largest_C > 0, largest_C, 1.0)
    shares = [k / TRIED for k in range(TRIED, 0, -1)]       # the largest first: a channel that any would do for keeps its own
    lost_SC = torch.stack([sum((Levels(share * largest_C, n)(x) - x).square().sum((0, 1, 3, 4), dtype=torch.float64) for x in parts) for share in shares])
    return largest_C * torch.tensor(shares, device=largest_C.device, dtype=largest_C.dtype)[lost_SC.argmin(0)]
