"""Surrogate gradients: a step forward, something smooth backward.

All take m = u / threshold - 1 and fire where m > 0 (eq. 3, strictly above). Backward, the step's slope is replaced by
`scale` times a function of m; the factor 1 / threshold of du comes from the chain rule through m.
"""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, m: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(m)
        ctx.surrogate = surrogate
        return surrogate.fire(m)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (m,) = ctx.saved_tensors
        return grad * ctx.surrogate.slope(m), None


@dataclass(frozen=True)
class Surrogate:
    """A spike function; subclasses give the slope that stands for the step's derivative."""

    scale: float = 1.0

    def __call__(self, m: Tensor) -> Tensor:
        return _Fire.apply(m, self)

    def fire(self, m: Tensor) -> Tensor:
        return (m > 0).to(m.dtype)

    def slope(self, m: Tensor) -> Tensor:
        raise AssertionError("a surrogate defines its slope")


class Triangle(Surrogate):
    """max(0, 1 - |m|): eq. 6. The authors' code has scale 0.3."""

    def slope(self, m: Tensor) -> Tensor:
        return self.scale * (1 - m.abs()).clamp(min=0)


class Arctan(Surrogate):
    """1 / (1 + (pi m)^2): the slope of atan(pi m) / pi (Fang et al. 2021, PLIF, section 3.4)."""

    def slope(self, m: Tensor) -> Tensor:
        return self.scale / (1 + (math.pi * m).square())


class Sigmoid(Surrogate):
    """4 s (1 - s) with s = sigmoid(4 m): the slope of a sigmoid (Neftci et al. 2019), 1 at the threshold."""

    def slope(self, m: Tensor) -> Tensor:
        s = torch.sigmoid(4 * m)
        return 4 * self.scale * s * (1 - s)


class Rectangle(Surrogate):
    """1 where |m| < 1/2, else 0 (Wu et al. 2018, STBP, eq. 24)."""

    def slope(self, m: Tensor) -> Tensor:
        return self.scale * (m.abs() < 0.5).to(m.dtype)


SURROGATES = {"triangle": Triangle, "arctan": Arctan, "sigmoid": Sigmoid, "rectangle": Rectangle}
