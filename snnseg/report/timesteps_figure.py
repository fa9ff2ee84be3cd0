"""All spiking nets side by side at other numbers of time steps: trained with them (figure 12), and read at them (figure 13)."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from snnseg import seal
from snnseg.report import conversion_figure, measured, paper, style, timesteps_table
from snnseg.report.measured import NOT_RUN
from snnseg.report.table import csv_text

COLUMNS = ["benchmark", "experiment", "trained_timesteps", *timesteps_table.COLUMNS]
RULES = {"hold": "-", "cycle": "--", "skip": ":"}       # beyond the trained time steps


def rows(results: Path, names: list[str]) -> list[dict[str, Any]]:
    """A row for each score of each spiking net; a net that was not measured has one, which says so."""
    found = []
    for name, told in measured.read(results, names, "timesteps.json", spiking=True).items():
        net = dict(zip(COLUMNS, [*name.split("/"), *[NOT_RUN] * 5], strict=True))
        found += [net] if told is None else [net | {"trained_timesteps": told["trained_timesteps"]} | row for row in timesteps_table.rows(told)]
    return found


def _line(panel: Any, points: list[dict[str, Any]], **look: Any) -> None:
    there = sorted((p["timesteps"], float(p["miou"])) for p in points if p["miou"] != NOT_RUN)
    if there:
        panel.plot(*zip(*there, strict=True), **look)


def _paper(panel: Any, points: dict[int, float], net: str) -> None:
    if points:
        panel.plot(list(points), list(points.values()), "o", color=style.line(net)["color"], markerfacecolor="none", markersize=7, label=f"{net}, paper")


def figure(found: list[dict[str, Any]], converted: list[dict[str, Any]]) -> bytes:
    """PNG: for each benchmark nets by the T they are trained with, and one trained net by the T it is read at, beside converted twins.

    `found` are `rows`, `converted` those of `conversion_figure`; hollow markers are the paper's points.
    """
    run = [r for r in found if r["curve"] != NOT_RUN]
    benchmarks = list(dict.fromkeys(r["benchmark"] for r in run))
    page, axes = style.panels(len(benchmarks), 2, 4.2, 3.0)
    for (trained, read), benchmark in zip(axes, benchmarks, strict=False):
        for net in dict.fromkeys(r["experiment"] for r in run if r["benchmark"] == benchmark):
            mine = [r for r in run if (r["benchmark"], r["experiment"]) == (benchmark, net)]
            look, own = style.line(net), mine[0]["trained_timesteps"]
            theirs = paper.SPIKING.get((benchmark, net), {})
            _line(trained, [r for r in mine if r["curve"] == "trained"], label=net, **look)
            _paper(trained, theirs, net)
            _line(read, [r for r in mine if r["curve"] == "anytime"], label=net, **look)
            for rule in dict.fromkeys(r["past_trained"] for r in mine if r["curve"] == "inference" and r["timesteps"] > own):
                beyond = [r for r in mine if r["past_trained"] == rule and r["curve"] == "inference"]
                begin = [r for r in mine if r["curve"] == "anytime" and r["timesteps"] == own]
                _line(read, [*begin, *beyond], label=f"{net}, beyond its T{'' if rule == '-' else f', {rule}'}",
                      **look | {"linestyle": RULES.get(rule, "-"), "linewidth": 1, "marker": "."})
            _paper(read, {T: miou for T, miou in theirs.items() if T == paper.TIMESTEPS}, net)
        for net in dict.fromkeys(r["experiment"] for r in converted if r["benchmark"] == benchmark and r["miou"] != NOT_RUN):
            conversion_figure.draw(read, [r for r in converted if (r["benchmark"], r["experiment"]) == (benchmark, net)], net)
        trained.set(title=f"{benchmark}: trained with T", xlabel="T", ylabel="mIoU, %")
        read.set(title=f"{benchmark}: one net read at T", xlabel="T", ylabel="mIoU, %")
        for panel in (trained, read):
            style.over_time_steps(panel)
            panel.grid(alpha=0.3)
    style.legend(page, axes)
    if not benchmarks:
        for panel in axes[0]:
            panel.axis("off")
    return style.png(page)


def write(results: Path, report: Path, names: list[str]) -> list[dict[str, Any]]:
    """Write timesteps.csv and timesteps.png below `report` from the files of `names` below `results`; return the rows."""
    found = rows(results, names)
    seal.write_file(report / "timesteps.csv", csv_text(found, COLUMNS))
    seal.write_file(report / "timesteps.png", figure(found, conversion_figure.rows(results, names)))
    return found
