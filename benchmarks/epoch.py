"""Whole epochs of `snnseg train` beside its bare step: what loader, coding, metrics, checkpoints and evaluation cost.

    python -m benchmarks.epoch [--device cpu|cuda] [--quick] [--timesteps 20] [--batch N] [--size 32|64] [--dtype fp32 bf16] [--pictures N M]

A store of made-up pictures, MNIST-CIFAR10 from what packages bring, is written to a temporary folder and trained on for two epochs, as
the command does, without MLflow. `epoch` is the rate of the whole second epoch, with loader, metrics, checkpoints and evaluation;
`train` that of all but the evaluation, which is timed once more for it; `step` is the same step taken again and again on one
batch that is there already. Rates are pictures trained on a second. Writes data/bench/epoch.json.
"""
from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import frame
from benchmarks.forms import Work
from benchmarks.train_step import options, settle, works
from snnseg import config, memory, stage
from snnseg.data import prepare
from snnseg.data.loader import batches
from snnseg.data.store import read
from snnseg.evaluation import evaluate
from snnseg.models import zoo
from snnseg.models.feed import ready
from snnseg.models.inputs import keys
from snnseg.sections import Config
from snnseg.training import loop, optim
from snnseg.training.checkpoint import State
from snnseg.training.step import PLAINLY, Step

USUAL = {"cpu": {"timesteps": [4], "batch": 16, "size": 32, "width": 0.25, "pictures": [2400, 600]},
         "cuda": {"timesteps": [20], "batch": 16, "size": 32, "pictures": [48_000, 12_000]}}
QUICK = {"timesteps": [4], "batch": 16, "size": 32, "width": 0.25, "pictures": [320, 64]}
STEPS = 30


def numbers(work: Work, pictures: list[int], root: Path) -> Config:
    """The config of two epochs in a folder of its own."""
    asked = config.load(work.params, f"mnist_cifar/spiking_{work.net}", [
        f"data.mnist_cifar.train={pictures[0]}", f"data.mnist_cifar.test={pictures[1]}", f"data.size={work.size}", "data.source=sample",
        f"encode.coding={work.coding}", f"encode.timesteps={work.timesteps}", f"model.norm={work.norm}", f"model.width={work.width}",
        f"train.batch={work.batch}", f"train.precision={work.dtype}", "train.epochs=2", "evaluate.batch=256", "track.mlflow=false"])
    return asked.model_copy(update={"root": root})


class Clock:
    """A reporter that notes when epochs end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def begin(self, step: int, steps: int, epochs: int) -> None:
        pass

    def numbers(self, step: int, told: dict[str, Any]) -> None:
        if "test/miou" in told:
            self.ends.append(time.perf_counter())

    def saved(self, step: int, folder: Path) -> None:
        pass


def measure(work: Work, pictures: list[int]) -> dict[str, Any]:
    """A row: rates of an epoch and of the bare step."""
    memory.keep_freed()
    device = torch.device(work.device)
    with tempfile.TemporaryDirectory() as folder:
        asked = numbers(work, pictures, Path(folder))
        digest = prepare.prepare(asked)
        data = loop.Loaded(read(asked.store, "train"), read(asked.store, "test"), str(digest))
        clock, run = Clock(), Path(folder) / "run"
        run.mkdir()
        trained, _ = loop.fit(asked, data, run, clock, lambda: False, device, "0" * 64)
        start = time.perf_counter()
        evaluate.confusion(trained, data.test, asked, device)
        evaluation_s = time.perf_counter() - start
        batch = ready(next(batches(data.train, work.batch)), device)
    epoch_s = clock.ends[1] - clock.ends[0]
    model = zoo.build(asked).to(device).train()
    update, taken = Step(model, optim.build(asked.optim, model), asked, device), []
    key_B = keys(batch.index_B, asked, ("poisson", 0))
    batch = replace(batch, key_B=None if key_B is None else torch.from_numpy(np.ascontiguousarray(key_B)).to(device))
    for k in range(PLAINLY + 2 + STEPS):
        start = time.perf_counter()
        update(batch, State(step=k)).loss()
        taken.append(time.perf_counter() - start)
    step_s = statistics.median(taken[PLAINLY + 2:])
    return {"form": "snnseg", **work.row, "pictures": pictures[0], "evaluated": pictures[1], "ms": 1e3 * step_s, "step_samples_per_s": work.batch / step_s,
            "train_samples_per_s": pictures[0] / (epoch_s - evaluation_s), "epoch_samples_per_s": pictures[0] / epoch_s}


def main() -> None:
    arguments = options(__doc__)
    arguments.add_argument("--pictures", type=int, nargs=2, metavar=("N", "M"), help="to train on and to evaluate in an epoch")
    asked = arguments.parse_args()
    settle(asked, {d: usual | {"forms": ["snnseg"]} for d, usual in USUAL.items()}, QUICK)
    rows = [measure(work, asked.pictures) for work in works(asked)]
    machine = frame.machine(asked.device)
    frame.write("epoch", machine, rows)
    print(f"{frame.told(machine)}\n{asked.net}, {asked.norm}, {asked.coding}, width {asked.width}, batches of {asked.batch}, {asked.size}x{asked.size}, "
          f"{asked.pictures[0]} trained on and {asked.pictures[1]} evaluated an epoch\n\n{'pictures/s':20}{'step':>10}{'train':>10}{'epoch':>10}")
    for row in rows:
        step, train, epoch = (row[f"{k}_samples_per_s"] for k in ("step", "train", "epoch"))
        print(f"{row['dtype']:8}T = {row['timesteps']:<8}{step:10.0f}{train:10.0f}{epoch:10.0f}   "
              f"{100 * train / step:.0f} and {100 * epoch / step:.0f} % of the step's")


if __name__ == "__main__":
    stage.run(main)
