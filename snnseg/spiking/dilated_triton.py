"""A 3x3 convolution dilated by more than half of the map, on a GPU: forward and backward, only the taps that lie inside the map.

    y[p] = sum over taps s of w[s] x[p + s]        gx[q] = sum of w[s]^T g[q - s]        gw[s] = sum over p of g[p] x[p + s]^T

The map falls into up to nine parts whose positions meet the same one, two or four taps (`convolution.runs` of rows by those of
columns). A program takes a tile of the positions of one part, over all pictures, and multiplies for each of its taps: nothing is
gathered or added up in memory, as it is by the plain forms, `convolution.forward_inside` and `backward_inside`. Products are of
bfloat16 or TF32, sums float32 and of one order: those for the weight are over stretches of positions first, then over stretches.
"""
from __future__ import annotations

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

PLACES = 128        # positions of a tile
ACROSS = 256        # channels of a tile that come out, at most
DEEP = 128          # bytes of a row that are multiplied at a time, at most; of the weight's gradient half as many positions as of bfloat16
SIDE = 128          # channels of either kind in a tile of the weight's gradient, at most
STRETCH = 2560      # positions that a program adds up for the weight's gradient, about
STAGES = 3
WARPS = 8


def takes(x_NCHW: Tensor, weight_OIKK: Tensor, dilation: int) -> bool:
    """Whether the kernels know this layer: 3x3, bfloat16 or TF32, one tap or two that meet a position in each direction."""
    outs, ins, kernel, _ = weight_OIKK.shape
    exact = x_NCHW.dtype == torch.float32 and not torch.backends.cudnn.allow_tf32
    return (x_NCHW.dtype in (torch.bfloat16, torch.float32) and not exact and kernel == 3 and outs % 16 == 0 and ins % 16 == 0
            and all(dilation < size <= 2 * dilation for size in x_NCHW.shape[-2:])
            and x_NCHW.numel() // ins * max(outs, ins) < 2**31)


@triton.jit
def _pixels(place, top, left, height, width, H, W):
    """Numbers of the pixels of a part, [top, top + height) x [left, left + width) of each picture."""
    within = place % (height * width)
    return (place // (height * width) * H + top + within // width) * W + left + within % width


@triton.jit
def product_kernel(x_ptr, w_ptr, y_ptr, tiles_ptr, N, H, W, w_tap, w_in, w_out, INS: tl.constexpr, OUTS: tl.constexpr, BACK: tl.constexpr,
                   BP: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr):
    """x [N, H, W, INS], w with these steps between its values -> y [N, H, W, OUTS]; grid (tiles * OUTS / BO). BACK: taps are met the other way round."""
    tile = tiles_ptr + tl.program_id(0) // (OUTS // BO) * 7
    top, left, height, width = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3)
    down, right = tl.load(tile + 4), tl.load(tile + 5)      # to the other tap of a column and of a row, or 0
    place = tl.load(tile + 6) + tl.arange(0, BP)
    o = tl.program_id(0) % (OUTS // BO) * BO + tl.arange(0, BO)
    i = tl.arange(0, BI)
    pixel = _pixels(place, top, left, height, width, H, W)
    here = (place < N * height * width)[:, None]
    rows, columns = tl.where(down == 0, 1, 2), tl.where(right == 0, 1, 2)
    total = tl.zeros((BP, BO), tl.float32)
    for k in range(rows * columns * (INS // BI)):
        tap, first = k // (INS // BI), k % (INS // BI) * BI
        row, column = tap % rows, tap // rows
        x = tl.load(x_ptr + (pixel + row * down * W + column * right)[:, None] * INS + (first + i)[None, :], mask=here, other=0.0)
        number = tl.where(down > 0, row, -row) * 3 + tl.where(right > 0, column, -column)
        number = 4 - number if BACK else 4 + number
        w = tl.load(w_ptr + number * w_tap + (first + i)[:, None] * w_in + o[None, :] * w_out)
        total = tl.dot(x, w, total)
    tl.store(y_ptr + pixel[:, None] * OUTS + o[None, :], total.to(y_ptr.dtype.element_ty), mask=here)


@triton.jit
def sums_kernel(g_ptr, x_ptr, sums_ptr, tiles_ptr, N, H, W, INS: tl.constexpr, OUTS: tl.constexpr, BP: tl.constexpr, BO: tl.constexpr, BI: tl.constexpr):
    """Sums of g x^T over stretches of positions: [stretches, OUTS, INS]; grid (stretches * OUTS / BO * INS / BI)."""
    blocks = (OUTS // BO) * (INS // BI)
    stretch, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    tile = tiles_ptr + stretch * 8
    top, left, height, width = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3)
    shift, begin, end = tl.load(tile + 4) * W + tl.load(tile + 5), tl.load(tile + 6), tl.load(tile + 7)
    o = block // (INS // BI) * BO + tl.arange(0, BO)
    i = block % (INS // BI) * BI + tl.arange(0, BI)
    total = tl.zeros((BO, BI), tl.float32)
    for first in range(begin, end, BP):
        place = first + tl.arange(0, BP)
        pixel = _pixels(place, top, left, height, width, H, W)
        g = tl.load(g_ptr + pixel[:, None] * OUTS + o[None, :], mask=(place < end)[:, None], other=0.0)
        x = tl.load(x_ptr + (pixel + shift)[:, None] * INS + i[None, :], mask=(place < end)[:, None], other=0.0)
        total = tl.dot(tl.trans(g), x, total)
    tl.store(sums_ptr + (stretch * OUTS + o).to(tl.int64)[:, None] * INS + i[None, :], total)


@triton.jit
def added_kernel(sums_ptr, gw_ptr, first_ptr, VALUES: tl.constexpr, INS: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of a tap's stretches, first[tap] to first[tap + 1] -> gw [OUTS, 9, INS]; grid (VALUES / BLOCK, 9)."""
    tap, at = tl.program_id(1), tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    begin, end = tl.load(first_ptr + tap), tl.load(first_ptr + tap + 1)
    sums_ptr += begin.to(tl.int64) * VALUES
    total = tl.zeros((BLOCK,), tl.float32)
    for _ in range(begin, end):
        total += tl.load(sums_ptr + at)
        sums_ptr += VALUES
    tl.store(gw_ptr + (at // INS * 9 + tap) * INS + at % INS, total)


def _parts(size: int, dilation: int) -> list[tuple[int, int, int]]:
    """Runs of rows or columns: the first, how many, and the way to their other tap or 0."""
    far = size - dilation
    return [run for run in ((0, far, dilation), (far, size - 2 * far, 0), (dilation, far, -dilation)) if run[1]]


@lru_cache(maxsize=64)
def _tiles(pictures: int, H: int, W: int, dilation: int, device: torch.device) -> Tensor:
    """A row for each tile of `product_kernel`, those with most taps first, so that the last to end are short."""
    parts = [(top, left, height, width, down, right) for top, height, down in _parts(H, dilation) for left, width, right in _parts(W, dilation)]
    parts.sort(key=lambda part: -(1 + bool(part[4])) * (1 + bool(part[5])))
    return torch.tensor([(*part, first) for part in parts for first in range(0, pictures * part[2] * part[3], PLACES)], dtype=torch.int32).to(device)


@lru_cache(maxsize=64)
def _stretches(pictures: int, H: int, W: int, dilation: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A row for each stretch of `sums_kernel`, in the order of taps, and the first stretch of each tap and the end."""
    rows, firsts = [], [0]
    for down in (-dilation, 0, dilation):
        for right in (-dilation, 0, dilation):
            height, width = H - abs(down), W - abs(right)
            places = pictures * height * width
            long = triton.cdiv(places, round(places / STRETCH) or 1)
            rows += [(max(0, -down), max(0, -right), height, width, down, right, begin, min(begin + long, places)) for begin in range(0, places, long)]
            firsts.append(len(rows))
    return torch.tensor(rows, dtype=torch.int32).to(device), torch.tensor(firsts, dtype=torch.int32).to(device)


def _block(channels: int, most: int) -> int:
    """The largest power of two that divides `channels`, or `most`."""
    return min(most, channels & -channels)


def _product(x_NCHW: Tensor, weight_OIKK: Tensor, dilation: int, back: bool) -> Tensor:
    N, ins, H, W = x_NCHW.shape
    tap = weight_OIKK.shape[1]      # in memory [O, 9, I]
    outs, w_in, w_out = (tap, 9 * tap, 1) if back else (len(weight_OIKK), 1, 9 * tap)
    y_NOHW = x_NCHW.new_empty(N, H, W, outs).permute(0, 3, 1, 2)
    tiles, across = _tiles(N, H, W, dilation, x_NCHW.device), _block(outs, ACROSS)
    with torch.cuda.device_of(x_NCHW):
        product_kernel[(len(tiles) * (outs // across),)](
            x_NCHW, _rows(weight_OIKK), y_NOHW, tiles, N, H, W, tap, w_in, w_out, INS=ins, OUTS=outs, BACK=back,
            BP=PLACES, BO=across, BI=_block(ins, DEEP // x_NCHW.itemsize), num_warps=WARPS, num_stages=STAGES)
    return y_NOHW


def _rows(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def forward(x_NCHW: Tensor, weight_OIKK: Tensor, dilation: int) -> Tensor:
    """y_NOHW in rows, no bias, of what `takes` takes."""
    return _product(_rows(x_NCHW), weight_OIKK, dilation, False)


def backward(g_NOHW: Tensor, x_NCHW: Tensor, weight_OIKK: Tensor, dilation: int, of_x: bool) -> tuple[Tensor | None, Tensor]:
    """Gradients of x (None if it is not asked for) and, in float32, of the weight."""
    g_NOHW, x_NCHW = _rows(g_NOHW), _rows(x_NCHW)
    (N, ins, H, W), outs = x_NCHW.shape, len(weight_OIKK)
    rows, firsts = _stretches(N, H, W, dilation, x_NCHW.device)
    across, deep = _block(outs, SIDE), _block(ins, SIDE)
    sums = x_NCHW.new_empty(len(rows), outs, ins, dtype=torch.float32)
    gw_OKKI = x_NCHW.new_empty(outs, 3, 3, ins, dtype=torch.float32)
    with torch.cuda.device_of(x_NCHW):
        sums_kernel[(len(rows) * (outs // across) * (ins // deep),)](
            g_NOHW, x_NCHW, sums, rows, N, H, W, INS=ins, OUTS=outs, BP=DEEP // g_NOHW.itemsize, BO=across, BI=deep, num_warps=4, num_stages=STAGES)
        block = _block(outs * ins, 1024)
        added_kernel[(outs * ins // block, 9)](sums, gw_OKKI, firsts, VALUES=outs * ins, INS=ins, BLOCK=block)
    return _product(g_NOHW, weight_OIKK, dilation, True) if of_x else None, gw_OKKI.permute(0, 3, 1, 2)
