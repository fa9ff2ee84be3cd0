"""The training loop: bytes -> T inputs -> logits -> loss -> backpropagation through time -> update.

Plain torch; knows neither Ray nor MLflow. It can be ended at any moment and goes on from the newest checkpoint with the
same numbers as if it had never stopped.
"""
from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from snnseg import memory
from snnseg.data.augment import Augment
from snnseg.data.loader import Batch, batches, epoch_order
from snnseg.data.store import Split
from snnseg.errors import Interrupted, NotFinite
from snnseg.evaluation import evaluate, tally
from snnseg.evaluation.confusion import Confusion
from snnseg.models import zoo
from snnseg.models.feed import fed
from snnseg.models.inputs import coded, on
from snnseg.sections import Config
from snnseg.training import checkpoint, forecast, optim
from snnseg.training.checkpoint import State
from snnseg.training.loss import cross_entropy
from snnseg.training.report import Numbers, Reporter


@dataclass(frozen=True)
class Loaded:
    """The splits a training sees, and the seal of the store they came from."""

    train: Split
    test: Split
    digest: str


def update(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, config: Config,
           device: torch.device, state: State) -> tuple[float, Tensor]:
    """One step: the loss of `batch` and the tally of its predictions, on the device. Raises NotFinite before the update.

    The batch is in main memory or on the device. The device is waited for once, to see whether loss and gradients are finite.
    """
    x_TBCHW = coded(batch.input, batch.index_B, config, device, ("poisson", state.epoch))
    mask_BHW = on(batch.mask_BHW, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16"):
        logits_BCHW = model(x_TBCHW)
    loss = cross_entropy(logits_BCHW, mask_BHW, config.loss.void)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    told, norm_told = torch.stack([loss.detach(), norm]).tolist()       # one wait for the device, not three
    if not (math.isfinite(told) and math.isfinite(norm_told)):
        samples = ", ".join(map(str, batch.index_B[:8].tolist())) + (", ..." if len(batch.index_B) > 8 else "")
        raise NotFinite(
            f"step {state.step}, epoch {state.epoch}: loss {told}, gradient norm {norm_told} on training samples "
            f"{samples}. The update was not made. Lower optim.lr or set optim.clip_norm, and look at these samples."
        )
    if config.optim.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(list(model.parameters()), config.optim.clip_norm, norm)
    optimizer.step()
    return told, tally.counted(mask_BHW, tally.answers(logits_BCHW.detach()), config.classes)


def fit(config: Config, data: Loaded, run: Path, report: Reporter, stop: Callable[[], bool],
        device: torch.device, fingerprint: str) -> tuple[nn.Module, State]:
    """Train the config's net, from the newest checkpoint in `run` if there is one; return it with its last state.

    Raises NotFinite, NoSpace, OutOfMemory, CheckpointMismatch, and Interrupted once `stop()` is true and the step is saved.
    """
    train, augment = config.train, Augment(config.train.flip, config.train.shift)
    model = zoo.build(config).to(device).train()
    optimizer = optim.build(config.optim, model)
    state, damaged = checkpoint.newest(run, model, optimizer, fingerprint)
    for error in damaged:
        print(f"warning: {error}", file=sys.stderr)
    epoch_steps = -(-len(data.train) // train.batch)
    steps = epoch_steps * train.epochs

    def save() -> None:
        report.saved(state.step, checkpoint.save(run, state, model, optimizer, fingerprint, train.keep))

    def stopped() -> Interrupted:
        return Interrupted(f"{run}: stopped after step {state.step} of {steps}, which is saved. The same command goes on from there.")

    def end_epoch() -> None:
        """Validate, if it is time to, and report the epoch's numbers; what was interrupted here is done on resume."""
        numbers, state.unreported = state.unreported, {}
        if state.epoch == train.epochs or (train.validate_every and state.epoch % train.validate_every == 0):
            found = evaluate.confusion(model, data.test, config, device, stop)
            if found is None:
                raise stopped()
            numbers |= evaluate.scores(found, data.test.about["classes"])
        report.numbers(state.step, numbers)

    if state.unreported:
        report.begin(state.step - 1, steps, train.epochs)
        end_epoch()
    else:
        report.begin(state.step, steps, train.epochs)

    while state.epoch < train.epochs:
        epoch, order = state.epoch, epoch_order(len(data.train), train.seed, state.epoch)
        counted = tally.begun(Confusion(np.array(state.confusion, np.int64)) if state.confusion else Confusion.empty(config.classes), device)
        drawn = (augment.drawn(batch, train.seed, epoch) for batch in batches(data.train, train.batch, order, start=state.batch))
        clock = time.perf_counter()
        with fed(drawn, device) as here:
            for batch in here:
                rate = optim.learning_rate(config.optim, state.step, steps, epoch, train.epochs)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                with memory.shortage_named(config, "train.batch", train.batch, lambda: forecast.of(config, device.type)):
                    loss, part = update(model, optimizer, batch, config, device, state)
                counted += part
                elapsed = time.perf_counter() - clock
                state.step, state.batch, state.loss_sum, state.seconds = state.step + 1, state.batch + 1, state.loss_sum + loss, state.seconds + elapsed
                epoch_ends, stopping = state.batch == epoch_steps, stop()
                tells = epoch_ends or stopping or state.step % train.log_every == 0
                saves = epoch_ends or stopping or state.step % train.checkpoint_every == 0
                if tells or saves:      # only then is the device asked what it counted
                    total = tally.read(counted)
                    numbers: Numbers = {"epoch": epoch, "train/loss": loss, "train/epoch_loss": state.loss_sum / state.batch,
                                        "train/miou": 100 * total.miou(), "train/lr": rate, "train/samples_per_s": len(batch.index_B) / elapsed}
                if epoch_ends:      # saved first: validation takes long and may be what fails
                    state.epoch, state.batch, state.loss_sum, state.confusion, state.unreported = epoch + 1, 0, 0.0, [], numbers
                    save()
                    end_epoch()
                elif tells:
                    report.numbers(state.step, numbers)
                if saves and not epoch_ends:
                    state.confusion = total.matrix.tolist()
                    save()
                if stopping and state.step < steps:
                    raise stopped()
                clock = time.perf_counter()
    return model, state
