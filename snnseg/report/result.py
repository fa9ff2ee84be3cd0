"""One experiment's evaluation: on the whole test split, and as files below data/result/<benchmark>/<experiment>/.

    metrics.json      the scores, and the answer "background everywhere" beside them
    about.json        where they come from: the net's numbers, code, machine, store
    classes.csv       IoU and pixels of each class
    pictures.npz/png  fixed samples: input, truth, prediction, errors
"""
from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snnseg import lock, seal
from snnseg.data import store
from snnseg.errors import StoreError
from snnseg.evaluation import evaluate, tally
from snnseg.evaluation.confusion import Confusion
from snnseg.models import saved
from snnseg.report import pictures
from snnseg.report.table import csv_text
from snnseg.sections import Config

REMEDY = "The net was trained on another one: train it anew, or set data as in its about.json and run snnseg prepare"


@dataclass(frozen=True)
class Result:
    """The scores of a net, what is known of it, and samples: u8 images [N,H,W,3], truths and answers [N,H,W]."""

    metrics: dict[str, Any]
    about: dict[str, Any]
    images: np.ndarray
    truths: np.ndarray
    answers: np.ndarray


def _metrics(config: Config, about: dict[str, Any], total: Confusion) -> dict[str, Any]:
    classes = about["classes"]
    return {
        "benchmark": about["benchmark"], "experiment": about["experiment"], "protocol": config.protocol,
        "timesteps": (config.evaluate.timesteps or config.timesteps) if config.spiking or config.data.events else 1,
        "trained_timesteps": config.timesteps,
        "statistics": config.evaluate.norm,
        "miou": 100 * total.miou(), "background_miou": 100 * total.all_background().miou(),
        "iou": {c: None if s is None else 100 * s for c, s in zip(classes, total.iou(), strict=True)},
        "pixels": dict(zip(classes, total.pixels, strict=True)),
    }


def measure(model_folder: Path, config: Config) -> Result:
    """Evaluate a saved net on the whole test split of the store it was trained with.

    `config` gives the evaluate section, all else is the net's own. Raises StoreError and its kin for the net or the
    store, OutOfMemory.
    """
    model, trained, about = saved.load(model_folder, config.root, config.around)
    digest = store.check(trained.store, trained.store_params, REMEDY)
    if digest != about["store"]:
        raise StoreError(trained.store, f"not the store that {model_folder} was trained with", REMEDY)
    split = store.read(trained.store, "test", trained.evaluate.timesteps or trained.timesteps)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    total, kept = tally.begun(Confusion.empty(trained.classes), device), []
    chosen = np.linspace(0, len(split) - 1, min(trained.evaluate.pictures, len(split))).astype(int)     # from all over the split
    for batch, answer_BHW in evaluate.predictions(model, split, trained, device, trained.evaluate.norm, trained.evaluate.timesteps):
        total += tally.counted(batch.mask_BHW, answer_BHW, trained.classes)
        kept += [answer_BHW[k] for k in np.flatnonzero(np.isin(batch.index_B, chosen))]
    items, truths = split.take(chosen)
    images, answers = np.stack([pictures.visible(item) for item in items]), torch.stack(kept).to("cpu", torch.uint8).numpy()
    return Result(_metrics(trained, about, tally.read(total)), about, images, truths, answers)


def write(config: Config) -> Result:
    """Evaluate the experiment's net and write its files. Raises as `measure`, and Busy, NoSpace."""
    result = measure(config.model_folder, config)
    metrics, palette, folder = result.metrics, result.about["palette"], config.result_folder
    rows = [{"class": c, "iou": "-" if metrics["iou"][c] is None else f"{metrics['iou'][c]:.4f}", "pixels": n} for c, n in metrics["pixels"].items()]
    page = pictures.sheet({
        "input": list(result.images), "truth": [pictures.coloured(t, palette) for t in result.truths],
        "prediction": [pictures.coloured(a, palette) for a in result.answers],
        "errors": [pictures.errors(t, a) for t, a in zip(result.truths, result.answers, strict=True)],
    })
    arrays = io.BytesIO()
    np.savez_compressed(arrays, image=result.images, truth=result.truths, prediction=result.answers)
    with lock.held(folder, "evaluating"):
        seal.write_file(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
        seal.write_file(folder / "about.json", json.dumps(result.about, indent=1) + "\n")
        seal.write_file(folder / "classes.csv", csv_text(rows, ["class", "iou", "pixels"]))
        seal.write_file(folder / "pictures.npz", arrays.getvalue())
        seal.write_file(folder / "pictures.png", pictures.png(page))
    return result
