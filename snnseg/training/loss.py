"""Spatial cross-entropy (eq. 5); N is the number of pixels that count."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from snnseg.data.store import VOID


def sizes(mask_BHW: Tensor, void: str = "ignore") -> Tensor:
    """How many pixels count, and how many pictures there are, int64 [2]."""
    pictures = mask_BHW.new_full((1,), len(mask_BHW), dtype=torch.int64)
    return torch.cat([pictures * mask_BHW[0].numel() if void == "background" else (mask_BHW != VOID).sum().view(1), pictures])


def weighted(classes: int, background: float) -> Tensor | None:
    """Of a pixel by its class, float32 [classes]: the first one's and 1; None where they are all 1."""
    return None if background == 1 else torch.tensor([background] + [1.0] * (classes - 1))


def cross_entropy(logits_BCHW: Tensor, mask_BHW: Tensor, void: str = "ignore", of: Tensor | None = None,
                  weight_K: Tensor | None = None) -> Tensor:
    """Mean over all pixels but void ones; 0 where all are void. `void="background"` trains them as class 0.

    Where the batch is a part of one, `of` is the `sizes` of the whole: the parts' losses add up to its mean.
    With `weight_K` a pixel's term is so many times itself; it is still divided by the number of pixels.
    """
    mask = mask_BHW.long()
    if void == "background":
        mask = mask.masked_fill(mask == VOID, 0)
    total = F.cross_entropy(logits_BCHW.float(), mask, weight_K, ignore_index=VOID, reduction="sum")
    return total / ((mask != VOID).sum() if of is None else of[0]).clamp(min=1)
