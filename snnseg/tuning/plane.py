"""A sweep's trials as numbers to draw: which two numbers to lay out, values on axes, and mIoU between the trials."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snnseg.tuning import ledger, space
from snnseg.tuning.ledger import Trial
from snnseg.tuning.space import Range, Space

GRID = 40       # points a side


def running_best(trials: Sequence[Trial]) -> list[float | None]:
    """The best mIoU of finished trials up to each trial; None before the first."""
    out: list[float | None] = []
    for t in trials:
        before = out[-1] if out else None
        mine = t.miou if t.state == ledger.FINISHED else None
        out.append(max((m for m in (before, mine) if m is not None), default=None))
    return out


def axes(ranges: Space, importance: dict[str, float]) -> tuple[Range, Range] | None:
    """Leak and threshold if both are swept, else the two most important numbers; None if there are not two."""
    numeric = {one.key: one for one in ranges if one.numeric}
    if {"neuron.leak", "neuron.threshold"} <= numeric.keys():
        return numeric["neuron.leak"], numeric["neuron.threshold"]
    ranked = sorted(numeric, key=lambda key: -importance.get(key, 0.0))
    return (numeric[ranked[0]], numeric[ranked[1]]) if len(ranked) > 1 else None


def place(one: Range, trials: Sequence[Trial]) -> np.ndarray:
    """Where each trial's value lies on an axis from 0 to 1: f64 [N]; logarithmic for log, evenly for a choice."""
    if one.kind == "choice":
        return np.array([one.values.index(t.params[one.key]) for t in trials]) / (len(one.values) - 1)
    low, high = (float(v) for v in one.values)
    x = np.array([float(t.params[one.key]) for t in trials])
    return np.log(x / low) / np.log(high / low) if one.kind == "log" else (x - low) / (high - low)


def ticks(one: Range) -> tuple[list[float], list[str]]:
    """Places and labels of an axis from 0 to 1."""
    if one.kind == "choice":
        return [k / (len(one.values) - 1) for k in range(len(one.values))], [space.shown(v) for v in one.values]
    low, high = (float(v) for v in one.values)
    at = [0.0, 0.25, 0.5, 0.75, 1.0]
    if one.kind == "int" and high - low <= 12:
        at = [k / (high - low) for k in range(int(high - low) + 1)]
    values = [low * (high / low) ** k if one.kind == "log" else low + (high - low) * k for k in at]
    return at, [f"{v:.4g}" for v in values]


def surface(x_N: np.ndarray, y_N: np.ndarray, z_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z between trials that lie in the unit square: the axis [GRID] and z [GRID, GRID], y first.

    Trials weigh in by the inverse of the fourth power of their distance (Shepard): through all of them, never beyond their range,
    for any number of trials, in any place.
    """
    axis = np.linspace(0, 1, GRID)
    distance2 = (axis[None, :, None] - x_N) ** 2 + (axis[:, None, None] - y_N) ** 2
    weight = 1 / np.maximum(distance2, 1e-6) ** 2
    return axis, (weight * z_N).sum(-1) / weight.sum(-1)


def by_timesteps(trials: Sequence[Trial]) -> tuple[list[int], list[float]]:
    """Of each number of time steps the best mIoU of finished trials."""
    best: dict[int, float] = {}
    for t in trials:
        if t.state == ledger.FINISHED and t.miou is not None and "encode.timesteps" in t.params:
            T = int(t.params["encode.timesteps"])
            best[T] = max(best.get(T, t.miou), t.miou)
    steps = sorted(best)
    return steps, [best[T] for T in steps]
