"""MNIST: handwritten digits in the official idx files, raw or gzipped.

An idx file is a magic number (two zero bytes, 8 for u8, the number of axes), the length of every axis as big-endian
u32, and the bytes. LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
"""
from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from snnseg.errors import DataError, DataMissing

SIDE = 28                                        # pixels
MOST = 60_000                                    # digits in the larger official file
PREFIX = {"train": "train", "test": "t10k"}
DOWNLOAD = "Download it again from the data set's site and put it there."


def load(folder: Path, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Digits u8 [N, 28, 28], white ink on black, and labels u8 [N] of `split`, train or test.

    Raises DataMissing, DataError.
    """
    images_NHW = _read_idx(folder, f"{PREFIX[split]}-images-idx3-ubyte", (SIDE, SIDE))
    labels_N = _read_idx(folder, f"{PREFIX[split]}-labels-idx1-ubyte", ())
    if len(images_NHW) != len(labels_N):
        raise DataError(folder, f"{len(images_NHW)} {split} images but {len(labels_N)} labels",
                        "Download both files again from the data set's site and put them there.")
    if labels_N.max() > 9:
        raise DataError(folder, f"{split} label {labels_N.max()} is not a digit", DOWNLOAD)
    return images_NHW, labels_N


def _read_idx(folder: Path, name: str, item: tuple[int, ...]) -> np.ndarray:
    """u8 [N, *item]. At most one byte more than `MOST` items is decompressed, whatever the file would give."""
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.exists()), None)
    if path is None:
        raise DataMissing(folder / name, f"Put {name} or {name}.gz from the MNIST site into {folder}.")
    axes = 1 + len(item)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as f:
            magic, count, *found = struct.unpack(f">{1 + axes}I", f.read(4 * (1 + axes)))
            if magic != 0x800 + axes:
                raise DataError(path, f"magic number {magic:#x}, not the {0x800 + axes:#x} of {name}", DOWNLOAD)
            if tuple(found) != item or not 0 < count <= MOST:
                raise DataError(path, f"shape {[count, *found]}, not {['1..60000', *item]}", DOWNLOAD)
            size = count * int(np.prod(item, dtype=int))
            data = f.read(size + 1)              # the one more also makes gzip compare its checksum
    except struct.error as e:
        raise DataError(path, "cut off in its header", DOWNLOAD) from e
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(path, f"cannot be read ({e})", DOWNLOAD) from e
    if len(data) != size:
        fact = f"cut off after {len(data)} of {size} bytes" if len(data) < size else f"more than {size} bytes"
        raise DataError(path, fact, DOWNLOAD)
    return np.frombuffer(data, np.uint8).reshape(count, *item).copy()      # a copy can be written to
