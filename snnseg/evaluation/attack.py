"""Adversarial pictures: no byte changes by more than eps, and the net's own loss rises.

    fgsm    x + eps sign(dL/dx)                                                  (Goodfellow et al. 2015, section 4)
    pgd     x <- within(x + step eps sign(dL/dx)), several times, from a drawn start within eps      (Madry et al. 2018, eq. 2)

L is the cross-entropy with the true mask (eq. 5), the net in evaluation mode; the gradient goes back through time and the neurons'
surrogate, as in training. Spikes of rate coding have none: they are drawn forward, and backward their expectation stands for them
(`through`). They are other draws than those that the net is scored on, and new ones at each step: the attacker knows the coder, not
its numbers. Unlike noise, the bytes are another net's neither in value nor in sha256. Pictures alone; eps is a whole number of byte values.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnseg import memory, seeds
from snnseg.data.loader import Batch, batches
from snnseg.data.store import VOID, Split
from snnseg.models import zoo
from snnseg.models.inputs import keys, on, source
from snnseg.sections import Config
from snnseg.spiking.encode import Coded, Rate, whole

KINDS = "fgsm", "pgd"
DRAWS_NOTHING = {"fgsm"}
FULL = 255


def through(x: Coded) -> Tensor:
    """x_TBCHW of a coded picture, with a gradient to the picture.

    The expectation of rate coding's spikes is the picture, within 0 to 1, or -1 to 1 where they are signed. Straight-through: the
    spikes forward, the expectation backward, so where it is cut off there is no gradient.
    """
    if not isinstance(x, Rate):
        return whole(x)
    expected_BCHW = x.x_BCHW.clamp(-1 if x.signed else 0, 1)
    spikes_TBCHW = whole(replace(x, x_BCHW=x.x_BCHW.detach()))
    return spikes_TBCHW + (expected_BCHW - expected_BCHW.detach())


def loss(model: nn.Module, byte_BHWC: Tensor, mask_BHW: Tensor, key_B: Tensor | None, config: Config) -> Tensor:
    """Cross-entropy of pictures f32 [B,H,W,3] in byte values, added up over all pixels that count; its gradient reaches the bytes."""
    with torch.autocast(byte_BHWC.device.type, torch.bfloat16, enabled=config.train.precision == "bf16"):
        logits_BCHW = model(through(source(byte_BHWC, key_B, config)))
    mask = mask_BHW.long()
    if config.loss.void == "background":
        mask = mask.masked_fill(mask == VOID, 0)
    return F.cross_entropy(logits_BCHW.float(), mask, ignore_index=VOID, reduction="sum")


def _uphill(model: nn.Module, byte_BHWC: Tensor, mask_BHW: Tensor, key_B: Tensor | None, config: Config) -> Tensor:
    """The sign of the loss's gradient at each byte: -1, 0 or 1."""
    x = byte_BHWC.detach().requires_grad_()
    gradient, = torch.autograd.grad(loss(model, x, mask_BHW, key_B, config), x)
    return gradient.sign()


def _changed(model: nn.Module, batch: Batch, kind: str, eps: int, config: Config, draw: int, device: torch.device) -> np.ndarray:
    """A batch of pictures u8 [B,H,W,3], attacked."""
    byte_BHWC, mask_BHW, r = on(batch.input, device).float(), on(batch.mask_BHW, device), config.robustness
    low, high = (byte_BHWC - eps).clamp(min=0), (byte_BHWC + eps).clamp(max=FULL)

    def drawn(step: int) -> Tensor | None:
        key_B = keys(batch.index_B, config, ("attack", draw * r.pgd_steps + step))
        return None if key_B is None else on(key_B, device)

    if kind == "fgsm":
        x = byte_BHWC + eps * _uphill(model, byte_BHWC, mask_BHW, drawn(0), config)
    else:
        start = [seeds.generator("noise/pgd", r.seed, eps, draw, i).uniform(-eps, eps, batch.input.shape[1:]) for i in batch.index_B]
        x = byte_BHWC + on(np.stack(start).astype(np.float32), device)
        for step in range(r.pgd_steps):
            x = x.clamp(low, high)
            x = x + r.pgd_step * eps * _uphill(model, x, mask_BHW, drawn(step), config)
    return x.clamp(low, high).round().to(torch.uint8).cpu().numpy()     # the ends are whole numbers, so rounding stays within


def _batches(model: nn.Module, split: Split, kind: str, eps: int, config: Config, draw: int, device: torch.device) -> Iterator[np.ndarray]:
    size = min(config.evaluate.batch, config.train.batch)       # one that was trained on has room for the way back
    for batch in batches(split, size):
        with memory.shortage_named(config, "evaluate.batch", size):
            yield _changed(model, batch, kind, eps, config, draw, device)


def attacked(model: nn.Module, split: Split, kind: str, eps: float, config: Config, draw: int, device: torch.device) -> Split:
    """The split of pictures with each changed by at most `eps` byte values, against `model` on `device`; masks and attributes are its own.

    `draw` is the start of pgd, and which spikes are drawn for rate coding. Raises OutOfMemory.
    """
    if eps == 0:
        return split
    zoo.compute_in(config.train.precision)
    training = model.training
    model.eval()
    try:
        return replace(split, input=np.concatenate(list(_batches(model, split, kind, int(eps), config, draw, device))))
    finally:
        model.train(training)
