"""Spikes by layer, all nets of a benchmark side by side (figure 14), as a picture and a table, from what the stage energy counted."""
from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from snnseg import seal
from snnseg.report import style
from snnseg.report.table import csv_text

COLUMNS = "benchmark experiment layer timesteps channels neurons rate rate_per_step dead saturated".split()


def rows(results: Path, names: list[str]) -> list[dict[str, Any]]:
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
                          "channels": int(mine[0]["channels"]), "neurons": int(mine[0]["neurons"]), "rate": rate, "rate_per_step": rate / told["timesteps"],
                          "dead": told["spikes"]["dead_channels"].get(layer, 0), "saturated": told["spikes"]["saturated_channels"].get(layer, 0)})
    return found


def _order(found: list[dict[str, Any]]) -> list[str]:
    """Layers of nets of several kinds, each net's in the way of its data: a layer stands behind all that stand before it somewhere."""
    nets: dict[tuple[str, str], list[str]] = {}
    for r in found:
        nets.setdefault((r["benchmark"], r["experiment"]), []).append(r["layer"])
    chains = list(nets.values())
    order: list[str] = []
    while chains := [[layer for layer in chain if layer not in order] for chain in chains if set(chain) - set(order)]:
        order.append(next(chain[0] for chain in chains if not any(chain[0] in other[1:] for other in chains)))
    return order


def figure(found: list[dict[str, Any]]) -> bytes:
    """PNG: a panel for each benchmark, in it a group of bars a layer, a bar a net."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    benchmarks, layers = list(dict.fromkeys(r["benchmark"] for r in found)), _order(found)
    page, axes = pyplot.subplots(len(benchmarks) or 1, 1, figsize=(max(4, 0.75 * len(layers) + 1.5), 2.6 * (len(benchmarks) or 1)), squeeze=False,
                                 layout="constrained")
    for panel, benchmark in zip(axes[:, 0], benchmarks, strict=False):
        nets = list(dict.fromkeys(r["experiment"] for r in found if r["benchmark"] == benchmark))
        width = 0.8 / len(nets)
        for k, net in enumerate(nets):
            mine = {r["layer"]: r for r in found if (r["benchmark"], r["experiment"]) == (benchmark, net)}
            places = np.array([layers.index(layer) for layer in mine]) + (k - (len(nets) - 1) / 2) * width
            steps = next(iter(mine.values()))["timesteps"]
            panel.bar(places, [r["rate"] for r in mine.values()], width, label=f"{net}, T = {steps}", color=style.line(net)["color"])
        panel.set_xticks(range(len(layers)), layers, fontsize=7)
        panel.set(title=benchmark, ylabel="spikes a neuron", xlim=(-0.6, len(layers) - 0.4))
        panel.grid(axis="y", alpha=0.3)
        panel.legend(fontsize=7)
    out = io.BytesIO()
    page.savefig(out, format="png", dpi=110, metadata={"Software": None})
    pyplot.close(page)
    return out.getvalue()


def write(results: Path, report: Path, names: list[str]) -> list[dict[str, Any]]:
    """Write spikes.csv and spikes.png below `report` from the files of `names` below `results`; return the rows."""
    found = rows(results, names)
    told = [{**r, "rate": f"{r['rate']:.6f}", "rate_per_step": f"{r['rate_per_step']:.6f}"} for r in found]
    seal.write_file(report / "spikes.csv", csv_text(told, COLUMNS))
    seal.write_file(report / "spikes.png", figure(found))
    return found
