"""One ANN twin converted to a spiking net, as files below data/result/<benchmark>/<experiment>/.

    conversion.json   how it was converted, the twin's mIoU, also with activations of few bits, and the spiking net's after each number of time steps
    conversion.csv    the same scores, a line a number of time steps, with spikes a neuron until then
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnseg import lock, seal
from snnseg.errors import ConfigError
from snnseg.evaluation import converted, evaluate
from snnseg.report.opened import opened
from snnseg.report.table import csv_text
from snnseg.sections import Config

FILES = "conversion.json", "conversion.csv"
COLUMNS = ["timesteps", "miou", "ann_miou", "spikes_a_neuron"]


@dataclass(frozen=True)
class Scores:
    """A converted net's scores, and what is known of the twin."""

    summary: dict[str, Any]
    about: dict[str, Any]


def check(config: Config) -> None:
    """Raises ConfigError for a net that is no ANN twin."""
    if config.spiking:
        raise ConfigError(f"{config.name}: {config.model.name} is a spiking net already; ANN twins are converted, those whose model.name is ann_deeplab or "
                          f"ann_fcn. Take one of them, {config.benchmark}/ann_fcn for example.")


def measure(model_folder: Path, config: Config) -> Scores:
    """Convert a saved ANN twin, with thresholds from its training split, and score it on its test split.

    `config` gives the section conversion, all else is the net's own. Raises ConfigError for a net that is no twin, DataError for a
    calibration set that is too small, StoreError and its kin, OutOfMemory, NotFinite.
    """
    check(config)
    net = opened(model_folder, config)
    check(net.config)
    asked, about = net.config.conversion, net.about
    split = net.split("test", asked.pictures)
    twin = evaluate.confusion(net.model, split, net.config, net.device)
    assert twin is not None, "nothing asks this evaluation to stop"
    spiking, thresholds = converted.balanced(net.model, net.split("train"), net.config, net.device)
    few = converted.quantised(net.model, net.split("train"), net.split("test"), net.config, net.device)
    points = converted.curve(spiking, split, net.config, net.device)
    summary = {
        "benchmark": about["benchmark"], "experiment": about["experiment"], "protocol": net.config.protocol, "pictures": len(split),
        "coding": "events" if net.config.data.events else asked.coding, "leak": asked.leak, "start": asked.start,
        "thresholds": {"of": thresholds.of, "per": asked.per, "percentile": asked.percentile, "scale": asked.scale, "pictures": asked.calibration,
                       "timesteps": thresholds.timesteps, "silent": thresholds.silent},
        "ann_miou": 100 * twin.miou(),
        "quantised": [{"bits": bits, "miou": miou, "pictures": len(net.split("test"))} for bits, miou in few.items()],
        "curve": [{"timesteps": p.timesteps, "miou": p.miou, "spikes": p.spikes} for p in points]}
    return Scores(summary, about)


def rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each number of time steps."""
    return [{"timesteps": p["timesteps"], "miou": f"{p['miou']:.4f}", "ann_miou": f"{summary['ann_miou']:.4f}", "spikes_a_neuron": f"{p['spikes']:.5f}"}
            for p in summary["curve"]]


def write(config: Config) -> Scores:
    """Convert the experiment's net and write its files. Raises as `measure`, and Busy, NoSpace."""
    found, folder = measure(config.model_folder, config), config.result_folder
    with lock.held(folder, "converting"):
        seal.write_file(folder / FILES[0], json.dumps(found.summary, indent=1) + "\n")
        seal.write_file(folder / FILES[1], csv_text(rows(found.summary), COLUMNS))
    return found


def lines(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    t = summary["thresholds"]
    kind = "largest" if t["percentile"] == 100 else f"percentile {t['percentile']:g}"
    told = [f"{summary['benchmark']}/{summary['experiment']} as a spiking net, {summary['pictures']} pictures; a threshold a {t['per']}, {kind} of the "
            f"{t['of']} of {t['pictures']} pictures", f"  the ANN itself    mIoU {summary['ann_miou']:6.2f}"]
    told += [f"  ... of {q['bits']:2} bits     mIoU {q['miou']:6.2f}   on the whole test split" for q in summary["quantised"]]
    told += [f"  {p['timesteps']:6} time steps mIoU {p['miou']:6.2f}   {p['spikes']:8.3f} spikes a neuron" for p in summary["curve"]]
    return "\n".join(told)
