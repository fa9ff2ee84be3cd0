"""A sweep as one HTML page that opens without a network: the same four pictures, to be hovered over, with plotly inside."""
from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from snnseg.tuning import ledger, plane, space
from snnseg.tuning.ledger import Trial
from snnseg.tuning.space import Range, Space

CONFIG = {"displaylogo": False, "responsive": True}
STYLE = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}pre{white-space:pre-wrap;background:#f3f3f3;padding:.8rem}"


def page(title: str, text: str, ranges: Space, trials: Sequence[Trial], importance: dict[str, float], epoch: int) -> str:
    """The whole page; `text` is the verdict for a person, `epoch` the last that all trials have."""
    counted = [t for t in trials if t.counted]
    figures = [_history(trials)]
    if counted:
        figures.append(_parallel(ranges, counted))
        if (axes := plane.axes(ranges, importance)) and (some := [t for t in counted if t.after(epoch) is not None]):
            figures.append(_contour(*axes, some, epoch))
    if any("encode.timesteps" in t.params and t.state == ledger.FINISHED for t in counted):
        figures.append(_timesteps(counted))
    drawn = "\n".join(figure.update_layout(template="plotly_white", height=430, margin={"t": 50}).to_html(
        full_html=False, include_plotlyjs=False, include_mathjax=False, config=CONFIG, div_id=f"figure-{k}") for k, figure in enumerate(figures))
    return (f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
            f"<script>{get_plotlyjs()}</script></head><body><h1>{html.escape(title)}</h1><pre>{html.escape(text)}</pre>\n{drawn}\n</body></html>\n")


def _hover(t: Trial) -> str:
    return f"trial {t.number}, {t.state}<br>{html.escape(space.told(t.params))}"


def _dots(some: Sequence[Trial], x: Sequence, y: Sequence, name: str, **more: object) -> go.Scatter:
    return go.Scatter(x=list(x), y=list(y), name=name, mode="markers", text=[_hover(t) for t in some],
                      hovertemplate="%{text}<br>%{y:.4g}<extra></extra>", **more)


def _history(trials: Sequence[Trial]) -> go.Figure:
    figure = go.Figure(layout={"title": "Course of the sweep", "xaxis_title": "trial", "yaxis_title": "mIoU, held out (%)"})
    for state in ledger.COUNTED:
        some = [t for t in trials if t.state == state and t.miou is not None]
        figure.add_trace(_dots(some, [t.number for t in some], [t.miou for t in some], f"{state} ({len(some)})"))
    known = [(t.number, b) for t, b in zip(trials, plane.running_best(trials), strict=True) if b is not None]
    figure.add_trace(go.Scatter(x=[n for n, _ in known], y=[b for _, b in known], name="best", mode="lines", line_shape="hv"))
    if lost := [t for t in trials if not t.counted]:
        floor = min((t.miou for t in trials if t.counted), default=0.0)
        figure.add_trace(_dots(lost, [t.number for t in lost], [floor] * len(lost), f"no score ({len(lost)})", marker={"symbol": "x"}))
    return figure


def _axis(one: Range, counted: Sequence[Trial]) -> dict[str, object]:
    at, labels = plane.ticks(one)
    return {"label": space.short(one.key), "values": plane.place(one, counted).tolist(), "range": [0, 1], "tickvals": at, "ticktext": labels}


def _parallel(ranges: Space, counted: Sequence[Trial]) -> go.Figure:
    miou = [t.miou for t in counted]
    return go.Figure(go.Parcoords(line={"color": miou, "colorscale": "Viridis", "showscale": True},
                                  dimensions=[*(_axis(one, counted) for one in ranges), {"label": "mIoU", "values": miou}]),
                     layout={"title": "Numbers of each trial"})


def _contour(across: Range, up: Range, some: Sequence[Trial], epoch: int) -> go.Figure:
    x, y, z = plane.place(across, some), plane.place(up, some), np.array([t.after(epoch) for t in some])
    axis, grid = plane.surface(x, y, z)
    named = {f"{side}axis_{key}": value for side, one in (("x", across), ("y", up))
             for key, value in zip(("title", "tickvals", "ticktext"), (space.short(one.key), *plane.ticks(one)), strict=True)}
    return go.Figure([go.Contour(x=axis.tolist(), y=axis.tolist(), z=grid.tolist(), colorscale="Viridis", colorbar_title="mIoU", hoverinfo="skip"),
                      _dots(some, x.tolist(), y.tolist(), "trials", marker={"color": "white", "line": {"color": "black", "width": 1}})],
                     layout={"title": f"mIoU after epoch {epoch}, between the trials", "showlegend": False, **named})


def _timesteps(counted: Sequence[Trial]) -> go.Figure:
    some = [t for t in counted if t.state == ledger.FINISHED and "encode.timesteps" in t.params]
    steps, best = plane.by_timesteps(some)
    figure = go.Figure([_dots(some, [t.params["encode.timesteps"] for t in some], [t.miou for t in some], "mIoU"),
                        go.Scatter(x=steps, y=best, name="best mIoU", mode="lines")],
                       layout={"title": "Time steps: mIoU and energy", "xaxis_title": "time steps T", "yaxis_title": "mIoU, held out (%)"})
    if known := [t for t in some if t.energy_mj is not None]:
        figure.add_trace(_dots(known, [t.params["encode.timesteps"] for t in known], [t.energy_mj for t in known], "energy (mJ)", yaxis="y2",
                               marker={"symbol": "triangle-up"}))
        figure.update_layout(yaxis2={"title": "energy a picture, exact (mJ)", "overlaying": "y", "side": "right", "showgrid": False})
    return figure
