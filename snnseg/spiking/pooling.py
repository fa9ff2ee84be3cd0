"""The pools before a convolution, 3x3, stride 2, padding 1: what leaves the average is no longer binary, the largest of spikes is.

The average as plain functions of tensors [N, C, H, W], channels last, forward and backward; from spikes kept as bits, too. torch's operators
are the plain form and the oracle of `pooling_cpu` and `pooling_triton`.
"""
from __future__ import annotations

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnseg.spiking import bits
from snnseg.spiking.bits import Packed
from snnseg.spiking.fused import in_rows


def plain(x_NCHW: Tensor) -> Tensor:
    """[N, C, (H + 1) // 2, (W + 1) // 2]."""
    # torch's gradient of a padded pool is wrong on a GPU where channels are innermost (pytorch issue 188344)
    return F.avg_pool2d(x_NCHW.contiguous() if x_NCHW.is_cuda else x_NCHW, 3, 2, 1)


def plain_backward(g_NCHW: Tensor, height: int, width: int) -> Tensor:
    """The gradient of an x_NCHW of so many pixels."""
    of_x = g_NCHW.new_empty(1).expand(*g_NCHW.shape[:2], height, width)         # its shape alone is looked at
    return torch.ops.aten.avg_pool2d_backward(g_NCHW, of_x, [3, 3], [2, 2], [1, 1], False, True, None)


def forward(x_NCHW: Tensor) -> Tensor:
    """`plain`."""
    fast = _compiled(x_NCHW)
    return fast.forward(x_NCHW.contiguous(memory_format=torch.channels_last)) if fast else plain(x_NCHW)


def of_bits(packed: Packed) -> Tensor:
    """`forward` of packed spikes, time folded into the batch."""
    fast = _compiled(packed.bits, packed.dtype)
    T, B, *rest = packed.shape
    return fast.of_bits(packed.bits, (T * B, *rest), packed.dtype) if fast else plain(bits.unpack(packed).flatten(0, 1))


def backward(g_NCHW: Tensor, height: int, width: int) -> Tensor:
    """`plain_backward`."""
    fast = _compiled(g_NCHW)
    return fast.backward(g_NCHW.contiguous(memory_format=torch.channels_last), height, width) if fast else plain_backward(g_NCHW, height, width)


def largest(x_NCHW: Tensor) -> Tensor:
    """[N, C, (H + 1) // 2, (W + 1) // 2], padding left out. Its gradient goes to the first of equals."""
    return F.max_pool2d(x_NCHW, 3, 2, 1)


class Largest(torch.autograd.Function):
    """`largest` of spikes x_TBCHW, which are spikes; x is kept as bits, where torch keeps it whole and eight bytes a window."""

    @staticmethod
    def forward(ctx, x_TBCHW):
        x_TBCHW = in_rows(x_TBCHW)
        if ctx.needs_input_grad[0]:
            packed = bits.pack(x_TBCHW)
            ctx.save_for_backward(packed.bits)
            ctx.packed = packed._replace(bits=None)
        return largest(x_TBCHW.flatten(0, 1)).unflatten(0, x_TBCHW.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx, g_TBCHW):
        x_TBCHW = bits.unpack(ctx.packed._replace(bits=ctx.saved_tensors[0]))
        x_NCHW, g_NCHW, window = x_TBCHW.flatten(0, 1), g_TBCHW.flatten(0, 1), ([3, 3], [2, 2], [1, 1], [1, 1], False)
        _, at_NCHW = torch.ops.aten.max_pool2d_with_indices(x_NCHW, *window)
        return torch.ops.aten.max_pool2d_with_indices_backward(g_NCHW, x_NCHW, *window, at_NCHW).unflatten(0, x_TBCHW.shape[:2])


def _compiled(values: Tensor, dtype: torch.dtype | None = None) -> ModuleType | None:
    """The compiled loops or kernels, imported where they are used; None where there are none, or where what they need is not installed."""
    if (dtype or values.dtype) not in (torch.float32, torch.bfloat16):
        return None
    try:
        if values.device.type == "cpu":
            from snnseg.spiking import pooling_cpu

            return pooling_cpu
        if values.device.type == "cuda":
            from snnseg.spiking import pooling_triton

            return pooling_triton
    except ImportError:
        return None
    return None
