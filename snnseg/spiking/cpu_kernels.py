"""Loops of norm + leaky integrate-and-fire, compiled by numba at their first call; `snnseg.spiking.fused_cpu` calls them.

Memory is [T, step]: the values of a time step lie together, channels last. It is walked in rows of `row` values, whole pixels
each, so a table widened to [T, row] meets its channel at the same place in every row and the loops run in vectors whatever
C is. A tile is some rows that go through all T while they are in the first cache; a piece is some tiles that share a partial
sum. float32, or bfloat16 as uint16; the arithmetic is float32 and in the order of the plain form, without fused multiply-add.
"""
from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

ZERO, HALF, ONE, FOUR, SIXTEEN, PI = np.float32([0, 0.5, 1, 4, 16, np.pi])      # with python's floats, float32 becomes float64
E2, E3, E4, E5 = np.float32([1 / 2, 1 / 6, 1 / 24, 1 / 120])                    # of the exponential series


def compiled(function):
    """Compiled at the first call, some seconds; kept on disk for other processes, where there is a place that can be written."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:        # neither beside this file nor in the home folder
        return njit(nogil=True, error_model="numpy")(function)


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
def fold(row, channels, out):
    """Add up a row's pixels channel by channel; numba's indices may be negative, so views come first."""
    for first in range(0, len(row), channels):
        part = row[first:first + channels]
        for c in range(channels):
            out[c] += part[c]


@compiled
def statistics(y, T, step, row, piece, partial_2TKC, worker, workers):
    """Mean and sum of squares about it of each channel, for pieces worker, worker + workers, ... of all steps."""
    K, C = partial_2TKC.shape[2:]
    total, centre = np.empty(row, np.float32), np.empty(row, np.float32)
    for task in range(worker, T * K, workers):
        t, k = divmod(task, K)
        first, last = k * piece, min((k + 1) * piece, step)
        mean, squares = partial_2TKC[0, t, k], partial_2TKC[1, t, k]
        values = y[t * step + first:t * step + last]
        total[:] = ZERO
        for begin in range(0, row, C):      # summed about the first pixel, so that a mean far from 0 costs no digits
            for c in range(C):
                centre[begin + c] = wide(values[c])
        for begin in range(0, len(values), row):
            x = values[begin:begin + row]
            s, m = total[:len(x)], centre[:len(x)]
            for i in range(len(x)):
                s[i] += wide(x[i]) - m[i]
        mean[:] = ZERO
        fold(total, C, mean)
        per_pixel = np.float32(C / (last - first))
        for c in range(C):
            mean[c] = centre[c] + mean[c] * per_pixel
        for begin in range(0, row, C):
            centre[begin:begin + C] = mean
        total[:] = ZERO
        for begin in range(0, len(values), row):
            x = values[begin:begin + row]
            s, m = total[:len(x)], centre[:len(x)]
            for i in range(len(x)):
                s[i] += (wide(x[i]) - m[i]) * (wide(x[i]) - m[i])
        squares[:] = ZERO
        fold(total, C, squares)


@compiled
def fire(y, T, step, apart, row, tile, tables_2TR, neuron_2R, soft, spikes, worker, workers):
    """The spikes of tiles worker, worker + workers, ...; z = scale * y + level."""
    potential = np.empty(tile, np.float32)
    for first in range(worker * tile, step, workers * tile):
        last = min(first + tile, step)
        potential[:] = ZERO
        for t in range(T):
            for begin in range(first, last, row):
                n = min(row, last - begin)
                x, s, v = y[t * apart + begin:t * apart + begin + n], spikes[t * step + begin:t * step + begin + n], potential[begin - first:begin - first + n]
                scale, level, leak, threshold = tables_2TR[0, t, :n], tables_2TR[1, t, :n], neuron_2R[0, :n], neuron_2R[1, :n]
                for i in range(n):
                    u = leak[i] * v[i] + (wide(x[i]) * scale[i] + level[i])         # eq. 2
                    fired = u > threshold[i]                                        # eq. 3
                    s[i] = narrow(ONE if fired else ZERO, s)
                    v[i] = (u - threshold[i] if soft else ZERO) if fired else u


@compiled
def slopes(kind, scale, u, threshold, out):
    """Slope of a surrogate (surrogate.py) by u, where m = u / threshold - 1. NaN stays NaN."""
    n = len(u)
    if kind == 0:
        for i in range(n):
            m = abs(u[i] * (ONE / threshold[i]) - ONE)
            out[i] = ZERO if m > ONE else scale * (ONE - m) * (ONE / threshold[i])
    elif kind == 1:
        for i in range(n):
            m = PI * (u[i] * (ONE / threshold[i]) - ONE)
            out[i] = scale / ((ONE + m * m) * threshold[i])
    elif kind == 2:         # 4 s (1 - s) = 4 e / (1 + e)^2 with e = exp(-4 |m|); libm's exp would take one value at a time
        for i in range(n):
            r = -abs(u[i] * (ONE / threshold[i]) - ONE) / SIXTEEN
            r = -ONE if r < -ONE else r
            e = ONE + r * (ONE + r * (E2 + r * (E3 + r * (E4 + r * E5))))
            for _ in range(6):      # exp(64 r), to 4e-6
                e *= e
            out[i] = scale * FOUR * e / ((ONE + e) * (ONE + e) * threshold[i])
    else:
        for i in range(n):
            out[i] = scale / threshold[i] if abs(u[i] * (ONE / threshold[i]) - ONE) < HALF else ZERO


@compiled
def integrate(x, scale, level, before, neuron_2R, soft, u):
    """The potential before its reset, from that of the step before."""
    leak, threshold = neuron_2R[0], neuron_2R[1]        # unpacked, they would not be known to lie in one piece
    for i in range(len(x)):
        b = before[i]
        left = (b - threshold[i] if soft else ZERO) if b > threshold[i] else b
        u[i] = leak[i] * left + (wide(x[i]) * scale[i] + level[i])


@compiled
def flow_back(g, slope, u, neuron_2R, soft, inflow):
    """The gradient of z, over `slope`; `inflow` is that of what was left of u after the spike, and becomes the step before's."""
    leak, threshold = neuron_2R[0], neuron_2R[1]        # unpacked, they would not be known to lie in one piece
    for i in range(len(g)):
        b = inflow[i]
        gz = wide(g[i]) * slope[i] + (b if soft else ZERO if u[i] > threshold[i] else b)        # no gradient through the reset's spike
        inflow[i] = leak[i] * gz
        slope[i] = gz


@compiled
def collect(gz, x, mean, scale, scaled, alone, moment, out):
    """Add up the gradient of z, alone and times (y - mean), and store it; `scaled`: times scale."""
    for i in range(len(gz)):
        g = gz[i]
        alone[i] += g
        moment[i] += g * (wide(x[i]) - mean[i])
        out[i] = narrow(g * (scale[i] if scaled else ONE), out)


@compiled
def collect_ends(g, slope, u, before, neuron_2R, soft, inflow, ends_2R):
    """Add up what reaches leak and threshold: the threshold divides in m, and is what a soft reset takes."""
    threshold, to_leak, to_threshold = neuron_2R[1], ends_2R[0], ends_2R[1]
    for i in range(len(g)):
        fired, of_u, b = u[i] > threshold[i], wide(g[i]) * slope[i], before[i]       # 0 before the first step
        gz = of_u + (ZERO if fired and not soft else inflow[i])
        to_threshold[i] -= of_u * u[i] / threshold[i] + (inflow[i] if soft and fired else ZERO)
        to_leak[i] += gz * ((b - threshold[i] if soft else ZERO) if b > threshold[i] else b)


@compiled
def unwind(y, g, T, step, apart, g_apart, row, tile, piece, tables_3TR, neuron_2R, soft, kind, slope, learned, scaled, grad, sums_K2TC, ends_K2C,
           worker, workers):
    """The gradient of z, and sums over each piece: of it, alone and times (y - mean); of what reaches leak and threshold.

    `scaled`: times scale, which makes it y's where the statistics are given.
    """
    K, C = len(sums_K2TC), sums_K2TC.shape[3]
    potentials, inflow = np.empty((T + 1, tile), np.float32), np.empty(tile, np.float32)
    sums, ends, steep = np.empty((2, T, row), np.float32), np.empty((2, row), np.float32), np.empty(row, np.float32)
    for k in range(worker, K, workers):
        sums[:], ends[:] = ZERO, ZERO
        for first in range(k * piece, min((k + 1) * piece, step), tile):
            last = min(first + tile, step)
            potentials[0], inflow[:] = ZERO, ZERO
            for t in range(T):
                for begin in range(first, last, row):
                    n, at = min(row, last - begin), begin - first
                    integrate(y[t * apart + begin:t * apart + begin + n], tables_3TR[1, t], tables_3TR[2, t], potentials[t, at:at + n],
                              neuron_2R, soft, potentials[t + 1, at:at + n])
            for t in range(T - 1, -1, -1):
                for begin in range(first, last, row):
                    n, at = min(row, last - begin), begin - first
                    gs, p, u, back = g[t * g_apart + begin:t * g_apart + begin + n], steep[:n], potentials[t + 1, at:at + n], inflow[at:at + n]
                    slopes(kind, slope, u, neuron_2R[1], p)
                    if learned:
                        collect_ends(gs, p, u, potentials[t, at:at + n], neuron_2R, soft, back, ends)
                    flow_back(gs, p, u, neuron_2R, soft, back)
                    collect(p, y[t * apart + begin:t * apart + begin + n], tables_3TR[0, t], tables_3TR[1, t], scaled, sums[0, t], sums[1, t],
                            grad[t * step + begin:t * step + begin + n])
        sums_K2TC[k], ends_K2C[k] = ZERO, ZERO
        for t in range(T):
            fold(sums[0, t], C, sums_K2TC[k, 0, t])
            fold(sums[1, t], C, sums_K2TC[k, 1, t])
        fold(ends[0], C, ends_K2C[k, 0])
        fold(ends[1], C, ends_K2C[k, 1])


@compiled
def undo_norm(y, T, step, apart, row, piece, tables_4TR, grad, worker, workers):
    """The gradient of z becomes that of y, in place: less its mean, and less what of it follows (y - mean)."""
    K = -(-step // piece)
    for task in range(worker, T * K, workers):
        t, k = divmod(task, K)
        mean, scale, shift, tilt = tables_4TR[0, t], tables_4TR[1, t], tables_4TR[2, t], tables_4TR[3, t]
        for begin in range(k * piece, min((k + 1) * piece, step), row):
            n = min(row, step - begin)
            x, out = y[t * apart + begin:t * apart + begin + n], grad[t * step + begin:t * step + begin + n]
            a, b, c, d = mean[:n], scale[:n], shift[:n], tilt[:n]
            for i in range(n):
                out[i] = narrow(b[i] * (wide(out[i]) - c[i] - (wide(x[i]) - a[i]) * d[i]), out)


PACKED = 2**14                      # spikes that a thread packs at a time
GATHER = np.uint64(0x0102040810204080)  # times eight bytes of 0 or 1, their bits meet in the highest byte


@compiled
def pack(x, bits, worker, workers):
    """Eight values of x to a byte, the first to its lowest bit."""
    row = np.zeros(PACKED, np.uint8)
    words = row.view(np.uint64)
    for first in range(worker * PACKED, len(x), workers * PACKED):
        values = x[first:first + PACKED]
        for i in range(len(values)):
            row[i] = np.uint8(1) if values[i] != 0 else np.uint8(0)
        row[len(values):] = 0
        out = bits[first // 8:first // 8 + (len(values) + 7) // 8]
        for i in range(len(out)):
            out[i] = np.uint8((words[i] * GATHER) >> np.uint64(56))


@compiled
def unpack(bits, x, worker, workers):
    """0 and 1 from bits."""
    row = np.empty((PACKED // 8, 8), x.dtype)
    flat = row.reshape(PACKED)
    for first in range(worker * PACKED, len(x), workers * PACKED):
        values = x[first:first + PACKED]
        part = bits[first // 8:first // 8 + (len(values) + 7) // 8]
        for i in range(len(part)):
            for k in range(8):
                row[i, k] = narrow(ONE if (part[i] >> np.uint8(k)) & np.uint8(1) else ZERO, flat)
        values[:] = flat[:len(values)]
