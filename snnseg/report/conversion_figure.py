"""All converted nets side by side: mIoU over the number of time steps (figures 3 and 13), as a picture and a table."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from snnseg import seal
from snnseg.report import measured, paper, style
from snnseg.report.measured import NOT_RUN
from snnseg.report.table import csv_text

COLUMNS = "benchmark experiment thresholds per timesteps miou ann_miou spikes_a_neuron".split()


def rows(results: Path, names: list[str]) -> list[dict[str, Any]]:
    """A row for each ANN twin and number of time steps; a twin that was not converted has one, which says so."""
    found = []
    for name, told in measured.read(results, names, "conversion.json", spiking=False).items():
        net = dict(zip(COLUMNS, [*name.split("/"), *[NOT_RUN] * 6], strict=True))
        if told is None:
            found.append(net)
        else:
            how = net | {"thresholds": told["thresholds"]["of"], "per": told["thresholds"]["per"], "ann_miou": told["ann_miou"]}
            found += [how | {"timesteps": p["timesteps"], "miou": p["miou"], "spikes_a_neuron": p["spikes"]} for p in told["curve"]]
    return found


def draw(panel: Any, points: list[dict[str, Any]], net: str) -> None:
    """A converted net's line, in its twin's colour."""
    panel.plot([p["timesteps"] for p in points], [p["miou"] for p in points], label=f"{net}, converted", **style.line(net))


def figure(found: list[dict[str, Any]]) -> bytes:
    """PNG: a panel for each benchmark; dotted the twins themselves, a hollow square the paper's."""
    run = [r for r in found if r["miou"] != NOT_RUN]
    benchmarks = list(dict.fromkeys(r["benchmark"] for r in run))
    page, axes = style.panels(1, len(benchmarks), 4.2, 3.2)
    for panel, benchmark in zip(axes[0], benchmarks, strict=False):
        mine = [r for r in run if r["benchmark"] == benchmark]
        longest = max(r["timesteps"] for r in mine)
        for net in dict.fromkeys(r["experiment"] for r in mine):
            points = [r for r in mine if r["experiment"] == net]
            colour = style.line(net)["color"]
            draw(panel, points, net)
            panel.axhline(points[0]["ann_miou"], color=colour, linestyle=":", linewidth=1, label=net)
            if (theirs := paper.ANN.get((benchmark, net))) is not None:
                panel.plot([longest], [theirs], "s", color=colour, markerfacecolor="none", markersize=7, label=f"{net}, paper")
        style.over_time_steps(panel)
        panel.set(title=benchmark, xlabel="time steps", ylabel="mIoU, %")
        panel.grid(alpha=0.3)
    style.legend(page, axes)
    if not benchmarks:
        axes[0][0].axis("off")
    return style.png(page)


def write(results: Path, report: Path, names: list[str]) -> list[dict[str, Any]]:
    """Write conversion.csv and conversion.png below `report` from the files of `names` below `results`; return the rows."""
    found = rows(results, names)
    seal.write_file(report / "conversion.csv", csv_text([{k: measured.written(r[k]) for k in COLUMNS} for r in found], COLUMNS))
    seal.write_file(report / "conversion.png", figure(found))
    return found
