"""One experiment's evaluation as files below data/result/<experiment>/.

    metrics.json      the scores, the answer "background everywhere" beside them, and where they come from
    classes.csv       IoU and pixels of each class
    pictures.npz/png  fixed samples: input, truth, prediction, errors
"""
from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snnseg import seal
from snnseg.data import store
from snnseg.errors import StoreError
from snnseg.evaluation import evaluate
from snnseg.evaluation.confusion import Confusion
from snnseg.models import saved
from snnseg.report import pictures
from snnseg.report.table import csv_text
from snnseg.sections import Config


def _metrics(config: Config, about: dict[str, Any], total: Confusion, norm: str) -> dict[str, Any]:
    classes = about["classes"]
    return {
        "experiment": config.experiment, "protocol": config.protocol, "norm_statistics": norm,
        "miou": 100 * total.miou(), "background_miou": 100 * total.all_background().miou(),
        "iou": {c: None if s is None else 100 * s for c, s in zip(classes, total.iou(), strict=True)},
        "pixels": dict(zip(classes, total.pixels, strict=True)),
        **{k: about[k] for k in ("train_samples", "test_samples", "seconds", "parameters", "device", "commit", "store", "fingerprint")},
        "palette": about["palette"], "config": about["config"],
    }


def write(config: Config) -> tuple[dict[str, Any], dict[str, Any], list[Path]]:
    """Evaluate the trained net of `config` on the whole test split and write its files.

    Returns (metrics, what is known of the net, the files to show). `config` gives the experiment and the evaluate
    section; all else is the net's own. Raises StoreError and its kin for the net or the store.
    """
    model, trained, about = saved.load(config.model_folder, config.root)
    trained = trained.model_copy(update={"evaluate": config.evaluate, "track": config.track})
    digest = store.check(trained.store, trained.store_params)
    if digest != about["store"]:
        raise StoreError(trained.store, f"not the store that {config.model_folder} was trained with", saved.REMEDY)
    split = store.read(trained.store, "test")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)

    total, shown = Confusion.empty(trained.classes), []
    for batch, prediction in evaluate.predictions(model, split, trained, device, trained.evaluate.norm):
        total += Confusion.of(batch.mask_BHW, prediction, trained.classes)
        if len(shown) < trained.evaluate.pictures:
            shown += list(zip(batch.image_BHWC, batch.mask_BHW, prediction, strict=True))
    images, truths, answers = (np.stack(part) for part in zip(*shown[: trained.evaluate.pictures], strict=True))

    folder, palette = config.result_folder, about["palette"]
    metrics = _metrics(trained, about, total, trained.evaluate.norm)
    rows = [{"class": c, "iou": "-" if metrics["iou"][c] is None else f"{metrics['iou'][c]:.4f}", "pixels": n} for c, n in metrics["pixels"].items()]
    seal.write_file(folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    seal.write_file(folder / "classes.csv", csv_text(rows, ["class", "iou", "pixels"]))
    arrays = io.BytesIO()
    np.savez_compressed(arrays, image=images, truth=truths, prediction=answers)
    seal.write_file(folder / "pictures.npz", arrays.getvalue())
    page = pictures.sheet({
        "input": list(images), "truth": [pictures.coloured(t, palette) for t in truths],
        "prediction": [pictures.coloured(p, palette) for p in answers],
        "errors": [pictures.errors(t, p) for t, p in zip(truths, answers, strict=True)],
    })
    png = io.BytesIO()
    page.save(png, "PNG")
    seal.write_file(folder / "pictures.png", png.getvalue())
    return metrics, about, [folder / "pictures.png", folder / "metrics.json", folder / "classes.csv"]


def named(metrics: dict[str, Any]) -> dict[str, float | None]:
    """The scores of a metrics.json under the names they have in MLflow."""
    return {"test/miou": metrics["miou"], "test/background_miou": metrics["background_miou"],
            **{f"test/iou/{c}": s for c, s in metrics["iou"].items()}}
