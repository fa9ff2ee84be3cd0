"""Figures of a net at work: maps of its layers over time, still and moving, and what single neurons do between and at the spikes."""
from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from snnseg.evaluation.activations import Activations
from snnseg.report import pictures, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAPS = "magma"
TILE, GAP = 48, 2           # of the still maps, pixels
STEPS = 8                   # columns at most; from all over the time
PICTURES, PIXELS = 4, 4     # panels of single neurons at most, down and across
FRAMES = 20                 # of the moving maps at most
FRAME_MS = 500
BYTES = 200_000             # that the moving maps may take: the first of these forms that does
FORMS = (64, 64), (64, 24), (48, 12), (32, 6), (16, 4)       # pixels of a tile, colours
ACROSS = 5                  # tiles in a row of the moving maps


@dataclass(frozen=True)
class Shown:
    """What was found, and what it was found on: u8 images [P,H,W,3], truths [P,H,W], of the pictures' numbers and the pixels asked for."""

    name: str
    palette: list[str]
    chosen: tuple[int, ...]
    pixels: tuple[tuple[int, int], ...]
    images: np.ndarray
    truths: np.ndarray
    found: Activations


def _spread(count: int, most: int) -> list[int]:
    """So many of `count` places, from all over, the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _tile(image_HWC: np.ndarray, side: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image_HWC).resize((side, side), Image.Resampling.NEAREST))


def _coloured(map_HW: np.ndarray, most: float) -> np.ndarray:
    """u8 [H,W,3], from 0 to `most`."""
    return matplotlib.colormaps[MAPS](map_HW / most if most else map_HW, bytes=True)[..., :3]


def _png(page: Figure) -> bytes:
    from matplotlib import pyplot

    out = io.BytesIO()
    page.savefig(out, format="png", dpi=110, metadata={"Software": None})
    pyplot.close(page)
    return out.getvalue()


def _sheet(shown: Shown, p: int, steps: list[int], most: dict[str, float]) -> np.ndarray:
    """A picture's tiles, u8: a row of answers, one of errors, one a layer; a column a step, before them input, truth and means over time."""
    answers, truth = shown.found.answers_TBHW[:, p], shown.truths[p]
    rows = [[shown.images[p], *(pictures.coloured(answers[t], shown.palette) for t in steps)],
            [pictures.coloured(truth, shown.palette), *(pictures.errors(truth, answers[t]) for t in steps)]]
    for layer, x_TBHW in shown.found.maps.items():
        rows.append([_coloured(x_TBHW[:, p].mean(0), most[layer]), *(_coloured(x_TBHW[t, p], most[layer]) for t in steps)])
    step = TILE + GAP
    page = np.full((len(rows) * step, len(rows[0]) * step, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            page[r * step:r * step + TILE, c * step:c * step + TILE] = _tile(image, TILE)
    return page


def maps(shown: Shown) -> bytes:
    """PNG: a panel a picture, in it a row a layer and a column a step; a layer has one scale, from 0 to what stands beside its name."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    steps, most = _spread(len(shown.found.answers_TBHW), STEPS), {layer: float(x.max()) for layer, x in shown.found.maps.items()}
    sheets = [_sheet(shown, p, steps, most) for p in range(min(len(shown.chosen), PICTURES))]
    height, width = sheets[0].shape[:2]
    page, axes = pyplot.subplots(1, len(sheets), figsize=(len(sheets) * (width / 90 + 1.1), height / 90 + 0.9), squeeze=False, layout="constrained")
    page.suptitle(shown.name, fontsize=10)
    middle, step = TILE / 2, TILE + GAP
    for panel, sheet, number in zip(axes[0], sheets, shown.chosen, strict=False):
        panel.imshow(sheet, interpolation="nearest")
        panel.set_title(f"picture {number}", fontsize=9)
        panel.set_xticks(middle + step * np.arange(1 + len(steps)), ["input, truth,\nmean", *(f"t = {t + 1}" for t in steps)], fontsize=6)
        panel.set_yticks(middle + step * np.arange(2 + len(most)), ["answer", "errors", *(f"{layer}  {top:.2f}" for layer, top in most.items())], fontsize=6)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    return _png(page)


def membranes(shown: Shown) -> bytes:
    """PNG: a panel a picture and pixel. Potential over time, a line a channel: up with the current, down by the reset; threshold dashed; spikes below.

    Of an ANN the values of its units.
    """
    matplotlib.use("Agg")
    from matplotlib import pyplot

    t, spiking = shown.found.traces, shown.found.traces.spikes_TBKN is not None
    down, across, each = min(len(shown.chosen), PICTURES), min(len(shown.pixels), PIXELS), 2 if spiking else 1
    page, axes = pyplot.subplots(each * down, across, figsize=(3.6 * across, (1.4 + 0.8 * each) * down), squeeze=False, layout="constrained",
                                 sharex=True, height_ratios=[3, 1] * down if spiking else None)
    page.suptitle(f"{shown.name}, {t.layer}", fontsize=10)
    T = len(t.before_TBKN)
    for b in range(down):
        for n in range(across):
            upper = axes[each * b][n]
            upper.set_title(f"picture {shown.chosen[b]}, pixel {shown.pixels[n][0]}, {shown.pixels[n][1]}", fontsize=8)
            for k, channel in enumerate(t.channels):
                line, before = {"color": style.CYCLE[k % len(style.CYCLE)], "label": f"channel {channel}"}, t.before_TBKN[:, b, k, n]
                if not spiking:
                    upper.plot(np.arange(1, T + 1), before, "o-", **line)
                    continue
                upper.plot(np.repeat(np.arange(T + 1), 2)[1:], [0, *np.stack([before, t.after_TBKN[:, b, k, n]], 1).flat], linewidth=1.2, **line)
                upper.axhline(t.threshold_K[k], linestyle="--", linewidth=0.8, color=line["color"] if np.ptp(t.threshold_K) else style.OTHER)
            upper.tick_params(labelsize=7)
            if spiking:
                lower = axes[each * b + 1][n]
                lower.eventplot([1 + np.flatnonzero(t.spikes_TBKN[:, b, k, n]) for k in range(len(t.channels))], linelengths=0.8, linewidths=2,
                                colors=[style.CYCLE[k % len(style.CYCLE)] for k in range(len(t.channels))])
                lower.set_yticks(range(len(t.channels)), t.channels, fontsize=6)
                lower.set_ylim(-0.6, len(t.channels) - 0.4)
                lower.tick_params(labelsize=7)
        axes[each * b][0].set_ylabel("potential" if spiking else "value", fontsize=8)
        if spiking:
            axes[each * b + 1][0].set_ylabel("spikes", fontsize=8)
    for panel in axes[-1]:
        panel.set_xlabel("time step", fontsize=8)
        panel.set_xlim(0, T + 0.3)
        panel.xaxis.get_major_locator().set_params(integer=True)
    axes[0][0].legend(fontsize=6)
    return _png(page)


def _frame(shown: Shown, step: int, side: int, most: dict[str, float]) -> Image.Image:
    """The first picture's input, answer and maps at a step, as tiles under their names."""
    found = shown.found
    tiles = {"input": shown.images[0], f"t = {step + 1}": pictures.coloured(found.answers_TBHW[step, 0], shown.palette),
             **{layer: _coloured(x_TBHW[step, 0], most[layer]) for layer, x_TBHW in found.maps.items()}}
    wide, high = side + pictures.GAP, side + pictures.TITLE
    page = Image.new("RGB", (min(ACROSS, len(tiles)) * wide + pictures.GAP, -(-len(tiles) // ACROSS) * high + pictures.GAP), "white")
    draw = ImageDraw.Draw(page)
    for k, (name, image) in enumerate(tiles.items()):
        x, y = pictures.GAP + k % ACROSS * wide, k // ACROSS * high
        draw.text((x, y + 3), name, fill="black")
        page.paste(Image.fromarray(_tile(image, side)), (x, y + pictures.TITLE))
    return page


def _gif(frames: list[Image.Image], colours: int) -> bytes:
    """Frames of one size, with one palette, for ever."""
    width, height = frames[0].size
    strip = Image.new("RGB", (width, height * len(frames)))
    for k, frame in enumerate(frames):
        strip.paste(frame, (0, k * height))
    strip = strip.quantize(colours, dither=Image.Dither.NONE)
    first, *rest = (strip.crop((0, k * height, width, (k + 1) * height)) for k in range(len(frames)))
    out = io.BytesIO()
    first.save(out, "GIF", save_all=True, append_images=rest, duration=FRAME_MS, loop=0)
    return out.getvalue()


def moving(shown: Shown) -> bytes:
    """GIF, below BYTES: a frame a step, of the first picture; where there are many steps or layers, with smaller tiles and fewer colours."""
    most = {layer: float(x.max()) for layer, x in shown.found.maps.items()}
    steps = _spread(len(shown.found.answers_TBHW), FRAMES)
    for side, colours in FORMS:
        data = _gif([_frame(shown, step, side, most) for step in steps], colours)
        if len(data) < BYTES:
            break
    return data
