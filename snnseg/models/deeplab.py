"""Spiking-DeepLab and its ANN twin (section 4.3.1, table 1).

Seven convolutions, two of them dilated by 2, a dilated head of 1 024 channels and a pixel-wise classifier whose voltage
is accumulated over time; bilinear upsampling of the mean. Where table 1 and the authors' code differ, as in the code:
the text's "three-layer classifier" has two layers, the pools pad by one, and the accumulated voltage is divided by T.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from snnseg.models.backbone import ConvUnit, Neurons, Pool, initialise, mean_over_time, scaled
from snnseg.spiking.encode import Coded


class DeepLab(nn.Module):
    """x_TBCHW [T, B, in, H, W], there or coded -> logits [B, classes, H, W]. 4 115 136 convolution weights at width 1, 21 classes."""

    def __init__(self, classes: int, neurons: Neurons, width: float = 1.0, in_channels: int = 3, pool: Pool = "average"):
        super().__init__()
        a, b, c, d = (scaled(n, width) for n in (64, 128, 256, 1024))
        self.neurons = neurons
        self.block1 = nn.Sequential(ConvUnit(in_channels, a, neurons, of_spikes=False), ConvUnit(a, a, neurons))
        self.block2 = nn.Sequential(ConvUnit(a, b, neurons, pool=pool), ConvUnit(b, b, neurons))
        self.block3 = nn.Sequential(ConvUnit(b, c, neurons, pool=pool), ConvUnit(c, c, neurons, dilation=2),
                                    ConvUnit(c, c, neurons, dilation=2))
        self.head = ConvUnit(c, d, neurons, dilation=12)
        self.classifier = nn.Conv2d(d, classes, 1, bias=False)
        initialise(self)

    def forward(self, x: Tensor | Coded) -> Tensor:
        return self.read(x.shape[-2:], *self.fire(x))

    def fire(self, x: Tensor | Coded) -> tuple[Tensor]:
        """What the read-out sees: the head's spikes [T, B, C, H, W]. No step hangs on a later one."""
        s = self.block1(x)
        s = self.block2(s)
        s = self.block3(s)
        return (self.head(s),)

    def read(self, size: Sequence[int], s_TBCHW: Tensor) -> Tensor:
        """Logits [B, classes, *size] of what `fire` gave, or of its first steps: a net's answer after so many."""
        # the classifier is linear and its accumulator has no leak: one convolution of the mean spikes is the mean voltage
        voltage = self.neurons.score(self.classifier, mean_over_time(s_TBCHW))
        return F.interpolate(voltage, size, mode="bilinear", align_corners=True)
