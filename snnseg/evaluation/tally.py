"""A confusion that is counted where the predictions are: nobody waits for the device until it is read.

A tally is int64 [classes + 2, classes]: the rows of `Confusion.matrix`, then strange labels of the truth, then void. Counts
are whole numbers, so their order does not matter, and tallies are added as tensors are. `Confusion.of` is the oracle.
"""
from __future__ import annotations

import torch
from torch import Tensor

from snnseg.data.store import VOID
from snnseg.evaluation.confusion import Confusion


def answers(logits_BCHW: Tensor) -> Tensor:
    """The class of each pixel, the first of equals: int64 [B,H,W]. On a CPU, argmax over strides is 3 to 30 times slower."""
    return logits_BCHW.max(1).indices


def counted(truth: Tensor, prediction: Tensor, classes: int) -> Tensor:
    """The tally of labels u8 and predictions int64 of the same shape; predictions are below `classes`, as `answers` has them."""
    row = torch.where(truth == VOID, classes + 1, truth.clamp(max=classes)).long()
    cell = (row * classes + prediction).flatten()
    size = (classes + 2) * classes
    if cell.device.type == "cpu":
        return torch.bincount(cell, minlength=size).view(-1, classes)
    counts = cell.new_zeros(size)       # bincount would wait, to learn the largest cell
    return counts.scatter_add_(0, cell, cell.new_ones(()).expand_as(cell)).view(-1, classes)


def begun(total: Confusion, device: torch.device) -> Tensor:
    """A tally that goes on from a confusion."""
    return torch.nn.functional.pad(torch.from_numpy(total.matrix), (0, 0, 0, 2)).to(device, non_blocking=True)


def read(tally: Tensor) -> Confusion:
    """Wait for the device, and take what was counted. Raises ValueError for labels that no class has."""
    counts = tally.cpu().numpy()
    classes = counts.shape[1]
    if counts[classes].any():
        raise ValueError(f"a label is outside 0..{classes - 1}")
    return Confusion(counts[:classes].copy())       # in main memory, the tally goes on growing in the same place
