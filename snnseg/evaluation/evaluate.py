"""Run a net over a split: predictions and their confusion."""
from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from snnseg import memory
from snnseg.data.loader import Batch, batches
from snnseg.data.store import Split
from snnseg.evaluation import tally
from snnseg.evaluation.confusion import Confusion
from snnseg.models import zoo
from snnseg.models.feed import fed
from snnseg.models.inputs import keys, source
from snnseg.ranks import ALONE, Ranks
from snnseg.sections import Config


def _ready(model: nn.Module, norm: str) -> nn.Module:
    """The net with running statistics, or a copy that normalises each batch by its own (and leaves the net's alone)."""
    return model.eval() if norm == "running" else copy.deepcopy(model).train()


@torch.no_grad()
def predictions(model: nn.Module, split: Split, config: Config, device: torch.device,
                norm: str = "running", timesteps: int | None = None, ranks: Ranks = ALONE) -> Iterator[tuple[Batch, Tensor]]:
    """Each batch of this rank's part of a split and the class of every pixel, int64 [B,H,W]: tensors on the device, which is not waited for.

    Rate coding draws from (seed, sample), so a sample's answer does not depend on the batch it is in, unless `norm`
    is "batch": then each batch is normalised by its own statistics. `timesteps` are those trained with, if not given.
    Raises OutOfMemory.
    """
    training, own = model.training, np.arange(len(split))[ranks.slice(len(split))]
    zoo.compute_in(config.train.precision)
    ready = _ready(model, norm)
    try:
        drawn = (replace(batch, key_B=keys(batch.index_B, config, ("evaluate", 0))) for batch in batches(split, config.evaluate.batch, own))
        with fed(drawn, device) as here:
            for batch in here:
                with memory.shortage_named(config, "evaluate.batch", config.evaluate.batch):
                    x = source(batch.input, batch.key_B, config, timesteps)
                    with torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16"):
                        logits_BCHW = ready(x)
                    prediction_BHW = tally.answers(logits_BCHW)
                yield batch, prediction_BHW
    finally:
        model.train(training)


def confusion(model: nn.Module, split: Split, config: Config, device: torch.device,
              stop: Callable[[], bool] = lambda: False, ranks: Ranks = ALONE) -> Confusion | None:
    """The confusion of a whole split, with running statistics; None if `stop()` became true on the way, of whichever rank.

    Each rank counts its part; what they have counted is added up once all are done.
    """
    total, stopped = tally.begun(Confusion.empty(config.classes), device), False
    for batch, prediction_BHW in predictions(model, split, config, device, ranks=ranks):
        total += tally.counted(batch.mask_BHW, prediction_BHW, config.classes)
        if stopped := stop():
            break
    if not ranks.alone:
        *total, stopped = ranks.add(torch.cat([total.flatten(), total.new_full((1,), stopped)])).split([total.numel(), 1])
        total, stopped = total[0].view(-1, config.classes), bool(stopped)
    return None if stopped else tally.read(total)


def scores(total: Confusion, classes: list[str]) -> dict[str, float | None]:
    """A confusion as named numbers in per cent, as they appear in MLflow and metrics.jsonl."""
    named = {f"test/iou/{c}": None if s is None else 100 * s for c, s in zip(classes, total.iou(), strict=True)}
    return {"test/miou": 100 * total.miou(), **named}
