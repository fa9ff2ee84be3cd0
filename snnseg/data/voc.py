"""VOC2012 with SBD: photographs and masks of twenty kinds of things, from the official folders.

    VOCdevkit/VOC2012/{JPEGImages/*.jpg, SegmentationClass/*.png, ImageSets/Segmentation/{train,val}.txt}
    benchmark_RELEASE/dataset/{img/*.jpg, cls/*.mat, train.txt, val.txt}          (SBD)

The training set of the paper, `train_aug`, is VOC's train list and all of SBD that is not in VOC's val list, 10 582
pictures; VOC's val list, 1 449, is the test set. Where a picture is in VOC and in SBD, VOC's mask is taken. Everingham
et al., "The Pascal visual object classes challenge", 2015; Hariharan et al., "Semantic contours from inverse detectors",
2011 (SBD). Folders of SBD masks that others turned into PNG (`VOC2012/SegmentationClassAug`) stand in for SBD.
"""
from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from snnseg.data import pictures
from snnseg.data.store import VOID
from snnseg.errors import DataError, DataMissing

CLASSES = ("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
           "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")
OFFICIAL = {"train": 10_582, "test": 1_449}                   # pictures of each split
VOC_LISTS = {"train.txt": 1_464, "val.txt": 1_449}            # names in each list
SBD_LISTS = {"train.txt": 8_498, "val.txt": 2_857}
NAME = re.compile(r"\w[\w-]*", re.ASCII)                      # a file name without suffix, and never a path
ARCHIVES = {"voc": "VOCtrainval_11-May-2012.tar from the VOC site", "sbd": "benchmark.tgz from the SBD site",
            "aug": "SegmentationClassAug, into VOCdevkit/VOC2012,"}


def _colour(label: int) -> str:
    """VOC's rule: the bits of a label, lowest first, go in turn to red, green and blue, there highest first."""
    rgb = [sum(((label >> (3 * k + channel)) & 1) << (7 - k) for k in range(3)) for channel in range(3)]
    return "#" + bytes(rgb).hex()


PALETTE = [_colour(label) for label in range(len(CLASSES))]


@dataclass(frozen=True)
class Pair:
    """A picture and its mask. `source` is where the mask comes from; `aug` is a PNG that was made of SBD's."""

    name: str
    image: Path
    mask: Path
    source: Literal["voc", "sbd", "aug"]


@dataclass(frozen=True)
class Pairs:
    """The pictures of a split in the order of the lists, without those whose files are missing."""

    items: tuple[Pair, ...]
    listed: int             # in the lists that are there
    official: int           # in the official lists

    @property
    def found(self) -> int:
        return len(self.items)


def pairs(raw: Path, split: Literal["train", "test"], allow_partial: bool) -> Pairs:
    """The pictures of a split below `raw`; none is in both splits. Only names are looked at, no picture is opened.

    An incomplete download is refused unless `allow_partial`: a list that is shorter than the official one, or a listed
    picture without its file or mask. (A val list that is cut short leaves its other pictures to SBD, so to training.)
    Raises DataMissing, DataError.
    """
    voc = raw / "VOCdevkit" / "VOC2012"
    lists = voc / "ImageSets" / "Segmentation"
    test = _names(raw, lists / "val.txt", "voc", allow_partial)
    if split == "test":
        sources, source = dict.fromkeys(test, "voc"), "voc"
    else:
        train = _names(raw, lists / "train.txt", "voc", allow_partial)
        _disjoint(lists / "train.txt", train, lists / "val.txt", test)
        sources = dict.fromkeys(train, "voc")
        more, source = _augmentation(raw, voc, allow_partial)
        taken = {*train, *test}
        sources |= {name: source for name in more if name not in taken}

    items, missing = _locate(raw, voc, sources)
    listed, official = len(sources), OFFICIAL[split]
    if missing and not (allow_partial and items):
        archive = "voc" if missing.suffix == ".jpg" else sources[missing.stem]
        raise DataMissing(missing, f"{listed - len(items)} of {listed} pictures lack their file or mask. {_remedy(raw, archive, allow_partial)}")
    if listed != official and not (allow_partial and items):
        raise DataError(raw, f"{listed} {split} pictures, officially {official}", _remedy(raw, source, allow_partial))
    return Pairs(items, listed, official)


def load(pair: Pair, size: int, fit: Literal["stretch", "letterbox"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture u8 [size, size, 3] in RGB, antialiased, its mask u8 [size, size], nearest, where void stays 255, and which
    classes are in it before it is made small, u8 [21] of 0 and 1.

    `stretch` does not keep the aspect (the paper); `letterbox` does, and what is outside is black and void. The mask takes
    the pixel at each centre, as the picture does (the authors' OpenCV takes the one at the upper left corner).
    Raises DataMissing, DataError.
    """
    mask_HW = _mask(pair.mask)
    image = pictures.open_jpeg(pair.image)
    if mask_HW.shape != (image.height, image.width):
        height, width = mask_HW.shape
        raise DataError(pair.mask, f"{width} x {height} pixels, its picture has {image.width} x {image.height}",
                        "Use the mask that was made for this picture, at its size.")
    height, width = (size, size) if fit == "stretch" else _letterbox(image.height, image.width, size)
    top, left = (size - height) // 2, (size - width) // 2
    inside = slice(top, top + height), slice(left, left + width)

    small_HWC = np.zeros((size, size, 3), np.uint8)
    small_HWC[inside] = pictures.resized(pair.image, image, height, width)
    small_HW = np.full((size, size), VOID, np.uint8)
    small_HW[inside] = pictures.nearest(mask_HW, height, width)
    present = np.bincount(mask_HW.ravel(), minlength=len(CLASSES))[: len(CLASSES)] > 0
    return small_HWC, small_HW, present.astype(np.uint8)


def _letterbox(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width with the aspect kept, to the nearest pixel, where the longer side has `size`."""
    longer = max(height, width)
    return max(1, round(height * size / longer)), max(1, round(width * size / longer))


def _mask(path: Path) -> np.ndarray:
    """Class numbers u8 [H, W]: 0 to 20, or 255. Raises DataMissing, DataError."""
    mask_HW = pictures.mat_mask(path) if path.suffix == ".mat" else pictures.png_mask(path)
    strange = mask_HW[(mask_HW >= len(CLASSES)) & (mask_HW != VOID)]
    if strange.size:
        raise DataError(path, f"label {strange.min()} in {strange.size} pixels, the classes are 0 to 20 and void is 255",
                        "Use the official mask, or save class numbers as an 8-bit PNG.")
    return mask_HW


def _remedy(raw: Path, archive: str, allow_partial: bool) -> str:
    return f"Unpack {ARCHIVES[archive]} in {raw}{'' if allow_partial else ', or give --allow-partial to use what is there'}."


def _names(raw: Path, path: Path, source: Literal["voc", "sbd"], allow_partial: bool) -> list[str]:
    """The names in a list, in its order. Raises DataMissing, DataError."""
    official = (VOC_LISTS if source == "voc" else SBD_LISTS)[path.name]
    if not path.exists():
        raise DataMissing(path, _remedy(raw, source, True))
    text = pictures.read_bytes(path, may_be_empty=True).decode("utf-8", "replace")
    names: dict[str, int] = {}                                # and the line of each
    for number, line in enumerate(text.split("\n"), 1):
        name = line.strip()
        if name in names:
            raise DataError(path, f"line {number} names {name} again, after line {names[name]}", "Use the official list.")
        if name and not NAME.fullmatch(name):
            raise DataError(path, f"line {number} is {name[:80]!r}, not the name of a picture", "Use the official list.")
        if name:
            names[name] = number
    if len(names) != official and not allow_partial:
        raise DataError(path, f"names {len(names)} pictures, officially {official}", _remedy(raw, source, allow_partial))
    return list(names)


def _disjoint(path: Path, names: list[str], other: Path, others: list[str]) -> None:
    if both := set(names) & set(others):
        raise DataError(path, f"names {min(both)}, which {other.name} names too", "Use the official lists.")


def _augmentation(raw: Path, voc: Path, allow_partial: bool) -> tuple[list[str], Literal["sbd", "aug"]]:
    """The names of all of SBD, and where their masks are. Raises DataMissing, DataError."""
    sbd, aug = raw / "benchmark_RELEASE", voc / "SegmentationClassAug"
    if sbd.is_dir():
        lists = sbd / "dataset" / "train.txt", sbd / "dataset" / "val.txt"
        train, val = (_names(raw, path, "sbd", allow_partial) for path in lists)
        _disjoint(lists[0], train, lists[1], val)
        return train + val, "sbd"
    if aug.is_dir():
        return sorted(name for name in _stems(aug, ".png") if NAME.fullmatch(name)), "aug"
    if not allow_partial:
        raise DataMissing(sbd, _remedy(raw, "sbd", allow_partial))
    return [], "sbd"


def _locate(raw: Path, voc: Path, sources: dict[str, str]) -> tuple[tuple[Pair, ...], Path | None]:
    """Those whose picture and mask are there, and the first file that is not. A folder is listed once, not asked per file."""
    sbd = raw / "benchmark_RELEASE" / "dataset"
    masks = {"voc": (voc / "SegmentationClass", ".png"), "sbd": (sbd / "cls", ".mat"), "aug": (voc / "SegmentationClassAug", ".png")}
    masked = {source: _stems(*place) for source, place in masks.items()}
    photos = {folder: _stems(folder, ".jpg") for folder in (voc / "JPEGImages", sbd / "img")}
    items, missing = [], None
    for name, source in sources.items():
        image = next((folder / f"{name}.jpg" for folder, stems in photos.items() if name in stems), None)
        folder, suffix = masks[source]
        mask = folder / f"{name}{suffix}"
        if image and name in masked[source]:
            items.append(Pair(name, image, mask, source))
        else:
            missing = missing or (mask if image else voc / "JPEGImages" / f"{name}.jpg")
    return tuple(items), missing


def _stems(folder: Path, suffix: str) -> set[str]:
    """The names of the files with this suffix; none where there is no folder."""
    try:
        return {name.removesuffix(suffix) for name in os.listdir(folder) if name.endswith(suffix)}
    except FileNotFoundError:
        return set()
    except OSError as e:
        raise DataError(folder, f"cannot be read ({e.strerror})", "Check that it is a folder that may be read.") from e
