"""The sealed store: one folder a data set, one Zarr v3 group a split, one seal over all bytes.

    image u8 [N,H,W,3]   mask u8 [N,H,W] (255 = void)   and where each picture comes from

Chunks of 256 pictures lie in shards of 4 096, so that a split is a handful of files; each chunk carries a crc32c.
Writers own whole shards and need no locks, and the bytes are the same for any number of them. Training reads a split
once into memory: 48 000 pictures of 32x32 take 0.2 GB, of 64x64 0.8 GB.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec

from snnseg import seal
from snnseg.errors import StoreAltered, StoreError, StoreMissing

CHUNK = 256     # pictures
SHARD = 4096
VOID = 255      # mask value that no class has
REMEDY = "Make the store again: dvc repro -f prepare, or snnseg prepare"


@dataclass(frozen=True)
class Split:
    """A split in memory. `about` holds the store's attributes: classes, palette, protocol, source, params."""

    image_NHWC: np.ndarray
    mask_NHW: np.ndarray
    about: dict[str, Any]

    def __len__(self) -> int:
        return len(self.image_NHWC)


def create(folder: Path, split: str, count: int, arrays: dict[str, tuple[tuple[int, ...], str]], about: dict[str, Any]) -> None:
    """Lay out an empty split: `arrays` names the shape of one item and the dtype of each array."""
    group = zarr.open_group(folder / f"{split}.zarr", mode="w", zarr_format=3, attributes=about)
    for name, (shape, dtype) in arrays.items():
        size = np.dtype(dtype).itemsize
        group.create_array(
            name, shape=(count, *shape), dtype=dtype, fill_value=0,
            chunks=(CHUNK, *shape), shards=(SHARD, *shape),
            compressors=[BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.bitshuffle, typesize=size), Crc32cCodec()],
        )


def shards(count: int) -> Iterator[tuple[int, int]]:
    """The [start, stop) of each shard of `count` pictures: what one writer may write."""
    for start in range(0, count, SHARD):
        yield start, min(start + SHARD, count)


def write(folder: Path, split: str, start: int, items: dict[str, np.ndarray]) -> None:
    """Write whole shards of a split, beginning at picture `start`."""
    with zarr.config.set({"array.write_empty_chunks": True}):      # what is not written reads as zeros when it is missing
        group = zarr.open_group(folder / f"{split}.zarr", mode="r+")
        for name, block in items.items():
            group[name][start : start + len(block)] = block


def check(folder: Path, params: dict[str, Any], remedy: str = REMEDY) -> str:
    """Verify every byte of a store and that it was made with `params`; return the seal's digest.

    Raises StoreMissing, StoreAltered, StoreError.
    """
    digest = seal.verify(folder, remedy)
    for split in sorted(folder.glob("*.zarr")):
        found = dict(zarr.open_group(split, mode="r").attrs)["params"]
        if differs := [k for k in params if found.get(k) != params[k]]:
            told = ", ".join(f"{k} {found.get(k)} instead of {params[k]}" for k in differs)
            raise StoreError(folder, f"made with {told}", remedy)
    return digest


def read(folder: Path, split: str) -> Split:
    """A split of a verified store in memory. Raises StoreMissing, StoreAltered, StoreError."""
    seal.read_seal(folder, REMEDY)
    if not (folder / f"{split}.zarr").is_dir():
        raise StoreMissing(folder, f"has no split {split}", REMEDY)
    try:
        group = zarr.open_group(folder / f"{split}.zarr", mode="r")
        image, mask = group["image"][:], group["mask"][:]
    except (ValueError, RuntimeError, OSError, KeyError) as e:
        raise StoreAltered(folder, f"{split}.zarr cannot be decoded ({e})", REMEDY) from e
    about = dict(group.attrs)
    classes = len(about["classes"])
    if len(image) != len(mask) or image.shape[:3] != mask.shape:
        raise StoreAltered(folder, f"{split}.zarr has pictures {image.shape} and masks {mask.shape}", REMEDY)
    if strange := sorted(set(np.unique(mask).tolist()) - {*range(classes), VOID}):
        raise StoreError(folder, f"{split}.zarr has mask values {strange[:5]} beside its {classes} classes", REMEDY)
    return Split(image, mask, about)
