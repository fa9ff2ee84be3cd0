"""Average pools of 3x3, stride 2, padding 1 on a GPU, channels innermost: `pooling.plain` and `plain_backward` as one kernel each.

torch's own take many times as long as the memory would: 4.5 of 13.8 ms of a step's kernels (Spiking-DeepLab, bf16, an H100).
"""
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from snnseg.spiking.bits_triton import unpack

CHANNELS = 64       # of a tile, at most
PLACES = 32         # pixels of a tile
WARPS = 4


@triton.jit
def pool_kernel(x_ptr, y_ptr, H, W, h, w, C, places, BP: tl.constexpr, BC: tl.constexpr):
    """x [N, H, W, C] -> y [N, h, w, C], N * h * w `places`; grid (tiles of places, tiles of channels)."""
    place = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)[None, :]
    here, column, row, n = place < places, place % w, place // w % h, place // (w * h)
    total = tl.zeros((BP, BC), tl.float32)
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            y, x = 2 * row + i - 1, 2 * column + j - 1
            inside = (here & (y >= 0) & (y < H) & (x >= 0) & (x < W))[:, None] & (c < C)
            total += tl.load(x_ptr + ((n * H + y) * W + x).to(tl.int64)[:, None] * C + c, mask=inside, other=0.0).to(tl.float32)
    tl.store(y_ptr + place.to(tl.int64)[:, None] * C + c, tl.div_rn(total, 9.0).to(y_ptr.dtype.element_ty), mask=here[:, None] & (c < C))


@triton.jit
def pool_bits_kernel(x_ptr, y_ptr, H, W, h, w, C, places, BP: tl.constexpr, BC: tl.constexpr):
    """`pool_kernel` of bits, eight channels of a pixel in a byte and so in an int32 of eight counts of four bits: nine is the most."""
    place = tl.program_id(0) * BP + tl.arange(0, BP)
    byte = tl.program_id(1) * (BC // 8) + tl.arange(0, BC // 8)[None, :]
    here, column, row, n = place < places, place % w, place // w % h, place // (w * h)
    total = tl.zeros((BP, BC // 8), tl.int32)
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            y, x = 2 * row + i - 1, 2 * column + j - 1
            inside = (here & (y >= 0) & (y < H) & (x >= 0) & (x < W))[:, None] & (byte < C // 8)
            apart = tl.load(x_ptr + ((n * H + y) * W + x).to(tl.int64)[:, None] * (C // 8) + byte, mask=inside, other=0).to(tl.int32)
            apart = (apart | (apart << 12)) & 0x000F000F
            apart = (apart | (apart << 6)) & 0x03030303
            total += (apart | (apart << 3)) & 0x11111111
    k = tl.arange(0, 8)[None, None, :]
    mean = tl.div_rn(((total[:, :, None] >> (4 * k)) & 15).to(tl.float32), 9.0).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + place.to(tl.int64)[:, None, None] * C + byte[:, :, None] * 8 + k, mean, mask=here[:, None, None] & (byte < C // 8)[:, :, None])


@triton.jit
def unpool_kernel(g_ptr, out_ptr, H, W, h, w, C, places, BP: tl.constexpr, BC: tl.constexpr):
    """g [N, h, w, C] -> the gradient of x [N, H, W, C], N * H * W `places`; a place of x is in one or two windows either way."""
    place = tl.program_id(0) * BP + tl.arange(0, BP)
    c = tl.program_id(1) * BC + tl.arange(0, BC)[None, :]
    here, column, row, n = place < places, place % W, place // W % H, place // (W * H)
    total = tl.zeros((BP, BC), tl.float32)
    for i in tl.static_range(2):
        for j in tl.static_range(2):
            y, x = row // 2 + i, column // 2 + j
            met = (here & ((i == 0) | (row % 2 == 1)) & ((j == 0) | (column % 2 == 1)) & (y < h) & (x < w))[:, None] & (c < C)
            total += tl.load(g_ptr + ((n * h + y) * w + x).to(tl.int64)[:, None] * C + c, mask=met, other=0.0).to(tl.float32)
    tl.store(out_ptr + place.to(tl.int64)[:, None] * C + c, tl.div_rn(total, 9.0).to(out_ptr.dtype.element_ty), mask=here[:, None] & (c < C))


def _launched(kernel: triton.JITFunction, of: Tensor, out_NCHW: Tensor, large: tuple[int, int], small: tuple[int, int]) -> Tensor:
    channels = out_NCHW.shape[1]
    places = out_NCHW.numel() // channels
    across = min(CHANNELS, triton.next_power_of_2(channels))
    with torch.cuda.device_of(out_NCHW):
        kernel[triton.cdiv(places, PLACES), triton.cdiv(channels, across)](
            of, out_NCHW, *large, *small, channels, places, BP=PLACES, BC=across, num_warps=WARPS)
    return out_NCHW


def _halved(height: int, width: int) -> tuple[int, int]:
    return (height + 1) // 2, (width + 1) // 2


def _rows(like: Tensor, N: int, C: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    return like.new_empty(N, height, width, C, dtype=dtype).permute(0, 3, 1, 2)


def forward(x_NCHW: Tensor) -> Tensor:
    """`pooling.plain` of float32 or bfloat16 that lies in rows."""
    N, C, H, W = x_NCHW.shape
    return _launched(pool_kernel, x_NCHW, _rows(x_NCHW, N, C, *_halved(H, W), x_NCHW.dtype), (H, W), _halved(H, W))


def of_bits(bits: Tensor, shape_NCHW: tuple[int, int, int, int], dtype: torch.dtype) -> Tensor:
    """`forward` of spikes that were packed (`bits.pack`), without unpacking them where a pixel's channels fill bytes."""
    N, C, H, W = shape_NCHW
    if C % 8:
        return forward(unpack(bits, N * C * H * W, dtype).view(N, H, W, C).permute(0, 3, 1, 2))
    return _launched(pool_bits_kernel, bits, _rows(bits, N, C, *_halved(H, W), dtype), (H, W), _halved(H, W))


def backward(g_NCHW: Tensor, height: int, width: int) -> Tensor:
    """`pooling.plain_backward` of a gradient that lies in rows."""
    N, C, h, w = g_NCHW.shape
    return _launched(unpool_kernel, g_NCHW, _rows(g_NCHW, N, C, height, width, g_NCHW.dtype), (height, width), (h, w))
