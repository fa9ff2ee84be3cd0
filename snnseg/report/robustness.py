"""One experiment's scores on noisy inputs, as files below data/result/<benchmark>/<experiment>/.

    robustness.json   clean score; of each kind and level mean mIoU, spread over the draws, relative drop (section 5.4)
    robustness.csv    a line a draw, with the sha256 of its inputs: that of another net's line is the same
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from snnseg import lock, seal
from snnseg.data import store
from snnseg.errors import StoreError
from snnseg.evaluation import robustness
from snnseg.evaluation.robustness import Point
from snnseg.models import saved
from snnseg.report.result import REMEDY
from snnseg.report.table import csv_text
from snnseg.sections import Config

FILES = "robustness.json", "robustness.csv"


@dataclass(frozen=True)
class Curves:
    """A net's scores by kind and level of noise, and what is known of the net."""

    summary: dict[str, Any]
    about: dict[str, Any]
    points: tuple[Point, ...]


def measure(model_folder: Path, config: Config) -> Curves:
    """Score a saved net on noisy pictures of its test split.

    `config` gives the section robustness, all else is the net's own. Raises StoreError and its kin, and OutOfMemory.
    """
    model, trained, about = saved.load(model_folder, config.root, config.around)
    if store.check(trained.store, trained.store_params, REMEDY) != about["store"]:
        raise StoreError(trained.store, f"not the store that {model_folder} was trained with", REMEDY)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    split = store.read(trained.store, "test", trained.timesteps)
    points = tuple(robustness.curves(model.to(device), split, trained, device))
    clean = next((p.miou for p in points if p.level == 0), None)
    asked = trained.robustness
    summary = {
        "benchmark": about["benchmark"], "experiment": about["experiment"], "protocol": trained.protocol, "timesteps": trained.timesteps,
        "pictures": min(asked.pictures or len(split), len(split)), "seed": asked.seed, "miou": clean,
        "noise": {kind: [{"level": p.level, "miou": p.miou, "spread": p.spread, "draws": len(p.mious), "drop": robustness.drop(clean, p.miou)}
                         for p in points if p.kind == kind] for kind in dict.fromkeys(p.kind for p in points)}}
    return Curves(summary, about, points)


def rows(points: tuple[Point, ...]) -> list[dict[str, Any]]:
    """A row a draw."""
    return [{"noise": p.kind, "level": p.level, "draw": k, "miou": f"{miou:.4f}", "sha256": sha256}
            for p in points for k, (miou, sha256) in enumerate(zip(p.mious, p.digests, strict=True))]


def write(config: Config) -> Curves:
    """Score the experiment's net and write its files. Raises as `measure`, and Busy, NoSpace."""
    found, folder = measure(config.model_folder, config), config.result_folder
    with lock.held(folder, "measuring robustness"):
        seal.write_file(folder / FILES[0], json.dumps(found.summary, indent=1) + "\n")
        seal.write_file(folder / FILES[1], csv_text(rows(found.points), ["noise", "level", "draw", "miou", "sha256"]))
    return found


def lines(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    told = [f"{summary['benchmark']}/{summary['experiment']}, {summary['pictures']} pictures, clean mIoU "
            f"{'-' if summary['miou'] is None else format(summary['miou'], '.2f')}"]
    for kind, points in summary["noise"].items():
        told += [f"  {kind.replace('_', ' ') if k == 0 else '':12} {p['level']:8g}   mIoU {p['miou']:6.2f} +- {p['spread']:.2f}   "
                 f"drop {'-' if p['drop'] is None else format(p['drop'], '.1f') + ' %'}" for k, p in enumerate(p for p in points if p["level"])]
    return "\n".join(told)
