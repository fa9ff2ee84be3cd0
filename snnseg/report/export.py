"""A trained net published: written as one file, and scored as it was written, with its rounded weights.

`models/mnist_cifar.npz` of the project has real test pictures: a net that fits them is scored on them as well, so that whoever has the two
files can see whether the net answers as it did.
"""
from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from snnseg import seal
from snnseg.data import excerpt
from snnseg.data.store import Split
from snnseg.errors import StoreError
from snnseg.evaluation import evaluate
from snnseg.models import published, saved
from snnseg.models.published import Accuracy, Excerpt, Scores, Spent, Weights
from snnseg.report import energy
from snnseg.report.opened import opened
from snnseg.sections import Config

FEW = 50        # pictures of the small file, for nets of many time steps


@dataclass(frozen=True)
class Exported:
    """A published file."""

    path: Path
    size: int       # bytes
    sha256: str
    scores: Scores


def export(model_folder: Path, config: Config, out: Path, dtype: Weights = "bf16", score: bool = False, force: bool = False) -> Exported:
    """Write a saved net to `out`, with the config and provenance of its about.json; with `score`, what `scores` measures is in it too.

    `config` gives root and the sections that shape no weights, all else is the net's own. Raises StoreError and its kin for the net or, with
    `score`, its store, UsageError for `out`, NoSpace, OutOfMemory.
    """
    model, trained, about = saved.load(model_folder, config.root, config.around)
    try:
        data, measured = published.packed(model.state_dict(), about, dtype), Scores()
    except ValidationError as e:
        raise StoreError(model_folder, f"about.json does not say what a published net tells: {e.errors()[0]['loc'][-1]}", saved.REMEDY) from e
    if score:
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / out.name
            published.write(written, data)
            measured = scores(written, trained)
        data = published.packed(model.state_dict(), about, dtype, measured)
    published.write(out, data, force)
    return Exported(out, len(data), hashlib.sha256(data).hexdigest(), measured)


def pictures_of(config: Config) -> Path | None:
    """The project's file of test pictures that fit a net; None where it has none."""
    place = config.root / "models" / f"{config.data.dataset}.npz"
    return place if config.data.dataset == "mnist_cifar" and config.data.size == excerpt.SIDE and place.is_file() else None


def miou(model: nn.Module, config: Config, device: torch.device, split: Split) -> float:
    """In per cent, with the net's running statistics. Raises OutOfMemory."""
    total = evaluate.confusion(model, split, config, device)
    assert total is not None, "nothing asks this evaluation to stop"
    return 100 * total.miou()


def on_excerpt(model: nn.Module, config: Config, device: torch.device, file: Path) -> Excerpt:
    """Score a net on a small file of test pictures, in float32, in which machines agree: a digit of 300 read otherwise is half a point.

    Raises DataMissing, DataError, OutOfMemory.
    """
    config = config.model_copy(update={"train": config.train.model_copy(update={"precision": "fp32"})})
    split = excerpt.read(file, config.data.chosen.protocol)
    few = split.first(FEW)
    return Excerpt(file=file.name, sha256=seal.file_sha256(file), pictures=len(split), miou=miou(model, config, device, split),
                   few=len(few), few_miou=miou(model, config, device, few))


def scores(file: Path, config: Config) -> Scores:
    """mIoU of a published net on the whole test split of `config`'s store, its energy, and mIoU on the project's test pictures if they fit.

    Raises as `opened`, DataError for these pictures, OutOfMemory.
    """
    net = opened(file, config)
    split = net.split("test")
    total = evaluate.confusion(net.model, split, net.config, net.device)
    assert total is not None, "nothing asks this evaluation to stop"
    spent = energy.measure(file, config).summary
    spikes = spent["spikes"] or {"a_picture": None, "a_neuron_and_step": None}
    small = pictures_of(config)
    return Scores(
        test=Accuracy(pictures=len(split), miou=100 * total.miou(), background_miou=100 * total.all_background().miou()),
        energy=Spent(pictures=spent["pictures"], exact_mj=spent["energy_mj"]["exact"], spikes=spikes["a_picture"],
                     spike_rate=spikes["a_neuron_and_step"]),
        excerpt=None if small is None else on_excerpt(net.model, net.config, net.device, small))


def lines(made: Exported) -> str:
    """What was written, for a person."""
    told = [f"{made.path}: {made.size:,} bytes".replace(",", " "), f"  sha256 {made.sha256}"]
    if made.scores.test:
        told.append(f"  mIoU {made.scores.test.miou:.2f} on {made.scores.test.pictures} test pictures (all background {made.scores.test.background_miou:.2f})")
    if made.scores.excerpt:
        told.append(f"  mIoU {made.scores.excerpt.miou:.2f} on the {made.scores.excerpt.pictures} of models/{made.scores.excerpt.file}")
    if made.scores.energy:
        told.append(f"  {made.scores.energy.exact_mj:.4f} mJ a picture, counted exactly")
    return "\n".join(told)
