"""What a killed process costs: the training loop itself on several, one of which is killed in the middle and all of which are started again.

    torchrun --nproc-per-node 2 --max-restarts 1 -m benchmarks.killed --root FOLDER [--device cpu|cuda] [--step 300] [--source archives]

MNIST-CIFAR10, Spiking-DeepLab; the last process kills itself (SIGKILL) at its step --step. torchrun ends the others and starts all again, and
they go on from the newest sealed checkpoint below FOLDER. Writes data/bench/killed.json.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks import forms, frame
from snnseg import config, memory, stage
from snnseg.data import prepare
from snnseg.ranks import joined
from snnseg.sections import Config
from snnseg.training import loop, run

USUAL = {"cpu": {"pictures": [480, 48], "timesteps": 2, "width": 0.0625, "step": 18},
         "cuda": {"pictures": [16_000, 960], "timesteps": 20, "width": 1.0, "step": 550}}


class Times:
    """A reporter that writes down when the driver learns of a step: step, seconds since 1970, attempt."""

    def __init__(self, file: Path, attempt: int):
        self.file, self.attempt = file, attempt

    def _tell(self, what: str, step: int) -> None:
        with open(self.file, "a", encoding="utf-8") as f:
            print(json.dumps({"what": what, "step": step, "at": time.time(), "attempt": self.attempt}), file=f)

    def begin(self, step: int, steps: int, epochs: int) -> None:
        self._tell("begin", step)

    def numbers(self, step: int, told: dict[str, Any]) -> None:
        self._tell("step", step)

    def saved(self, step: int, folder: Path) -> None:
        self._tell("saved", step)


def numbers(asked: argparse.Namespace) -> Config:
    """The config of the training."""
    told = config.load(str(Path(config.PARAMS).absolute()), "mnist_cifar/spiking_deeplab", [
        f"data.source={asked.source}", f"data.mnist_cifar.train={asked.pictures[0]}", f"data.mnist_cifar.test={asked.pictures[1]}",
        f"encode.timesteps={asked.timesteps}", "encode.coding=signed_poisson", f"model.width={asked.width}", "train.epochs=1", "train.log_every=5",
        f"train.checkpoint_every={max(5, asked.step // 5)}", f"train.precision={'bf16' if asked.device == 'cuda' else 'fp32'}", "track.mlflow=false"])
    return told.model_copy(update={"root": asked.root.absolute()})


def lost(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What the first attempt's end cost, from the lines of both."""
    before, after = ([line for line in lines if line["attempt"] == k] for k in (0, 1))
    stopped = max(line["step"] for line in before if line["what"] == "step")
    begun = next(line for line in after if line["what"] == "begin")
    first = next(line for line in after if line["what"] == "step")
    again = next((line["at"] for line in after if line["what"] == "step" and line["step"] >= stopped), None)
    end = before[-1]["at"]
    return {"stopped_after_step": stopped, "went_on_from_step": begun["step"], "restarted_s": begun["at"] - end, "first_line_s": first["at"] - end,
            "caught_up_s": again and again - end}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--root", type=Path, required=True, metavar="FOLDER", help="of data/raw, data/store, and the run")
    arguments.add_argument("--device", choices=["cpu", "cuda"])
    arguments.add_argument("--step", type=int, metavar="N", help="at which the last process is killed")
    arguments.add_argument("--pictures", type=int, nargs=2, metavar=("N", "M"))
    arguments.add_argument("--timesteps", type=int, metavar="T")
    arguments.add_argument("--width", type=float)
    arguments.add_argument("--source", choices=["sample", "archives"], default="sample")
    asked = arguments.parse_args()
    asked.device = forms.checked_device(asked.device)
    for name, value in USUAL[asked.device].items():
        if getattr(asked, name) is None:
            setattr(asked, name, value)
    rank, size, local, attempt = (int(os.environ.get(name, usual)) for name, usual in
                                  (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("TORCHELASTIC_RESTART_COUNT", 0)))
    device = torch.device("cuda", local) if asked.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    memory.keep_freed()
    told, taken = numbers(asked), 0

    def stop() -> bool:
        """Asked once a step, so this is where the process dies."""
        nonlocal taken
        taken += 1
        if attempt == 0 and rank == size - 1 and taken == asked.step:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    folder = told.root / "data" / "run" / "killed"
    if rank == 0 and attempt == 0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    with joined(rank, size, "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl") as ranks:
        if ranks.first and not told.store.exists():
            prepare.prepare(told)
        if not ranks.alone:
            dist.barrier()
        loop.fit(told, run.loaded(told), folder, Times(folder / "times.jsonl", attempt), stop, device, "0" * 64, ranks)
        if ranks.first:
            lines = [json.loads(line) for line in (folder / "times.jsonl").read_text(encoding="utf-8").splitlines()]
            found = {"processes": size, "batch": told.train.batch, "killed_at_step": asked.step, **lost(lines)}
            frame.write("killed", frame.machine(device.type), [found])
            print(json.dumps(found, indent=1))


if __name__ == "__main__":
    stage.run(main)
