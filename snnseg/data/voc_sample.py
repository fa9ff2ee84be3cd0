"""A small VOC2012 with SBD in their official layout, so that the pipeline and the reader of the real files run without downloads.

Real photographs that installed packages bring (flower and palace in scikit-learn, CC BY 2.0, by vultilion and danielbuechele;
Grace Hopper in matplotlib, public domain) are cut out and put together: a flower, a person and a drawn monitor. As in
VOC, a VOC mask has a void border around each object and an SBD mask has none.

The backgrounds of the two splits come from disjoint regions, but the three objects are the same in both: a net that does
well here shows that the pipeline learns, and says nothing about pictures it has not seen. Picture i of a split depends on
(seed, split, i) alone.
"""
from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from snnseg import seal, seeds
from snnseg.data import voc
from snnseg.data.store import VOID
from snnseg.errors import DataError, DataMissing, UsageError

OVERLAP = 3                     # names of each list of VOC that SBD's lists name too; officially 2 237 in all
KINDS = ("person", "pottedplant", "tvmonitor")
COUNT_ODDS = (0.45, 0.38, 0.17)     # of one, two and three objects in a picture
OBJECT_SIDE = 192               # pixels of a cut-out's longer side; in a picture it gets smaller
PNG_PALETTE = b"".join(bytes.fromhex(colour[1:]) for colour in voc.PALETTE).ljust(3 * VOID, b"\0") + bytes((224, 224, 192))
MAT_HEADER = b"MATLAB 5.0 MAT-file, sample of snnseg".ljust(116)

# left, upper, right, lower of what becomes background: the left part for training, the right quarter for testing, no flower in them
REGIONS = {"train": (("china.jpg", (0, 0, 480, 427)), ("flower.jpg", (0, 0, 166, 427))),
           "test": (("china.jpg", (480, 0, 640, 427)), ("flower.jpg", (480, 0, 640, 385)))}

FLOWER_DISC = (307, 222, 140)   # centre x, y and radius; keeps the stem and the second flower out
# the person's outline, clockwise from the lower left, as x, y. The hair and the coat have the colours of what is behind them
PERSON = (
    26, 480, 28, 460, 30, 442, 31, 430, 33, 424, 36, 416, 40, 406, 44, 395, 48, 387, 53, 382, 60, 381, 72, 373, 80, 369, 98, 363, 120, 361,
    133, 355, 150, 350, 168, 343, 183, 333, 195, 320, 203, 314, 203, 306, 200, 299, 195, 297, 185, 294, 176, 289, 171, 286, 167, 283,
    163, 277, 161, 265, 160, 250, 162, 237, 161, 231, 158, 222, 155, 214, 153, 205, 154, 197, 156, 190, 158, 184, 152, 180, 151, 170,
    151, 150, 151, 125, 152, 116, 156, 110, 159, 101, 164, 94, 169, 89, 174, 86, 175, 80, 177, 71, 181, 62, 189, 52, 200, 45, 210, 42,
    219, 40, 221, 33, 226, 29, 240, 25, 255, 23, 270, 25, 284, 29, 295, 36, 301, 41, 311, 42, 322, 46, 336, 55, 347, 66, 352, 77, 354, 86,
    362, 87, 366, 91, 368, 96, 369, 106, 369, 120, 371, 134, 371, 143, 370, 162, 369, 174, 368, 180, 371, 182, 374, 186, 376, 192,
    376, 201, 374, 212, 371, 222, 369, 231, 367, 244, 365, 255, 362, 264, 361, 271, 359, 279, 356, 286, 353, 294, 349, 300, 344, 303,
    337, 306, 331, 304, 331, 313, 338, 320, 350, 330, 360, 339, 372, 343, 400, 357, 420, 366, 440, 370, 450, 372, 465, 378, 482, 387,
    488, 389, 494, 396, 499, 413, 505, 432, 509, 446, 509, 480)


def write(raw: Path, train: int, test: int, seed: int) -> None:
    """Write `train` pictures with masks into raw/VOCdevkit/VOC2012 (a third) and raw/benchmark_RELEASE/dataset, and `test` as VOC's val.

    Some pictures of VOC are listed and masked in SBD again, as officially. The same arguments give the same bytes. Lists
    of an earlier sample are replaced. Raises UsageError for no pictures, DataError for lists of another origin,
    DataMissing without the photographs, NoSpace.
    """
    if min(train, test) < 1:
        raise UsageError(f"a sample of {train} train and {test} test pictures: each needs one at least.")
    base, sbd = raw / "VOCdevkit" / "VOC2012", raw / "benchmark_RELEASE" / "dataset"
    names = {split: [f"{split}_{i:05d}" for i in range(count)] for split, count in (("train", train), ("test", test))}
    own = max(1, round(train / 3))
    again = {*names["train"][:own][:OVERLAP], *names["test"][:OVERLAP]}
    in_sbd = sorted({*names["train"][own:], *again})
    lists = base / "ImageSets" / "Segmentation"
    listed = {lists / "train.txt": names["train"][:own], lists / "val.txt": names["test"],
              sbd / "train.txt": [name for k, name in enumerate(in_sbd) if k % 4], sbd / "val.txt": in_sbd[::4]}
    for path in listed:
        _refuse_foreign(path)

    with seal.no_space_named(raw):
        for folder in (base / "JPEGImages", base / "SegmentationClass", lists, sbd / "img", sbd / "cls"):
            folder.mkdir(parents=True, exist_ok=True)
        for path in listed:                 # a run that is cut off leaves no list that names what is not there
            path.unlink(missing_ok=True)
        for split in names:
            for i, name in enumerate(names[split]):
                image_HWC, mask_HW = compose(split, seed, i)
                jpeg = _jpeg(image_HWC)
                if split == "test" or i < own:
                    (base / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg)
                    (base / "SegmentationClass" / f"{name}.png").write_bytes(_png(np.where(border(mask_HW), np.uint8(VOID), mask_HW)))
                if (split == "train" and i >= own) or name in again:
                    (sbd / "img" / f"{name}.jpg").write_bytes(jpeg)
                    (sbd / "cls" / f"{name}.mat").write_bytes(_mat(mask_HW))
    for path, lines in listed.items():
        seal.write_file(path, "".join(f"{name}\n" for name in lines))


def compose(split: str, seed: int, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Picture i of a split: RGB u8 [H, W, 3] and class numbers u8 [H, W] without void. One to three objects, each kind once at most.

    What an object covers is its mask from an opacity of a half on. Later objects cover earlier ones; one can be hidden.
    """
    rng = seeds.generator(f"voc_sample {split}", seed, i)
    sides = int(rng.integers(150, 171)), int(rng.integers(108, 129))
    width, height = sides if rng.random() < 0.75 else sides[::-1]
    behind = _part(rng, _region(split, int(rng.integers(len(REGIONS[split])))), width, height)
    canvas_HWC = _toned(np.asarray(behind, np.float32), rng.uniform(0.7, 1.15), rng.uniform(-35, 25))
    mask_HW = np.zeros((height, width), np.uint8)
    for k in rng.permutation(len(KINDS))[: 1 + rng.choice(3, p=COUNT_ODDS)]:
        kind = KINDS[k]
        upright = _monitor(rng, split) if kind == "tvmonitor" else _cut_out(kind)
        thing = _posed(rng, kind, upright, rng.uniform(0.42, 0.78) * min(width, height))
        left = round(rng.uniform(0.12, 0.88) * width - thing.width / 2)
        top = round(rng.uniform(0.15, 0.85) * height - thing.height / 2)
        if kind == "person":                # a bust ends at the lower border; it is sunk by more than its slope
            top = round(height - rng.uniform(0.82, 0.92) * thing.height)
        layer = Image.new("RGBA", (width, height))
        layer.paste(thing, (left, top))
        layer_HWC = np.asarray(layer, np.float32)
        opacity_HW1 = layer_HWC[..., 3:] / 255
        colour_HWC = _toned(layer_HWC[..., :3], rng.uniform(0.85, 1.1), rng.uniform(-20, 15))
        canvas_HWC += opacity_HW1 * (colour_HWC - canvas_HWC)
        mask_HW[opacity_HW1[..., 0] >= 0.5] = voc.CLASSES.index(kind)
    return np.rint(canvas_HWC).astype(np.uint8), mask_HW


def border(mask_HW: np.ndarray) -> np.ndarray:
    """Where one of the eight neighbours has another class, bool [H, W]: two pixels along each outline, one on either side."""
    height, width = mask_HW.shape
    padded = np.pad(mask_HW, 1, mode="edge")
    around = [padded[y : y + height, x : x + width] != mask_HW for y in range(3) for x in range(3)]
    return np.logical_or.reduce(around)


def _toned(image_HWC: np.ndarray, contrast: float, shift: float) -> np.ndarray:
    """f32 [H, W, 3] of 0 to 255; grey levels are spread around the middle and moved."""
    return ((image_HWC - 128) * np.float32(contrast) + np.float32(128 + shift)).clip(0, 255)


@functools.cache
def _photos() -> dict[str, Image.Image]:
    from matplotlib.cbook import get_sample_data
    from sklearn.datasets import load_sample_images

    bunch = load_sample_images()
    photos = {Path(name).name: Image.fromarray(photo) for name, photo in zip(bunch.filenames, bunch.images, strict=True)}
    path = Path(get_sample_data("grace_hopper.jpg", asfileobj=False))
    if not path.exists():                   # some distributions leave it out
        raise DataMissing(path, "Install matplotlib from a wheel, which brings it.")
    with Image.open(path) as photo:
        return photos | {"grace_hopper.jpg": photo.convert("RGB")}


@functools.cache
def _region(split: str, which: int) -> Image.Image:
    """Cut out before anything is resized, so that no filter looks over its border."""
    name, box = REGIONS[split][which]
    return _photos()[name].crop(box)


def _part(rng: np.random.Generator, region: Image.Image, width: int, height: int) -> Image.Image:
    """A random part of a region at this size, in half of the draws mirrored."""
    largest = min(region.width / width, region.height / height)
    scale = rng.uniform(min(0.6, largest), largest)         # pixels of the photograph for one of the picture; less than 0.6 is a blur
    left, top = rng.random() * (region.width - scale * width), rng.random() * (region.height - scale * height)
    box = left, top, min(left + scale * width, region.width), min(top + scale * height, region.height)
    part = region.resize((width, height), Image.Resampling.BICUBIC, box)
    return ImageOps.mirror(part) if rng.random() < 0.5 else part


@functools.cache
def _cut_out(kind: str) -> Image.Image:
    """RGBA, cropped to the object, its longer side OBJECT_SIDE pixels. Whoever gets it must not change it."""
    photo = _photos()["grace_hopper.jpg" if kind == "person" else "flower.jpg"]
    inside = Image.new("L", photo.size)
    if kind == "person":
        ImageDraw.Draw(inside).polygon(PERSON, fill=255)
    else:
        rgb = np.asarray(photo, np.int16)
        y, x = np.mgrid[: photo.height, : photo.width]
        centre_x, centre_y, radius = FLOWER_DISC
        distance = np.hypot(x - centre_x, y - centre_y)
        orange = (rgb[..., 0] - rgb[..., 2] > 30) & (rgb[..., 0] > 70)
        flower = (orange & (distance < radius)) | (distance < radius - 30)      # shadows between the petals are not orange
        inside = Image.fromarray(flower * np.uint8(255)).filter(ImageFilter.MedianFilter(5))
    inside = inside.filter(ImageFilter.MinFilter(3))        # the outermost pixel holds light of what was behind
    cut = photo.copy()
    cut.putalpha(inside)
    cut = cut.crop(inside.getbbox())
    share = OBJECT_SIDE / max(cut.size)
    return cut.resize((round(cut.width * share), round(cut.height * share)), Image.Resampling.BICUBIC)


def _monitor(rng: np.random.Generator, split: str) -> Image.Image:
    """RGBA [168, 192]: a dark case on a foot with a part of the palace's photograph on its screen, seen a little from one side."""
    dark = int(rng.integers(14, 50))
    case, lit, neck = (dark, dark, dark + 4), (dark + 45, dark + 45, dark + 50), (dark + 18, dark + 18, dark + 22)
    flat = Image.new("RGBA", (192, 168))
    draw = ImageDraw.Draw(flat)
    draw.polygon((82, 125, 110, 125, 114, 156, 78, 156), fill=neck)
    draw.polygon((56, 154, 136, 154, 146, 165, 46, 165), fill=case)
    draw.rounded_rectangle((4, 4, 187, 129), radius=5, fill=case, outline=lit, width=2)
    palace = _region(split, 0)              # neither the sky alone nor the flower's dark green: it would look switched off
    flat.paste(_part(rng, palace.crop((0, 170, *palace.size)), 164, 102), (14, 13))
    away = rng.uniform(0, 14)               # pixels by which the far side is shorter at both ends
    return flat.transform(flat.size, Image.Transform.QUAD, (0, -away, 0, 168 + away, 192, 168, 192, 0), Image.Resampling.BICUBIC)


def _posed(rng: np.random.Generator, kind: str, cut: Image.Image, side: float) -> Image.Image:
    """Resized to a longer side of `side` pixels, in half of the draws mirrored, and turned a little."""
    share = side / max(cut.size)
    posed = cut.resize((round(cut.width * share), round(cut.height * share)), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        posed = ImageOps.mirror(posed)
    most = {"person": 4, "pottedplant": 25, "tvmonitor": 6}[kind]
    return posed.rotate(rng.uniform(-most, most), Image.Resampling.BICUBIC, expand=True)


def _jpeg(image_HWC: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image_HWC).save(out, "JPEG", quality=92)
    return out.getvalue()


def _png(mask_HW: np.ndarray) -> bytes:
    """Eight bits a pixel with VOC's palette."""
    out = io.BytesIO()
    image = Image.fromarray(mask_HW)
    image.putpalette(PNG_PALETTE)
    image.save(out, "PNG")
    return out.getvalue()


def _mat(mask_HW: np.ndarray) -> bytes:
    """As SBD: the boundary of each of the twenty classes, the mask, the classes in it. scipy's header would tell the time."""
    from scipy.io import savemat
    from scipy.sparse import csc_matrix

    edges_HW, boundaries = border(mask_HW), np.empty((len(voc.CLASSES) - 1, 1), object)
    for label in range(1, len(voc.CLASSES)):
        boundaries[label - 1, 0] = csc_matrix(edges_HW & (mask_HW == label))
    present = np.setdiff1d(mask_HW, [0])[:, None].astype(np.uint8)
    out = io.BytesIO()
    savemat(out, {"GTcls": {"Boundaries": boundaries, "Segmentation": mask_HW, "CategoriesPresent": present}}, do_compression=True)
    return MAT_HEADER + out.getvalue()[len(MAT_HEADER) :]


def _refuse_foreign(path: Path) -> None:
    """Official lists are not overwritten."""
    names = path.read_bytes().split() if path.exists() else []
    if not all(name.startswith((b"train_", b"test_")) for name in names):       # an official name starts with a year
        raise DataError(path, "names pictures that are not of the sample", "Give the sample a folder of its own.")
