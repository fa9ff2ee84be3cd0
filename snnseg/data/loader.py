"""Shuffled batches from a split in memory.

The order of an epoch follows from (seed, epoch), so a training that resumes in the middle of an epoch sees the pictures
it has not seen yet, in the order it would have seen them.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from snnseg import seeds
from snnseg.data.store import Split


@dataclass(frozen=True)
class Batch:
    """index i8 [B] in the split, input u8 [B,H,W,3] or f32 [B,T,2,H,W] (frames of events), mask u8 [B,H,W]."""

    index_B: np.ndarray
    input: np.ndarray
    mask_BHW: np.ndarray


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which epoch `epoch` shows `count` pictures: i8 [count]."""
    return seeds.generator("order", seed, epoch).permutation(count)


def batches(split: Split, size: int, order: np.ndarray | None = None, start: int = 0) -> Iterator[Batch]:
    """Batches of `size` in `order` (as stored, if none), beginning with batch number `start`. The last may be smaller."""
    order = np.arange(len(split)) if order is None else order
    for first in range(start * size, len(order), size):
        index = order[first : first + size]
        yield Batch(index, *split.take(index))
