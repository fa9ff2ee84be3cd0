"""A folded ANN twin whose activations have few levels: what a number of spikes from 0 to n tells, told at once.

    q(x) = top / n * round(min(n x / top, n)),  x >= 0,  n = 2^bits - 1

It is the fair rival of a spiking net of n steps (Yan, Bai, Wong 2024, arXiv 2409.08290), without any training, as `conversion` is.
Each channel has the `top` that loses least over a calibration set, layer after layer, while those before are quantised already.
Weights, biases and pictures keep their floats.
"""
from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
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
        self.register_buffer("part", (top_C / n).clamp_min(torch.finfo(top_C.dtype).tiny).view(-1, 1, 1))
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
    units = list(layers(net).values())
    for k, layer in enumerate(units):
        layer.cell = Levels(tops(lambda k=k: _answers(units[:k + 1], pictures_NCHW), n), n)
        layer.neurons = net.neurons
    return net


def _answers(units: Sequence[nn.Module], pictures_NCHW: Tensor) -> Iterator[Tensor]:
    """What the last of these layers answers, batch by batch: made anew each time, as all of it at once may be more than the memory holds."""
    for x_TBCHW in pictures_NCHW[None].split(BATCH, 1):
        for layer in units:
            x_TBCHW = layer(x_TBCHW)
        yield x_TBCHW


def tops(parts: Callable[[], Iterable[Tensor]], n: int) -> Tensor:
    """[C]: each channel's largest level, of those tried the one with the least squared error over all parts [T, B, C, H, W]; 1 where all is 0.

    The parts are asked for twice: for the largest activations, and for the errors.
    """
    largest_C = torch.stack([x_TBCHW.amax((0, 1, 3, 4)) for x_TBCHW in parts()]).amax(0)
    largest_C = torch.where(largest_C > 0, largest_C, 1.0)
    shares_S = torch.arange(TRIED, 0, -1, device=largest_C.device) / TRIED      # the largest first: a channel that any would do for keeps its own
    tried = [Levels(share * largest_C, n) for share in shares_S]
    lost_SC = sum(torch.stack([(levels(x) - x).square().sum((0, 1, 3, 4), dtype=torch.float64) for levels in tried]) for x in parts())
    return largest_C * shares_S[lost_SC.argmin(0)]
