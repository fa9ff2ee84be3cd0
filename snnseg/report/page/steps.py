"""How many time steps it takes: a spiking net after each step and trained with others (figure 12), and twins converted without training (figures 3, 13)."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from snnseg.report import paper, style
from snnseg.report.page import nets as lying
from snnseg.report.page.beside import difference, nearest, setting
from snnseg.report.page.blocks import NONE, Block, Cell, Column, Drawing, Missing, Section, Table
from snnseg.report.page.glance import titled
from snnseg.report.page.nets import Net
from snnseg.report.page.plot import Panel, Plot, Point, Rule, Series
from snnseg.report.table import NOT_RUN

RULES = {"hold": "the last step's statistics held", "cycle": "the steps' statistics in turn", "skip": "no norm past the trained steps"}


def section(nets: Sequence[Net]) -> Section:
    """Spiking nets over time steps, the paper's figure 12, converted twins."""
    found = lying.drawn(nets)
    timed, converted = _told(found, "timesteps.json"), _told(found, "conversion.json")
    blocks: list[Block] = [Drawing(timesteps(timed)) if timed else Missing("Scores at other numbers of time steps", "dvc repro timesteps"), _trained(nets),
                           Drawing(conversion(converted)) if converted else Missing("Twins converted to spiking nets", "dvc repro convert")]
    return Section("steps", "Time steps and conversion", blocks, "Time steps")


def _told(found: dict[str, list[Net]], file: str) -> dict[str, dict[Net, dict[str, Any]]]:
    """A file of each net that has it, by benchmark."""
    told = {benchmark: {net: read for net in mine if (read := net.told(file))} for benchmark, mine in found.items()}
    return {benchmark: mine for benchmark, mine in told.items() if mine}


def _points(curve: Iterable[dict[str, Any]]) -> list[Point]:
    """Those that have a score."""
    return [Point(p["timesteps"], p["miou"]) for p in curve if p["miou"] is not None]


def timesteps(timed: dict[str, dict[Net, dict[str, Any]]]) -> Plot:
    """Three kinds of panels: after each step of one pass, read at other T, trained at other T with the paper's points; a panel a benchmark."""
    panels: dict[str, list[Panel]] = {}
    for benchmark, mine in timed.items():
        rules = dict.fromkeys(rule for told in mine.values() for rule in told["inference"])
        curves = {"after each step of one pass": lambda told: told["anytime"]}
        curves |= {RULES.get(rule, rule): lambda told, rule=rule: told["inference"].get(rule, []) for rule in rules}
        curves["trained with T steps"] = lambda told: told["trained"]
        for title, curve in curves.items():
            series = [Series(net.experiment, points, label=net.title) for net, told in mine.items() if (points := _points(curve(told)))]
            if title.startswith("trained"):
                series += [Series(s.net, [Point(T, miou) for T, miou in known.items()], paper=True, joined=False, label=f"{style.named(s.net)}, the paper")
                           for s in list(series) if (known := paper.SPIKING.get((next(iter(mine)).dataset, s.net)))]
            if series:
                panels.setdefault(title, []).append(Panel(f"{titled(benchmark)}, {title}", "time steps T", "mIoU, %", series, from_zero=False))
    return Plot("timesteps", "Accuracy over time steps", "Mean IoU of spiking nets over the number of time steps.",
                [panel for kind in panels.values() for panel in kind],
                "Hollow: the paper, in its own setting. BNTT has statistics for each trained step; what it does beyond them is an option.")


def _trained(nets: Sequence[Net]) -> Table:
    """Figure 12, as far as section 5.3 gives its numbers: a net trained with each T."""
    (dataset, model), known = next((at, points) for at, points in paper.SPIKING.items() if len(points) > 1)
    net = nearest(nets, dataset, model)
    told = (net.told("timesteps.json") if net else None) or {"trained": []}
    ours = {p["timesteps"]: p["miou"] for p in told["trained"] if p["miou"] is not None}
    columns = [Column("Time steps", "T"), Column("mIoU", "paper, %", True), Column("mIoU", "ours, %", True), Column("Difference", "points", True),
               Column("Setting of ours", long=True)]
    rows = []
    for T in sorted({*known, *ours}):
        mine, its = ours.get(T), known.get(T)
        theirs = Cell(NONE if its is None else f"{its:g}")
        rows.append([Cell(str(T)), theirs, *([Cell(NOT_RUN)] * 3 if net is None or mine is None else
                     [Cell(f"{mine:.2f}"), Cell(NONE) if its is None else difference(mine - its, setting(net, T)), Cell(setting(net, T))])])
    return Table("paper-figure-12", f"The paper's figure 12: {style.named(model)} on {titled(dataset)}, trained with each number of time steps", columns, rows,
                 "T = 20 is table 2's. The paper's text gives no other numbers of this figure.")


def conversion(converted: dict[str, dict[Net, dict[str, Any]]]) -> Plot:
    """mIoU of converted twins over time steps; each twin itself as a level."""
    panels = []
    for benchmark, mine in converted.items():
        series = [Series(net.experiment, _points(told["curve"]), label=f"{net.title}, converted") for net, told in mine.items()]
        rules = [Rule(told["ann_miou"], f"{net.title} itself") for net, told in mine.items() if told["ann_miou"] is not None]
        panels.append(Panel(titled(benchmark), "time steps T", "mIoU, %", [s for s in series if s.points], rules, log_x=True))
    return Plot("conversion", "Twins converted without training", "Mean IoU of converted ANN twins over the number of time steps.", panels,
                "Norms folded into weights, thresholds from training pictures (section 3). Dotted: the twin itself. Figures 3 and 13 come without numbers.")
