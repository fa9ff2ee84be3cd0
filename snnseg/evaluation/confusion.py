"""The confusion matrix of a whole set, and the scores read from it.

    IoU(c) = pixels that are c and called c / pixels that are c or called c
    mIoU   = mean over the classes that occur in truth or prediction

A class that occurs in neither has no IoU (None), not 0 and not nan. Void pixels (255) are dropped. Parts of a set are
merged by adding their matrices, never by averaging their scores.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from snnseg.data.store import VOID


@dataclass(frozen=True)
class Confusion:
    """matrix int64 [classes, classes]: rows truth, columns prediction, in pixels."""

    matrix: np.ndarray

    @classmethod
    def empty(cls, classes: int) -> Confusion:
        return cls(np.zeros((classes, classes), np.int64))

    @classmethod
    def of(cls, truth: np.ndarray, prediction: np.ndarray, classes: int) -> Confusion:
        """Count integer arrays of equal shape; truth may hold 255. Raises ValueError for other strange labels."""
        keep = truth != VOID
        t, p = truth[keep].astype(np.int64), prediction[keep].astype(np.int64)
        if t.size and not (0 <= t.min() and t.max() < classes and 0 <= p.min() and p.max() < classes):
            raise ValueError(f"a label is outside 0..{classes - 1}")
        return cls(np.bincount(t * classes + p, minlength=classes**2).reshape(classes, classes))

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(self.matrix + other.matrix)

    @property
    def pixels(self) -> list[int]:
        """Pixels of each class in the truth."""
        return self.matrix.sum(1).tolist()

    def iou(self) -> list[float | None]:
        """IoU of each class in [0, 1], None where truth and prediction lack it."""
        hit = np.diag(self.matrix)
        union = self.matrix.sum(0) + self.matrix.sum(1) - hit
        return [h / u if u else None for h, u in zip(hit.tolist(), union.tolist(), strict=True)]

    def miou(self) -> float:
        """Mean IoU in [0, 1] over the classes that occur; 0 for an empty set."""
        scores = [s for s in self.iou() if s is not None]
        return sum(scores) / len(scores) if scores else 0.0

    def all_background(self) -> Confusion:
        """What answering class 0 everywhere would have given."""
        out = np.zeros_like(self.matrix)
        out[:, 0] = self.matrix.sum(1)
        return Confusion(out)
