"""The training loop: epochs of steps (`training.step`), with lines, checkpoints and validation between them.

Plain torch; knows neither Ray nor MLflow. It can be ended at any moment and goes on from the newest checkpoint with the
same numbers as if it had never stopped.
"""
from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from snnseg import memory
from snnseg.data.augment import Augment
from snnseg.data.loader import batches, epoch_order
from snnseg.data.store import Split
from snnseg.errors import Interrupted
from snnseg.evaluation import evaluate, tally
from snnseg.evaluation.confusion import Confusion
from snnseg.models import zoo
from snnseg.models.feed import fed
from snnseg.models.inputs import keys
from snnseg.ranks import ALONE, Ranks
from snnseg.sections import Config
from snnseg.training import checkpoint, forecast, optim
from snnseg.training.checkpoint import Saver, State, Unsaved
from snnseg.training.report import Numbers, Reporter, Reporters
from snnseg.training.step import Step, Taken
from snnseg.training.together import level


@dataclass(frozen=True)
class Loaded:
    """The splits a training sees, and the seal of the store they came from."""

    train: Split
    test: Split
    digest: str


def fit(config: Config, data: Loaded, run: Path, report: Reporter, stop: Callable[[], bool],
        device: torch.device, fingerprint: str, ranks: Ranks = ALONE) -> tuple[nn.Module, State]:
    """Train the config's net, from the newest checkpoint in `run` if there is one; return it with its last state.

    Every rank calls it with the same arguments but `ranks` and `device`; the first one reports and writes to `run`, which all see.
    Raises NotFinite, NoSpace, OutOfMemory, CheckpointMismatch, ConfigError where a batch is too small for the ranks, and Interrupted
    once `stop()` is true, of whichever rank, and the step is saved: with several ranks, the next step or the one after.
    """
    train, augment = config.train, Augment(config.train.flip, config.train.shift)
    ranks.check(len(data.train), train.batch)
    apart = train.sync_norm == "local" and not ranks.alone      # each rank has running statistics of its own
    model = zoo.build(config, None if apart or ranks.alone else ranks.add).to(device).train()
    optimizer = optim.build(config.optim, model)
    update = Step(model, optimizer, config, device, ranks)
    state, damaged = checkpoint.newest_of_all(run, model, optimizer, fingerprint, ranks)
    report = report if ranks.first else Reporters([])
    for error in damaged:
        print(f"warning: {error}", file=sys.stderr)
    epoch_steps = -(-len(data.train) // train.batch)
    steps = epoch_steps * train.epochs

    def stopped() -> Interrupted:
        return Interrupted(f"{run}: stopped after step {state.step} of {steps}, which is saved. The same command goes on from there.")

    def end_epoch() -> None:
        """Validate, if it is time to, and report the epoch's numbers; what was interrupted here is done on resume."""
        numbers, state.unreported = state.unreported, {}
        if state.epoch == train.epochs or (train.validate_every and state.epoch % train.validate_every == 0):
            found = evaluate.confusion(model, data.test, config, device, stop, ranks)
            if found is None:
                raise stopped()
            numbers |= evaluate.scores(found, data.test.about["classes"])
        report.numbers(state.step, numbers)

    with Saver(run, model, optimizer, fingerprint, train.keep, report.saved) if ranks.first else Unsaved() as saver:
        if state.unreported:
            report.begin(state.step - 1, steps, train.epochs)
            end_epoch()
        else:
            report.begin(state.step, steps, train.epochs)

        agreed = False      # of several ranks: that one was asked to stop, known to all since the same step
        while state.epoch < train.epochs:
            epoch, order = state.epoch, epoch_order(len(data.train), train.seed, state.epoch)
            before = Confusion(np.array(state.confusion, np.int64)) if state.confusion and ranks.first else Confusion.empty(config.classes)
            counted = tally.begun(before, device)
            drawn = (replace(augment.drawn(batch, train.seed, epoch), key_B=keys(batch.index_B, config, ("poisson", epoch)))
                     for batch in batches(data.train, train.batch, order, state.batch, ranks))
            given: deque[tuple[Taken, int, float, bool]] = deque()      # steps that the device has: batches so far, rate, whether there is a line
            pictures, seconds, clock = 0, 0.0, time.perf_counter()      # since the last line
            with fed(drawn, device) as here:
                for batch in here:
                    rate = optim.learning_rate(config.optim, state.step, steps, epoch, train.epochs)
                    optimizer.rate.fill_(rate)
                    with memory.shortage_named(config, "train.batch", train.batch, lambda: forecast.of(config, device.type)):
                        taken = update(batch, state, not ranks.alone and stop())
                        state.step, state.batch = state.step + 1, state.batch + 1
                        epoch_ends, stopping = state.batch == epoch_steps, stop() if ranks.alone else agreed
                        tells = epoch_ends or stopping or state.step % train.log_every == 0
                        saves = epoch_ends or stopping or state.step % train.checkpoint_every == 0
                        taken.count(counted, kept=tells or saves)
                        given.append((taken, state.batch, rate, tells))
                        lines: list[tuple[int, Numbers]] = []
                        while len(given) > (0 if saves else update.behind):     # of a step that is saved, all is known
                            taken, done, rate, tells = given.popleft()
                            loss = taken.loss()
                            state.loss_sum, agreed = state.loss_sum + loss, agreed or taken.stops
                            if tells:
                                lines.append((state.step - state.batch + done, {
                                    "epoch": epoch, "train/loss": loss, "train/epoch_loss": state.loss_sum / done,
                                    "train/miou": 100 * tally.read(taken.counted).miou(), "train/lr": rate}
                                    | ({} if taken.rate is None else {"train/spike_rate": taken.rate})))
                    elapsed = time.perf_counter() - clock
                    pictures, seconds, state.seconds = pictures + len(batch.all_B), seconds + elapsed, state.seconds + elapsed
                    for step, numbers in lines:
                        numbers["train/samples_per_s"] = pictures / seconds
                        if not (epoch_ends and step == state.step):
                            report.numbers(step, numbers)
                    if lines:
                        pictures, seconds = 0, 0.0
                    if apart and saves:
                        level(model, ranks)
                    if epoch_ends:      # saved first: validation takes long and may be what fails
                        state.epoch, state.batch, state.loss_sum, state.confusion, state.unreported = epoch + 1, 0, 0.0, [], numbers
                        saver.save(state)
                        end_epoch()
                    elif saves:
                        state.confusion = tally.read(taken.counted).matrix.tolist()
                        saver.save(state)
                    if stopping and state.step < steps:
                        raise stopped()
                    clock = time.perf_counter()
    return model, state
