"""The sealed store: one folder a data set, one Zarr v3 group a split, one seal over all bytes.

    image u8 [N,H,W,3]   mask u8 [N,H,W] (255 = void)   and where each picture comes from
    events u16 [N,2,H,W]  mask  sequence i4 [N]  frame i4 [N]      frames of an event camera, ON first

Chunks of 256 items lie in shards of 1 024, so that a split is some files and a shard is work for one process; each chunk
carries a crc32c. Writers own whole shards and need no locks, and the bytes are the same for any number of them. Training
reads a split once into memory: 48 000 pictures of 32x32 take 0.2 GB, of 64x64 0.8 GB.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BloscShuffle, Crc32cCodec

from snnseg import seal
from snnseg.data.windows import windows
from snnseg.errors import StoreAltered, StoreError, StoreMissing

CHUNK = 256     # items
SHARD = 1024
VOID = 255      # mask value that no class has
REMEDY = "Make the store again: dvc repro -f prepare, or snnseg prepare BENCHMARK, with the same --set if there was one"


@dataclass(frozen=True)
class Split:
    """A split in memory. `about` holds the store's attributes: classes, palette, protocol, source, params.

    input: pictures u8 [N,H,W,3], or event frames u16 [N,2,H,W], of which item m is the frames `window_MT[m]`.
    """

    input: np.ndarray
    mask_NHW: np.ndarray
    about: dict[str, Any]
    window_MT: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.input if self.window_MT is None else self.window_MT)

    def first(self, items: int | None) -> Split:
        """Its first items, or all; of event frames only those that these items see."""
        if items is None or items >= len(self):
            return self
        if self.window_MT is None:
            return replace(self, input=self.input[:items], mask_NHW=self.mask_NHW[:items])
        seen, window = np.unique(self.window_MT[:items], return_inverse=True)
        return replace(self, input=self.input[seen], mask_NHW=self.mask_NHW[seen], window_MT=window.reshape(-1, self.window_MT.shape[1]))

    def take(self, index_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Items: pictures u8 [B,H,W,3] or T frames f32 [B,T,2,H,W] in events per pixel of the sensor; masks u8 [B,H,W]."""
        if self.window_MT is None:
            return self.input[index_B], self.mask_NHW[index_B]
        window_BT = self.window_MT[index_B]
        return self.input[window_BT] * per_pixel(self.about, self.input.shape[-1]), self.mask_NHW[window_BT[:, -1]]


def cells(sensor: int, size: int) -> np.ndarray:
    """The cell that each pixel of a side falls into when `sensor` pixels become `size`: i8 [sensor]."""
    return np.arange(sensor) * size // sensor


def per_pixel(about: dict[str, Any], size: int) -> np.ndarray:
    """What makes the sum over a cell of the sensor its mean: f32 [size, size]; cells differ by a row and a column."""
    height, width = (np.bincount(cells(side, size), minlength=size) for side in about["sensor"])
    return (about["gain"] / np.maximum(np.outer(height, width), 1)).astype(np.float32)


def create(folder: Path, split: str, count: int, arrays: dict[str, tuple[tuple[int, ...], str]]) -> None:
    """Lay out an empty split: `arrays` names the shape of one item and the dtype of each array."""
    group = zarr.open_group(folder / f"{split}.zarr", mode="w", zarr_format=3)
    for name, (shape, dtype) in arrays.items():
        size = np.dtype(dtype).itemsize
        group.create_array(
            name, shape=(count, *shape), dtype=dtype, fill_value=0,
            chunks=(CHUNK, *shape), shards=(SHARD, *shape),
            compressors=[BloscCodec(cname="zstd", clevel=3, shuffle=BloscShuffle.bitshuffle, typesize=size), Crc32cCodec()],
        )


def describe(folder: Path, split: str, about: dict[str, Any]) -> None:
    """Give a split its attributes."""
    zarr.open_group(folder / f"{split}.zarr", mode="r+").attrs.put(about)


def shards(count: int) -> Iterator[tuple[int, int]]:
    """The [start, stop) of each shard of `count` items: what one writer may write."""
    for start in range(0, count, SHARD):
        yield start, min(start + SHARD, count)


def write(folder: Path, split: str, start: int, items: dict[str, np.ndarray]) -> None:
    """Write whole shards of a split, beginning at item `start`."""
    with zarr.config.set({"array.write_empty_chunks": True}):      # what is not written reads as zeros when it is missing
        group = zarr.open_group(folder / f"{split}.zarr", mode="r+")
        for name, block in items.items():
            group[name][start : start + len(block)] = block


def sweep(folder: Path) -> None:
    """Clear up after a process that was killed while it wrote: what zarr renames when it is whole would be sealed with the rest."""
    for left in folder.glob("*.zarr/**/*.partial"):
        left.unlink(missing_ok=True)        # a worker that outlives its command for a moment may just name it


def splits(folder: Path) -> list[str]:
    """The splits of a store: test, train, unlabelled."""
    return sorted(path.stem for path in folder.glob("*.zarr"))


def check(folder: Path, params: dict[str, Any], remedy: str = REMEDY) -> str:
    """Verify every byte of a store and that it was made with `params`; return the seal's digest.

    Raises StoreMissing, StoreAltered, StoreError.
    """
    digest = seal.verify(folder, remedy)
    for split in splits(folder):
        found = dict(zarr.open_group(folder / f"{split}.zarr", mode="r").attrs)["params"]
        if differs := [k for k in params if found.get(k) != params[k]]:
            told = ", ".join(f"{k} {found.get(k)} instead of {params[k]}" for k in differs)
            raise StoreError(folder, f"made with {told}", remedy)
    return digest


def arrays(folder: Path, split: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All arrays of a split of a sealed store, and its attributes. Raises StoreMissing, StoreAltered."""
    seal.read_seal(folder, REMEDY)
    if not (folder / f"{split}.zarr").is_dir():
        has = splits(folder)
        raise StoreMissing(folder, f"has no split {split}, but {', '.join(has) or 'none'}",
                           "Its recordings have no labels: put them there (data/raw/README.md)" if has == ["unlabelled"] else REMEDY)
    try:
        group = zarr.open_group(folder / f"{split}.zarr", mode="r")
        found = {name: group[name][:] for name in sorted(group.array_keys())}
    except (ValueError, RuntimeError, OSError, KeyError, AttributeError, TypeError) as e:
        raise StoreAltered(folder, f"{split}.zarr cannot be decoded ({e})", REMEDY) from e
    about = dict(group.attrs)
    kind = next((k for k in ("image", "events") if k in found), None)
    wanted = {kind, "mask"} | ({"sequence", "frame"} if kind == "events" else set())
    if kind is None or not wanted <= found.keys() or not {"classes", "palette", "params"} <= about.keys():
        raise StoreAltered(folder, f"{split}.zarr holds {', '.join(found) or 'no array'}, not all that a store has", REMEDY)
    stored, mask = found[kind], found["mask"]
    size = stored.shape[1:3] if kind == "image" else stored.shape[2:]
    if any(len(found[name]) != len(mask) for name in wanted) or size != mask.shape[1:]:
        raise StoreAltered(folder, f"{split}.zarr has {kind} {stored.shape} and masks {mask.shape}", REMEDY)
    return found, about


def read(folder: Path, split: str, steps: int = 1) -> Split:
    """A split of a verified store in memory; an item of events is `steps` successive frames, the last one labelled.

    Raises StoreMissing, StoreAltered, StoreError.
    """
    found, about = arrays(folder, split)
    mask = found["mask"]
    if strange := sorted(set(np.unique(mask).tolist()) - {*range(len(about["classes"])), VOID}):
        raise StoreError(folder, f"{split}.zarr has mask values {strange[:5]} beside its {len(about['classes'])} classes", REMEDY)
    if "image" in found:
        return Split(found["image"], mask, about)
    window_MT = windows(found["sequence"], found["frame"], steps)
    labelled_N = (mask != VOID).any(axis=(1, 2))
    window_MT = window_MT[labelled_N[window_MT[:, -1]]]
    if not len(window_MT):
        raise StoreError(folder, f"{split}.zarr has no {steps} successive frames of which the last is labelled", "Lower encode.timesteps, or label more frames")
    return Split(found["events"], mask, about, window_MT)
