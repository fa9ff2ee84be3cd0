"""The average pool on a CPU: of packed spikes eight channels at a time, and its gradient in one walk through memory (`cpu_pool`)."""
from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from snnseg.spiking import cpu_pool, pages
from snnseg.spiking.bits import plain_unpack
from snnseg.spiking.cpu_kernels import loop, record
from snnseg.spiking.team import STORED, together


def forward(x_NCHW: Tensor) -> Tensor:
    """`pooling.plain`: of values, torch's own."""
    return F.avg_pool2d(x_NCHW, 3, 2, 1)


def _share(function: Callable[..., None], dtype: torch.dtype, values: int, shape: tuple[int, ...], **addresses: int) -> None:
    pictures, channels, height, width = shape
    work = record(STORED[dtype], cpu_pool.NUMBERS, cpu_pool.ADDRESSES)(pictures=pictures, channels=channels, height=height, width=width, **addresses)
    together(loop(function, type(work)), work, values)


def of_bits(bits: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """`pooling.plain` of spikes [N, C, H, W] that lay in rows."""
    N, C, H, W = shape
    if C % 8:
        return forward(plain_unpack(bits, math.prod(shape), dtype).view(N, H, W, C).permute(0, 3, 1, 2))
    y_NCHW = pages.empty_NCHW(N, C, (H + 1) // 2, (W + 1) // 2, dtype)
    _share(cpu_pool.of_bits, dtype, math.prod(shape), shape, spikes=bits.data_ptr(), y=y_NCHW.data_ptr())
    return y_NCHW


def backward(g_NCHW: Tensor, height: int, width: int) -> Tensor:
    """`pooling.plain_backward`."""
    N, C = g_NCHW.shape[:2]
    gx_NCHW = pages.empty_NCHW(N, C, height, width, g_NCHW.dtype)
    _share(cpu_pool.backward, g_NCHW.dtype, gx_NCHW.numel(), (N, C, height, width), g=g_NCHW.data_ptr(), out=gx_NCHW.data_ptr())
    return gx_NCHW
