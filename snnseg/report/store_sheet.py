"""A sheet of what is in a store: pictures or event frames, their masks, both on top of each other."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from snnseg.data import store
from snnseg.report import pictures

SHOWN = 6           # items of each split


def sheet(folder: Path) -> Image.Image:
    """Evenly chosen items of each split of a sealed store. Raises StoreMissing, StoreAltered."""
    pages = {}
    for split in store.splits(folder):
        found, about = store.arrays(folder, split)
        labelled = np.flatnonzero((found["mask"] != store.VOID).any(axis=(1, 2)))
        places = labelled if len(labelled) else np.arange(len(found["mask"]))
        chosen = places[np.linspace(0, len(places) - 1, min(SHOWN, len(places))).astype(int)]
        seen = [found["image"][k] if "image" in found else pictures.event_colours(found["events"][k]) for k in chosen]
        masks = [pictures.coloured(found["mask"][k], about["palette"]) for k in chosen]
        both = [np.where((found["mask"][k] == store.VOID)[..., None], image, (image * 0.5 + mask * 0.5)).astype(np.uint8)
                for k, image, mask in zip(chosen, seen, masks, strict=True)]
        pages[f"{split}, {len(found['mask'])} items"] = pictures.sheet({"image" if "image" in found else "ON, OFF": seen, "mask": masks, "both": both})
    return pictures.stacked(pages)
