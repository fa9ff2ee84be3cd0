"""What the stages measured of all nets, as tables side by side below data/report; the page draws the same numbers.

    robustness.csv   mIoU, spread and drop by kind and level of noise (figure 11)
    spikes.csv       spikes a neuron by layer (figure 14)
    conversion.csv   mIoU of converted twins by number of time steps (figures 3 and 13)
    timesteps.csv    mIoU of spiking nets trained with (figure 12), and read at, other numbers of time steps
"""
from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from snnseg import seal
from snnseg.report import measured, timesteps_table
from snnseg.report.measured import NOT_RUN
from snnseg.report.table import csv_text

Rows = list[dict[str, Any]]
NOISE = "benchmark experiment noise level miou spread drop draws".split()
SPIKES = "benchmark experiment layer timesteps channels neurons rate rate_per_step dead saturated".split()
CONVERTED = "benchmark experiment thresholds per timesteps miou ann_miou spikes_a_neuron".split()
TIMESTEPS = ["benchmark", "experiment", "trained_timesteps", *timesteps_table.COLUMNS]


def robustness(results: Path, names: list[str]) -> Rows:
    """A row for each net, kind and level; none for what was not run."""
    found = []
    for name in names:
        if (path := results / name / "robustness.json").is_file():
            told = json.loads(path.read_text(encoding="utf-8"))
            found += [{"benchmark": told["benchmark"], "experiment": told["experiment"], "noise": kind, **point}
                      for kind, points in told["noise"].items() for point in points]
    return [{k: "-" if r[k] is None else f"{r[k]:.4f}" if k in ("miou", "spread", "drop") else r[k] for k in NOISE} for r in found]


def spikes(results: Path, names: list[str]) -> Rows:
    """A row for each net and layer that fires; none for an ANN, or for what was not counted.

    `rate` is R_s of eq. 8, spikes a neuron over all steps; `dead` and `saturated` are numbers of channels.
    """
    found = []
    for name in names:
        folder = results / name
        if not all((folder / file).is_file() for file in ("energy.json", "spikes.csv")):
            continue
        told = json.loads((folder / "energy.json").read_text(encoding="utf-8"))
        if not told["spikes"]:
            continue
        with open(folder / "spikes.csv", newline="", encoding="utf-8") as f:
            steps = list(csv.DictReader(f))
        for layer in dict.fromkeys(s["layer"] for s in steps):
            mine = [s for s in steps if s["layer"] == layer]
            rate = sum(float(s["rate"]) for s in mine)
            found.append({"benchmark": told["benchmark"], "experiment": told["experiment"], "layer": layer, "timesteps": told["timesteps"],
                          "channels": int(mine[0]["channels"]), "neurons": int(mine[0]["neurons"]),
                          "rate": f"{rate:.6f}", "rate_per_step": f"{rate / told['timesteps']:.6f}",
                          "dead": told["spikes"]["dead_channels"].get(layer, 0), "saturated": told["spikes"]["saturated_channels"].get(layer, 0)})
    return found


def conversion(results: Path, names: list[str]) -> Rows:
    """A row for each ANN twin and number of time steps; a twin that was not converted has one, which says so."""
    found = []
    for name, told in measured.read(results, names, "conversion.json", spiking=False).items():
        net = dict(zip(CONVERTED, [*name.split("/"), *[NOT_RUN] * 6], strict=True))
        if told is None:
            found.append(net)
        else:
            how = net | {"thresholds": told["thresholds"]["of"], "per": told["thresholds"]["per"], "ann_miou": told["ann_miou"]}
            found += [how | {"timesteps": p["timesteps"], "miou": p["miou"], "spikes_a_neuron": p["spikes"]} for p in told["curve"]]
    return [{k: measured.written(r[k]) for k in CONVERTED} for r in found]


def timesteps(results: Path, names: list[str]) -> Rows:
    """A row for each score of each spiking net; a net that was not measured has one, which says so."""
    found = []
    for name, told in measured.read(results, names, "timesteps.json", spiking=True).items():
        net = dict(zip(TIMESTEPS, [*name.split("/"), *[NOT_RUN] * 5], strict=True))
        found += [net] if told is None else [net | {"trained_timesteps": told["trained_timesteps"]} | row for row in timesteps_table.rows(told)]
    return found


TABLES = {"robustness": (robustness, NOISE), "spikes": (spikes, SPIKES), "conversion": (conversion, CONVERTED), "timesteps": (timesteps, TIMESTEPS)}


def write(results: Path, report: Path, names: list[str]) -> None:
    """Write all of them below `report` from the files of `names` below `results`."""
    for name, (rows, columns) in TABLES.items():
        seal.write_file(report / f"{name}.csv", csv_text(rows(results, names), columns))
