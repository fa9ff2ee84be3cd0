"""Spiking-FCN and its ANN twin (section 4.3.2, table 1).

Seven convolutions with a pool after each block, a head of two 3x3 convolutions, and three transposed convolutions that
bring the scores back to full resolution, each joined by a 1x1 skip from before a pool. Where table 1 and the authors'
code differ, as in the code: seven convolutions instead of eleven, a 3x3 head instead of 1x1, skips and scores 1x1 with
bias and stride 1, no norm between the upsamplings, and logits that are the sum over T (the DeepLab's are the mean).
"""
from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from snnseg.models.backbone import ConvUnit, Neurons, Pool, exact, initialise, mean_over_time, scaled
from snnseg.spiking.encode import Coded


class Upsample(nn.Module):
    """Transposed convolution (3x3, stride 2: n -> 2n + 1), then bilinear to the skip's size; the skip is added."""

    def __init__(self, classes: int, neurons: Neurons):
        super().__init__()
        self.neurons = neurons
        self.conv = nn.ConvTranspose2d(classes, classes, 3, stride=2, bias=False)

    def forward(self, x_NCHW: Tensor, skip_NCHW: Tensor) -> Tensor:
        up = F.interpolate(self.neurons.score(self.conv, x_NCHW), skip_NCHW.shape[-2:], mode="bilinear", align_corners=True)
        return up + skip_NCHW


class FCN(nn.Module):
    """x_TBCHW [T, B, in, H, W], there or coded -> logits [B, classes, H, W]. 13 573 719 weights at width 1, 21 classes."""

    def __init__(self, classes: int, neurons: Neurons, width: float = 1.0, in_channels: int = 3, pool: Pool = "average"):
        super().__init__()
        a, b, c, d = (scaled(n, width) for n in (64, 128, 256, 1024))
        self.neurons = neurons
        self.block1 = nn.Sequential(ConvUnit(in_channels, a, neurons, of_spikes=False), ConvUnit(a, a, neurons))
        self.block2 = nn.Sequential(ConvUnit(a, b, neurons, pool=pool), ConvUnit(b, b, neurons))
        self.block3 = nn.Sequential(ConvUnit(b, c, neurons, pool=pool), ConvUnit(c, c, neurons), ConvUnit(c, c, neurons))
        self.head = nn.Sequential(ConvUnit(c, d, neurons, pool=pool), ConvUnit(d, d, neurons))
        self.score = nn.Conv2d(d, classes, 1)
        self.skips = nn.ModuleList(nn.Conv2d(n, classes, 1) for n in (a, b, c))
        self.ups = nn.ModuleList(Upsample(classes, neurons) for _ in range(3))
        self.cells = nn.ModuleList(neurons.make_cell(classes) for _ in range(2))
        initialise(self)

    def forward(self, x: Tensor | Coded) -> Tensor:
        return self.read(x.shape[-2:], *self.fire(x))

    def fire(self, x: Tensor | Coded) -> tuple[Tensor, Tensor]:
        """What the read-out sees, [T, B, C, H, W]: spikes after two upsamplings, and the first block's. No step hangs on a later one."""
        full = self.block1(x)
        half = self.block2(full)
        quarter = self.block3(half)
        s = self.neurons.read(self.score, self.head(quarter))
        for up, skip, cell, feature in zip(self.ups, (self.skips[2], self.skips[1]), self.cells, (quarter, half), strict=False):
            current = up(s.flatten(0, 1), self.neurons.read(skip, feature).flatten(0, 1)).unflatten(0, s.shape[:2])
            s = self.neurons.between_upsamplings(cell, exact(current))
        return s, full

    def read(self, size: Sequence[int], s_TBCHW: Tensor, full_TBCHW: Tensor) -> Tensor:
        """Logits [B, classes, *size] of what `fire` gave, or of its first steps: a net's answer after so many."""
        # the last stage is linear and accumulates without leak: T times its answer to the mean spikes is the sum
        return len(s_TBCHW) * exact(self.ups[2](mean_over_time(s_TBCHW), self.neurons.score(self.skips[0], mean_over_time(full_TBCHW))))
