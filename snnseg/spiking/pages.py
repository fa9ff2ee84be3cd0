"""Memory for large tensors of the loops on a CPU, from the beginning of a huge page on.

Where freed memory goes back to the system at once, each large tensor is made of fresh pages. torch asks for huge ones (`THP_MEM_ALLOC_ENABLE`),
but begins its tensors at any small page: up to 2 MiB at their ends then come 4 KiB at a time, half of what 20 MiB cost.
"""
from __future__ import annotations

import os

import torch
from torch import Tensor

HUGE = 2**21            # bytes of a huge page
WORTH = 4 * HUGE        # bytes from which on: of a smaller tensor, the end of its last page would count
SWITCH = "THP_MEM_ALLOC_ENABLE"     # torch's own


def empty(values: int, dtype: torch.dtype) -> Tensor:
    """[values], not filled, in main memory. Where huge pages are asked for, it may be a part of up to 2 MiB more, which are not touched."""
    if values * dtype.itemsize < WORTH or os.environ.get(SWITCH) != "1":
        return torch.empty(values, dtype=dtype)
    more = torch.empty(values + HUGE // dtype.itemsize, dtype=dtype)
    first = -more.data_ptr() % HUGE // dtype.itemsize
    return more[first:first + values]


def empty_NCHW(pictures: int, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """[N, C, H, W], channels last."""
    return empty(pictures * channels * height * width, dtype).view(pictures, height, width, channels).permute(0, 3, 1, 2)
