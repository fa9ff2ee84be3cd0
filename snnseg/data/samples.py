"""Real pictures that installed packages bring, so that everything runs on a bare machine.

1 797 handwritten digits of 8x8 (UCI, in scikit-learn) and two photographs of 427x640 (in scikit-learn). The right quarter
of each photograph is kept for testing; crops never reach over that border, so no region is in both splits.
"""
from __future__ import annotations

import numpy as np
from PIL import Image

CROP = 64       # pixels of the photograph that become one 32x32 background
STRIDE = 8
TEST_SHARE = 0.25


def digits() -> tuple[np.ndarray, np.ndarray]:
    """All digits as u8 [1797, 14, 14] (0 = paper, 255 = ink) and their labels u8 [1797]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    big = [np.asarray(Image.fromarray(d).resize((14, 14), Image.Resampling.BILINEAR)) for d in small]
    return np.stack(big), bunch.target.astype(np.uint8)


def photos(split: str) -> np.ndarray:
    """Backgrounds u8 [M, 32, 32, 3]: crops of the left (train) or right (test) part of both photographs."""
    from sklearn.datasets import load_sample_images

    out = []
    for photo in load_sample_images().images:
        border = round(photo.shape[1] * (1 - TEST_SHARE))
        part = photo[:, :border] if split == "train" else photo[:, border:]
        for top in range(0, part.shape[0] - CROP + 1, STRIDE):
            for left in range(0, part.shape[1] - CROP + 1, STRIDE):
                crop = Image.fromarray(np.ascontiguousarray(part[top : top + CROP, left : left + CROP]))
                out.append(np.asarray(crop.resize((32, 32), Image.Resampling.BOX)))
    return np.stack(out)
