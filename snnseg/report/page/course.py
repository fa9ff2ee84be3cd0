"""How each net was trained: its loss and the test score epoch by epoch."""
from __future__ import annotations

from collections.abc import Sequence

from snnseg.report.page import nets as lying
from snnseg.report.page.blocks import Drawing, Missing, Section
from snnseg.report.page.glance import titled
from snnseg.report.page.nets import Net
from snnseg.report.page.plot import Panel, Plot, Point, Series

POINTS = 60         # of a curve
CURVES = {"train/epoch_loss": "training loss", "test/miou": "test mIoU, %"}


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most `POINTS` of them, evenly, the first and the last among them."""
    if len(points) <= POINTS:
        return list(points)
    return [points[round(k * (len(points) - 1) / (POINTS - 1))] for k in range(POINTS)]


def _points(rows: Sequence[dict[str, str]], key: str) -> list[Point]:
    """The last value of each epoch; a curve has some lines within."""
    return [Point(epoch + 1, value) for epoch, value in {float(r["epoch"]): float(r[key]) for r in rows if r.get(key)}.items()]


def curves(nets: Sequence[Net]) -> Plot | None:
    """Two panels a benchmark; None where no net left a curve."""
    panels = []
    for benchmark, mine in lying.drawn(nets).items():
        read = {net: net.rows("curve.csv") for net in mine}
        for key, label in CURVES.items():
            series = [Series(net.experiment, thinned(_points(rows, key)), label=net.title) for net, rows in read.items()]
            if series := [s for s in series if s.points]:
                panels.append(Panel(titled(benchmark), "epoch", label, series))
    return Plot("course", "Course of the trainings", "Training loss and test mIoU of each net, epoch by epoch.", panels,
                "The weights after the last epoch are the ones scored: nothing is chosen on the test split.") if panels else None


def section(nets: Sequence[Net]) -> Section:
    """The curves of all nets."""
    drawn = curves(nets)
    return Section("training", "Training", [Drawing(drawn) if drawn else Missing("Curves", "dvc repro train")])
