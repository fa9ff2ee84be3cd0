"""The accuracy of trainings as the plain form in fp32 and as the fast way in bf16: the same net, pictures and seed.

    python -m benchmarks.accuracy [--device cpu|cuda] [--quick] [--epochs 3] [--pictures 48000 12000] [--source archives] [--root FOLDER]

MNIST-CIFAR10 at 32x32, of what packages bring (`sample`) or of the official files below FOLDER/data/raw (`archives`); a store that FOLDER
has already is used. Writes data/bench/accuracy.json.
"""
from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import forms, frame
from snnseg import config, memory, stage
from snnseg.data import prepare
from snnseg.sections import Config
from snnseg.training import loop, run

FORMS = {"reference fp32": ["train.kernels=reference", "train.precision=fp32"], "auto fp32": ["train.precision=fp32"],
         "auto bf16": ["train.precision=bf16"]}
USUAL = {"cpu": {"pictures": [2400, 480], "timesteps": 4, "width": 0.25}, "cuda": {"pictures": [48_000, 12_000], "timesteps": 20, "width": 1.0}}


class Mious:
    """A reporter that keeps the mIoU, in per cent, and the mean loss of each epoch."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def begin(self, step: int, steps: int, epochs: int) -> None:
        pass

    def numbers(self, step: int, told: dict[str, Any]) -> None:
        if "test/miou" in told:
            self.epochs.append({"test_miou": told["test/miou"], "train_loss": told["train/epoch_loss"]})

    def saved(self, step: int, folder: Path) -> None:
        pass


def numbers(asked: argparse.Namespace, sets: list[str], root: Path) -> Config:
    """The config of one training."""
    told = config.load(str(Path(config.PARAMS).absolute()), f"mnist_cifar/{asked.net}", [
        f"data.source={asked.source}", f"data.mnist_cifar.train={asked.pictures[0]}", f"data.mnist_cifar.test={asked.pictures[1]}",
        f"encode.timesteps={asked.timesteps}", "encode.coding=signed_poisson", f"model.width={asked.width}", f"train.epochs={asked.epochs}",
        f"train.seed={asked.seed}", "evaluate.batch=256", "track.mlflow=false", *sets])
    return told.model_copy(update={"root": root})


def trained(asked: Config, device: torch.device, folder: Path) -> dict[str, Any]:
    """mIoU and loss of each epoch of a training, and its seconds."""
    report = Mious()
    folder.mkdir()
    _, state = loop.fit(asked, run.loaded(asked), folder, report, lambda: False, device, "0" * 64)
    return {"epochs": report.epochs, "seconds": round(state.seconds, 1)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--quick", action="store_true", help="few pictures, one epoch")
    arguments.add_argument("--net", default="spiking_deeplab", choices=["spiking_deeplab", "spiking_fcn"])
    arguments.add_argument("--forms", nargs="+", choices=list(FORMS), default=["reference fp32", "auto bf16"])
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--pictures", type=int, nargs=2, metavar=("N", "M"), help="to train on and to evaluate on")
    arguments.add_argument("--timesteps", type=int, metavar="T")
    arguments.add_argument("--width", type=float)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--source", choices=["sample", "archives"], default="sample")
    arguments.add_argument("--root", type=Path, metavar="FOLDER", help="of data/raw and data/store; none: a temporary one")
    asked = arguments.parse_args()
    forms.checked_device(asked.device)
    for name, value in USUAL[asked.device].items():
        if getattr(asked, name) is None:
            setattr(asked, name, value)
    if asked.quick:
        asked.pictures, asked.epochs = [320, 64], 1
    memory.keep_freed()
    machine, rows = frame.machine(asked.device), []
    with tempfile.TemporaryDirectory() as scratch:
        root = asked.root.absolute() if asked.root else Path(scratch)
        first = numbers(asked, [], root)
        if not first.store.exists():
            prepare.prepare(first)
        print(f"{frame.told(machine)}\n{first.name}, {asked.source}, {asked.pictures[0]} pictures, T = {asked.timesteps}, {asked.epochs} epochs; mIoU of "
              f"{asked.pictures[1]} test pictures after each\n")
        for form in asked.forms:
            row = {"form": form, "net": asked.net, "source": asked.source, "pictures": asked.pictures, "timesteps": asked.timesteps, "width": asked.width,
                   "seed": asked.seed} | trained(numbers(asked, FORMS[form], root), torch.device(asked.device), Path(scratch) / form.replace(" ", "-"))
            rows.append(row)
            print(f"{form:16}" + "".join(f"{epoch['test_miou']:8.2f}" for epoch in row["epochs"]) + f"   {row['seconds']:8.1f} s", flush=True)
            frame.write("accuracy", machine, rows)


if __name__ == "__main__":
    stage.run(main)
