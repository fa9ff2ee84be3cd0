"""One look for all figures: a net has the same colour and mark everywhere.

The colours are told apart with every kind of colour vision (after Okabe and Ito 2008) and have a contrast of 3 and more to the ground; a net is
known by its mark and its line, too: spiking nets whole, their twins dashed; DeepLab and FCN have marks of their own.
"""
from __future__ import annotations

import zlib
from typing import Any, NamedTuple


class Look(NamedTuple):
    """How a net is drawn: its place among all looks, colour on white and on dark ground, matplotlib's mark and line."""

    place: int
    colour: str
    on_dark: str
    mark: str
    line: str


KNOWN = {"spiking_deeplab": Look(0, "#0072B2", "#56ABE6", "o", "-"), "spiking_fcn": Look(1, "#00875F", "#35C79B", "^", "-"),
         "ann_deeplab": Look(2, "#D55E00", "#FF8F50", "s", "--"), "ann_fcn": Look(3, "#C2649A", "#EBA3CB", "D", "--")}
OTHERS = (Look(4, "#6A51A3", "#B7A5E8", "v", "-."), Look(5, "#7A6A00", "#D6C542", "P", "-."), Look(6, "#4D4D4D", "#C9CDD2", "X", "-."),
          Look(7, "#8C2D19", "#F2A08F", "h", "-."), Look(8, "#1B7A8C", "#6FD3E5", "p", "-."), Look(9, "#3F6B1F", "#A4D67E", "*", "-."))
CYCLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"      # of lines that are no nets
OTHER = "#000000"
LOOKS = (*KNOWN.values(), *OTHERS)
NAMES = {"spiking_deeplab": "Spiking-DeepLab", "spiking_fcn": "Spiking-FCN", "ann_deeplab": "ANN-DeepLab", "ann_fcn": "ANN-FCN"}


def look(net: str) -> Look:
    """Of a net that is none of the paper's, one that hangs on its name alone."""
    return KNOWN.get(net) or OTHERS[zlib.crc32(net.encode()) % len(OTHERS)]


def named(net: str) -> str:
    """A net as the paper writes it; one of another name has its own."""
    return NAMES.get(net, net)


def line(net: str) -> dict[str, Any]:
    """How matplotlib draws a net's line."""
    its = look(net)
    return {"color": its.colour, "linestyle": its.line, "marker": its.mark, "markersize": 4, "linewidth": 1.5}
