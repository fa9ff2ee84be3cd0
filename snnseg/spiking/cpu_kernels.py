"""What the compiled loops of norm + leaky integrate-and-fire share: how they are called, their record, and how they see memory.

Memory is [T, step]: the values of a time step lie together, channels last. It is walked in rows of `row` values, whole pixels
each, so a table widened to a row meets its channel at the same place in every row and the loops run in vectors whatever C is. A
tile is some rows that go through all T while they are in the first cache; a piece is some tiles that share a partial sum. float32,
or bfloat16 as uint16; the arithmetic is float32 and in the order of the plain form, without fused multiply-add. A loop (`cpu_fire`,
`cpu_unwind`, `cpu_bits`) gets a record and takes tasks from its counter until none is left, so that several threads can be in it.
"""
from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import numpy as np
from llvmlite import ir
from numba import cfunc, from_dtype, njit, types
from numba.core import cgutils
from numba.core.ccallback import CFunc
from numba.extending import intrinsic

LINE = 64                           # bytes that memory hands over at a time
WAIT_S = 120.0                      # for another process to compile a loop
ZERO, ONE = np.float32([0, 1])      # with python's floats, float32 becomes float64
NUMBERS = ("T channels step apart g_apart row tile piece per_step given gamma_apart given_apart leak_apart threshold_apart soft levels kind learned count "
           "far over")
ADDRESSES = "y g out partial statistics tables neuron gamma beta mean var leak threshold sums ends found undoing"


@functools.cache
def record(stored: type, numbers: str = NUMBERS, addresses: str = ADDRESSES) -> type[ctypes.Structure]:
    """What all threads of a pass share: the counter of tasks, numbers, addresses (0: there is none), and `like`, what y is stored as.

    `*_apart` values lie between two rows or steps of what is named, 0 where they are one. What numba keeps on disk it takes for
    fresh as long as the file of the loop itself is the same; so a field names the state of this file.
    """
    state = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    fields = [("taken", ctypes.c_int64), *((name, ctypes.c_int64) for name in f"{numbers} {addresses}".split()),
              ("eps", ctypes.c_float), ("slope", ctypes.c_float), ("like", stored), (f"of_{state}", ctypes.c_uint8)]
    return type("Work", (ctypes.Structure,), {"_fields_": fields})


def compiled(function):
    """A part of a loop. It is kept on disk with the loop alone: by itself it would be taken for fresh after a change of what it calls."""
    return njit(nogil=True, error_model="numpy")(function)


def called(function):
    """A function that Python calls: compiled at the first call, and kept on disk for other processes where there is a place that can be written."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:        # neither beside its file nor in the home folder
        return njit(nogil=True, error_model="numpy")(function)


@contextlib.contextmanager
def _one_process(name: str) -> Iterator[None]:
    """Others that come to the same loop wait and find it on disk, as workers of a first training would each compile for a minute. Without a lock all go on."""
    here = hashlib.sha256(str(Path(__file__).resolve()).encode()).hexdigest()[:12]
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError, NotImplementedError):     # another user's, no room, two minutes are over; a file system without locks
            held.enter_context(filelock.FileLock(Path(tempfile.gettempdir(), f"snnseg-{here}-{name}.lock"), timeout=WAIT_S))
        yield


@functools.cache
def loop(function: Callable, shared: type[ctypes.Structure]) -> CFunc:
    """A function of a record as what any thread can call with its address: compiled at the first call, some seconds, and kept on disk for other processes."""
    signature = types.void(types.CPointer(from_dtype(np.dtype(shared))))
    with _one_process(function.__name__):
        try:
            return cfunc(signature, error_model="numpy", cache=True)(function)
        except RuntimeError:        # there is no place that can be written, neither beside this file nor in the home folder
            return cfunc(signature, error_model="numpy")(function)


@intrinsic
def take(typing, work):
    """The next task, to one thread alone: what the record's first field was before this added 1 to it."""
    def code(context, builder, signature, arguments):
        i64 = ir.IntType(64)
        return builder.atomic_rmw("add", builder.bitcast(arguments[0], i64.as_pointer()), i64(1), "acq_rel")

    return types.int64(work), code


@intrinsic
def place(typing, address, like):
    """An address as a pointer to values like `like`."""
    def code(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.int64, like), code


@intrinsic
def fetch(typing, values, first, n):
    """Ask for the memory of values[first:first + n], which may lie outside, before it is used: no processor expects the next time step there."""
    def code(context, builder, signature, arguments):
        array, i32, i64 = context.make_array(values)(context, builder, arguments[0]), ir.IntType(32), ir.IntType(64)
        ask = builder.module.declare_intrinsic("llvm.prefetch", [array.data.type], ir.FunctionType(ir.VoidType(), [array.data.type, i32, i32, i32]))
        last, apart = builder.add(arguments[1], arguments[2]), i64(LINE * 8 // values.dtype.bitwidth)
        with cgutils.for_range_slice(builder, arguments[1], last, apart, i64) as (index, _):
            to_read, to_keep, data = i32(0), i32(3), i32(1)
            builder.call(ask, [builder.gep(array.data, [index]), to_read, to_keep, data])
        return context.get_dummy_value()

    return types.none(values, types.int64, types.int64), code


@intrinsic
def wide(typing, x):
    """A stored value as float32: bfloat16 is its upper half."""
    def code(context, builder, signature, arguments):
        if x == types.float32:
            return arguments[0]
        bits = builder.shl(builder.zext(arguments[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(x), code


@intrinsic
def narrow(typing, x, like):
    """float32 as what is stored in `like`: itself, or rounded to the nearest bfloat16, ties to even; what is no number stays so."""
    def code(context, builder, signature, arguments):
        if like.dtype == types.float32:
            return arguments[0]
        i32, i16 = ir.IntType(32), ir.IntType(16)
        bits = builder.bitcast(arguments[0], i32)
        odd = builder.and_(builder.lshr(bits, i32(16)), i32(1))
        rounded = builder.add(builder.add(bits, i32(0x7FFF)), odd)
        number = builder.fcmp_ordered("ord", arguments[0], arguments[0])
        return builder.trunc(builder.lshr(builder.select(number, rounded, builder.or_(bits, i32(0x400000))), i32(16)), i16)

    return like.dtype(types.float32, like), code


@compiled
def fired(u, threshold, levels):
    """Spikes of one neuron at one step: 0 or 1 (eq. 3), or with `levels` as `integer.Integer` has them, halves to the even number."""
    if levels == 0:
        return ONE if u > threshold else ZERO
    m = u / threshold - ONE + ONE       # as the plain form comes to it
    return np.rint(ZERO if m < ZERO else levels if m > levels else m)


@compiled
def fold(row, channels, out):
    """Add up a row's pixels channel by channel; numba's indices may be negative, so views come first."""
    for first in range(0, len(row), channels):
        part = row[first:first + channels]
        for c in range(channels):
            out[c] += part[c]


@compiled
def widen(table, channels, widened):
    """A table [C] for each pixel of a row."""
    for begin in range(0, len(widened), channels):
        widened[begin:begin + channels] = table
