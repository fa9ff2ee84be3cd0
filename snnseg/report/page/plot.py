"""A figure as plain values, which `svg` draws into the page, `files` as PNG and SVG files, and the page shows as a table, too."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Point:
    """`x` is a number, or the place among the panel's categories. `low` and `high` are the ends of its spread, in units of `y`."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Series:
    """Points of one net. `paper`: the paper's own numbers, hollow. `joined`: with a line between the points."""

    net: str
    points: Sequence[Point]
    paper: bool = False
    joined: bool = True
    label: str = ""


@dataclass(frozen=True)
class Rule:
    """A level that points are seen against, such as a twin's score."""

    y: float
    label: str


@dataclass(frozen=True)
class Panel:
    """Axes with their units. `categories` are the names of the places 0, 1, ... of `x`."""

    title: str
    x: str
    y: str
    series: Sequence[Series]
    rules: Sequence[Rule] = ()
    categories: Sequence[str] = ()
    log_x: bool = False
    log_y: bool = False
    from_zero: bool = True


@dataclass(frozen=True)
class Plot:
    """`id` is the name of its files, too; `alt` says in a sentence what is seen; `spread` what the bars are."""

    id: str
    title: str
    alt: str
    panels: Sequence[Panel]
    caption: str = ""
    spread: str = ""

    @property
    def nets(self) -> list[str]:
        return list(dict.fromkeys(s.net for panel in self.panels for s in panel.series))

    @property
    def has_paper(self) -> bool:
        return any(s.paper for panel in self.panels for s in panel.series)


@dataclass(frozen=True)
class Axis:
    """Where a value lies between 0 and 1, and the labelled values."""

    low: float
    high: float
    log: bool
    ticks: Sequence[tuple[float, str]]

    def place(self, value: float) -> float:
        if self.log:
            return (math.log10(value) - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low))
        return (value - self.low) / (self.high - self.low)


def short(value: float) -> str:
    """A number of a tick or a hint: four digits at most, no exponent where it can be helped."""
    return f"{value:.4g}" if value == 0 or 1e-4 <= abs(value) < 1e6 else f"{value:.1e}"


def x_axis(panel: Panel) -> Axis:
    """With half a place around categories, and a twentieth around numbers."""
    if panel.categories:
        return Axis(-0.5, len(panel.categories) - 0.5, False, [(k, name) for k, name in enumerate(panel.categories)])
    return _axis([p.x for s in panel.series for p in s.points], panel.log_x, False, 5)


def y_axis(panel: Panel) -> Axis:
    """Around all points, their spreads and the rules; from zero where the panel says so and none is below."""
    seen = [v for s in panel.series for p in s.points for v in (p.y, p.low, p.high) if v is not None] + [r.y for r in panel.rules]
    return _axis(seen, panel.log_y, panel.from_zero, 5)


def _axis(values: Sequence[float], log: bool, from_zero: bool, steps: int) -> Axis:
    low, high = min(values, default=0.0), max(values, default=1.0)
    if log:
        low, high = low / 1.5, high * 1.5
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        found = [m * 10.0**k for k in decades for m in (1, 2, 5) if low <= m * 10.0**k <= high]
        found = found if len(found) < 7 else [10.0**k for k in decades if low <= 10.0**k]
        found = found if len(found) > 1 else [float(t) for t in MaxNLocator(3).tick_values(low, high) if low <= t <= high]
        return Axis(low, high, True, [(t, short(t)) for t in found])
    if from_zero:
        low = min(low, 0.0)
    room = ((high - low) or abs(high) or 1.0) * 0.06
    low, high = low if from_zero and low == 0 else low - room, high + room
    found = [float(t) for t in MaxNLocator(steps, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if low <= t <= high]
    return Axis(low, high, False, [(t, short(round(t, 10))) for t in found])


def table(plot: Plot) -> tuple[list[str], list[list[str]]]:
    """The figure's numbers for who does not see it: heads, and a row a point."""
    spread = any(p.low is not None for panel in plot.panels for s in panel.series for p in s.points)
    heads = ["panel", "net", "x", "y", *(["spread from", "to"] if spread else [])]
    rows = []
    for panel in plot.panels:
        for s in panel.series:
            for p in s.points:
                x = panel.categories[int(p.x)] if panel.categories else short(p.x)
                row = [panel.title, s.label or s.net, x, short(p.y)]
                rows.append(row + (["-" if v is None else short(v) for v in (p.low, p.high)] if spread else []))
    return heads, rows
