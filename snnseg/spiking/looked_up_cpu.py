"""A 3x3 convolution of sixteen channels of spikes on the CPU by table, forward and for the gradient of its weight (`cpu_lookup`).

The first block of a net of a quarter of the paper's width has such layers at full resolution: their rows of weights are too short to be
worth a list of spikes (`gathered_cpu`), but their spikes are two bytes a pixel. Sums are float32, of one order whatever the number of threads.
"""
from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from snnseg.spiking import cpu_lookup
from snnseg.spiking.bits import Packed
from snnseg.spiking.cpu_kernels import loop, record
from snnseg.spiking.cpu_lookup import BYTES, CHANNELS, KERNEL, LANES, TAPS
from snnseg.spiking.team import STORED, together

GROUPS = 8              # of the pictures, about, whose sums for the weight's gradient are made apart: so many threads can take part


def wins(packed: Packed, weight: Tensor) -> bool:
    """Whether the loops know this layer; then they win whatever the number of spikes."""
    return (packed.dtype == weight.dtype == torch.float32 and weight.device.type == "cpu" and len(weight) in (LANES, 2 * LANES)
            and weight.shape[1:] == (CHANNELS, KERNEL, KERNEL))


def _work(packed: Packed, like_OIKK: Tensor, dilation: int, **addresses: int) -> ctypes.Structure:
    T, B, _, height, width = packed.shape
    return record(STORED[packed.dtype], cpu_lookup.NUMBERS, cpu_lookup.ADDRESSES)(
        pictures=T * B, height=height, width=width, out=len(like_OIKK), dilation=dilation, group=-(-T * B // GROUPS), **addresses)


def _share(function: Callable[..., None], work: ctypes.Structure, values: int) -> None:
    together(loop(function, type(work)), work, values)


def _with_margin(packed: Packed, dilation: int) -> Tensor:
    """The spikes of a pixel as a word, [T * B, H + 2 m, W + 2 m]: zeros where taps lie outside the map."""
    T, B, _, height, width = packed.shape
    return F.pad(packed.bits.view(torch.int16).view(T * B, height, width), [dilation * (KERNEL // 2)] * 4)


def forward(packed: Packed, weight_OIKK: Tensor, dilation: int) -> Tensor:
    """y_NCHW of packed spikes, time folded into the batch, channels last."""
    T, B, _, height, width = packed.shape
    spikes, rows_KKIO = _with_margin(packed, dilation), weight_OIKK.detach().permute(2, 3, 1, 0).contiguous()
    table = torch.empty(TAPS, 2, BYTES, len(weight_OIKK))
    y_NCHW = torch.empty(T * B, len(weight_OIKK), height, width, memory_format=torch.channels_last)
    work = _work(packed, weight_OIKK, dilation, spikes=spikes.data_ptr(), table=table.data_ptr(), y=y_NCHW.data_ptr(), partial=rows_KKIO.data_ptr())
    _share(cpu_lookup.tabulate, work, 0)
    _share(cpu_lookup.convolve, work, y_NCHW.numel())
    return y_NCHW


def of_weight(packed: Packed, g_NOHW: Tensor, like_OIKK: Tensor, dilation: int) -> Tensor:
    """The gradient of the weight, of its shape and channels last."""
    g_NOHW, spikes = g_NOHW.contiguous(memory_format=torch.channels_last), _with_margin(packed, dilation)
    work = _work(packed, like_OIKK, dilation, spikes=spikes.data_ptr(), g=g_NOHW.data_ptr())
    partial = torch.empty(-(-work.pictures // work.group), KERNEL, KERNEL, CHANNELS, len(like_OIKK))
    work.partial = partial.data_ptr()
    _share(cpu_lookup.weigh, work, g_NOHW.numel())
    return partial.sum(0).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
