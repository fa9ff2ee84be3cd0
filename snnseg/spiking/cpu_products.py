"""The gradient of a convolution's weight from values: gw[o, tap] += g[pixel, o] * x[pixel met by the tap], in registers over many pixels.

Pairs of pixels that a tap joins are listed, so what would meet the padding is left out. The sums of `rows` out-channels and `vectors` *
LANES in-channels stay in registers over PART pixels and are then added to memory, where they lie as the weight does, channels last.
With g and x exchanged and the dilation negative, the same gives [in, taps, out], for inputs of few channels.
"""
from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from snnseg.spiking.cpu_kernels import ZERO, place, take

LANES = 16              # values of a vector
FEW = 4                 # channels of an exchanged input
PART = 128              # pixels whose products are one sum in registers: a sum of all would lose digits
NUMBERS = "pictures height width channels out kernel dilation groups block rows vectors"
ADDRESSES = "x g sums"


def multiplying(rows: int, vectors: int):
    """For n pairs i32 (pixel of g, pixel of x) at `pairs`: the sums of `rows` by `vectors` * LANES products, added to those at `sums`; `*_apart` in bytes."""
    @intrinsic
    def add(typing, sums, g, x, pairs, n, sums_apart, g_apart, x_apart):
        def code(context, builder, signature, arguments):
            i32, i64, one, kind = ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.VectorType(ir.FloatType(), LANES)
            sums, g, x, pairs, n, sums_apart, g_apart, x_apart = arguments
            fused = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.fma.v{LANES}f32")
            cells = [(o, k) for o in range(rows) for k in range(vectors)]

            def pointer(address, offset, kind):
                return builder.inttoptr(builder.add(address, i64(offset)), kind.as_pointer())

            def load(address, offset, kind):
                found = builder.load(pointer(address, offset, kind))
                found.align = 4
                return found

            def splat(value):
                undefined = ir.Constant(kind, ir.Undefined)
                return builder.shuffle_vector(builder.insert_element(undefined, value, i32(0)), undefined, ir.Constant(ir.VectorType(i32, LANES), [0] * LANES))

            before, loop, done = builder.block, builder.append_basic_block("pairs"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            i, totals = builder.phi(i64), [builder.phi(kind) for _ in cells]
            pair = builder.add(pairs, builder.shl(i, i64(3)))
            row_g = builder.add(g, builder.mul(builder.zext(load(pair, 0, i32), i64), g_apart))
            row_x = builder.add(x, builder.mul(builder.zext(load(pair, 4, i32), i64), x_apart))
            values = [load(row_x, 4 * LANES * k, kind) for k in range(vectors)]
            factors = [splat(load(row_g, 4 * o, one)) for o in range(rows)]
            added = [builder.call(fused, [factors[o], values[k], total]) for (o, k), total in zip(cells, totals, strict=True)]
            following = builder.add(i, i64(1))
            for phi, first, last in zip([i, *totals], [i64(0)] + [ir.Constant(kind, [0.0] * LANES)] * len(cells), [following, *added], strict=True):
                phi.add_incoming(first, before)
                phi.add_incoming(last, loop)
            builder.cbranch(builder.icmp_signed("<", following, n), loop, done)
            builder.position_at_end(done)
            for (o, k), total in zip(cells, added, strict=True):
                row = builder.add(sums, builder.mul(sums_apart, i64(o)))
                builder.store(builder.fadd(load(row, 4 * LANES * k, kind), total), pointer(row, 4 * LANES * k, kind)).align = 4
            return context.get_dummy_value()

        return types.none(*[types.int64] * 8), code

    return add


add_long, add_square, add_few = multiplying(16, 1), multiplying(8, 2), multiplying(FEW, 1)


def weigh(work):
    """[groups, out, taps, channels] at `sums`: of each group of pictures, `rows` out-channels at a time."""
    work = carray(work, 1)[0]
    N, H, W, C, outs, kernel, dilation, block = work.pictures, work.height, work.width, work.channels, work.out, work.kernel, work.dilation, work.block
    taps, groups, rows, lanes = kernel * kernel, work.groups, work.rows, LANES * work.vectors
    group = -(-N // groups)
    sums = carray(place(work.sums, ZERO), (groups, outs, taps, C))
    task = take(work)
    if task >= groups * (outs // rows):
        return
    pairs, count = np.empty((taps, block * H * W, 2), np.int32), np.zeros(taps, np.int64)
    for tap in range(taps):
        down, right = (tap // kernel - kernel // 2) * dilation, (tap % kernel - kernel // 2) * dilation
        for n in range(block):
            for h in range(max(0, -down), min(H, H - down)):
                for w in range(max(0, -right), min(W, W - right)):
                    pairs[tap, count[tap], 0], pairs[tap, count[tap], 1] = (n * H + h) * W + w, (n * H + h + down) * W + w + right
                    count[tap] += 1
    pairs_at = pairs.ctypes.data
    while task < groups * (outs // rows):
        part, o = task // (outs // rows), task % (outs // rows) * rows
        sums[part, o:o + rows] = ZERO
        for first in range(part * group, min(N, (part + 1) * group), block):
            pictures = min(block, min(N, (part + 1) * group) - first)
            for begin in range(0, pictures * H * W, PART):      # its pixels stay near the core meanwhile
                for tap in range(taps):
                    n, met = min(PART, count[tap] // block * pictures - begin), pairs_at + 8 * (tap * block * H * W + begin)
                    for c in range(0, C if n > 0 else 0, lanes):
                        to = work.sums + 4 * (((part * outs + o) * taps + tap) * C + c)
                        g, x = work.g + 4 * (first * H * W * outs + o), work.x + 4 * (first * H * W * C + c)
                        if rows == FEW:
                            add_few(to, g, x, met, n, 4 * taps * C, 4 * outs, 4 * C)
                        elif lanes == LANES:
                            add_long(to, g, x, met, n, 4 * taps * C, 4 * outs, 4 * C)
                        else:
                            add_square(to, g, x, met, n, 4 * taps * C, 4 * outs, 4 * C)
        task = take(work)
