"""One training in place, twice, and through Ray with one worker, several, and one of several that is killed: what Ray costs, and that the numbers stay.

    python -m benchmarks.through_ray [--device cpu|cuda] [--workers 2] [--net spiking_deeplab] [--set SECTION.KEY=VALUE ...]

Each is `snnseg train` in a folder of its own with the same store of the sample; a line of its journal a step. With a GPU each worker has one and sums
go by NCCL. Losses of trainings on GPUs are compared with how far two in place are from one another. Writes data/bench/through_ray.json.
"""
from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import forms, frame
from snnseg import config, stage
from snnseg.data import prepare
from snnseg.training.attempt import Attempt
from snnseg.training.report import read_journal

USUAL = {"cpu": {"pictures": (48, 16), "sets": ["encode.timesteps=2", "model.width=0.0625", "train.batch=8"]},
         "cuda": {"pictures": (1600, 320), "sets": ["encode.timesteps=5", "model.width=1.0", "train.batch=16"]}}
PATIENCE_S = 600.0


def trained(root: Path, net: str, sets: list[str], kill_at: int | None) -> dict[str, Any]:
    """How the command went: seconds to its first line and its end, its steps, losses by step, mIoU. Its second worker is killed at line `kill_at`."""
    began, first, killed = time.monotonic(), None, None
    words = [sys.executable, "-m", "snnseg", "train", f"mnist_cifar/{net}", "--params", str(root / config.PARAMS)]
    words += [word for text in sets for word in ("--set", text)]
    with open(root / "log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
    try:
        while process.poll() is None and time.monotonic() - began < PATIENCE_S:
            time.sleep(0.05)
            for journal in (root / "data" / "run").glob("*/metrics.jsonl"):
                lines = len(read_journal(journal))
                first = first or (time.monotonic() - began if lines else None)
                if kill_at and not killed and lines >= kill_at and (second := Attempt(journal.parent).read("rank-1.json")):
                    os.kill(second["pid"], signal.SIGKILL)
                    killed = lines
    finally:
        process.kill()
    if process.wait():
        raise SystemExit(f"{' '.join(words)}: exit code {process.returncode}\n{(root / 'log').read_text(encoding='utf-8')[-3000:]}")
    folder, = (root / "data" / "run").glob("mnist_cifar-*")
    about = json.loads((folder / "model" / "about.json").read_text(encoding="utf-8"))
    lines = read_journal(folder / "metrics.jsonl")
    return {"workers": about.get("workers", "in place"), "device": about["device"], "killed_at_line": killed, "first_line_s": first,
            "seconds": time.monotonic() - began, "steps": [line["step"] for line in lines],
            "miou": [line["test/miou"] for line in lines if "test/miou" in line],
            "losses": {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}}


def rows(net: str, pictures: tuple[int, int], sets: list[str], workers: int, device: str) -> Iterator[dict[str, Any]]:
    """A row each, with how far its losses are from those of the first, at the first step and at most."""
    sets = [f"data.mnist_cifar.train={pictures[0]}", f"data.mnist_cifar.test={pictures[1]}", "train.epochs=3", "train.log_every=1", "train.checkpoint_every=20",
            "track.mlflow=false", *sets]
    through = ["cluster.address=local", *(["cluster.gpus_per_worker=0"] if device == "cpu" else [])]
    asked = {"in place": [], "in place again": [], "one worker": [*through, "train.workers=1"], f"{workers} workers": [*through, f"train.workers={workers}"],
             f"{workers} workers, one killed": [*through, f"train.workers={workers}"]}
    first = None
    with tempfile.TemporaryDirectory() as place:
        for name, more in asked.items():
            root = Path(place, name.replace(" ", "-"))
            root.mkdir()
            shutil.copy(frame.root() / config.PARAMS, root)
            if first is None:
                prepare.prepare(config.load(root / config.PARAMS, f"mnist_cifar/{net}", sets))
                store = root / "data" / "store"
            else:
                shutil.copytree(store, root / "data" / "store")
            found = trained(root, net, [*sets, *more], pictures[0] // 20 if "killed" in name else None)
            steps, losses = found.pop("steps"), found.pop("losses")
            first = first or losses
            apart = [abs(losses[step] - loss) for step, loss in first.items()]
            yield {"net": net, "training": name, "lines": len(steps), "each_step_once": steps == sorted(set(steps)), **found, "first_loss_apart": apart[0],
                   "losses_apart": max(apart)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", choices=["cpu", "cuda"])
    arguments.add_argument("--workers", type=int, default=2, metavar="N")
    arguments.add_argument("--net", default="spiking_deeplab")
    arguments.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="sets")
    asked = arguments.parse_args()
    device, done = forms.checked_device(asked.device), []
    for row in rows(asked.net, USUAL[device]["pictures"], [*USUAL[device]["sets"], *asked.sets], asked.workers, device):
        done.append(row)
        frame.write("through_ray", frame.machine(device), done)
        print(f"{row['training']}: {row['lines']} lines{'' if row['each_step_once'] else ', some of them twice'}, first after {row['first_line_s']:.0f} s, "
              f"end after {row['seconds']:.0f} s; losses {row['losses_apart']:.2g} apart, the first {row['first_loss_apart']:.2g}; "
              f"mIoU {', '.join(f'{miou:.2f}' for miou in row['miou'])}", flush=True)


if __name__ == "__main__":
    stage.run(main)
