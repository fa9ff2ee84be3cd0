"""How accurate: every row of results.csv, the scores beside the paper's as a figure, and each class."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from snnseg.report import paper, style
from snnseg.report.page import nets as lying
from snnseg.report.page.blocks import NONE, Cell, Column, Drawing, Missing, Section, Table
from snnseg.report.page.glance import titled
from snnseg.report.page.nets import Net
from snnseg.report.page.plot import Panel, Plot, Point, Rule, Series
from snnseg.report.table import NOT_RUN

ROWS = 1000         # of results.csv in the page; a browser takes some seconds for thousands
SCORES = {"experiment": Column("Net"), "benchmark": Column("Benchmark"), "dataset": Column("Data"), "protocol": Column("Protocol"),
          "timesteps": Column("Time steps", "T", True), "miou": Column("mIoU", "%", True),
          "background_miou": Column("First class everywhere", "mIoU, %", True), "spike_rate": Column("Spikes", "a neuron and step", True),
          "proxy_mj": Column("Energy, proxy", "mJ", True), "exact_mj": Column("Energy, exact", "mJ", True),
          "memory_mj": Column("Energy, with memory", "mJ", True)}
NUMBERS = {"experiment": Column("Net"), "benchmark": Column("Benchmark"), "source": Column("Source"), "model": Column("Model"), "coding": Column("Coding"),
           "neuron": Column("Neuron"), "leak": Column("Leak", "", True), "threshold": Column("Threshold", "", True), "reset": Column("Reset"),
           "norm": Column("Norm"),
           "width": Column("Width", "of the paper's", True), "epochs": Column("Epochs", "", True), "seed": Column("Seed", "", True),
           "train_samples": Column("Training", "items", True), "test_samples": Column("Test", "items", True), "seconds": Column("Training", "s", True),
           "device": Column("Device"), "commit": Column("Commit")}


def _table(id: str, caption: str, rows: Sequence[dict[str, Any]], columns: dict[str, Column], all: int, **more: Any) -> Table:
    """Cells as they are in results.csv, to the letter."""
    told = [[Cell(str(row[key]), net=row["experiment"] if key == "experiment" else "") for key in columns] for row in rows]
    keyed = [Column(c.label, c.unit, c.number, key) for key, c in columns.items()]
    note = "" if all == len(rows) else f"{len(rows)} of {all} rows, the paper's four nets of each benchmark and the most accurate. All are in results.csv."
    return Table(id, caption, keyed, told, note, sortable=True, **more)


def _some(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """All rows, or where they are too many the paper's four nets and the most accurate, in their order."""
    ranked = sorted(rows, key=lambda r: (r["experiment"] not in style.KNOWN, r["miou"] == NOT_RUN, 0.0 if r["miou"] == NOT_RUN else -float(r["miou"])))
    kept = {(r["benchmark"], r["experiment"]) for r in ranked[:ROWS]}
    return [r for r in rows if (r["benchmark"], r["experiment"]) in kept]


def section(nets: Sequence[Net], rows: Sequence[dict[str, Any]]) -> Section:
    """`rows` are those of results.csv."""
    found, some = lying.drawn(nets), _some(rows)
    tables = [_table("results", "Scores of each net on the whole test split", some, SCORES, len(rows)),
              _table("numbers", "What each net was trained with", some, NUMBERS, len(rows), folded=True)]
    if not found:
        return Section("accuracy", "Accuracy", [*(tables if rows else []), Missing("Scores", "dvc repro evaluate")])
    return Section("accuracy", "Accuracy", [Drawing(scores(found)), *tables, *(_classes(benchmark, mine) for benchmark, mine in found.items())])


def scores(found: dict[str, list[Net]]) -> Plot:
    """mIoU by net, a panel a benchmark; the paper's as hollow marks."""
    panels = []
    for benchmark, mine in found.items():
        series = [Series(net.experiment, [Point(k, net.metrics["miou"])], joined=False, label=net.title) for k, net in enumerate(mine)]
        for told in paper.of("miou", mine[0].dataset):
            k = next((k for k, net in enumerate(mine) if net.experiment == told.net), None)
            if k is not None:
                series.append(Series(told.net, [Point(k, told.number)], paper=True, joined=False, label=f"{style.named(told.net)}, the paper"))
        rule = Rule(mine[0].metrics["background_miou"], "first class everywhere")
        panels.append(Panel(titled(benchmark), "net", "mIoU, %", series, [rule], [net.title for net in mine]))
    return Plot("accuracy", "mIoU of each net", "Mean IoU of each net beside the paper's.", panels,
                "Hollow: the paper's tables 2 to 4, in its own setting. One training each, so there is no spread.")


def _classes(benchmark: str, mine: Sequence[Net]) -> Table:
    """IoU of each class by net, with the number of test pixels."""
    first = mine[0].metrics
    columns = [Column("Class"), Column("Test pixels", "", True), *(Column(net.title, "IoU, %", True) for net in mine)]
    rows = []
    absent = 0
    for name, pixels in first["pixels"].items():
        scores = [net.metrics["iou"].get(name) for net in mine]
        if not pixels and all(s is None for s in scores):
            absent += 1
            continue
        rows.append([Cell(name), Cell(f"{pixels}"), *(Cell(NONE if s is None else f"{s:.2f}", bar=None if s is None else s / 100) for s in scores)])
    return Table(f"classes-{benchmark}", f"{titled(benchmark)}: IoU of each class", columns, rows,
                 "A class that occurs neither in truth nor in a net's answers is - and does not count in its mean"
                 + (f"; {absent} more occur nowhere." if absent else "."), sortable=True)
