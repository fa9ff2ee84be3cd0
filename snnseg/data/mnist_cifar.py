"""The MNIST-CIFAR10 segmentation benchmark: a digit added to a photograph, the mask its pixels.

The paper (section 5.1.1, figure 8) cites the generator of R. Romijnders (github.com/RobRomijnders/segm): every second
pixel of a digit (14x14), pixels brighter than 0.3, their brightness times 200 added to the three channels of a 32x32
photograph at a random place, clipped. The offsets go from 0 to 17 there, so the last row and column never hold ink.
Picture i of a split depends on (seed, split, i) alone: any slice can be made anywhere.

What the paper leaves open is a setting: the classes (`binary`, as its text says, or `digits`) and the resolution.
"""
from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from snnseg import seeds
from snnseg.data import cifar10, mnist, samples
from snnseg.data.recipe import Made, Recipe, state
from snnseg.sections import Config

SPLITS = ("train", "test")
TRAIN_SHARE = 0.8               # 48 000 of 60 000, as in the paper
INK = 0.3                       # pixels above it belong to the digit
BRIGHTNESS = 200.0              # added where the ink is full
OFFSETS = 18                    # places a digit can take along each side
# background black, then colours told apart by most eyes (Okabe and Ito, 2008), repeated lighter
PALETTE = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999", "#FFC95E", "#A6DCF7"]
CLASSES = {"binary": ("background", "digit"), "digits": ("background", *"0123456789")}


@dataclass(frozen=True)
class Pool:
    """What the pictures of one split are made of: digits u8 [N,14,14], labels u8 [N], photos u8 [M,32,32,3]."""

    digits: np.ndarray
    labels: np.ndarray
    photos: np.ndarray


def _share(count: int, split: str, what: str, seed: int) -> np.ndarray:
    """The indices of `count` things that belong to `split`: a random 80 or 20 per cent, disjoint between splits."""
    order = seeds.generator(f"mnist_cifar {what}", seed).permutation(count)
    border = round(count * TRAIN_SHARE)
    return order[:border] if split == "train" else order[border:]


def pool(source: Literal["sample", "archives"], raw: Path, split: str, seed: int) -> Pool:
    """The digits and photographs of one split; no digit and no photograph is in both. Raises DataMissing, DataError."""
    if source == "sample":
        digits, labels = samples.digits()
        photos = samples.photos(split)
    else:
        images, labels = mnist.load(raw / "mnist", "train")
        digits = images[:, ::2, ::2]
        photos = cifar10.load(raw, "train")[0]
        photos = photos[_share(len(photos), split, "photos", seed)]
    mine = _share(len(digits), split, "digits", seed)
    return Pool(np.ascontiguousarray(digits[mine]), labels[mine], photos)


def compose(digit_HW: np.ndarray, photo_HWC: np.ndarray, top: int, left: int) -> tuple[np.ndarray, np.ndarray]:
    """Add a digit u8 [14,14] to a photograph u8 [32,32,3]: the picture u8 [32,32,3] and the ink bool [32,32]."""
    value = digit_HW / 255
    ink = value > INK
    place = (slice(top, top + digit_HW.shape[0]), slice(left, left + digit_HW.shape[1]))
    picture = photo_HWC.astype(np.float64)
    picture[place] += (value * ink * BRIGHTNESS)[..., None]
    where = np.zeros(photo_HWC.shape[:2], bool)
    where[place] = ink
    return np.rint(picture.clip(0, 255)).astype(np.uint8), where


def make(pool: Pool, classes: str, size: int, seed: int, split: str, start: int, stop: int) -> dict[str, np.ndarray]:
    """Pictures `start` to `stop` of a split, at `size` pixels a side (32, or 64 = upsampled bilinearly).

    image u8 [n,size,size,3], mask u8 [n,size,size], and where they come from: digit i4 [n], photo i4 [n] (places in the
    pool). Digits are taken in turn, so that each is used once before any is used twice; photographs are drawn.
    """
    images, masks, digits, photos = [], [], [], []
    for i in range(start, stop):
        rng = seeds.generator(f"mnist_cifar {split}", seed, i)
        digit, photo = i % len(pool.digits), int(rng.integers(len(pool.photos)))
        top, left = rng.integers(OFFSETS, size=2).tolist()
        image, ink = compose(pool.digits[digit], pool.photos[photo], top, left)
        mask = ink * np.uint8(1 if classes == "binary" else pool.labels[digit] + 1)
        if size != 32:
            image = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
            mask = np.asarray(Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST))
        images.append(image)
        masks.append(mask)
        digits.append(digit)
        photos.append(photo)
    return {"image": np.stack(images), "mask": np.stack(masks),
            "digit": np.array(digits, np.int32), "photo": np.array(photos, np.int32)}


@functools.lru_cache(maxsize=2)
def _pool(source: str, raw: Path, split: str, seed: int, files: tuple) -> Pool:
    """A process makes many shards of one pool; of other files it is another one."""
    return pool(source, raw, split, seed)


@dataclass(frozen=True)
class Part:
    """Pictures of the benchmark from the official files below `raw`, or from the embedded sample."""

    source: Literal["sample", "archives"]
    raw: Path
    classes: str
    size: int
    seed: int
    split: str
    start: int
    stop: int

    @property
    def pool(self) -> Pool:
        return _pool(self.source, self.raw, self.split, self.seed, tuple(state(self.files())))

    def make(self, skip_bad: bool) -> Made:
        """No picture can be bad alone: a file of the archives is whole or refused."""
        return Made(make(self.pool, self.classes, self.size, self.seed, self.split, self.start, self.stop), {})

    def files(self) -> Iterable[Path]:
        """The archives as they lie there; the sample's pictures come with the packages."""
        folders = () if self.source == "sample" else (self.raw / "mnist", *sorted(self.raw.glob("cifar-10*")))
        return [path for folder in folders for path in ([folder] if folder.is_file() else sorted(folder.glob("*")))]


def recipe(config: Config) -> Recipe:
    """The store of `config`. Raises DataMissing, DataError."""
    data, numbers = config.data, config.data.mnist_cifar
    classes, size = CLASSES[numbers.classes], data.size
    part = functools.partial(Part, data.source, config.raw, numbers.classes, size, data.seed)
    for split in SPLITS:
        _ = part(split, 0, 0).pool          # a bad raw file is named before any work
    return Recipe(part, "pictures", {"train": numbers.train, "test": numbers.test},
                  {"image": ((size, size, 3), "uint8"), "mask": ((size, size), "uint8"), "digit": ((), "int32"), "photo": ((), "int32")},
                  classes, PALETTE[: len(classes)], config.raw)
