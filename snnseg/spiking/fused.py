"""Normalisation and leaky integrate-and-fire over all time steps as one operator: input currents y -> **spikes**.

`reference` is the plain form and the oracle; `snnseg.spiking.fused_cpu` (numba) and `fused_triton` give the same spikes and
gradients in few walks through memory, channels last, and keep nothing for the backward pass but y and [T, C] tables.
Paper: Kim, Chough, Panda 2022: BNTT before the neuron, eqs. 2 and 3 (neuron), eq. 6 (surrogate).
Shapes: T time steps, B pictures, C channels, H x W pixels.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from snnseg.spiking import neuron as lif
from snnseg.spiking import pages, shared
from snnseg.spiking.neuron import LIF
from snnseg.spiking.shared import Share


class Normal(NamedTuple):
    """How the input currents y are normalised: z = gamma * (y - mean) / sqrt(var + eps) + beta."""

    gamma_TC: Tensor | None     # [T, C] (BNTT) or [1, C]; None = 1
    beta_TC: Tensor | None      # [1, C] or None = 0
    per_step: bool              # statistics a time step (BNTT), or over time and batch together (tdBN, BN)
    eps: float
    mean_TC: Tensor | None      # given statistics [T, C] or [1, C] (evaluation); None = those of this batch
    var_TC: Tensor | None
    share: Share | None = None  # adds up over several processes, whose batches together then have the statistics


class Fired(NamedTuple):
    """What comes out. A module that keeps running statistics updates them from `mean_TC` and `var_TC`."""

    spikes_TBCHW: Tensor        # 0 and 1, dtype of y
    mean_TC: Tensor | None      # float32 statistics of this batch ([T, C] or [1, C]), biased variance, no gradient;
    var_TC: Tensor | None       # None where they were given or nothing is normalised
    count: Tensor | None = None     # float64 []: of how many values, where several processes share them


class Gradients(NamedTuple):
    """What a way hands back; the tables in float32, of the shapes that broadcasting gave them."""

    y_TBCHW: Tensor
    gamma_TC: Tensor | None
    beta_TC: Tensor | None
    leak_C: Tensor | None
    threshold_C: Tensor | None


def in_rows(x_TBCHW: Tensor) -> Tensor:
    """The same tensor, laid in memory as [T, B, H, W, C] (channels last); steps that are one (an expanded view) stay one."""
    if len(x_TBCHW) > 1 and x_TBCHW.stride(0) == 0:
        return in_rows(x_TBCHW[:1]).expand_as(x_TBCHW)
    x_TBHWC = x_TBCHW.permute(0, 1, 3, 4, 2)
    return x_TBCHW if x_TBHWC.is_contiguous() else x_TBHWC.contiguous().permute(0, 1, 4, 2, 3)


def empty_rows(like_TBCHW: Tensor) -> Tensor:
    """Memory for a tensor of the same shape, dtype and device, in rows."""
    T, B, C, H, W = like_TBCHW.shape
    if like_TBCHW.device.type == "cpu":
        return pages.empty(like_TBCHW.numel(), like_TBCHW.dtype).view(T, B, H, W, C).permute(0, 1, 4, 2, 3)
    return like_TBCHW.new_empty(T, B, H, W, C).permute(0, 1, 4, 2, 3)


def each_channel(value: float | Tensor, channels: int) -> Tensor:
    """A leak or threshold as float32 [C]."""
    return torch.as_tensor(value, dtype=torch.float32).expand(channels, 1, 1).flatten()


def check(y_TBCHW: Tensor, normal: Normal | None) -> None:
    """ValueError where y or a table has the wrong shape, or where a batch has less than two values for a statistic."""
    if y_TBCHW.dim() != 5 or not y_TBCHW.numel() or not y_TBCHW.is_floating_point():
        raise ValueError(f"input currents are floats [T, B, C, H, W], none of them 0: got {y_TBCHW.dtype} {list(y_TBCHW.shape)}")
    if normal is None:
        return
    steps, _, channels = y_TBCHW.shape[:3]
    rows = {1, steps} if normal.per_step else {1}
    for name, table, allowed in (("gamma", normal.gamma_TC, rows), ("beta", normal.beta_TC, {1}),
                                 ("mean", normal.mean_TC, rows), ("var", normal.var_TC, rows)):
        if table is not None and (table.dim() != 2 or table.shape[0] not in allowed or table.shape[1] != channels):
            raise ValueError(f"{name} is [{' or '.join(map(str, sorted(allowed)))}, {channels}] here: got {list(table.shape)}")
    if (normal.mean_TC is None) != (normal.var_TC is None):
        raise ValueError("mean and var are given together or not at all")
    values = y_TBCHW.numel() // channels // (steps if normal.per_step else 1)
    if normal.mean_TC is None and values < 2:
        raise ValueError(f"statistics of a batch need two values a channel or more: got {list(y_TBCHW.shape)}")


def reference(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF) -> Fired:
    """The plain form with torch's own operators and gradients, in float32 inside (float64 for float64)."""
    check(y_TBCHW, normal)
    x_TBCHW = y_TBCHW if y_TBCHW.dtype == torch.float64 else y_TBCHW.float()
    z_TBCHW, *statistics = (x_TBCHW, None, None) if normal is None else normalised(x_TBCHW, normal)
    return Fired(lif.run(z_TBCHW, neuron)[0].to(y_TBCHW.dtype), *statistics)


def normalised(x_TBCHW: Tensor, normal: Normal) -> tuple[Tensor | None, ...]:
    """z [T, B, C, H, W]; the mean and biased variance of each group of values that has statistics of its own; their count, if shared."""
    if normal.share and normal.mean_TC is None:
        return _normalised_together(x_TBCHW, normal)

    def row(table_TC: Tensor | None, k: int) -> Tensor | None:
        return None if table_TC is None else table_TC[k if len(table_TC) > 1 else 0].to(x_TBCHW.dtype)

    one = x_TBCHW.shape[1] == 1     # picture, whose strides torch 2.13's batch norm misreads on its way back where channels are innermost
    x_TBCHW = x_TBCHW.contiguous() if one else x_TBCHW
    groups = x_TBCHW if normal.per_step else x_TBCHW.flatten(0, 1)[None]
    z = torch.stack([F.batch_norm(x_NCHW, row(normal.mean_TC, k), row(normal.var_TC, k), row(normal.gamma_TC, k),
                                  row(normal.beta_TC, 0), normal.mean_TC is None, 0.0, normal.eps)
                     for k, x_NCHW in enumerate(groups)]).reshape(x_TBCHW.shape)
    if one and z.requires_grad:
        z.register_hook(Tensor.contiguous)
    if normal.mean_TC is not None:
        return z, None, None
    var_TC, mean_TC = torch.var_mean(groups.detach(), dim=(1, 3, 4), correction=0)
    return z, mean_TC.float(), var_TC.float()


def _normalised_together(x_TBCHW: Tensor, normal: Normal) -> tuple[Tensor, ...]:
    """By the statistics of all processes; the gradient through them is torch's own, but for the sum over processes."""
    groups_GNCHW = x_TBCHW if normal.per_step else x_TBCHW.flatten(0, 1)[None]
    own_var_GC, own_mean_GC = torch.var_mean(groups_GNCHW, dim=(1, 3, 4), correction=0)
    values = groups_GNCHW[0, :, 0].numel()
    mean_GC, var_GC, count = shared.statistics(own_mean_GC, own_var_GC, values, shared.differentiable(normal.share))
    scale_GC = (var_GC + normal.eps).rsqrt() if normal.gamma_TC is None else normal.gamma_TC.to(var_GC.dtype) * (var_GC + normal.eps).rsqrt()
    z_GNCHW = (groups_GNCHW - mean_GC[:, None, :, None, None]) * scale_GC[:, None, :, None, None]
    if normal.beta_TC is not None:
        z_GNCHW = z_GNCHW + normal.beta_TC[0, :, None, None]
    return z_GNCHW.reshape(x_TBCHW.shape), mean_GC.detach().float(), var_GC.detach().float(), count
