"""Augmentation of a batch: mirror and shift, each sample's draw from (seed, epoch, sample index)."""
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


@dataclass(frozen=True)
class Augment:
    """Mirror half of the pictures (`flip`) and move each by up to `shift` pixels both ways."""

    flip: bool = False
    shift: int = 0

    def __call__(self, batch: Batch, seed: int, epoch: int) -> Batch:
        if not self.flip and not self.shift:
            return batch
        inputs, masks = batch.input.copy(), batch.mask_BHW.copy()
        images = np.moveaxis(inputs, (3, 4), (1, 2)) if inputs.ndim == 5 else inputs       # a view: height and width come first
        for k, index in enumerate(batch.index_B):
            rng = seeds.generator("augment", seed, epoch, index)
            mirror, (down, right) = rng.random() < 0.5, rng.integers(-self.shift, self.shift, size=2, endpoint=True)
            if self.flip and mirror:
                images[k], masks[k] = images[k, :, ::-1], masks[k, :, ::-1]
            images[k], masks[k] = moved(images[k], masks[k], int(down), int(right))
        return replace(batch, input=inputs, mask_BHW=masks)
