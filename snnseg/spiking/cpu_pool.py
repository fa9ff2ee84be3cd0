"""The loops of the average pool on a CPU: of spikes kept as bits, and its gradient, a row of pixels at a time.

A pixel (i, j) of the pool covers rows 2 i - 1 to 2 i + 1 and columns 2 j - 1 to 2 j + 1 of the map; what lies outside counts as 0. Of
eight channels the bits of up to nine pixels are added up as eight bytes of one word.
"""
from __future__ import annotations

import numpy as np
from numba import carray

from snnseg.spiking.cpu_kernels import compiled, narrow, place, take, wide

NONE = np.uint8(0)
NUMBERS, ADDRESSES = "pictures height width channels", "spikes y g out"
SPREAD = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(np.uint8).view(np.uint64)[:, 0]   # eight bits as eight bytes
NINE = np.float32(9)


def of_bits(work):
    """y [pictures, (height + 1) // 2, (width + 1) // 2, channels] of packed spikes."""
    work = carray(work, 1)[0]
    N, H, W, C = work.pictures, work.height, work.width, work.channels
    rows, columns, words = (H + 1) // 2, (W + 1) // 2, C // 8
    bits, y = carray(place(work.spikes, NONE), N * H * W * words), carray(place(work.y, work.like), N * rows * columns * C)
    counts = np.empty(words, np.uint64)
    task = take(work)
    while task < N * rows:
        n, i = divmod(task, rows)
        for j in range(columns):
            counts[:] = 0
            for h in range(max(0, 2 * i - 1), min(H, 2 * i + 2)):
                for w in range(max(0, 2 * j - 1), min(W, 2 * j + 2)):
                    begin = ((n * H + h) * W + w) * words
                    pixel = bits[begin:begin + words]
                    for k in range(words):
                        counts[k] += SPREAD[pixel[k]]
            of_channels, begin = counts.view(np.uint8), ((n * rows + i) * columns + j) * C
            out = y[begin:begin + C]
            for c in range(C):
                out[c] = narrow(np.float32(of_channels[c]) / NINE, out)
        task = take(work)


@compiled
def spread(a, b, c, d, terms, out):
    """A ninth of the sum of one, two or four rows."""
    if terms == 1:
        for i in range(len(out)):
            out[i] = narrow(wide(a[i]) / NINE, out)
    elif terms == 2:
        for i in range(len(out)):
            out[i] = narrow((wide(a[i]) + wide(b[i])) / NINE, out)
    else:
        for i in range(len(out)):
            out[i] = narrow(((wide(a[i]) + wide(b[i])) + (wide(c[i]) + wide(d[i]))) / NINE, out)


def backward(work):
    """The gradient [pictures, height, width, channels] of the map from that of the pool, g."""
    work = carray(work, 1)[0]
    N, H, W, C = work.pictures, work.height, work.width, work.channels
    rows, columns = (H + 1) // 2, (W + 1) // 2
    g, out = carray(place(work.g, work.like), N * rows * columns * C), carray(place(work.out, work.like), N * H * W * C)
    task = take(work)
    while task < N * H:
        n, h = divmod(task, H)
        top, bottom = h // 2, min((h + 1) // 2, rows - 1)       # an odd row lies under two of the pool's, the last but under one
        for w in range(W):
            left, right = w // 2, min((w + 1) // 2, columns - 1)
            first, last = (n * rows + top) * columns, (n * rows + bottom) * columns
            a, d = g[(first + left) * C:(first + left + 1) * C], g[(last + right) * C:(last + right + 1) * C]
            b, c = g[(first + right) * C:(first + right + 1) * C], g[(last + left) * C:(last + left + 1) * C]
            begin = ((n * H + h) * W + w) * C
            terms = (1 + (top < bottom)) * (1 + (left < right))
            spread(a, b if left < right else c, c, d, terms, out[begin:begin + C])
        task = take(work)
