"""Spiking-DeepLab and Spiking-FCN, layer by layer as in snnseg.models, built of the parts that a style brings (benchmarks/styles.py).

Shapes: B pictures, or B pictures at T time steps, as the style's layers take them; areas are pixels.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Parts(NamedTuple):
    """What a style builds a net of. Its layers see one time step, all of them, or time folded into the batch."""

    conv: Callable[..., nn.Module]              # arguments of nn.Conv2d
    transposed: Callable[..., nn.Module]        # of nn.ConvTranspose2d
    pool: Callable[[], nn.Module]
    norm: Callable[[int], nn.Module]
    neuron: Callable[[], nn.Module]
    pictures: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor] = lambda f, x: f(x)     # apply f, which knows no time


def widths(width: float) -> list[int]:
    """Channels of the three blocks and the head at so many times the paper's."""
    return [max(1, round(n * width)) for n in (64, 128, 256, 1024)]


def areas(size: int) -> list[int]:
    """Pixels of a picture of size x size, and after each of three pools."""
    found = []
    for _ in range(4):
        found.append(size * size)
        size = (size - 1) // 2 + 1
    return found


def upsampled(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


class Net(nn.Module):
    """`features` are what the spiking layers answer; `score` is linear in them; `finish` makes logits of the scores' sum over T."""

    def __init__(self, parts: Parts, classes: int, width: float):
        super().__init__()
        self.parts, self.classes = parts, classes
        self.widths = widths(width)

    def unit(self, in_channels: int, out_channels: int, dilation: int = 1) -> nn.Module:
        conv = self.parts.conv(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)
        return nn.Sequential(conv, self.parts.norm(out_channels), self.parts.neuron())

    def blocks(self, channels: int, dilation: int) -> list[nn.Module]:
        """The seven convolutions before the head, pools between their blocks."""
        a, b, c, _ = self.widths
        return [nn.Sequential(self.unit(channels, a), self.unit(a, a)),
                nn.Sequential(self.parts.pool(), self.unit(a, b), self.unit(b, b)),
                nn.Sequential(self.parts.pool(), self.unit(b, c), self.unit(c, c, dilation), self.unit(c, c, dilation))]


class DeepLab(Net):
    """Seven convolutions, a dilated head and a pixel-wise classifier, whose mean over time is upsampled."""

    def __init__(self, parts: Parts, classes: int, width: float, channels: int = 3):
        super().__init__(parts, classes, width)
        _, _, c, d = self.widths
        self.trunk = nn.Sequential(*self.blocks(channels, dilation=2), self.unit(c, d, 12))
        self.classifier = parts.conv(d, classes, 1, bias=False)

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.trunk(x),)

    def score(self, s: Tensor) -> Tensor:
        return self.classifier(s)

    def finish(self, total: Tensor, timesteps: int, size: torch.Size) -> Tensor:
        return upsampled(total.float() / timesteps, size)

    def neurons(self, size: int) -> int:
        """Spiking neurons for a picture of size x size."""
        (a, b, c, d), (full, half, quarter, _) = self.widths, areas(size)
        return full * 2 * a + half * 2 * b + quarter * (3 * c + d)


class FCN(Net):
    """Seven convolutions, a head of two, and three transposed ones with skips, neurons between them; the sum over time."""

    def __init__(self, parts: Parts, classes: int, width: float, channels: int = 3):
        super().__init__(parts, classes, width)
        a, b, c, d = self.widths
        self.block1, self.block2, self.block3 = self.blocks(channels, dilation=1)
        self.head = nn.Sequential(parts.pool(), self.unit(c, d), self.unit(d, d))
        self.to_classes = parts.conv(d, classes, 1)
        self.skips = nn.ModuleList(parts.conv(n, classes, 1) for n in (a, b, c))
        self.ups = nn.ModuleList(parts.transposed(classes, classes, 3, stride=2, bias=False) for _ in range(3))
        self.between = nn.ModuleList(parts.neuron() for _ in range(2))

    def joined(self, k: int, s: Tensor, feature: Tensor) -> Tensor:
        """Scores at the next finer grid, and the skip from before a pool."""
        return self.parts.pictures(lambda x: upsampled(x, feature.shape[-2:]), self.ups[k](s)) + self.skips[2 - k](feature)

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        full = self.block1(x)
        half = self.block2(full)
        quarter = self.block3(half)
        s = self.to_classes(self.head(quarter))
        s = self.between[0](self.joined(0, s, quarter))
        return self.between[1](self.joined(1, s, half)), full

    def score(self, s: Tensor, full: Tensor) -> Tensor:
        return self.joined(2, s, full)

    def finish(self, total: Tensor, timesteps: int, size: torch.Size) -> Tensor:
        return total.float()

    def neurons(self, size: int) -> int:
        """Spiking neurons for a picture of size x size, those between the upsamplings included."""
        (a, b, c, d), (full, half, quarter, eighth) = self.widths, areas(size)
        return full * 2 * a + half * (2 * b + self.classes) + quarter * (3 * c + self.classes) + eighth * 2 * d


NETS = {"deeplab": DeepLab, "fcn": FCN}
