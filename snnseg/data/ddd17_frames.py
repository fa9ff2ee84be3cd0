"""A recording of an event camera as count frames on the grid of the nets, with every event accounted for.

On the way of the data: `recordings` -> **frames of 50 ms** -> sealed store. An event of pixel (x, y) is counted in the cell
that the pixel lies in, so that cells hold whole numbers and their sum is the number of events. Shapes: S x S cells.
"""
from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from snnseg import seal
from snnseg.data import ddd17, recordings
from snnseg.data.event_streams import count_stream
from snnseg.data.events import NEVER, Events, Rejected
from snnseg.data.recipe import state
from snnseg.data.store import cells
from snnseg.errors import DataError, DataMissing

LONGEST = 2_000_000     # frames, a day: a longer recording has a broken clock
MOST_REJECTED = 0.5     # of the events: with more, the first ones or the sensor are wrong
DOWNLOAD = "Use the recording as it was published, or cut it into shorter ones."


@dataclass
class Account:
    """Where the events of a recording went; `read` is the sum of all others."""

    read: int = 0
    counted: int = 0            # in stored frames
    elsewhere: int = 0          # in frames that are not stored
    below: int = 0              # beneath the rows that are used
    invalid: int = 0            # marked so by the camera
    outside: int = 0            # beyond the sensor
    polarity: int = 0           # neither 0 nor 1
    time_beyond: int = 0
    time_back: int = 0          # earlier than an event before

    def add(self, rejected: Rejected) -> None:
        for name, number in asdict(rejected).items():
            setattr(self, name, getattr(self, name) + number)

    @property
    def rejected(self) -> int:
        return self.invalid + self.outside + self.polarity + self.time_beyond + self.time_back


@dataclass(frozen=True)
class Recording:
    """A recording and the frames [start, stop) of it that are wanted; none named = all of them."""

    name: str
    path: Path
    spans: tuple[tuple[int, int], ...]

    @property
    def frames(self) -> np.ndarray:
        return np.concatenate([np.arange(*span) for span in self.spans]) if self.spans else np.zeros(0, np.int64)


def used_rows(size: tuple[int, int]) -> int:
    """The rows of a sensor that are used: the top 200 of the DAVIS346 of DDD17, all of another."""
    return ddd17.ROWS if tuple(size) == ddd17.SENSOR else size[0]


def _on_grid(recording: recordings.Recording, start: int, grid: int, account: Account) -> Iterator[Events]:
    """The valid events of the used rows from `start` on, in cells; the others go into the account."""
    height, width = recording.size
    rows, latest = used_rows(recording.size), NEVER
    column_of, row_of = cells(width, grid).astype(np.uint16), cells(rows, grid).astype(np.uint16)
    for piece in recording.pieces():
        events, rejected = Events.checked(piece.t, piece.x, piece.y, piece.p, (height, width), after=latest)
        account.read += piece.total
        account.invalid += piece.invalid
        account.outside += piece.outside
        account.add(rejected)
        latest = events.span_us[1] if len(events) else latest
        if latest - start > LONGEST * ddd17.BIN_US:
            raise DataError(recording.path, f"its clock leaps to {latest / 1e6:.0f} s, more than a day after its beginning", DOWNLOAD)
        early = int(np.searchsorted(events.t, start))
        account.elsewhere += early
        t, x, y, p = (column[early:] for column in events.columns)
        if rows < height:
            used = y < rows
            account.below += len(t) - int(np.count_nonzero(used))
            t, x, y, p = t[used], x[used], y[used], p[used]
        yield Events(t, column_of[x], row_of[y], p, (grid, grid))


def _first_time(recording: recordings.Recording) -> int:
    if recording.format == "DDD17":
        return ddd17.first_time(recording.path)
    return next((int(piece.t[0]) for piece in recording.pieces() if len(piece.t)), 0)


@dataclass(frozen=True)
class Task:
    """Count one recording's frames into `folder`: frames.npy u16 [F, 2, S, S] and told.json."""

    recording: Recording
    grid: int
    folder: Path
    code: str           # digest of what counts
    skip_bad: bool
    may_end: bool       # before the last frame that is wanted

    @property
    def place(self) -> Path:
        return self.folder / self.recording.name

    def key(self) -> list[Any]:
        return [[list(span) for span in self.recording.spans], self.grid, self.code, self.may_end, [list(told) for told in state([self.recording.path])]]


@dataclass(frozen=True)
class Counted:
    """What is known of a counted recording; `frames` are the numbers of the stored ones."""

    name: str
    sensor: tuple[int, int] = (0, 0)       # rows that are used, columns
    frames: int = 0
    account: Account = field(default_factory=Account)
    bad: str = ""


def counted(task: Task) -> Counted | None:
    """What an attempt before has counted of the same file, if it was finished."""
    try:
        told = json.loads((task.place / "told.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if told.pop("key") != task.key() or told["bad"] and not task.skip_bad:
        return None
    return Counted(told["name"], tuple(told["sensor"]), told["frames"], Account(**told["account"]), told["bad"])


def count(task: Task) -> Counted:
    """Count the frames of one recording. Raises DataError, DataMissing, unless bad files are to be skipped."""
    task.place.mkdir(parents=True, exist_ok=True)
    (task.place / "told.json").unlink(missing_ok=True)
    try:
        found = _count(task)
        seal.fsync(task.place / "frames.npy")
    except (DataError, DataMissing) as e:
        if not task.skip_bad:
            raise
        found = Counted(task.recording.name, bad=str(e))
    told = {**asdict(found), "key": task.key()}
    seal.write_file(task.place / "told.json", json.dumps(told))
    return found


def _count(task: Task) -> Counted:
    path, account = task.recording.path, Account()
    recording = recordings.of(path)
    start = _first_time(recording)
    wanted = set(task.recording.frames.tolist())
    sensor = (used_rows(recording.size), recording.size[1])
    stored, k = 0, -1
    with seal.no_space_named(task.place), open(task.place / "frames.npy", "wb") as file:
        events = _on_grid(recording, start, task.grid, account)
        edges = itertools.count(start, ddd17.BIN_US)
        _header(file, 0, task.grid)
        try:
            for k, frame_2SS in enumerate(count_stream(events, edges_us=edges, size=(task.grid, task.grid))):
                here = int(frame_2SS.sum(dtype=np.int64))
                if not wanted or k in wanted:
                    file.write(frame_2SS.tobytes())
                    stored += 1
                    account.counted += here
                else:
                    account.elsewhere += here
        except OverflowError as e:
            raise DataError(path, f"too many events in one frame ({e})", DOWNLOAD) from e
        if stored < len(wanted) and not task.may_end:
            raise DataError(path, f"ends with frame {k}, frame {max(wanted)} is wanted", "Put the labels' own recording there, whole.")
        if account.rejected > MOST_REJECTED * account.read:
            raise DataError(path, f"{account.rejected} of {account.read} events are not valid (outside the sensor {account.outside + account.invalid}, "
                                  f"polarity {account.polarity}, time running back {account.time_back})", DOWNLOAD)
        file.seek(0)
        _header(file, stored, task.grid)
    return Counted(task.recording.name, sensor, stored, account)


def _header(file: Any, frames: int, grid: int) -> None:
    """Of a .npy file; its length does not depend on the number of frames."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": False, "shape": (frames, 2, grid, grid)})
