"""The accuracy of a converted net as a function of the time steps it is given (figures 3 and 13), all of it from one pass over a split."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from snnseg import memory, seeds
from snnseg.data.loader import Batch, batches
from snnseg.data.store import Split
from snnseg.errors import ConfigError
from snnseg.evaluation import tally
from snnseg.evaluation.confusion import Confusion
from snnseg.models.conversion import PIECE, Converted, times
from snnseg.models.feed import fed
from snnseg.models.inputs import on, source
from snnseg.sections import Config
from snnseg.spiking import counter
from snnseg.spiking.encode import whole

Coding = Literal["direct", "signed_poisson"]


def answers(net: Converted, batch: Batch, config: Config, at: Sequence[int], coding: Coding = "direct", piece: int = PIECE) -> Iterator[tuple[int, Tensor]]:
    """T and the logits [B, classes, H, W] after T steps, for each T of `at`; `config` is the ANN's, `batch` on the net's device.

    Each of several frames of events is shown for T steps to a net at rest, and their answers are averaged, as the ANN averages
    its features over them (section 5.1.1). Spikes of rate coding follow from (seed, sample). Raises ConfigError for frames that
    are to be rate-coded, another coding than there is, and a T below 1.
    """
    if coding not in ("direct", "signed_poisson") or config.data.events and coding != "direct":
        raise ConfigError(f"a converted net for {config.data.dataset} is not given {coding} coding. Take direct coding, or signed_poisson for pictures.")
    x_FBCHW = whole(source(batch.input, None, config))
    key_B = None if coding == "direct" else on(keys(batch.index_B, config), x_FBCHW.device)
    for T, logits in net.anytime(x_FBCHW.flatten(0, 1), at, key_B, piece):
        yield T, logits.unflatten(0, x_FBCHW.shape[:2]).mean(0)


def keys(index_B: np.ndarray, config: Config) -> Tensor:
    """What rate coding draws each sample's spikes from, the same as for a spiking net that is evaluated: i8 [B]."""
    return counter.keys([seeds.seed_of("evaluate", config.train.seed, 0, i) for i in index_B])


@torch.no_grad()
def confusions(net: Converted, split: Split, config: Config, device: torch.device, at: Sequence[int], coding: Coding = "direct", piece: int = PIECE,
               stop: Callable[[], bool] = lambda: False) -> dict[int, Confusion] | None:
    """The confusion of a whole split after each T of `at`, by T in rising order; None if `stop()` became true on the way.

    The longest T costs what it would alone. Raises ConfigError as `answers`, OutOfMemory.
    """
    totals = {T: tally.begun(Confusion.empty(config.classes), device) for T in times(at)}
    net.eval()
    with fed(batches(split, config.evaluate.batch), device) as here:
        for batch in here:
            with memory.shortage_named(config, "evaluate.batch", config.evaluate.batch):
                for T, logits_BCHW in answers(net, batch, config, at, coding, piece):
                    totals[T] += tally.counted(batch.mask_BHW, tally.answers(logits_BCHW), config.classes)
            if stop():
                return None
    return {T: tally.read(total) for T, total in totals.items()}
