"""One look for all figures: a net has the same colour everywhere, told apart also without colour vision (Okabe and Ito 2008)."""
from __future__ import annotations

from typing import Any

COLOURS = {"spiking_deeplab": "#0072B2", "spiking_fcn": "#009E73", "ann_deeplab": "#D55E00", "ann_fcn": "#E69F00"}
OTHER = "#000000"
CYCLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"      # of lines that are no nets


def line(net: str) -> dict[str, Any]:
    """How matplotlib draws a net's line: spiking nets whole and with discs, their twins dashed and with squares."""
    spiking = net.startswith("spiking")
    return {"color": COLOURS.get(net, OTHER), "linestyle": "-" if spiking else "--", "marker": "o" if spiking else "s", "markersize": 4, "linewidth": 1.5}
