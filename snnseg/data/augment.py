"""Augmentation of a batch: mirror and shift, each sample's draw from (seed, epoch, sample index).

What is drawn is kept apart from its doing: `applied` moves pixels in main memory and is the oracle of `models.moves`, which
does it on the device.
"""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from snnseg import seeds
from snnseg.data.loader import Batch
from snnseg.data.store import VOID


def moved(image_HWC: np.ndarray, mask_HW: np.ndarray, down: int, right: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture [H,W,...] and mask moved by whole pixels; what comes in from outside is black (no events) and void."""
    image, mask = np.zeros_like(image_HWC), np.full_like(mask_HW, VOID)
    height, width = mask_HW.shape
    to = (slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0)))
    of = (slice(max(-down, 0), height + min(-down, 0)), slice(max(-right, 0), width + min(-right, 0)))
    image[to], mask[to] = image_HWC[of], mask_HW[of]
    return image, mask


def applied(batch: Batch) -> Batch:
    """The batch with its moves made: the mirror first, then the shift. Without moves, itself."""
    if batch.moves_3B is None:
        return batch
    inputs, masks = np.empty_like(batch.input), np.empty_like(batch.mask_BHW)
    before, after = (np.moveaxis(x, (3, 4), (1, 2)) if x.ndim == 5 else x for x in (batch.input, inputs))   # views: height and width first
    for k, (mirror, down, right) in enumerate(batch.moves_3B.T.tolist()):
        image, mask = (x[k, :, ::-1] if mirror else x[k] for x in (before, batch.mask_BHW))
        after[k], masks[k] = moved(image, mask, down, right)
    return replace(batch, input=inputs, mask_BHW=masks, moves_3B=None)


@dataclass(frozen=True)
class Augment:
    """Mirror half of the pictures (`flip`) and move each by up to `shift` pixels both ways."""

    flip: bool = False
    shift: int = 0

    def drawn(self, batch: Batch, seed: int, epoch: int) -> Batch:
        """The batch with its moves named, i8 [3, B]: whether mirrored, pixels down, pixels right; itself where there are none."""
        if not self.flip and not self.shift:
            return batch
        moves_3B = np.empty((3, len(batch.index_B)), np.int64)
        for k, index in enumerate(batch.index_B):
            rng = seeds.generator("augment", seed, epoch, index)
            moves_3B[0, k], moves_3B[1:, k] = rng.random() < 0.5, rng.integers(-self.shift, self.shift, size=2, endpoint=True)
        moves_3B[0] &= self.flip        # drawn all the same: with `flip` a sample moves as without
        return replace(batch, moves_3B=moves_3B)

    def __call__(self, batch: Batch, seed: int, epoch: int) -> Batch:
        return applied(self.drawn(batch, seed, epoch))
