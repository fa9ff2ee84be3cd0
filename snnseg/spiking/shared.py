"""Statistics over the batches of several processes, from what each knows of its own: one sum over all of them, forward and back.

`share` adds a tensor up over all processes, in place. Numbers of values travel with the sums, so that batches need not be as large
as one another, and in float64, so that a mean far from 0 costs no digits of the variance.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Share = Callable[[Tensor], Tensor]


class Statistics(NamedTuple):
    """Of all processes' values: mean and biased variance [G, C] in the dtype they came in, and how many a group has, float64 []."""

    mean_GC: Tensor
    var_GC: Tensor
    count: Tensor


def statistics(mean_GC: Tensor, var_GC: Tensor, values: int, share: Share) -> Statistics:
    """From this process's own, of so many values a group; with gradients where `share` has them."""
    mean, var = mean_GC.double(), var_GC.double()
    told = share(torch.cat([(mean * values).flatten(), ((var + mean * mean) * values).flatten(), mean.new_full((1,), values)]))
    count = told[-1]
    mean, square = (told[:-1] / count).view(2, *mean.shape)
    return Statistics(mean.to(mean_GC.dtype), (square - mean * mean).clamp(min=0).to(var_GC.dtype), count.detach())


class _Sum(torch.autograd.Function):
    """The sum over all processes. What each makes of it adds to the loss, so the gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx, x, share: Share):
        ctx.share = share
        return share(x.clone())

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return ctx.share(g.clone(memory_format=torch.contiguous_format)), None


def differentiable(share: Share) -> Share:
    """`share` with its gradient: each process has the gradient of what all of them computed."""
    return lambda x: _Sum.apply(x, share)
