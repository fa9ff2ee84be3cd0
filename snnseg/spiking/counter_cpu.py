"""`counter.uniforms` on the CPU, and spikes drawn with them, compiled by numba; no tensor of numbers lies between the two.

One core makes two to three thousand million numbers a second (AVX-512): some thousandths of a training step, so one thread does it.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from snnseg.spiking.counter import MULTIPLIERS, ROUNDS, STEPS, UNIT, WEYL, WORD
from snnseg.spiking.cpu_kernels import called

M0, M1, W0, W1, MASK, HALF, SPARE = map(np.uint64, (*MULTIPLIERS, *WEYL, WORD, 32, 8))
ZERO, ONE, SCALE = np.float32([0, 1, UNIT])     # with python's floats, float32 becomes float64
NUMBERS, POISSON, SIGNED = range(3)


@called
def numbers(key, turn, out_0, out_1, out_2, out_3):
    """The numbers of four time steps at positions 0, 1, ...; words are kept in 64 bits, so that the loop runs in vectors."""
    for i in range(len(out_0)):
        c0, c1, c2, c3 = np.uint64(i), turn, np.uint64(0), np.uint64(0)
        k0, k1 = key & MASK, key >> HALF
        for _ in range(ROUNDS):
            a, b = M0 * c0, M1 * c2
            c0, c1, c2, c3 = (b >> HALF) ^ c1 ^ k0, b & MASK, (a >> HALF) ^ c3 ^ k1, a & MASK
            k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
        out_0[i] = np.float32(np.uint32(c0 >> SPARE)) * SCALE
        out_1[i] = np.float32(np.uint32(c1 >> SPARE)) * SCALE
        out_2[i] = np.float32(np.uint32(c2 >> SPARE)) * SCALE
        out_3[i] = np.float32(np.uint32(c3 >> SPARE)) * SCALE


@called
def draw(out_TBS, x_BS, key_B, first, kind):
    """Fill out with the numbers of steps first, first + 1, ... or with the spikes that they make of x."""
    T, B, S = out_TBS.shape
    unasked = np.empty(S, np.float32)       # for the steps of a counter that lie outside the stretch
    for b in range(B):
        for turn in range(first // STEPS, (first + T + STEPS - 1) // STEPS):
            t = turn * STEPS - first
            rows = [out_TBS[k, b] if 0 <= k < T else unasked for k in range(t, t + STEPS)]
            numbers(key_B[b], np.uint64(turn), rows[0], rows[1], rows[2], rows[3])
            for row in rows:
                if kind == POISSON:
                    for i in range(S):
                        row[i] = ONE if row[i] < x_BS[b, i] else ZERO
                elif kind == SIGNED:
                    for i in range(S):
                        x = x_BS[b, i]
                        row[i] = (ONE if x > ZERO else -ONE if x < ZERO else ZERO) if row[i] <= abs(x) else ZERO


def uniforms(key_B: Tensor, first: int, last: int, shape_CHW: Sequence[int]) -> Tensor:
    """As `counter.uniforms`."""
    out = torch.empty(last - first, len(key_B), *shape_CHW)
    draw(out.flatten(2).numpy(), np.empty((len(key_B), 0), np.float32), key_B.numpy().view(np.uint64), first, NUMBERS)
    return out


def spikes(x_BCHW: Tensor, key_B: Tensor, first: int, last: int, signed: bool) -> Tensor:
    """As `encode.poisson` or `encode.signed_poisson` of x, float32, and the numbers of steps first to last."""
    out = torch.empty(last - first, *x_BCHW.shape)
    draw(out.flatten(2).numpy(), x_BCHW.reshape(len(x_BCHW), math.prod(x_BCHW.shape[1:])).numpy(), key_B.numpy().view(np.uint64), first,
         SIGNED if signed else POISSON)
    return out
