"""`data.augment.applied` on the device: mirror and shift of a whole batch as one gather, without a wait for the device."""
from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from snnseg.data.loader import Batch
from snnseg.data.store import VOID


def sources(moves_3B: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Where each pixel comes from, i8 [B, H * W], and whether that is inside, bool [B, H * W]; outside, any place is named."""
    mirror, down, right = moves_3B[:, :, None]
    y_BH = torch.arange(height, device=moves_3B.device) - down
    x_BW = torch.arange(width, device=moves_3B.device) - right
    inside_BHW = ((y_BH >= 0) & (y_BH < height))[:, :, None] & ((x_BW >= 0) & (x_BW < width))[:, None]
    x_BW = torch.where(mirror == 1, width - 1 - x_BW, x_BW).clamp(0, width - 1)
    place_BHW = y_BH.clamp(0, height - 1)[:, :, None] * width + x_BW[:, None]
    return place_BHW.flatten(1), inside_BHW.flatten(1)


def applied(batch: Batch) -> Batch:
    """A batch of tensors with its moves made. Without moves, itself."""
    if batch.moves_3B is None:
        return batch
    place_BS, inside_BS = sources(batch.moves_3B, *batch.mask_BHW.shape[1:])

    def gathered(x_BFSC: Tensor, outside: int) -> Tensor:
        """All channels F before and C behind the places S are taken from the same place."""
        found = x_BFSC.gather(2, place_BS[:, None, :, None].expand_as(x_BFSC))
        return found.masked_fill_(~inside_BS[:, None, :, None], outside)

    x = batch.input
    lined_up = x.flatten(1, 2)[:, None] if x.dim() == 4 else x.flatten(3).flatten(1, 2)[..., None]      # [B,1,S,3] or [B,T*2,S,1]
    masks = batch.mask_BHW.flatten(1)[:, None, :, None]
    return replace(batch, input=gathered(lined_up, 0).view(x.shape), mask_BHW=gathered(masks, VOID).view(batch.mask_BHW.shape), moves_3B=None)
