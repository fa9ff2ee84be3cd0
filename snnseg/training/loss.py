"""Spatial cross-entropy (eq. 5); N is the number of pixels that count."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from snnseg.data.store import VOID


def cross_entropy(logits_BCHW: Tensor, mask_BHW: Tensor, void: str = "ignore") -> Tensor:
    """Mean over all pixels but void ones; 0 where all are void. `void="background"` trains them as class 0."""
    mask = mask_BHW.long()
    if void == "background":
        mask = mask.masked_fill(mask == VOID, 0)
    total = F.cross_entropy(logits_BCHW.float(), mask, ignore_index=VOID, reduction="sum")
    return total / (mask != VOID).sum().clamp(min=1)
