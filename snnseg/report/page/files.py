"""The page's figures as files: each as PNG and SVG below data/report/figures, in the same colours and marks, the same bytes from the same numbers."""
from __future__ import annotations

import io
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from snnseg import seal
from snnseg.report import style
from snnseg.report.page import plot as plots
from snnseg.report.page.plot import Panel, Plot

FOLDER = "figures"
ACROSS = 3          # panels in a row
DPI = 110
SETTING = {"svg.hashsalt": "snnseg", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def write(report: Path, drawn: Sequence[Plot]) -> list[Path]:
    """Write each figure; what an earlier report had drawn and this one has not is removed. Raises NoSpace."""
    folder, made = report / FOLDER, []
    folder.mkdir(parents=True, exist_ok=True)
    for plot in drawn:
        for kind, data in draw(plot).items():
            made.append(folder / f"{plot.id}.{kind}")
            seal.write_file(made[-1], data)
    for left in [*folder.glob("*.png"), *folder.glob("*.svg")]:
        if left not in made:
            left.unlink()
    return made


def draw(plot: Plot) -> dict[str, bytes]:
    """The figure as the bytes of a PNG and an SVG file."""
    with matplotlib.rc_context(SETTING):
        across = min(ACROSS, len(plot.panels))
        page = Figure(figsize=(3.4 * across, (3.4 if any(p.categories for p in plot.panels) else 2.9) * ceil(len(plot.panels) / across)), layout="constrained")
        axes = page.subplots(ceil(len(plot.panels) / across), across, squeeze=False).flatten().tolist()
        for ax, panel in zip(axes, plot.panels, strict=False):
            _panel(ax, panel)
        for ax in axes[len(plot.panels):]:
            ax.axis("off")
        named = {label: line for ax in page.axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
        if named:
            page.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(4, len(named)), frameon=False)
        page.suptitle(plot.title, fontsize=10)
        out = {}
        for kind, about in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
            data = io.BytesIO()
            page.savefig(data, format=kind, dpi=DPI, metadata=about)
            out[kind] = data.getvalue()
            page.set_layout_engine("none")      # found once, kept for both
    return out


def _panel(ax: Axes, panel: Panel) -> None:
    """One panel, with the axes that the page gives it."""
    across, up = plots.x_axis(panel), plots.y_axis(panel)
    for s in panel.series:
        look = style.line(s.net) | ({"markerfacecolor": "none"} if s.paper else {}) | ({} if s.joined else {"linestyle": "none"})
        below, above = ([0.0 if end is None else abs(p.y - end) for p, end in zip(s.points, ends, strict=True)]
                        for ends in ([p.low for p in s.points], [p.high for p in s.points]))
        ax.errorbar([p.x for p in s.points], [p.y for p in s.points], [below, above] if any(below + above) else None, capsize=2,
                    label=style.named(s.net) + (", the paper" if s.paper else ""), **look)
    for rule in panel.rules:
        ax.axhline(rule.y, color="0.45", linewidth=0.8, linestyle=":")
        ax.annotate(rule.label, (1, rule.y), xycoords=("axes fraction", "data"), xytext=(-2, 2), textcoords="offset points", ha="right", color="0.35",
                    fontsize=8)
    if panel.log_x:
        ax.set_xscale("log")
    if panel.log_y:
        ax.set_yscale("log")
    ax.minorticks_off()
    turned = {"rotation": 40, "ha": "right"} if panel.categories and sum(map(len, panel.categories)) > 28 else {}
    ax.set_xticks([t for t, _ in across.ticks], [label for _, label in across.ticks], **turned)
    ax.set_yticks([t for t, _ in up.ticks], [label for _, label in up.ticks])
    ax.set(title=panel.title, xlabel=panel.x, ylabel=panel.y, xlim=(across.low, across.high), ylim=(up.low, up.high))
    ax.grid(axis="y", alpha=0.3)
