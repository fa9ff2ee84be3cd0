"""How loops over events and pixels are compiled: at the first call, some seconds, and kept on disk for other processes."""
from __future__ import annotations

from collections.abc import Callable

from numba import njit


def compiled(function: Callable) -> Callable:
    """`function` by numba, without Python's lock. What it calls has to be in its own file: while that is the same, numba takes what it kept for fresh."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:        # neither beside its file nor in the home folder
        return njit(nogil=True)(function)
