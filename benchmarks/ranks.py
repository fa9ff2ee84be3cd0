"""One training on several processes: rates, what is lost, how much of a step is communication, and whether the loss takes the same course.

    torchrun --nproc-per-node N -m benchmarks.ranks [--device cpu|cuda] [--quick] [--curves 200] [--nets deeplab fcn] [--batch 16 64] ...

Each row is the training loop's own step (`training.step`) on made-up pictures, each process with its slice of the batch. `weak`: a batch
as large as one process had, on each; `strong`: that batch, shared out. Efficiency is the rate over N times that of one process with that
batch, which the first process measures while the others wait. `communication` is the share of the step that is gone when every sum over
processes is left out, each then training on its own. With --curves, so many losses of one process and of N at the same global batch, on
pictures that can be learned. Writes data/bench/ranks.json after each row. Knows no Ray, and needs none installed.
"""
from __future__ import annotations

import argparse
import gc
import itertools
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import forms, frame
from benchmarks.forms import CLASSES, Work
from snnseg import config, memory, stage
from snnseg.data.loader import Batch
from snnseg.errors import UsageError
from snnseg.models import zoo
from snnseg.models.feed import fed
from snnseg.models.inputs import keys
from snnseg.ranks import ALONE, Ranks, added, joined, unchanged
from snnseg.sections import Config
from snnseg.training import optim
from snnseg.training.checkpoint import State
from snnseg.training.step import PLAINLY, Step, Taken

USUAL = {"cpu": {"timesteps": 4, "batch": [4], "size": 32, "width": 0.25, "rounds": 5, "steps": 2, "dtype": "fp32"},
         "cuda": {"timesteps": 20, "batch": [16, 64], "size": 64, "width": 1.0, "rounds": 7, "steps": 10, "dtype": "bf16"}}
QUICK = {"timesteps": 2, "batch": [4], "size": 32, "width": 0.0625, "rounds": 2, "steps": 1}
CURVE_BATCH, CURVE_PICTURES, CURVE_RATE = 16, 128, 1e-3


def blocks(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """Pictures u8 [N,H,W,3] of coloured squares under noise, and masks u8 [N,H,W] of their colours: something that can be learned."""
    rng, side = np.random.default_rng(0), work.size // 8
    colours = rng.integers(0, 256, (CLASSES, 3))
    class_NHW = rng.integers(0, CLASSES, (CURVE_PICTURES, side, side), np.uint8).repeat(8, 1).repeat(8, 2)
    noisy = colours[class_NHW] + rng.normal(0, 20, (*class_NHW.shape, 3))
    return noisy.clip(0, 255).astype(np.uint8), class_NHW


def numbers(work: Work, sync_norm: str, *changes: str) -> Config:
    return forms.numbers(work, "train.kernels=auto", f"train.sync_norm={sync_norm}", *changes)


class Trainer:
    """A net and its step on one rank; a context, after which nothing of it is left on the device."""

    def __init__(self, asked: Config, device: torch.device, ranks: Ranks):
        memory.set_up(asked.train)
        self.asked, self.device, self.ranks = asked, device, ranks
        share = None if ranks.alone or asked.train.sync_norm == "local" else ranks.add
        model = zoo.build(asked, share).to(device).train()
        self.update: Step | None = Step(model, optim.build(asked.optim, model), asked, device, ranks)

    def steps(self, inputs: np.ndarray, masks: np.ndarray) -> Iterator[Taken]:
        """Steps on successive batches of the config's size, over and over; none is waited for."""
        def batches() -> Iterator[Batch]:
            for k in itertools.count():
                whole = np.arange(k * self.asked.train.batch, (k + 1) * self.asked.train.batch) % len(inputs)
                index = whole[self.ranks.slice(len(whole))]
                yield Batch(index, inputs[index], masks[index], key_B=keys(index, self.asked, ("poisson", k)), whole_B=whole)

        with fed(batches(), self.device) as here:
            for batch in here:
                yield self.update(batch, State())

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.update = None      # captured steps hold kernels of the communicator, which has to outlive them
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()


def slowest(seconds: float, ranks: Ranks) -> float:
    """The most that any rank has measured."""
    told = torch.zeros(ranks.size, dtype=torch.float64)
    told[ranks.rank] = seconds
    return (told if ranks.alone else added(told)).max().item()


def timed(work: Work, sync_norm: str, device: torch.device, ranks: Ranks, group: Ranks, asked: argparse.Namespace) -> float:
    """Seconds of a step of the batch of `work`, the median of turns; `ranks` share it, `group` are all that measure at the same time."""
    with Trainer(numbers(work, sync_norm), device, ranks) as trainer:
        steps, turns = trainer.steps(*forms.pictures(work)), []
        for turn in range(asked.rounds + 1):
            count = PLAINLY + 2 + asked.steps if turn == 0 else asked.steps     # the first is none: kernels are chosen, compiled and captured
            slowest(0.0, group)
            start = time.perf_counter()
            for _ in range(count):
                taken = next(steps)
            taken.loss()
            turns.append(slowest(time.perf_counter() - start, group) / count)
        steps.close()
        if device.type == "cuda" and not trainer.update.captured:
            print("the step was not captured in a CUDA graph", file=sys.stderr)
    return statistics.median(turns[1:])


def curve(work: Work, sync_norm: str, device: torch.device, ranks: Ranks, count: int) -> list[float]:
    """So many losses of a training on `blocks`."""
    with Trainer(numbers(work, sync_norm, f"optim.lr={CURVE_RATE}"), device, ranks) as trainer:
        steps = trainer.steps(*blocks(work))
        losses = [taken.loss() for taken in itertools.islice(steps, count)]
        steps.close()
    return losses


def measured(asked: argparse.Namespace, device: torch.device, all_: Ranks) -> Iterator[dict[str, Any]]:
    """The rows; every rank goes through all of it, and the first has them."""
    def work_of(net: str, batch: int) -> Work:
        params = str(Path(config.PARAMS).absolute())
        return Work(device.type, asked.dtype, net, "bntt", "signed_poisson", asked.timesteps, batch, asked.size, asked.width, params)

    for net, batch in itertools.product(asked.nets, asked.batch):
        work = work_of(net, batch)

        def row(work: Work, seconds: float, **more: Any) -> dict[str, Any]:
            return {"part": "rate", **work.row, **more, "ms": 1e3 * seconds, "samples_per_s": work.batch / seconds}

        alone_s = timed(work, "synced", device, ALONE, ALONE, asked) if all_.first else 0.0
        alone_s = slowest(alone_s, all_)        # the others wait here
        yield row(work, alone_s, ranks=1, scaling="one", sync_norm=None, efficiency=1.0, communication=0.0)
        if all_.alone:
            continue
        silent = replace(all_, add=unchanged)
        for scaling, sync_norm in itertools.product(("weak", "strong"), asked.sync_norm):
            shared = replace(work, batch=batch * all_.size if scaling == "weak" else batch)
            if shared.batch < all_.size:
                continue
            loud_s, silent_s = (timed(shared, sync_norm, device, ranks, all_, asked) for ranks in (all_, silent))
            yield row(shared, loud_s, ranks=all_.size, scaling=scaling, sync_norm=sync_norm, silent_ms=1e3 * silent_s, communication=1 - silent_s / loud_s,
                      efficiency=(shared.batch / loud_s) / (all_.size * batch / alone_s))
    for net in asked.nets if asked.curves else ():
        work = work_of(net, CURVE_BATCH)
        one = curve(work, "synced", device, ALONE, asked.curves) if all_.first else []
        slowest(0.0, all_)
        yield {"part": "curve", **work.row, "ranks": 1, "sync_norm": None, "losses": one}
        for sync_norm in () if all_.alone else asked.sync_norm:
            losses = curve(work, sync_norm, device, all_, asked.curves)
            apart = max(abs(a - b) for a, b in zip(one, losses, strict=True)) if all_.first else None
            yield {"part": "curve", **work.row, "ranks": all_.size, "sync_norm": sync_norm, "losses": losses, "largest_difference": apart}


def told(row: dict[str, Any]) -> str:
    """A row as a line."""
    begins = f"{row['net']:9}{row['batch']:>6} pictures, {row['ranks']} ranks {row['sync_norm'] or '':7}"
    if row["part"] == "curve":
        last = statistics.mean(row["losses"][-20:])
        apart = f", at most {row['largest_difference']:.2g} from one process" if "largest_difference" in row else ""
        return f"{begins} loss {row['losses'][0]:.4f} -> {last:.4f} (mean of the last 20 of {len(row['losses'])}){apart}"
    return (f"{begins}{row['scaling']:7}{row['ms']:9.2f} ms{row['samples_per_s']:10.1f} samples/s   efficiency {100 * row['efficiency']:5.1f} %   "
            f"communication {100 * row['communication']:5.1f} %")


def options() -> argparse.ArgumentParser:
    """The options that say what is measured."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--device", choices=["cpu", "cuda"], help="where to compute; GPUs where there are any")
    out.add_argument("--quick", action="store_true", help="a small net, within a minute on two cores")
    out.add_argument("--nets", nargs="+", choices=["deeplab", "fcn"], default=["deeplab", "fcn"])
    out.add_argument("--sync_norm", nargs="+", choices=["synced", "local"], default=["synced", "local"])
    out.add_argument("--batch", type=int, nargs="+", metavar="N", help="pictures a step of one process")
    out.add_argument("--curves", type=int, default=0, metavar="STEPS", help="losses over so many steps, too")
    out.add_argument("--dtype", choices=["fp32", "bf16"])
    for name in ("timesteps", "size", "rounds", "steps"):
        out.add_argument(f"--{name}", type=int, metavar="N")
    out.add_argument("--width", type=float, metavar="W", help="times the channels of the paper")
    return out


def main() -> None:
    asked = options().parse_args()
    asked.device = forms.checked_device(asked.device)
    for key, value in (USUAL[asked.device] | (QUICK if asked.quick else {})).items():
        if getattr(asked, key) is None:
            setattr(asked, key, value)
    if min(*asked.batch, asked.timesteps, asked.rounds, asked.steps) < 1:
        raise UsageError("--batch, --timesteps, --rounds and --steps have to be 1 or more")
    rank, size, local = (int(os.environ.get(name, usual)) for name, usual in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    if asked.device == "cuda" and local >= torch.cuda.device_count():
        raise UsageError(f"process {local} of this machine has no GPU of its own, there are {torch.cuda.device_count()}. Lower --nproc-per-node")
    device = torch.device("cuda", local) if asked.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    rows: list[dict[str, Any]] = []
    with joined(rank, size, "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl") as ranks:
        machine = frame.machine(device.type) | {"processes": size}
        if ranks.first:
            print(f"{frame.told(machine)}, {size} processes\n{asked.dtype}, T = {asked.timesteps}, {asked.size} x {asked.size}, width {asked.width}, "
                  f"medians of {asked.rounds} turns of {asked.steps} steps", flush=True)
        for row in measured(asked, device, ranks):
            if ranks.first:
                rows.append(row)
                print(told(row), flush=True)
                frame.write("ranks", machine, rows)


if __name__ == "__main__":
    stage.run(main)
