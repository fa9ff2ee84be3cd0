"""Pictures of predictions: input, truth, prediction, and where they differ."""
from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from snnseg.data.store import VOID

PIXELS = 96             # of one tile
GAP = 6
TITLE = 18
BRIGHT = 0.9            # share of the pixels with events that are not shown at full brightness
ON, OFF = np.array((255.0, 140.0, 0.0)), np.array((0.0, 115.0, 255.0))
HIT, MISSED, WRONG = (58, 58, 58), (213, 94, 0), (86, 180, 233)      # told apart by most eyes


def coloured(mask_HW: np.ndarray, palette: list[str]) -> np.ndarray:
    """A mask of classes as u8 [H,W,3]; void is white."""
    table = np.full((256, 3), 255, np.uint8)
    for k, colour in enumerate(palette):
        table[k] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return table[mask_HW]


def event_colours(frame_2HW: np.ndarray) -> np.ndarray:
    """Events of a frame, ON first, as u8 [H,W,3]: ON orange, OFF blue, both white, none black; bright where there are many."""
    seen = frame_2HW[frame_2HW > 0]
    bright_2HW = (frame_2HW / (np.quantile(seen, BRIGHT) if seen.size else 1)).clip(0, 1)
    return np.rint((bright_2HW[0][..., None] * ON + bright_2HW[1][..., None] * OFF).clip(0, 255)).astype(np.uint8)


def visible(item: np.ndarray) -> np.ndarray:
    """What a net is given, to be looked at: a picture u8 [H,W,3] as it is, of frames of events [T,2,H,W] the last."""
    return item if item.ndim == 3 else event_colours(item[-1])


def errors(truth_HW: np.ndarray, prediction_HW: np.ndarray) -> np.ndarray:
    """u8 [H,W,3]: grey where right, orange where an object was missed, blue where another class was answered; void white."""
    out = np.empty((*truth_HW.shape, 3), np.uint8)
    out[:] = WRONG
    out[(prediction_HW == 0) & (truth_HW != 0)] = MISSED
    out[prediction_HW == truth_HW] = HIT
    out[truth_HW == VOID] = 255
    return out


def png(page: Image.Image) -> bytes:
    """A picture as the bytes of a PNG file."""
    out = io.BytesIO()
    page.save(out, "PNG")
    return out.getvalue()


def stacked(pages: dict[str, Image.Image]) -> Image.Image:
    """Pages one above the other, each under its title."""
    whole = Image.new("RGB", (max(page.width for page in pages.values()), sum(page.height + TITLE for page in pages.values())), "white")
    top, draw = 0, ImageDraw.Draw(whole)
    for title, page in pages.items():
        draw.text((GAP, top + GAP // 2), title, fill="black")
        whole.paste(page, (0, top + TITLE))
        top += page.height + TITLE
    return whole


def sheet(columns: dict[str, list[np.ndarray]]) -> Image.Image:
    """Columns of pictures u8 [H,W,3] under their titles, one row a sample."""
    rows = max(len(tiles) for tiles in columns.values())
    step = PIXELS + GAP
    page = Image.new("RGB", (len(columns) * step + GAP, rows * step + GAP + TITLE), "white")
    draw = ImageDraw.Draw(page)
    for c, (title, tiles) in enumerate(columns.items()):
        draw.text((GAP + c * step, GAP // 2), title, fill="black")
        for r, tile in enumerate(tiles):
            big = Image.fromarray(tile).resize((PIXELS, PIXELS), Image.Resampling.NEAREST)
            page.paste(big, (GAP + c * step, TITLE + GAP + r * step))
    return page
