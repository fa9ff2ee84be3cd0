"""Shuffled batches from a split in memory.

The order of an epoch follows from (seed, epoch), so a training that resumes in the middle of an epoch sees the pictures
it has not seen yet, in the order it would have seen them.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from snnseg import seeds
from snnseg.data.store import Split
from snnseg.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Batch:
    """index i8 [B] in the split, input u8 [B,H,W,3] or f32 [B,T,2,H,W] (frames of events), mask u8 [B,H,W].

    `moves_3B` i8 is how `augment` changes each sample, if it does and has not yet; `key_B` i8 are the keys that rate coding draws
    from (`models.inputs`), where they are known already. Arrays of numpy, but for the index, become tensors of the same shapes
    and types on their way to the device (`models.feed`). `whole_B` are the indices of the batch that this is a rank's slice of.
    """

    index_B: np.ndarray
    input: Any
    mask_BHW: Any
    moves_3B: Any = None
    key_B: Any = None
    whole_B: np.ndarray | None = None

    @property
    def all_B(self) -> np.ndarray:
        """The indices that all ranks together have in this step."""
        return self.index_B if self.whole_B is None else self.whole_B


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order in which epoch `epoch` shows `count` pictures: i8 [count]."""
    return seeds.generator("order", seed, epoch).permutation(count)


def batches(split: Split, size: int, order: np.ndarray | None = None, start: int = 0, ranks: Ranks = ALONE) -> Iterator[Batch]:
    """Batches of `size` in `order` (as stored, if none), beginning with batch number `start`. The last may be smaller.

    Of each, this rank's slice: the number of ranks does not change what is in a batch.
    """
    order = np.arange(len(split)) if order is None else order
    for first in range(start * size, len(order), size):
        whole = order[first : first + size]
        index = whole[ranks.slice(len(whole))]
        yield Batch(index, *split.take(index), whole_B=None if ranks.alone else whole)
