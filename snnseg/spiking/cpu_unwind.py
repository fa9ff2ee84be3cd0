"""The loops of the backward pass: potentials anew and back through time; sums of pieces joined; the norm's share taken off."""
from __future__ import annotations

import numpy as np
from numba import carray

from snnseg.spiking.cpu_kernels import ONE, ZERO, compiled, fetch, fired, fold, narrow, place, take, wide, widen

BLOCK = 64              # channels that a thread joins at a time
HALF, FOUR, SIXTEEN, PI = np.float32([0.5, 4, 16, np.pi])       # with python's floats, float32 becomes float64
E2, E3, E4, E5 = np.float32([1 / 2, 1 / 6, 1 / 24, 1 / 120])    # of the exponential series


@compiled
def slopes(kind, scale, levels, u, threshold, out):
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
    elif kind == 4:         # of integer neurons
        for i in range(n):
            m = u[i] / threshold[i] - ONE
            out[i] = scale / threshold[i] if m >= -ONE and m <= levels - ONE else ZERO
    else:
        for i in range(n):
            out[i] = scale / threshold[i] if abs(u[i] * (ONE / threshold[i]) - ONE) < HALF else ZERO


@compiled
def integrate(x, scale, level, before, neuron_2R, soft, levels, u):
    """The potential before its reset, from that of the step before."""
    leak, threshold = neuron_2R[0], neuron_2R[1]        # unpacked, they would not be known to lie in one piece
    for i in range(len(x)):
        b = before[i]
        k = fired(b, threshold[i], levels)
        left = b - threshold[i] * k if soft else ZERO if k > ZERO else b
        u[i] = leak[i] * left + (wide(x[i]) * scale[i] + level[i])


@compiled
def flow_back(g, slope, u, neuron_2R, soft, levels, inflow):
    """The gradient of z, over `slope`; `inflow` is that of what was left of u after the spike, and becomes the step before's."""
    leak, threshold = neuron_2R[0], neuron_2R[1]        # unpacked, they would not be known to lie in one piece
    for i in range(len(g)):
        b = inflow[i]
        gz = wide(g[i]) * slope[i] + (b if soft else ZERO if fired(u[i], threshold[i], levels) > ZERO else b)        # no gradient through the reset's spike
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
def collect_ends(g, slope, u, before, neuron_2R, soft, levels, inflow, ends_2R):
    """Add up what reaches leak and threshold: the threshold divides in m, and is what a soft reset takes."""
    threshold, to_leak, to_threshold = neuron_2R[1], ends_2R[0], ends_2R[1]
    for i in range(len(g)):
        k, of_u, b = fired(u[i], threshold[i], levels), wide(g[i]) * slope[i], before[i]       # 0 before the first step
        k_before = fired(b, threshold[i], levels)
        gz = of_u + (ZERO if k > ZERO and not soft else inflow[i])
        to_threshold[i] -= of_u * u[i] / threshold[i] + (inflow[i] * k if soft else ZERO)
        to_leak[i] += gz * (b - threshold[i] * k_before if soft else ZERO if k_before > ZERO else b)


def unwind(work):
    """The gradient of z, and sums over each piece: of it, alone and times (y - mean); of what reaches leak and threshold.

    With given statistics it is stored times scale, which makes it y's.
    """
    work = carray(work, 1)[0]
    T, C, step, apart, g_apart, row, tile, piece = work.T, work.channels, work.step, work.apart, work.g_apart, work.row, work.tile, work.piece
    K, soft, learned, scaled, far = -(-step // piece), work.soft != 0, work.learned != 0, work.given != 0, work.far != 0
    levels = np.float32(work.levels)
    y, g = carray(place(work.y, work.like), step + (T - 1) * apart), carray(place(work.g, work.like), step + (T - 1) * g_apart)
    grad, tables_4TC = carray(place(work.out, work.like), T * step), carray(place(work.tables, ZERO), (4, T, C))
    neuron_2C = carray(place(work.neuron, ZERO), (2, C))
    sums_2TKC, ends_2KC = carray(place(work.sums, ZERO), (2, T, K, C)), carray(place(work.ends, ZERO), (2, K, C))
    k = take(work)
    if k >= K:
        return
    potentials, inflow, steep = np.empty((T + 1, tile), np.float32), np.empty(tile, np.float32), np.empty(row, np.float32)
    sums, ends = np.empty((2, T, row), np.float32), np.empty((2, row), np.float32)
    tables_3TR, neuron_2R = np.empty((3, T, row), np.float32), np.empty((2, row), np.float32)
    for t in range(T):
        widen(tables_4TC[0, t], C, tables_3TR[0, t])
        widen(tables_4TC[2, t], C, tables_3TR[1, t])
        widen(tables_4TC[3, t], C, tables_3TR[2, t])
    widen(neuron_2C[0], C, neuron_2R[0])
    widen(neuron_2C[1], C, neuron_2R[1])
    while k < K:
        sums[:], ends[:] = ZERO, ZERO
        for first in range(k * piece, min((k + 1) * piece, step), tile):
            last = min(first + tile, step)
            potentials[0], inflow[:] = ZERO, ZERO
            for t in range(T):
                for begin in range(first, last, row):
                    n, at = min(row, last - begin), begin - first
                    if far:
                        if t + 1 < T:
                            fetch(y, (t + 1) * apart + begin, n)
                        else:
                            fetch(g, t * g_apart + begin, n)
                            fetch(grad, t * step + begin, n)
                    integrate(y[t * apart + begin:t * apart + begin + n], tables_3TR[1, t], tables_3TR[2, t], potentials[t, at:at + n],
                              neuron_2R, soft, levels, potentials[t + 1, at:at + n])
            for t in range(T - 1, -1, -1):
                for begin in range(first, last, row):
                    n, at = min(row, last - begin), begin - first
                    if far:
                        if t:
                            fetch(g, (t - 1) * g_apart + begin, n)
                            fetch(grad, (t - 1) * step + begin, n)
                        else:
                            fetch(y, begin + tile, n)
                    gs, p, u, back = g[t * g_apart + begin:t * g_apart + begin + n], steep[:n], potentials[t + 1, at:at + n], inflow[at:at + n]
                    slopes(work.kind, work.slope, levels, u, neuron_2R[1], p)
                    if learned:
                        collect_ends(gs, p, u, potentials[t, at:at + n], neuron_2R, soft, levels, back, ends)
                    flow_back(gs, p, u, neuron_2R, soft, levels, back)
                    collect(p, y[t * apart + begin:t * apart + begin + n], tables_3TR[0, t], tables_3TR[1, t], scaled, sums[0, t], sums[1, t],
                            grad[t * step + begin:t * step + begin + n])
        for j in range(2):
            ends_2KC[j, k] = ZERO
            fold(ends[j], C, ends_2KC[j, k])
            for t in range(T):
                sums_2TKC[j, t, k] = ZERO
                fold(sums[j, t], C, sums_2TKC[j, t, k])
        k = take(work)


@compiled
def added(part_KC, first, total):
    """Sums over all pieces of channels from `first` on."""
    total[:] = 0
    for k in range(len(part_KC)):
        part = part_KC[k, first:first + len(total)]
        for i in range(len(part)):
            total[i] += part[i]


def join(work):
    """Gradients of gamma, beta, leak and threshold from the sums of the pieces, and what `undo_norm` takes off that of z."""
    work = carray(work, 1)[0]
    T, C, K = work.T, work.channels, -(-work.step // work.piece)
    sums_2TKC, ends_2KC = carray(place(work.sums, ZERO), (2, T, K, C)), carray(place(work.ends, ZERO), (2, K, C))
    var_TC, undoing_2TC = carray(place(work.tables, ZERO), (4, T, C))[1], carray(place(work.undoing, ZERO), (2, T, C))
    norm_2TC, neuron_2C = carray(place(work.found, ZERO), (2, T, C)), carray(place(work.found, ZERO), (2 * T + 2, C))[2 * T:]
    first = take(work) * BLOCK
    while first < C:
        n = min(BLOCK, C - first)
        total, whole = np.empty((2, T, n)), np.zeros((2, n))
        for t in range(T):
            for j in range(2):
                added(sums_2TKC[j, t], first, total[j, t])
                whole[j] += total[j, t]
            for i in range(n):
                norm_2TC[0, t, first + i] = total[1, t, i] / np.sqrt(var_TC[t, first + i] + work.eps)
                norm_2TC[1, t, first + i] = total[0, t, i]
        if not work.given:
            for t in range(T):
                alone, moment = (total[0, t], total[1, t]) if work.per_step else (whole[0], whole[1])
                for i in range(n):
                    undoing_2TC[0, t, first + i] = alone[i] / work.count
                    undoing_2TC[1, t, first + i] = moment[i] / work.count / (var_TC[t, first + i] + work.eps)
        if work.learned:
            for j in range(2):
                added(ends_2KC[j], first, whole[j])
                for i in range(n):
                    neuron_2C[j, first + i] = whole[j, i]
        first = take(work) * BLOCK


@compiled
def undo_row(x, tables_4R, gz, over):
    """The gradient of z becomes that of y, in place or over y: less its mean, and less what of it follows (y - mean)."""
    mean, scale, shift, tilt = tables_4R[0], tables_4R[1], tables_4R[2], tables_4R[3]
    if over:        # twice, as memory that may be either would keep the loop from running in vectors
        for i in range(len(x)):
            x[i] = narrow(scale[i] * (wide(gz[i]) - shift[i] - (wide(x[i]) - mean[i]) * tilt[i]), x)
    else:
        for i in range(len(x)):
            gz[i] = narrow(scale[i] * (wide(gz[i]) - shift[i] - (wide(x[i]) - mean[i]) * tilt[i]), gz)


def undo_norm(work):
    """What the statistics have of the gradient is taken off it, piece by piece of all steps."""
    work = carray(work, 1)[0]
    T, C, step, apart, row, piece, K = work.T, work.channels, work.step, work.apart, work.row, work.piece, -(-work.step // work.piece)
    y, grad = carray(place(work.y, work.like), step + (T - 1) * apart), carray(place(work.out, work.like), T * step)
    tables_4TC, undoing_2TC = carray(place(work.tables, ZERO), (4, T, C)), carray(place(work.undoing, ZERO), (2, T, C))
    tables_4R, widened, over = np.empty((4, row), np.float32), -1, work.over != 0
    task = take(work)
    while task < T * K:
        t, k = divmod(task, K)
        if t != widened:
            widened = t
            widen(tables_4TC[0, t], C, tables_4R[0])
            widen(tables_4TC[2, t], C, tables_4R[1])
            widen(undoing_2TC[0, t], C, tables_4R[2])
            widen(undoing_2TC[1, t], C, tables_4R[3])
        for begin in range(k * piece, min((k + 1) * piece, step), row):
            n = min(row, step - begin)
            undo_row(y[t * apart + begin:t * apart + begin + n], tables_4R, grad[t * step + begin:t * step + begin + n], over)
        task = take(work)
