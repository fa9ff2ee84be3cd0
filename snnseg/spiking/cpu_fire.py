"""The loops of the forward pass: statistics of pieces, tables [T, C] from them, spikes tile by tile. `fused_cpu` calls them in this order."""
from __future__ import annotations

import numpy as np
from numba import carray

from snnseg.spiking.cpu_kernels import ONE, ZERO, compiled, fetch, fired, fold, narrow, place, take, wide, widen

BLOCK = 64              # channels that a thread joins at a time


@compiled
def sum_about(values, row, centre, total):
    """Add each value's distance from the centre of its channel to its place in a row, four rows at a time."""
    total[:] = ZERO
    begin = 0
    while begin + 4 * row <= len(values):
        a, b = values[begin:begin + row], values[begin + row:begin + 2 * row]
        c, d = values[begin + 2 * row:begin + 3 * row], values[begin + 3 * row:begin + 4 * row]
        for i in range(row):
            m = centre[i]
            total[i] += ((wide(a[i]) - m) + (wide(b[i]) - m)) + ((wide(c[i]) - m) + (wide(d[i]) - m))
        begin += 4 * row
    while begin < len(values):
        x = values[begin:begin + row]
        for i in range(len(x)):
            total[i] += wide(x[i]) - centre[i]
        begin += row


@compiled
def squares_about(values, row, centre, total):
    """As `sum_about`, of the squares."""
    total[:] = ZERO
    begin = 0
    while begin + 4 * row <= len(values):
        a, b = values[begin:begin + row], values[begin + row:begin + 2 * row]
        c, d = values[begin + 2 * row:begin + 3 * row], values[begin + 3 * row:begin + 4 * row]
        for i in range(row):
            m = centre[i]
            p, q, r, s = wide(a[i]) - m, wide(b[i]) - m, wide(c[i]) - m, wide(d[i]) - m
            total[i] += (p * p + q * q) + (r * r + s * s)
        begin += 4 * row
    while begin < len(values):
        x = values[begin:begin + row]
        for i in range(len(x)):
            total[i] += (wide(x[i]) - centre[i]) * (wide(x[i]) - centre[i])
        begin += row


def statistics(work):
    """Mean and sum of squares about it of each channel, piece by piece of all steps."""
    work = carray(work, 1)[0]
    C, row, piece, step, T = work.channels, work.row, work.piece, work.step, work.T if work.apart else 1
    K = -(-step // piece)
    y, partial_2TKC = carray(place(work.y, work.like), T * step), carray(place(work.partial, ZERO), (2, T, K, C))
    total, centre = np.empty(row, np.float32), np.empty(row, np.float32)
    task = take(work)
    while task < T * K:
        t, k = divmod(task, K)
        first, last = k * piece, min((k + 1) * piece, step)
        values, mean, squares = y[t * step + first:t * step + last], partial_2TKC[0, t, k], partial_2TKC[1, t, k]
        for c in range(C):      # summed about the first pixel, so that a mean far from 0 costs no digits
            squares[c] = wide(values[c])
        widen(squares, C, centre)
        sum_about(values, row, centre, total)
        mean[:] = ZERO
        fold(total, C, mean)
        per_pixel = np.float32(C / (last - first))
        for c in range(C):
            mean[c] = centre[c] + mean[c] * per_pixel
        widen(mean, C, centre)
        squares_about(values, row, centre, total)
        squares[:] = ZERO
        fold(total, C, squares)
        task = take(work)


@compiled
def joined(partial_2TKC, t, steps, c, piece, step, mean, var):
    """Mean and variance of channels from c on over all pieces of `steps` steps from t on: Chan, Golub, LeVeque 1983."""
    K, C = partial_2TKC.shape[2:]
    n, pixels = len(mean), steps * step // C
    mean[:], var[:] = 0, 0
    for at in range(t, t + steps):
        for k in range(K):
            part, share = partial_2TKC[0, at, k, c:c + n], (min((k + 1) * piece, step) - k * piece) // C / pixels
            for i in range(n):
                mean[i] += np.float64(part[i]) * share
    for at in range(t, t + steps):
        for k in range(K):
            part, squares = partial_2TKC[0, at, k, c:c + n], partial_2TKC[1, at, k, c:c + n]
            share = (min((k + 1) * piece, step) - k * piece) // C / pixels
            for i in range(n):
                var[i] += np.float64(squares[i]) / pixels + share * (part[i] - mean[i]) ** 2


def tables(work):
    """Statistics from those of the pieces, or as given; scale and level of z = scale * y + level; the neuron's two numbers."""
    work = carray(work, 1)[0]
    T, C, K = work.T, work.channels, -(-work.step // work.piece)
    tables_4TC, neuron_2C = carray(place(work.tables, ZERO), (4, T, C)), carray(place(work.neuron, ZERO), (2, C))
    partial_2TKC = carray(place(work.partial, ZERO), (2, T if work.apart else 1, K, C))
    statistics_2TC = carray(place(work.statistics, ZERO), (2, T if work.per_step else 1, C))
    gamma, beta = carray(place(work.gamma, ZERO), T * C), carray(place(work.beta, ZERO), C)
    given_mean, given_var = carray(place(work.mean, ZERO), T * C), carray(place(work.var, ZERO), T * C)
    leak, threshold = carray(place(work.leak, ZERO), C), carray(place(work.threshold, ZERO), C)
    first = take(work) * BLOCK
    while first < C:
        n = min(BLOCK, C - first)
        mean, var = np.empty(n), np.empty(n)
        for t in range(T):
            if not work.given and (t == 0 or work.per_step and work.apart):
                joined(partial_2TKC, t, 1 if work.per_step else len(partial_2TKC[0]), first, work.piece, work.step, mean, var)
            for i in range(n):
                c = first + i
                m = given_mean[t * work.given_apart + c] if work.given else np.float32(mean[i])
                v = given_var[t * work.given_apart + c] if work.given else np.float32(var[i])
                scale = (gamma[t * work.gamma_apart + c] if work.gamma else ONE) * (ONE / np.sqrt(v + work.eps))
                tables_4TC[0, t, c], tables_4TC[1, t, c], tables_4TC[2, t, c] = m, v, scale
                tables_4TC[3, t, c] = (beta[c] if work.beta else ZERO) - m * scale
                if not work.given and t < statistics_2TC.shape[1]:
                    statistics_2TC[0, t, c], statistics_2TC[1, t, c] = m, v
        for c in range(first, first + n):
            neuron_2C[0, c], neuron_2C[1, c] = leak[c * work.leak_apart], threshold[c * work.threshold_apart]
        first = take(work) * BLOCK


@compiled
def fire_row(x, tables_2R, neuron_2R, soft, levels, left, spikes):
    """One step of what lies in a row; `left` is the potential after the spikes, of the step before and then of this one."""
    scale, level, leak, threshold = tables_2R[0], tables_2R[1], neuron_2R[0], neuron_2R[1]
    for i in range(len(x)):
        u = leak[i] * left[i] + (wide(x[i]) * scale[i] + level[i])      # eq. 2
        k = fired(u, threshold[i], levels)
        spikes[i] = narrow(k, spikes)
        left[i] = u - threshold[i] * k if soft else ZERO if k > ZERO else u


def fire(work):
    """The spikes, tile by tile."""
    work = carray(work, 1)[0]
    T, C, step, apart, row, tile, soft, far = work.T, work.channels, work.step, work.apart, work.row, work.tile, work.soft != 0, work.far != 0
    levels = np.float32(work.levels)
    y, spikes = carray(place(work.y, work.like), step + (T - 1) * apart), carray(place(work.out, work.like), T * step)
    tables_4TC, neuron_2C = carray(place(work.tables, ZERO), (4, T, C)), carray(place(work.neuron, ZERO), (2, C))
    first = take(work) * tile
    if first >= step:
        return
    potential, tables_T2R, neuron_2R = np.empty(tile, np.float32), np.empty((T, 2, row), np.float32), np.empty((2, row), np.float32)
    for k in range(2):
        widen(neuron_2C[k], C, neuron_2R[k])
        for t in range(T):
            widen(tables_4TC[2 + k, t], C, tables_T2R[t, k])
    while first < step:
        last, coming = min(first + tile, step), take(work) * tile
        potential[:] = ZERO
        for t in range(T):
            for begin in range(first, last, row):
                n = min(row, last - begin)
                if far:
                    fetch(y, (t + 1) * apart + begin if t + 1 < T else coming + begin - first, n)
                    fetch(spikes, (t + 1) * step + begin if t + 1 < T else coming + begin - first, n)
                fire_row(y[t * apart + begin:t * apart + begin + n], tables_T2R[t], neuron_2R, soft, levels, potential[begin - first:begin - first + n],
                         spikes[t * step + begin:t * step + begin + n])
        first = coming
