"""A layer's neurons: leak and threshold as fixed numbers, or learned, one for the layer or one a channel.

    leak      = sigmoid(a), so it stays in (0, 1)       (Fang et al. 2021, PLIF, eq. 9)
    threshold = exp(b), so it stays above 0

They begin at the numbers of the config; a leak of 1 begins at 0.9999, as a sigmoid reaches no 1.
"""
from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from snnseg.spiking.neuron import LIF

Learned = Literal["none", "layer", "channel"]
LARGEST = 0.9999


class Cell(nn.Module):
    """`Cell(...)()` is the neuron of this step of training. Without anything learned it has no parameters."""

    def __init__(self, neuron: LIF, channels: int, leak: Learned = "none", threshold: Learned = "none"):
        super().__init__()
        self.neuron = neuron
        begin = min(max(float(neuron.leak), 1 - LARGEST), LARGEST)
        self.leak = self._parameter(leak, channels, math.log(begin / (1 - begin)))
        self.threshold = self._parameter(threshold, channels, math.log(float(neuron.threshold)))

    @staticmethod
    def _parameter(learned: Learned, channels: int, begin: float) -> nn.Parameter | None:
        if learned == "none":
            return None
        return nn.Parameter(torch.full((channels if learned == "channel" else 1, 1, 1), begin))

    def forward(self) -> LIF:
        n = self.neuron
        return n._replace(leak=n.leak if self.leak is None else self.leak.sigmoid(),
                          threshold=n.threshold if self.threshold is None else self.threshold.exp())
