"""The training loop: bytes -> T inputs -> logits -> loss -> backpropagation through time -> update.

Plain torch; knows neither Ray nor MLflow. It can be ended at any moment and goes on from the newest checkpoint with the
same numbers as if it had never stopped.
"""
from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from snnseg.data.augment import Augment
from snnseg.data.loader import Batch, batches, epoch_order
from snnseg.data.store import Split
from snnseg.errors import Interrupted, NotFinite
from snnseg.evaluation import evaluate
from snnseg.evaluation.confusion import Confusion
from snnseg.models import zoo
from snnseg.models.inputs import coded
from snnseg.sections import Config
from snnseg.training import checkpoint, optim
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
           device: torch.device, state: State) -> tuple[float, Confusion]:
    """One step: the loss of `batch` and the confusion of its predictions. Raises NotFinite before the update."""
    x_TBCHW = coded(batch.image_BHWC, batch.index_B, config, device, ("poisson", state.epoch))
    mask_BHW = torch.from_numpy(batch.mask_BHW).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16"):
        logits_BCHW = model(x_TBCHW)
    loss = cross_entropy(logits_BCHW, mask_BHW, config.loss.void)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        samples = ", ".join(map(str, batch.index_B[:8].tolist())) + (", ..." if len(batch.index_B) > 8 else "")
        raise NotFinite(
            f"step {state.step}, epoch {state.epoch}: loss {loss.item()}, gradient norm {norm.item()} on training samples "
            f"{samples}. The update was not made. Lower optim.lr or set optim.clip_norm, and look at these samples."
        )
    if config.optim.clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(list(model.parameters()), config.optim.clip_norm, norm)
    optimizer.step()
    prediction = logits_BCHW.detach().argmax(1).to(torch.uint8).cpu().numpy()
    return loss.item(), Confusion.of(batch.mask_BHW, prediction, config.classes)


def fit(config: Config, data: Loaded, run: Path, report: Reporter, stop: Callable[[], bool],
        device: torch.device, fingerprint: str) -> tuple[nn.Module, State]:
    """Train the config's net, from the newest checkpoint in `run` if there is one; return it with its last state.

    Raises NotFinite, NoSpace, CheckpointMismatch, and Interrupted once `stop()` is true and the step is saved.
    """
    train, augment = config.train, Augment(config.train.flip, config.train.shift)
    model = zoo.build(config).to(device).train()
    optimizer = optim.build(config.optim, model)
    state, damaged = checkpoint.newest(run, model, optimizer, fingerprint)
    for error in damaged:
        print(f"warning: {error}", file=sys.stderr)
    epoch_steps = -(-len(data.train) // train.batch)
    steps = epoch_steps * train.epochs
    report.begin(state.step, steps, train.epochs)
    seen, clock = 0, time.perf_counter()

    while state.epoch < train.epochs:
        order = epoch_order(len(data.train), train.seed, state.epoch)
        total = Confusion(np.array(state.confusion, np.int64)) if state.confusion else Confusion.empty(config.classes)
        for batch in batches(data.train, train.batch, order, start=state.batch):
            rate = optim.learning_rate(config.optim, state.step, steps, state.epoch, train.epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, part = update(model, optimizer, augment(batch, train.seed, state.epoch), config, device, state)
            total += part
            seen += len(batch.index_B)
            now = time.perf_counter()
            state.seconds += now - clock
            speed, clock = len(batch.index_B) / (now - clock), now
            state.step += 1
            state.batch += 1
            state.loss_sum += loss
            epoch_ends, stopping = state.batch == epoch_steps, stop()

            if epoch_ends or state.step % train.log_every == 0 or stopping:
                numbers: Numbers = {"epoch": state.epoch, "train/loss": loss, "train/epoch_loss": state.loss_sum / state.batch,
                                    "train/miou": 100 * total.miou(), "train/lr": rate, "train/samples_per_s": speed}
                last = state.epoch + 1 == train.epochs
                if epoch_ends and (last or (train.validate_every and (state.epoch + 1) % train.validate_every == 0)):
                    found = evaluate.confusion(model, data.test, config, device)
                    numbers |= evaluate.scores(found, data.test.about["classes"])
                report.numbers(state.step, numbers)
            state.confusion = total.matrix.tolist()
            if epoch_ends:
                state.epoch, state.batch, state.loss_sum, state.confusion = state.epoch + 1, 0, 0.0, []
            if epoch_ends or state.step % train.checkpoint_every == 0 or stopping:
                report.saved(state.step, checkpoint.save(run, state, model, optimizer, fingerprint, train.keep))
            if stopping and state.step < steps:
                raise Interrupted(f"{run}: stopped after step {state.step} of {steps}, which is saved. "
                                  "The same command goes on from there.")
    return model, state
