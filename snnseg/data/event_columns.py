"""Events as four columns t, x, y, p in an HDF5 file or a `.npz`, read slice by slice, packed or not.

In HDF5 they lie at the root or in a group `events`, in a `.npz` they are the arrays; the names may also be ts, xs, ys, ps.
They are whole numbers, t in us, p 0 and 1 or bool. HDF5 says the sensor in attributes or numbers `height` and `width` or in
`sensor_resolution` [H, W], a `.npz` in `size` [H, W]; where nothing is said it is as large as the largest x and y.

Shapes, types and sizes are judged in the headers, before a value is read or room is made for it. A file that is damaged
raises what h5py, zipfile and numpy raise: `recordings` names it.
"""
from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from snnseg.data.ddd17 import Piece
from snnseg.errors import DataError

NAMES = {"t": ("t", "ts", "timestamp"), "x": ("x", "xs"), "y": ("y", "ys"), "p": ("p", "ps", "polarity", "on")}
KINDS = {"t": "iu", "x": "iu", "y": "iu", "p": "iub"}
STEP = 1 << 18                      # events of a piece
CHUNK_BYTES = 1 << 26               # of an HDF5 column: a chunk is unpacked as a whole
DEFLATE = 1100                      # no bytes packed by deflate become more than 1 032 times as many
REMEDY = "Save columns t in whole microseconds, x and y in whole pixels and p as 0 or 1."
DOWNLOAD = "Record or download it again."
INSIDE = "Save the events themselves in the file."


@dataclass(frozen=True)
class Columns:
    """t, x, y, p, each as slices of STEP values one after another; [height, width], if the file says it."""

    slices: dict[str, Iterable[np.ndarray]]
    size: Any


Opened = Callable[[Path], AbstractContextManager[Columns]]


def size(opened: Opened, path: Path) -> Any:
    """[height, width] as the file says it, unchecked, or as the largest y and x need it. Raises DataError."""
    with opened(path) as columns:
        if columns.size is not None:
            return columns.size
        return size_of_largest(path, *(max((int(part.max()) for part in columns.slices[name]), default=-1) for name in "yx"))


def size_of_largest(path: Path, y: int, x: int) -> tuple[int, int]:
    """Raises DataError where the largest is -1: there is no event."""
    if min(x, y) < 0:
        raise DataError(path, "holds no event, and not the size of its sensor", "Use a recording with events.")
    return y + 1, x + 1


def pieces(opened: Opened, path: Path) -> Iterator[Piece]:
    """All events, STEP at a time. Raises DataError."""
    with opened(path) as columns:
        start = 0
        for t, x, y, p in zip(*(columns.slices[name] for name in "txyp"), strict=True):
            if p.dtype.kind == "i" and (p < 0).any():
                raise DataError(path, f"p is {p.min()} at event {start + int(np.argmin(p))}", "Save p as 0 for OFF and 1 for ON.")
            yield Piece(fitted(t, np.int64), fitted(x, np.uint16), fitted(y, np.uint16), fitted(p, np.uint8), 0, 0, (start, start + len(t)))
            start += len(t)


def fitted(values: np.ndarray, dtype: type) -> np.ndarray:
    """In the type of a piece. Nothing wraps: what does not fit becomes the largest number, which is never valid."""
    column = values.astype(dtype)
    if not np.can_cast(values.dtype, dtype):
        column[(values < 0) | (values > np.iinfo(dtype).max)] = np.iinfo(dtype).max
    return column


def chosen(path: Path, there: Callable[[str], bool]) -> dict[str, str]:
    """The name that each column has in the file. Raises DataError."""
    found = {column: next(filter(there, names), "") for column, names in NAMES.items()}
    if missing := [column for column, name in found.items() if not name]:
        raise DataError(path, f"has no column {', '.join(missing)}", REMEDY)
    return found


def _check(path: Path, headers: dict[str, tuple[tuple[int, ...], np.dtype]]) -> None:
    for name, (shape, dtype) in headers.items():
        if dtype.hasobject:
            raise DataError(path, f"{name} holds Python objects, which are not unpickled", REMEDY)
        if len(shape) != 1 or shape[0] < 0 or dtype.kind not in KINDS[name]:
            raise DataError(path, f"{name} is {str(dtype)[:80]} of shape {list(shape)}, not a column of whole numbers", REMEDY)
    if len({shape for shape, _ in headers.values()}) != 1:
        raise DataError(path, f"{', '.join(headers)} are of {', '.join(str(shape[0]) for shape, _ in headers.values())} events", "Save all at one length.")


# ---------------------------------------------------------------------------------------- HDF5


@contextmanager
def hdf5(path: Path) -> Iterator[Columns]:
    """The columns of an HDF5 file, which is open meanwhile. Raises DataError."""
    # a chunk that fits into the cache is unpacked once, not once a slice
    with h5py.File(path, "r", locking="best-effort", rdcc_nbytes=CHUNK_BYTES) as file:
        group = _node(path, file, "events")
        group = group if isinstance(group, h5py.Group) else file
        nodes = {column: _node(path, group, name) for column, name in chosen(path, partial(there, group)).items()}
        for name, node in nodes.items():
            if not isinstance(node, h5py.Dataset) or node.shape is None:
                raise DataError(path, f"{name} is no column", REMEDY)
        _check(path, {name: (node.shape, node.dtype) for name, node in nodes.items()})
        for name, node in nodes.items():
            if node.chunks and node.chunks[0] * node.dtype.itemsize > CHUNK_BYTES:
                raise DataError(path, f"{name} has chunks of {node.chunks[0]} events", f"Save it in chunks of {STEP}.")
        said = _hdf5_size(path, group)
        yield Columns({name: _hdf5_slices(node) for name, node in nodes.items()}, said if said is not None else _hdf5_size(path, file))


def _hdf5_slices(node: h5py.Dataset) -> Iterator[np.ndarray]:
    return (node[start:start + STEP] for start in range(0, len(node), STEP))


def there(group: h5py.Group, name: str) -> bool:
    """Whether the group has this name. `name in group` would follow it, to another file too."""
    return group.get(name, getlink=True) is not None


def _node(path: Path, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """What has this name in this very file: a link or an external storage could make HDF5 read any other."""
    if not there(group, name):
        return None
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise DataError(path, f"{name} is a link, which is not followed", INSIDE)
    node = group[name]
    if isinstance(node, h5py.Dataset) and (node.is_virtual or node.external):
        raise DataError(path, f"{name} lies in another file, which is not read", INSIDE)
    return node


def _hdf5_size(path: Path, group: h5py.Group) -> Any:
    if "sensor_resolution" in group.attrs:
        return np.ravel(group.attrs["sensor_resolution"])[:2]       # some add the number of channels
    if "height" in group.attrs and "width" in group.attrs:
        return group.attrs["height"], group.attrs["width"]
    numbers = [_node(path, group, name) for name in ("height", "width")]
    return [node[()] for node in numbers] if all(isinstance(node, h5py.Dataset) and node.shape == () for node in numbers) else None


# ---------------------------------------------------------------------------------------- npz


@contextmanager
def npz(path: Path) -> Iterator[Columns]:
    """The columns of a `.npz`, which is open meanwhile: all four are unpacked side by side. Raises DataError."""
    with zipfile.ZipFile(path) as archive, ExitStack() as stack:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        arrays = {column: _npy(path, archive, stack, members[name]) for column, name in chosen(path, members.__contains__).items()}
        _check(path, {name: (array.shape, array.dtype) for name, array in arrays.items()})
        said = _npy(path, archive, stack, members["size"]) if "size" in members else None
        if said and (said.shape != (2,) or said.dtype.hasobject):
            raise DataError(path, f"size is {said.dtype} of shape {list(said.shape)}", "Save it as [height, width] in pixels.")
        yield Columns({name: array.slices(path) for name, array in arrays.items()}, next(said.slices(path)) if said else None)


@dataclass(frozen=True)
class _Npy:
    """A `.npy` inside an archive, read up to its values."""

    name: str
    stream: Any
    shape: tuple[int, ...]
    dtype: np.dtype

    def slices(self, path: Path) -> Iterator[np.ndarray]:
        for start in range(0, self.shape[0], STEP):
            wanted = min(STEP, self.shape[0] - start) * self.dtype.itemsize
            data = self.stream.read(wanted)
            if len(data) < wanted:
                raise DataError(path, f"{self.name} is cut off at {start + len(data) // self.dtype.itemsize} of {self.shape[0]}", DOWNLOAD)
            yield np.frombuffer(data, self.dtype)


def _npy(path: Path, archive: zipfile.ZipFile, stack: ExitStack, info: zipfile.ZipInfo) -> _Npy:
    """Archive and array have to tell the same length, and the packed bytes be enough for it."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(path, f"{info.filename} is packed by method {info.compress_type}", "Save it with numpy's savez or savez_compressed.")
    stream = stack.enter_context(archive.open(info))
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{info.filename} of version {version}")
    shape, _, dtype = (np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0)(stream)
    wanted = stream.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if not dtype.hasobject and (info.file_size != wanted or wanted > DEFLATE * info.compress_size):
        raise DataError(path, f"{info.filename} has {info.file_size} bytes in {info.compress_size}, not {wanted}", DOWNLOAD)
    return _Npy(info.filename, stream, shape, dtype)
