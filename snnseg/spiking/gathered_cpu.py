"""A convolution of spikes on the CPU that adds up weights from spike to spike, forward and for the gradient of its weight.

Where a quarter of the neurons fire, three quarters of a convolution's products are of zeros. oneDNN multiplies them all; the loops
of `cpu_gather` list the spikes and skip what lies between. Sums are float32, of one order whatever the number of threads.
"""
from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable

import torch
from llvmlite.binding import get_host_cpu_features
from torch import Tensor

from snnseg.spiking import cpu_gather, pages
from snnseg.spiking.bits import Packed
from snnseg.spiking.cpu_gather import LANES
from snnseg.spiking.cpu_kernels import loop, record
from snnseg.spiking.team import STORED, together

MOST = {torch.float32: 0.4, torch.bfloat16: 0.28}        # spikes a neuron and time step (python -m benchmarks.gather)
NEAR = 2**18            # bytes of a tap's weights that are walked at a time: they stay in the second cache
PIXELS = 512, 256       # of a picture at a time: forward, and for the weight's gradient
PIECES = 8              # of the in-channels, about: so many threads can take part in the weight's gradient


def wins(packed: Packed, weight: Tensor) -> bool:
    """Whether the loops know this layer, few enough of its input's neurons fire, and in bf16 rows are long enough."""
    return fits(packed, weight) and rate(packed) <= MOST[packed.dtype] and (packed.dtype == torch.float32 or len(weight) >= 4 * LANES)


def rate(packed: Packed) -> float:
    """Spikes a neuron and time step."""
    return cpu_gather.fired(packed.bits.numpy()) / math.prod(packed.shape)


def fits(packed: Packed, weight: Tensor) -> bool:
    """Whether the loops know this layer: channels in whole vectors, out-channels in two, float32 weights in main memory, places in 16 bits."""
    out, channels = weight.shape[:2]
    return (weight.device.type == "cpu" and weight.dtype == torch.float32 and packed.dtype in STORED and out % (2 * LANES) == 0
            and channels % LANES == 0 and max(channels, packed.shape[-1]) < 2**16)


@functools.cache
def widest() -> int:
    """Vectors of sums that stay in registers."""
    return 16 if get_host_cpu_features().get("avx512f") else 4


def _lanes(channels: int, out: int, dtype: torch.dtype) -> int:
    """Sums that are made together: as many as registers and `NEAR` hold, in whole parts of `out`."""
    vectors = widest()
    while vectors > 2 and (channels * vectors * LANES * dtype.itemsize > NEAR or out % (vectors * LANES)):
        vectors //= 2
    return vectors * LANES


def _work(packed: Packed, like_OIKK: Tensor, dilation: int, pixels: int, **addresses: int) -> ctypes.Structure:
    T, B, channels, height, width = packed.shape
    out, kernel = len(like_OIKK), like_OIKK.shape[-1]
    return record(STORED[packed.dtype], cpu_gather.NUMBERS, cpu_gather.ADDRESSES)(
        pictures=T * B, height=height, width=width, channels=channels, out=out, kernel=kernel, dilation=dilation,
        lanes=_lanes(channels, out, packed.dtype), rows=max(1, min(height, pixels // width)), group=max(1, pixels // (height * width)),
        piece=max(LANES, channels // PIECES // LANES * LANES), spikes=packed.bits.data_ptr(), **addresses)


def _share(function: Callable[..., None], work: ctypes.Structure, values: int) -> None:
    together(loop(function, type(work)), work, values)


def forward(packed: Packed, weight_OIKK: Tensor, dilation: int) -> Tensor:
    """y_NCHW of packed spikes, time folded into the batch, channels last, in their dtype."""
    T, B, _, height, width = packed.shape
    weight = weight_OIKK.detach().contiguous(memory_format=torch.channels_last)
    turned = torch.empty(weight.numel(), dtype=packed.dtype)
    y_NCHW = pages.empty_NCHW(T * B, len(weight), height, width, packed.dtype)
    work = _work(packed, weight, dilation, PIXELS[0], weight=weight.data_ptr(), turned=turned.data_ptr(), y=y_NCHW.data_ptr())
    _share(cpu_gather.turn, work, weight.numel())
    work.weight = work.turned
    _share(cpu_gather.convolve, work, y_NCHW.numel())
    return y_NCHW


def of_weight(packed: Packed, g_NOHW: Tensor, like_OIKK: Tensor, dilation: int) -> Tensor:
    """The gradient of the weight, float32, of its shape and channels last."""
    g_NOHW = g_NOHW.to(packed.dtype).contiguous(memory_format=torch.channels_last)
    turned = torch.empty(like_OIKK.numel())
    gw = torch.empty(like_OIKK.shape, memory_format=torch.channels_last)
    work = _work(packed, like_OIKK, dilation, PIXELS[1], weight=gw.data_ptr(), turned=turned.data_ptr(), g=g_NOHW.data_ptr())
    _share(cpu_gather.weigh, work, g_NOHW.numel())
    _share(cpu_gather.turn_back, work, gw.numel())
    return gw
