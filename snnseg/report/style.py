"""One look for all figures: a net has the same colour everywhere, told apart also without colour vision (Okabe and Ito 2008)."""
from __future__ import annotations

import io
from typing import Any

import matplotlib

COLOURS = {"spiking_deeplab": "#0072B2", "spiking_fcn": "#009E73", "ann_deeplab": "#D55E00", "ann_fcn": "#E69F00"}
OTHER = "#000000"
CYCLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"      # of lines that are no nets


def line(net: str) -> dict[str, Any]:
    """How matplotlib draws a net's line: spiking nets whole and with discs, their twins dashed and with squares."""
    spiking = net.startswith("spiking")
    return {"color": COLOURS.get(net, OTHER), "linestyle": "-" if spiking else "--", "marker": "o" if spiking else "s", "markersize": 4, "linewidth": 1.5}


def panels(rows: int, across: int, width: float = 3.4, height: float = 2.8) -> tuple[Any, Any]:
    """A page and its panels [rows, across], at least one, of so many inches each; drawn without a screen."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows, across = max(rows, 1), max(across, 1)
    return pyplot.subplots(rows, across, figsize=(width * across, height * rows), squeeze=False, layout="constrained")


def legend(page: Any, axes: Any) -> None:
    """One legend of all panels, below them, each label once."""
    shown = {label: handle for panel in axes.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    if shown:
        page.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3, fontsize=7)


def over_time_steps(panel: Any) -> None:
    """The panel's axis of time steps: each step to the right is twice as many, told as a number."""
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:g}")


def png(page: Any) -> bytes:
    """The page as PNG, and the page closed."""
    from matplotlib import pyplot

    out = io.BytesIO()
    page.savefig(out, format="png", dpi=110, metadata={"Software": None})
    pyplot.close(page)
    return out.getvalue()
