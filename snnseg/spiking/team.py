"""Compiled loops on torch's own threads: they are awake after a convolution, and no second set of threads asks for the same cores.

Each thread calls the loop with the same record and takes tasks from the counter in its first field until none is left: who comes
late finds nothing to do. The threads are asked for through `GOMP_parallel`, the door of the OpenMP library that torch brings (LLVM's
and Intel's have it, too). Where there is none, and in a forked process, which has lost them, Python's threads take their place.
"""
from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch

STORED = {torch.float32: ctypes.c_float, torch.bfloat16: ctypes.c_uint16}       # what loops see of a tensor
SMALL = 2**15           # values: fewer are done before a second thread has begun
STARTED_AS = os.getpid()


class Loop(Protocol):
    """What numba makes of a function for C: its address, and itself for Python, without the interpreter's lock."""

    address: int
    ctypes: Callable[[int], None]


@functools.cache
def openmp() -> Callable[[int, int, int, int], None] | None:
    """Have the function at an address called with a pointer by so many threads, this one included; back when all are."""
    try:
        door = ctypes.CDLL(torch._C.__file__).GOMP_parallel
    except (OSError, AttributeError):
        return None
    door.argtypes, door.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return door


@functools.cache
def pool(process: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process has none of its parent's and so makes its own."""
    return ThreadPoolExecutor(os.cpu_count(), "norm-and-fire")


def together(loop: Loop, work: ctypes.Structure, values: int) -> None:
    """Have a loop's tasks done by as many threads as torch may use, or by this one alone where there is little to do."""
    work.taken, address = 0, ctypes.addressof(work)
    threads = torch.get_num_threads() if values >= SMALL else 1
    if threads == 1:
        loop.ctypes(address)
    elif os.getpid() == STARTED_AS and (door := openmp()):
        door(loop.address, address, threads, 0)
    else:
        others = [pool(os.getpid()).submit(loop.ctypes, address) for _ in range(threads - 1)]
        try:
            loop.ctypes(address)
        finally:
            for other in others:
                if not other.cancel():      # who has not begun would find nothing to do
                    other.result()
