"""Norm and neuron as one operator on the CPU, channels last: the loops of `cpu_fire` and `cpu_unwind` over pieces of y, on all cores.

Forward: statistics of each piece, joined; then normalise, integrate and fire, tile by tile. Backward: a tile's potentials are
computed anew, the reverse walk writes the gradient of z over them, and a last pass takes it through the statistics. Kept between
the two: y as it came and tables [T, C]. Pieces are cut without regard to threads, so results do not depend on their number.
"""
from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from snnseg.spiking import cpu_bits, cpu_fire, cpu_unwind, pages, shared
from snnseg.spiking.cpu_kernels import loop, record
from snnseg.spiking.fused import Fired, Gradients, Normal, empty_rows, in_rows
from snnseg.spiking.integer import Integer, levels
from snnseg.spiking.neuron import LIF
from snnseg.spiking.surrogate import Arctan, Rectangle, Sigmoid, Triangle
from snnseg.spiking.team import STORED, together

ROW = 1024              # values at least that one row of tables covers, in whole pixels
TILE = 2048             # values walked through all T together: 160 KiB of potentials at T = 20
PIECE = 8 * TILE        # values at least that share a partial sum,
PIXELS = 32             # and pixels: a sum is as large as one of them
FAR = 2**20             # bytes: more of y than a core has near it
KINDS = {Triangle: 0, Arctan: 1, Sigmoid: 2, Rectangle: 3, Integer: 4}


class Kept(NamedTuple):
    """What `unwind` needs beside y: mean, variance, scale and level of z = scale * y + level, the neuron's two numbers, a shared count."""

    tables_4TC: Tensor
    neuron_2C: Tensor
    count: Tensor | None = None


class Cut(NamedTuple):
    """How the T steps of `step` values each are walked; `apart` values lie between two steps of y, 0 if all are the same."""

    T: int
    channels: int
    step: int
    apart: int
    row: int
    tile: int
    piece: int

    @classmethod
    def of(cls, y_TBCHW: Tensor) -> Cut:
        T, B, C, H, W = y_TBCHW.shape
        step, row = B * C * H * W, C * -(-ROW // C)
        tile = row * max(1, TILE // row)
        return cls(T, C, step, 0 if _once(y_TBCHW) else step, row, tile, tile * max(1, PIECE // tile, -(-PIXELS * C // tile)))

    @property
    def pieces(self) -> int:
        return -(-self.step // self.piece)


def _once(x_TBCHW: Tensor) -> bool:
    """Whether all steps are one place in memory."""
    return x_TBCHW.shape[0] > 1 and x_TBCHW.stride(0) == 0


def _share(function: Callable, work: ctypes.Structure, values: int) -> None:
    together(loop(function, type(work)), work, values)


def _plain(table: Tensor | None) -> Tensor | None:
    """A table as loops read it: float32, one value behind the other."""
    return None if table is None else table.detach().float().contiguous()


def _at(table: Tensor | None) -> int:
    return 0 if table is None else table.data_ptr()


def _apart(table: Tensor | None) -> int:
    """Values between two of a table's rows, 0 if it has one."""
    return 0 if table is None or len(table) == 1 else table.stride(0)


def pack(values: Tensor) -> Tensor:
    """`bits.plain_pack` of float32 or bfloat16."""
    bits = torch.empty(-(-len(values) // 8), dtype=torch.uint8)
    _share(cpu_bits.pack, record(STORED[values.dtype])(step=len(values), y=values.data_ptr(), out=bits.data_ptr()), len(values))
    return bits


def unpack(bits: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """`bits.plain_unpack` as float32 or bfloat16."""
    values = pages.empty(size, dtype)
    _share(cpu_bits.unpack, record(STORED[dtype])(step=size, y=bits.data_ptr(), out=values.data_ptr()), size)
    return values


def fire(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF) -> tuple[Fired, Kept]:
    """`ways.run` without gradients, and what `unwind` needs. y lies in rows (`fused.in_rows`), and so do the spikes."""
    cut = Cut.of(y_TBCHW)
    T, C, values = cut.T, cut.channels, cut.T * cut.step
    gamma, beta, per_step, eps, mean, var, share = normal or Normal(None, None, True, 0.0, torch.zeros(1, C), torch.ones(1, C))
    gamma, beta, mean, var = _plain(gamma), _plain(beta), _plain(mean), _plain(var)
    leak, threshold = (_plain(torch.as_tensor(x)).view(-1) for x in neuron[:2])
    found_2TC = torch.empty(2, T if per_step else 1, C) if mean is None else None
    partial = torch.empty(2, T, cut.pieces, C) if mean is None else None
    kept, spikes_TBCHW, counted = Kept(torch.empty(4, T, C), torch.empty(2, C)), empty_rows(y_TBCHW), ()
    work = record(STORED[y_TBCHW.dtype])(
        **cut._asdict(), per_step=per_step, given=mean is not None, soft=neuron.soft_reset, levels=levels(neuron.spike), eps=eps,
        far=values * y_TBCHW.element_size() > FAR,
        y=y_TBCHW.data_ptr(), out=spikes_TBCHW.data_ptr(), tables=_at(kept.tables_4TC), neuron=_at(kept.neuron_2C), partial=_at(partial),
        statistics=_at(found_2TC), gamma=_at(gamma), gamma_apart=_apart(gamma), beta=_at(beta), mean=_at(mean), var=_at(var),
        given_apart=_apart(mean), leak=_at(leak), leak_apart=_apart(leak), threshold=_at(threshold), threshold_apart=_apart(threshold))
    if mean is None:
        _share(cpu_fire.statistics, work, values)
    _share(cpu_fire.tables, work, 2 * T * cut.pieces * C)
    if share and mean is None:      # the tables anew, from statistics that are given now
        *found, count = shared.statistics(*found_2TC, cut.step // C * (1 if per_step else T), share)
        found_2TC, counted = torch.stack(found), (count,)
        work.given, work.mean, work.var, work.given_apart = 1, _at(found_2TC[0]), _at(found_2TC[1]), _apart(found_2TC[0])
        _share(cpu_fire.tables, work, 2 * T * C)
    _share(cpu_fire.fire, work, values)
    return Fired(spikes_TBCHW, *((None, None) if found_2TC is None else found_2TC), *counted), Kept(*kept[:2], *counted)


def unwind(y_TBCHW: Tensor, kept: Kept, normal: Normal | None, neuron: LIF, g_TBCHW: Tensor, learned: bool, over: bool = False) -> Gradients:
    """Gradients of y, gamma and beta [T, C], and, if they are learned, leak and threshold [C]. All lie in rows.

    `over`: y's memory may be taken for its gradient.
    """
    cut, from_batch, per_step = Cut.of(y_TBCHW), normal is not None and normal.mean_TC is None, normal is None or normal.per_step
    T, C, values, over = cut.T, cut.channels, cut.T * cut.step, bool(over and from_batch and cut.apart)
    grad_TBCHW, g_TBCHW = empty_rows(y_TBCHW), in_rows(g_TBCHW)
    sums, ends, undoing = torch.empty(2, T, cut.pieces, C), torch.empty(2, cut.pieces, C), torch.empty(2, T, C)
    found = torch.empty(2 * T + 2, C)       # gradients of gamma, beta, leak, threshold
    work = record(STORED[y_TBCHW.dtype])(
        **cut._asdict(), g_apart=0 if _once(g_TBCHW) else cut.step, per_step=per_step, given=not from_batch, soft=neuron.soft_reset,
        levels=levels(neuron.spike), learned=learned, over=over, kind=KINDS[type(neuron.spike)], slope=neuron.spike.scale, eps=normal.eps if normal else 0.0,
        count=1 if kept.count is not None else cut.step // C * (1 if per_step else T),
        far=values * y_TBCHW.element_size() > FAR, y=y_TBCHW.data_ptr(), g=g_TBCHW.data_ptr(), out=grad_TBCHW.data_ptr(),
        tables=_at(kept.tables_4TC), neuron=_at(kept.neuron_2C), sums=_at(sums), ends=_at(ends), undoing=_at(undoing), found=_at(found))
    _share(cpu_unwind.unwind, work, values)
    _share(cpu_unwind.join, work, 2 * T * cut.pieces * C)
    if kept.count is not None:
        normal.share(undoing).div_(kept.count)
    if from_batch:
        _share(cpu_unwind.undo_norm, work, values)
    return Gradients(y_TBCHW if over else grad_TBCHW, found[:T], found[T:2 * T], *((found[2 * T], found[2 * T + 1]) if learned else (None, None)))


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
