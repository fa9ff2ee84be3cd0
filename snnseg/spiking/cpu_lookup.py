"""A 3x3 convolution of sixteen channels of spikes looks up what eight of them add: eight bits are one of 256 rows of a table.

    forward    y[pixel] = sum of table[tap, half, byte]           over the taps of the pixel and both bytes that each meets
    backward   found[tap, half, byte] += gy[pixel]                likewise; a channel's gradient is the sum over the bytes with its bit

A row are the `out` sums of those of eight weights whose bits are set. Bits come with a margin of zeros, whose row is zero, so each pixel
meets every tap and nothing hangs on how many neurons fire.
"""
from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from snnseg.spiking.cpu_kernels import ZERO, compiled, place, take

LANES = 16              # values of a vector
CHANNELS = 16           # of the input, all in a word
BYTES = 256             # what eight channels can be
KERNEL = 3
TAPS = KERNEL * KERNEL
NUMBERS = "pictures height width out dilation group"
ADDRESSES = "spikes table y g partial"


def _vectors(count: int) -> ir.VectorType:
    return ir.VectorType(ir.FloatType(), LANES * count)


def looking_up(vectors: int):
    """The `vectors` * LANES sums of a pixel, to address y: a row of the table for each tap and byte; `line` and `step` bytes lie between two taps' words."""
    @intrinsic
    def pixel(typing, y, table, spikes, line, step):
        def code(context, builder, signature, arguments):
            i16, i64, kind = ir.IntType(16), ir.IntType(64), _vectors(vectors)
            y, table, spikes, line, step = arguments
            sums = [ir.Constant(kind, [0.0] * LANES * vectors)] * 2
            for tap in range(TAPS):
                at = builder.add(spikes, builder.add(builder.mul(line, i64(tap // KERNEL)), builder.mul(step, i64(tap % KERNEL))))
                word = builder.load(builder.inttoptr(at, i16.as_pointer()))
                for half, byte in enumerate((builder.and_(word, i16(BYTES - 1)), builder.lshr(word, i16(8)))):
                    row = builder.add(builder.mul(builder.zext(byte, i64), i64(4 * LANES * vectors)), i64(4 * LANES * vectors * BYTES * (2 * tap + half)))
                    found = builder.load(builder.inttoptr(builder.add(table, row), kind.as_pointer()))
                    found.align = 4
                    sums[half] = builder.fadd(sums[half], found)
            builder.store(builder.fadd(*sums), builder.inttoptr(y, kind.as_pointer())).align = 4
            return context.get_dummy_value()

        return types.none(types.int64, types.int64, types.int64, types.int64, types.int64), code

    return pixel


def adding(vectors: int):
    """`vectors` * LANES values at one address, plus those at another."""
    @intrinsic
    def add(typing, to, values):
        def code(context, builder, signature, arguments):
            kind = _vectors(vectors)
            pointers = [builder.inttoptr(x, kind.as_pointer()) for x in arguments]
            loaded = [builder.load(x) for x in pointers]
            for x in loaded:
                x.align = 4
            builder.store(builder.fadd(*loaded), pointers[0]).align = 4
            return context.get_dummy_value()

        return types.none(types.int64, types.int64), code

    return add


pixel_1, pixel_2 = looking_up(1), looking_up(2)
add_1, add_2 = adding(1), adding(2)


@compiled
def convolve_row(outs, y, table, spikes, line, step, width):
    """A row of pixels."""
    for x in range(width):
        if outs == LANES:
            pixel_1(y + 4 * outs * x, table, spikes + 2 * x, line, step)
        else:
            pixel_2(y + 4 * outs * x, table, spikes + 2 * x, line, step)


@compiled
def add_row(outs, to, values):
    """A row of `outs` values to another."""
    if outs == LANES:
        add_1(to, values)
    else:
        add_2(to, values)


def tabulate(work):
    """Weights [taps, channels, out] at `partial` to the table [taps, 2, BYTES, out]: a byte's row is that without its lowest bit, and the bit's weights."""
    work = carray(work, 1)[0]
    outs = work.out
    weight, table = carray(place(work.partial, ZERO), (TAPS, 2, 8, outs)), carray(place(work.table, ZERO), (TAPS, 2, BYTES, outs))
    for tap in range(TAPS):
        for half in range(2):
            table[tap, half, 0] = ZERO
            for bit in range(8):
                for below in range(1 << bit):
                    row, rest, more = table[tap, half, below + (1 << bit)], table[tap, half, below], weight[tap, half, bit]
                    for o in range(outs):
                        row[o] = rest[o] + more[o]


def convolve(work):
    """y [N, H, W, out], a picture at a time."""
    work = carray(work, 1)[0]
    H, W, outs, margin = work.height, work.width, work.out, work.dilation * (KERNEL // 2)
    line = 2 * (W + 2 * margin)
    task = take(work)
    while task < work.pictures:
        for h in range(H):
            convolve_row(outs, work.y + 4 * outs * W * (task * H + h), work.table, work.spikes + line * (task * (H + 2 * margin) + h),
                         work.dilation * line, 2 * work.dilation, W)
        task = take(work)


def weigh(work):
    """Of each `group` of pictures the sums of g for each weight: [groups, taps, channels, out] at `partial`."""
    work = carray(work, 1)[0]
    N, H, W, outs, dilation, group = work.pictures, work.height, work.width, work.out, work.dilation, work.group
    margin, groups = dilation * (KERNEL // 2), -(-N // group)
    wide, size = W + 2 * margin, 4 * outs
    partial = carray(place(work.partial, ZERO), (groups, TAPS, 2, 8, outs))
    spikes = carray(place(work.spikes, np.uint8(0)), N * (H + 2 * margin) * wide * 2)
    task = take(work)
    if task >= groups:
        return
    found = np.empty((TAPS, 2, BYTES, outs), np.float32)
    found_at = found.ctypes.data
    while task < groups:
        found[:] = ZERO
        for n in range(task * group, min(N, (task + 1) * group)):
            for tap in range(TAPS):
                down, right = tap // KERNEL * dilation, tap % KERNEL * dilation
                low = found_at + size * BYTES * 2 * tap
                high = low + size * BYTES
                for h in range(H):
                    begin, g = 2 * ((n * (H + 2 * margin) + h + down) * wide + right), work.g + size * W * (n * H + h)
                    for x in range(W):
                        add_row(outs, low + size * np.int64(spikes[begin + 2 * x]), g + size * x)
                        add_row(outs, high + size * np.int64(spikes[begin + 2 * x + 1]), g + size * x)
        for tap in range(TAPS):
            for half in range(2):
                for bit in range(7, -1, -1):        # what has the bit is summed, then added to what has it not
                    total, far = partial[task, tap, half, bit], 1 << bit
                    total[:] = ZERO
                    for below in range(far):
                        rest, row = found[tap, half, below], found[tap, half, below + far]
                        for o in range(outs):
                            total[o] += row[o]
                            rest[o] += row[o]
        task = take(work)
