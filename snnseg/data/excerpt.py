"""The first test pictures of the real MNIST-CIFAR10 as one small file, so that a net can be scored where no official files are.

    image u8 [N,32,32,3]    mask u8 [N,32,32], 0 background, 1 + the digit

The masks are those of `digits`; `binary` follows from them, and the pictures of both are the same. How `models/mnist_cifar.npz` was made
is in models/README.md.
"""
from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from snnseg import seal
from snnseg.data.mnist_cifar import CLASSES, PALETTE
from snnseg.data.store import Split
from snnseg.errors import DataError, DataMissing

LIMIT_BYTES = 2**22
LIMIT_PICTURES = 2000
SIDE = 32
REMEDY = "Take it anew from the project's repository"


def write(split: Split, count: int, path: Path) -> None:
    """The first `count` pictures of a split of `digits@32`, at once and whole. Raises DataError for a split of something else."""
    if list(split.about["classes"]) != list(CLASSES["digits"]) or split.input.shape[1:] != (SIDE, SIDE, 3):
        raise DataError(path, f"made of {len(split.about['classes'])} classes and {list(split.input.shape[1:])} pixels, not of digits@32", "Name that store")
    out = io.BytesIO()
    np.savez_compressed(out, image=split.input[:count], mask=split.mask_NHW[:count])
    seal.write_file(path, out.getvalue())


def read(path: Path, protocol: str) -> Split:
    """The file's pictures with the masks of `digits` or `binary`. Raises DataMissing, DataError."""
    if not path.is_file():
        raise DataMissing(path, REMEDY)
    if path.stat().st_size > LIMIT_BYTES:
        raise DataError(path, f"larger than {LIMIT_BYTES >> 20} MiB", REMEDY)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > LIMIT_PICTURES * SIDE * SIDE * 4 + 1000:
                raise ValueError("more than it should hold")
        with np.load(path, allow_pickle=False) as held:
            image, mask = held["image"], held["mask"]
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, OSError, EOFError, NotImplementedError, MemoryError) as e:
        raise DataError(path, f"no file of test pictures ({str(e)[:100]})", REMEDY) from e
    if image.dtype != np.uint8 or mask.dtype != np.uint8 or image.shape != (len(mask), SIDE, SIDE, 3) or mask.shape[1:] != (SIDE, SIDE) or not len(mask):
        raise DataError(path, f"holds pictures {image.dtype} {list(image.shape)} and masks {mask.dtype} {list(mask.shape)}", REMEDY)
    if mask.max() >= len(CLASSES["digits"]):
        raise DataError(path, f"has the mask value {mask.max()}, beyond its {len(CLASSES['digits'])} classes", REMEDY)
    classes = CLASSES[protocol]
    return Split(image, np.minimum(mask, 1) if protocol == "binary" else mask, {"classes": list(classes), "palette": PALETTE[:len(classes)]})
