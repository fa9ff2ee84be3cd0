"""Recordings of event cameras in the formats that users have, each read as the pieces that `ddd17` gives.

    recording = recordings.of("drive.aedat4")
    for piece in recording.pieces(): Events.checked(piece.t, piece.x, piece.y, piece.p, recording.size)

The suffix names the format and the first bytes must agree. x and y count from the upper left, t is in us, p is 1 for ON.
Nothing is mended: events beyond the sensor, of a third polarity or back in time are in the pieces, for `Events.checked` to
count. Formats: DDD17 and columns in HDF5, columns in `.npz` (`event_columns`), AEDAT-2 (`aedat2`), and AEDAT-4, RAW, DAT,
ES and CSV (`event_faery`, for which `snnseg[recordings]` is installed).
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from snnseg.data import aedat2, ddd17, event_columns, event_faery
from snnseg.data.ddd17 import Piece
from snnseg.data.events import MOST
from snnseg.errors import DataError, DataMissing, SnnsegError

BEGINNINGS = {                      # of the files with these suffixes; text has none
    ".hdf5": b"\x89HDF\r\n\x1a\n",
    ".h5": b"\x89HDF\r\n\x1a\n",
    ".npz": b"PK",
    ".aedat": b"#!AER-DAT",
    ".aedat2": b"#!AER-DAT2",
    ".aedat4": b"#!AER-DAT4",
    ".es": b"Event Stream",
    ".raw": b"% ",
    ".dat": b"% ",
    ".csv": b"",
}
SUFFIXES = tuple(BEGINNINGS)
SHOWN = 300                         # characters of what others say
DOWNLOAD = "Record or download it again."


@dataclass(frozen=True)
class Recording:
    """A recording whose header was read and is good."""

    path: Path
    format: str
    size: tuple[int, int]           # rows and columns of the sensor

    def pieces(self) -> Iterator[Piece]:
        """All events in the order of the file, some hundred thousand at a time; memory does not grow with it.

        `rows` [start, stop) are numbers of events; of records for AEDAT-2, of rows for DDD17. Raises DataMissing, DataError.
        """
        with _named(self.path, FORMATS[self.format].remedy):
            yield from FORMATS[self.format].pieces(self.path)


def of(path: Path) -> Recording:
    """Look at a file and tell how to read it; where it does not say its size, all of x and y is read.

    Raises DataMissing, and DataError for: a wrong suffix or content; a file that is empty or cut off; columns that are
    missing, no whole numbers, pickled, behind a link or in another file; faery where it is needed and not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataMissing(path, "Put the recording there.")
    if suffix not in SUFFIXES:
        raise DataError(path, f"a recording is not named {suffix or 'without a suffix'}", f"Give it the suffix of its format: {', '.join(SUFFIXES)}.")
    with _named(path, DOWNLOAD):
        with open(path, "rb") as file:
            head = file.read(16)
        if not head:
            raise DataError(path, "is empty", DOWNLOAD)
        format = _format(path, suffix, head)
    with _named(path, FORMATS[format].remedy):
        return Recording(path, format, _checked_size(path, FORMATS[format].size(path)))


def _format(path: Path, suffix: str, head: bytes) -> str:
    if not head.startswith(BEGINNINGS[suffix]) and suffix != ".aedat":      # whose first version begins with anything
        like = next((s for s, beginning in BEGINNINGS.items() if beginning and head.startswith(beginning)), None)
        raise DataError(path, f"begins like a {like}" if like else f"does not begin like a {suffix}",
                        "Rename it." if like else "Use the file as it was recorded.")
    if suffix in (".hdf5", ".h5"):
        with h5py.File(path, "r", locking="best-effort") as file:
            return "DDD17" if event_columns.there(file, "dvs") else "HDF5"
    if suffix.startswith(".aedat"):
        return "AEDAT-4" if head.startswith(BEGINNINGS[".aedat4"]) else "AEDAT-2"       # whose reader names the others
    return suffix[1:].upper()


@contextmanager
def _named(path: Path, remedy: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes a DataError that names the file. A panic of faery is a BaseException."""
    try:
        yield
    except BaseException as e:
        if isinstance(e, SnnsegError) or not (isinstance(e, Exception) or type(e).__name__ == "PanicException"):
            raise
        raise DataError(path, f"cut off, damaged or not of its format ({str(e)[:SHOWN] or type(e).__name__})", remedy) from e


def _checked_size(path: Path, found: Any) -> tuple[int, int]:
    size = np.hstack(found)
    if size.shape != (2,) or size.dtype.kind not in "iuf" or not ((size >= 1) & (size <= MOST) & (size == np.floor(size))).all():
        raise DataError(path, f"the size of its sensor is {str(size.tolist())[:SHOWN]}", "Save it as [height, width] in pixels.")
    return int(size[0]), int(size[1])


def _ddd17_size(path: Path) -> tuple[int, int]:
    ddd17.first_time(path)              # looks whether the first rows are good
    return ddd17.SENSOR


@dataclass(frozen=True)
class _Format:
    size: Callable[[Path], Any]         # height and width, as found
    pieces: Callable[[Path], Iterator[Piece]]
    remedy: str = DOWNLOAD


FORMATS = {
    "DDD17": _Format(_ddd17_size, ddd17.pieces),
    "AEDAT-2": _Format(aedat2.sensor, aedat2.pieces),
    **{name: _Format(partial(event_columns.size, opened), partial(event_columns.pieces, opened))
       for name, opened in (("HDF5", event_columns.hdf5), ("NPZ", event_columns.npz))},
    **{name: _Format(partial(event_faery.size, kind), partial(event_faery.pieces, kind), event_faery.REMEDIES.get(kind, DOWNLOAD))
       for name, kind in (("AEDAT-4", "aedat"), ("RAW", "evt"), ("DAT", "dat"), ("ES", "es"), ("CSV", "csv"))},
}
