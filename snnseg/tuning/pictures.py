"""A sweep's pictures as PNG: its course, all numbers side by side, mIoU over two of them, time steps against mIoU and energy."""
from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from snnseg.tuning import ledger, plane, space
from snnseg.tuning.ledger import Trial
from snnseg.tuning.space import Space

COLOURS = {ledger.FINISHED: "#1f6f8b", ledger.STOPPED: "#c9a227"}
LOST = "#b23a48"        # no score
MAP = "viridis"
DPI = 110


def draw(ranges: Space, trials: Sequence[Trial], importance: dict[str, float], epoch: int) -> dict[str, bytes]:
    """PNG bytes by file name; what the trials cannot show is left out. `epoch` is the last that all of them have."""
    counted = [t for t in trials if t.counted]
    made = {"history.png": _history(trials)}
    if counted:
        made["parallel.png"] = _parallel(ranges, counted)
        if (axes := plane.axes(ranges, importance)) and (some := [t for t in counted if t.after(epoch) is not None]):
            made["contour.png"] = _contour(*axes, some, epoch)
    if any("encode.timesteps" in t.params and t.state == ledger.FINISHED for t in counted):
        made["timesteps.png"] = _timesteps(counted)
    return {name: _png(figure) for name, figure in made.items()}


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()


def _figure(width: float = 7.0, height: float = 4.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _history(trials: Sequence[Trial]) -> Figure:
    figure, ax = _figure()
    for state, colour in COLOURS.items():
        some = [t for t in trials if t.state == state and t.miou is not None]
        ax.scatter([t.number for t in some], [t.miou for t in some], s=22, color=colour, label=f"{state} ({len(some)})")
    if lost := [t for t in trials if not t.counted]:
        ax.scatter([t.number for t in lost], [0.03] * len(lost), marker="x", color=LOST, transform=ax.get_xaxis_transform(), label=f"no score ({len(lost)})")
    best = plane.running_best(trials)
    known = [(t.number, b) for t, b in zip(trials, best, strict=True) if b is not None]
    ax.step([n for n, _ in known], [b for _, b in known], where="post", color=COLOURS[ledger.FINISHED], linewidth=1)
    ax.set(xlabel="trial", ylabel="mIoU, held out (%)", title="Course of the sweep")
    ax.legend(fontsize=8)
    return figure


def _parallel(ranges: Space, counted: Sequence[Trial]) -> Figure:
    figure, ax = _figure(1.6 * (len(ranges) + 1) + 1.5)
    miou = [t.miou for t in counted]
    low, span = min(miou), (max(miou) - min(miou)) or 1.0
    places = [plane.place(one, counted) for one in ranges]
    colours = figure.colorbar(ax.scatter([], [], c=[], cmap=MAP, vmin=low, vmax=low + span), ax=ax, label="mIoU (%)").cmap
    for k in sorted(range(len(counted)), key=lambda k: miou[k]):
        share = (miou[k] - low) / span
        ax.plot(range(len(ranges) + 1), [*(p[k] for p in places), share], color=colours(share), linewidth=0.8 + 1.4 * share, alpha=0.4 + 0.6 * share)
    for x, one in enumerate(ranges):
        for at, label in zip(*plane.ticks(one), strict=True):
            ax.annotate(label, (x, at), xytext=(-4, 0), textcoords="offset points", fontsize=7, ha="right", va="center")
    for x in range(len(ranges) + 1):
        ax.axvline(x, color="0.6", linewidth=0.8)
    ax.set_xticks(range(len(ranges) + 1), [*(space.short(one.key) for one in ranges), "mIoU"])
    ax.set(yticks=[], title="Numbers of each trial", xlim=(-0.4, len(ranges) + 0.1))
    for side in ("left", "right", "top"):
        ax.spines[side].set_visible(False)
    return figure


def _contour(across: space.Range, up: space.Range, some: Sequence[Trial], epoch: int) -> Figure:
    figure, ax = _figure(6.0, 4.8)
    x, y, z = plane.place(across, some), plane.place(up, some), np.array([t.after(epoch) for t in some])
    axis, grid = plane.surface(x, y, z)
    figure.colorbar(ax.contourf(axis, axis, grid, levels=14, cmap=MAP), ax=ax, label="mIoU (%)")
    ax.scatter(x, y, c=z, cmap=MAP, edgecolors="white", s=28)
    ax.set_xticks(*plane.ticks(across))
    ax.set_yticks(*plane.ticks(up))
    ax.set(xlabel=space.short(across.key), ylabel=space.short(up.key), title=f"mIoU after epoch {epoch}, between the trials")
    return figure


def _timesteps(counted: Sequence[Trial]) -> Figure:
    figure, ax = _figure()
    some = [t for t in counted if t.state == ledger.FINISHED and "encode.timesteps" in t.params]
    ax.scatter([t.params["encode.timesteps"] for t in some], [t.miou for t in some], s=22, color=COLOURS[ledger.FINISHED], label="mIoU")
    ax.plot(*plane.by_timesteps(some), color=COLOURS[ledger.FINISHED], linewidth=1, label="best mIoU")
    ax.set(xlabel="time steps T", ylabel="mIoU, held out (%)")
    ax.set_xticks(sorted({t.params["encode.timesteps"] for t in some}))
    if known := [t for t in some if t.energy_mj is not None]:
        other = ax.twinx()
        other.scatter([t.params["encode.timesteps"] for t in known], [t.energy_mj for t in known], s=22, marker="^", color=LOST, label="energy")
        other.set(ylabel="energy a picture, exact (mJ)")
    figure.legend(loc="outside upper center", fontsize=8, ncols=3)
    return figure
