"""The loops of `bits`: spikes to bits and back, page by page."""
from __future__ import annotations

import numpy as np
from numba import carray

from snnseg.spiking.cpu_kernels import ONE, ZERO, narrow, place, take

PAGE = 2**14                            # spikes that a thread takes at a time
GATHER = np.uint64(0x0102040810204080)  # times eight bytes of 0 or 1, their bits meet in the highest byte
NONE = np.uint8(0)


def pack(work):
    """Eight values of y to a byte of out, the first to its lowest bit."""
    work = carray(work, 1)[0]
    x, bits = carray(place(work.y, work.like), work.step), carray(place(work.out, NONE), (work.step + 7) // 8)
    page = np.empty(PAGE, np.uint8)
    words = page.view(np.uint64)
    first = take(work) * PAGE
    while first < len(x):
        values = x[first:first + PAGE]
        for i in range(len(values)):
            page[i] = np.uint8(1) if values[i] != 0 else NONE
        page[len(values):] = 0
        out = bits[first // 8:first // 8 + (len(values) + 7) // 8]
        for i in range(len(out)):
            out[i] = np.uint8((words[i] * GATHER) >> np.uint64(56))
        first = take(work) * PAGE


def unpack(work):
    """The bits of y as 0 and 1 of out."""
    work = carray(work, 1)[0]
    bits, x = carray(place(work.y, NONE), (work.step + 7) // 8), carray(place(work.out, work.like), work.step)
    page = np.empty((PAGE // 8, 8), x.dtype)
    flat = page.reshape(PAGE)
    first = take(work) * PAGE
    while first < len(x):
        values = x[first:first + PAGE]
        part = bits[first // 8:first // 8 + (len(values) + 7) // 8]
        for i in range(len(part)):
            for k in range(8):
                page[i, k] = narrow(ONE if (part[i] >> np.uint8(k)) & np.uint8(1) else ZERO, flat)
        values[:] = flat[:len(values)]
        first = take(work) * PAGE
