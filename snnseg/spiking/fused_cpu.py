"""Norm and neuron as one operator on the CPU, channels last: the loops of `cpu_kernels` over pieces of y, on all cores.

Forward: statistics of each piece, joined; then normalise, integrate and fire, tile by tile. Backward: a tile's potentials are
computed anew, the reverse walk writes the gradient of z over them, and a last pass takes it through the statistics. Kept between
the two: y as it came and tables [T, C]. Pieces are cut without regard to threads, so results do not depend on their number.
"""
from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from snnseg.spiking import cpu_kernels as kernels
from snnseg.spiking.fused import Fired, Gradients, Normal, each_channel, empty_rows, in_rows
from snnseg.spiking.neuron import LIF
from snnseg.spiking.surrogate import Arctan, Rectangle, Sigmoid, Triangle

ROW = 1024              # values at least that one row of tables covers, in whole pixels
TILE = 2048             # values walked through all T together: 160 KiB of potentials at T = 20
PIECE = 8 * TILE        # values that share a partial sum
SMALL = 2**15           # values: fewer are done before a second thread has begun
KINDS = {Triangle: 0, Arctan: 1, Sigmoid: 2, Rectangle: 3}


class Kept(NamedTuple):
    """What `unwind` needs beside y: mean, variance, scale and level of z = scale * y + level, and the neuron's two numbers."""

    tables_4TC: Tensor
    neuron_2C: Tensor


class Cut(NamedTuple):
    """How the T steps of `step` values each are walked; `apart` values lie between two steps of y, 0 if all are the same."""

    T: int
    channels: int
    step: int
    apart: int
    row: int

    @classmethod
    def of(cls, y_TBCHW: Tensor) -> Cut:
        channels = y_TBCHW.shape[2]
        step = y_TBCHW[0].numel()
        once = len(y_TBCHW) > 1 and y_TBCHW.stride(0) == 0
        return cls(len(y_TBCHW), channels, step, 0 if once else step, channels * -(-ROW // channels))

    @property
    def tile(self) -> int:
        return self.row * max(1, TILE // self.row)

    @property
    def piece(self) -> int:
        return self.tile * max(1, PIECE // self.tile)

    @property
    def pieces(self) -> int:
        return -(-self.step // self.piece)

    def wide(self, tables: Tensor) -> np.ndarray:
        """[..., C] as [..., row]: a row's pixels have the same."""
        return np.ascontiguousarray(np.tile(tables.detach().numpy(), self.row // self.channels))


@functools.cache
def pool(process: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process has none of its parent's and so makes its own."""
    return ThreadPoolExecutor(os.cpu_count(), "norm-and-fire")


def spread(kernel, values: int, *what) -> None:
    """Call a kernel from as many threads as torch may use, or from this one alone where there is little to do."""
    workers = min(torch.get_num_threads(), 1 + values // SMALL)
    others = [pool(os.getpid()).submit(kernel, *what, worker, workers) for worker in range(1, workers)]
    kernel(*what, 0, workers)
    for other in others:
        other.result()


def memory(values: Tensor) -> np.ndarray:
    """A flat tensor's memory: float32, or bfloat16 as uint16, as numpy has none. No copy."""
    return values.numpy() if values.dtype == torch.float32 else values.view(torch.int16).numpy().view(np.uint16)


def flat(x_TBCHW: Tensor) -> np.ndarray:
    """The memory of a tensor that lies in rows, once where its steps are one."""
    return memory((x_TBCHW if x_TBCHW.stride(0) or len(x_TBCHW) == 1 else x_TBCHW[:1]).detach().permute(0, 1, 3, 4, 2).reshape(-1))


def pack(values: Tensor) -> Tensor:
    """`bits.plain_pack` of float32 or bfloat16."""
    bits = torch.empty(-(-len(values) // 8), dtype=torch.uint8)
    spread(kernels.pack, len(values), memory(values), bits.numpy())
    return bits


def unpack(bits: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """`bits.plain_unpack` as float32 or bfloat16."""
    values = torch.empty(size, dtype=dtype)
    spread(kernels.unpack, size, bits.numpy(), memory(values))
    return values


def statistics(y_TBCHW: Tensor, cut: Cut, per_step: bool) -> tuple[Tensor, Tensor]:
    """Mean and biased variance, float32 [T, C] or [1, C]: pieces joined as Chan, Golub, LeVeque 1983."""
    T = cut.T if cut.apart else 1
    partial_2TKC = np.empty((2, T, cut.pieces, cut.channels), np.float32)
    spread(kernels.statistics, T * cut.step, flat(y_TBCHW), T, cut.step, cut.row, cut.piece, partial_2TKC)
    mean_TKC, squares_TKC = partial_2TKC.astype(np.float64)
    count_K1 = np.diff(np.minimum(np.arange(cut.pieces + 1) * cut.piece, cut.step))[:, None] / cut.channels
    if not per_step:
        mean_TKC, squares_TKC, count_K1 = mean_TKC.reshape(1, -1, cut.channels), squares_TKC.reshape(1, -1, cut.channels), np.tile(count_K1, (T, 1))
    mean_TC = (mean_TKC * count_K1).sum(1) / count_K1.sum()
    var_TC = (squares_TKC + count_K1 * (mean_TKC - mean_TC[:, None]) ** 2).sum(1) / count_K1.sum()
    rows = cut.T if per_step else 1
    return tuple(torch.from_numpy(x.astype(np.float32)).expand(rows, -1) for x in (mean_TC, var_TC))


def fire(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF) -> tuple[Fired, Kept]:
    """`ways.run` without gradients, and what `unwind` needs. y lies in rows (`fused.in_rows`), and so do the spikes."""
    cut = Cut.of(y_TBCHW)
    gamma, beta, per_step, eps, mean, var = normal or Normal(None, None, True, 0.0, torch.zeros(1, cut.channels), torch.ones(1, cut.channels))
    given = mean is not None
    mean_TC, var_TC = (mean.float(), var.float()) if given else statistics(y_TBCHW, cut, per_step)
    scale_TC = (1.0 if gamma is None else gamma.float()) * (1 / (var_TC + eps).sqrt())
    level_TC = (0.0 if beta is None else beta.float()) - mean_TC * scale_TC
    tables_4TC = torch.stack([x.detach().expand(cut.T, -1) for x in (mean_TC, var_TC, scale_TC, level_TC)])
    neuron_2C = torch.stack([each_channel(x, cut.channels) for x in neuron[:2]]).detach()
    spikes_TBCHW = empty_rows(y_TBCHW)
    spread(kernels.fire, cut.T * cut.step, flat(y_TBCHW), cut.T, cut.step, cut.apart, cut.row, cut.tile, cut.wide(tables_4TC[2:]),
           cut.wide(neuron_2C), neuron.soft_reset, flat(spikes_TBCHW))
    return Fired(spikes_TBCHW, *((None, None) if given else (mean_TC, var_TC))), Kept(tables_4TC, neuron_2C)


def unwind(y_TBCHW: Tensor, kept: Kept, normal: Normal | None, neuron: LIF, g_TBCHW: Tensor, learned: bool) -> Gradients:
    """Gradients of y, gamma and beta [T, C], and, if they are learned, leak and threshold [C]. All lie in rows."""
    cut, eps = Cut.of(y_TBCHW), 0.0 if normal is None else normal.eps
    from_batch = normal is not None and normal.mean_TC is None
    mean_TC, var_TC, scale_TC, level_TC = kept.tables_4TC
    sums_K2TC = np.empty((cut.pieces, 2, cut.T, cut.channels), np.float32)
    ends_K2C = np.empty((cut.pieces, 2, cut.channels), np.float32)
    grad_TBCHW, g_TBCHW = empty_rows(y_TBCHW), in_rows(g_TBCHW)
    spread(kernels.unwind, cut.T * cut.step, flat(y_TBCHW), flat(g_TBCHW), cut.T, cut.step, cut.apart, Cut.of(g_TBCHW).apart, cut.row, cut.tile, cut.piece,
           cut.wide(torch.stack([mean_TC, scale_TC, level_TC])), cut.wide(kept.neuron_2C), neuron.soft_reset, KINDS[type(neuron.spike)],
           np.float32(neuron.spike.scale), learned, not from_batch, flat(grad_TBCHW), sums_K2TC, ends_K2C)
    sums_2TC = torch.from_numpy(sums_K2TC.sum(0, dtype=np.float64))
    if from_batch:
        count = y_TBCHW[0, :, 0].numel() * (1 if normal.per_step else cut.T)
        about_2TC = (sums_2TC if normal.per_step else sums_2TC.sum(1, keepdim=True).expand_as(sums_2TC)) / count
        shift_TC, tilt_TC = about_2TC[0].float(), (about_2TC[1] / (var_TC + eps)).float()
        spread(kernels.undo_norm, cut.T * cut.step, flat(y_TBCHW), cut.T, cut.step, cut.apart, cut.row, cut.piece,
               cut.wide(torch.stack([mean_TC, scale_TC, shift_TC, tilt_TC])), flat(grad_TBCHW))
    leak_C, threshold_C = torch.from_numpy(ends_K2C.sum(0, dtype=np.float64).astype(np.float32)) if learned else (None, None)
    return Gradients(grad_TBCHW, (sums_2TC[1] / (var_TC + eps).sqrt()).float(), sums_2TC[0].float(), leak_C, threshold_C)


def refusal(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF) -> str | None:
    """Why it cannot be done here, in words; None if it can. Shapes of y and norm are `fused.check`'s affair."""
    if y_TBCHW.device.type != "cpu" or y_TBCHW.dtype not in (torch.float32, torch.bfloat16):
        return f"it takes float32 or bfloat16 on the CPU, not {y_TBCHW.dtype} on {y_TBCHW.device}"
    if type(neuron.spike) not in KINDS:
        return f"it knows the surrogates {', '.join(kind.__name__ for kind in KINDS)}, not {neuron.spike!r}"
    for name in ("leak", "threshold"):
        value, shape = torch.as_tensor(getattr(neuron, name)), (y_TBCHW.shape[2], 1, 1)
        if value.dim() > 3 or any(n not in (1, whole) for n, whole in zip(value.shape[::-1], shape[::-1], strict=False)):
            return f"the {name} is one number or one a channel, {list(shape)}, not {list(value.shape)}"
        if name == "threshold" and not (value > 0).all():
            return "a threshold of 0 or less turns the comparison round"
    return None
