"""Event frames of DDD17 with their labels, made from a counted recording, Ev-SegNet's export or ESS's."""
from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from snnseg.data import ddd17_export
from snnseg.data.ddd17 import SENSOR
from snnseg.data.event_frames import add_counts
from snnseg.data.events import Events
from snnseg.data.pictures import nearest
from snnseg.data.recipe import Made, state
from snnseg.data.store import VOID, cells
from snnseg.errors import DataError, DataMissing

SCALED = 255        # Ev-SegNet's channels from -1 to 1 become whole numbers from 0 to this


@dataclass(frozen=True)
class Frame:
    """One frame to store: where its events are, where its label is, and its place in the recording."""

    source: Path            # frames.npy, an exported .npy, or a folder of ESS
    row: int                # of the frames in `source`
    label: Path | None
    sequence: int
    frame: int

    @property
    def named(self) -> str:
        """How it is told when its events are bad."""
        return f"{self.source}:{self.row}" if self.source.is_dir() else str(self.source)


class Cells(NamedTuple):
    """Events of a frame in cells, and how many are not among them: beneath the rows that are used, or not valid."""

    events_2SS: np.ndarray
    below: int = 0
    rejected: int = 0


@dataclass(frozen=True)
class Part:
    """Frames to be made. `sensor` are the rows and columns that the labels have."""

    frames: tuple[Frame, ...]
    form: str
    size: int
    sensor: tuple[int, int]

    def make(self, skip_bad: bool) -> Made:
        """events u16 [n,2,size,size], mask u8 [n,size,size]; sequence, frame, and events left out: i4 [n]. Raises DataError, DataMissing."""
        events, masks, kept, bad = [], [], [], {}
        for frame in self.frames:
            mask_SS = np.full((self.size, self.size), VOID, np.uint8)
            try:
                found = READERS[self.form](frame, self.size)
            except (DataError, DataMissing) as e:
                if not skip_bad:
                    raise
                bad[frame.named] = str(e)
                continue
            if frame.label is not None:
                try:
                    mask_SS = nearest(ddd17_export.read_label(frame.label, self.sensor), self.size, self.size)
                except (DataError, DataMissing) as e:
                    if not skip_bad:
                        raise
                    bad[str(frame.label)] = str(e)
            events.append(found.events_2SS)
            masks.append(mask_SS)
            kept.append((frame.sequence, frame.frame, found.below, found.rejected))
        if not kept:
            return Made({}, bad)
        numbers = dict(zip(("sequence", "frame", "below", "rejected"), np.array(kept, np.int32).T, strict=True))
        return Made({"events": np.stack(events), "mask": np.stack(masks), **numbers}, bad)

    def files(self) -> Iterable[Path]:
        sources = dict.fromkeys(frame.source if self.form != "ess" else frame.source / "events.dat.t" for frame in self.frames)
        return [*sources, *(frame.label for frame in self.frames if frame.label is not None)]


@functools.lru_cache(maxsize=4)
def _counted_frames(path: Path, told: tuple) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


@functools.lru_cache(maxsize=2)
def _ess(folder: Path, told: tuple) -> ddd17_export.Recording:
    return ddd17_export.ess_recording(folder)


def _of_recording(frame: Frame, size: int) -> Cells:
    """Counted before; what was left out is accounted for by recording."""
    return Cells(np.array(_counted_frames(frame.source, *state([frame.source]))[frame.row]))


def _of_export(frame: Frame, size: int) -> Cells:
    """Ev-SegNet scaled the counts of each frame, so cells hold the sum of whole numbers from 0 to 255, not of events."""
    scaled_HW2 = np.rint((ddd17_export.read_events(frame.source).clip(-1, 1) + 1) * (SCALED / 2)).astype(np.uint16)
    out_2SS = np.zeros((2, size, size), np.uint16)
    row, column = (cells(side, size) for side in ddd17_export.SIZE)
    np.add.at(out_2SS, (slice(None), row[:, None], column), scaled_HW2.transpose(2, 0, 1))
    return Cells(out_2SS)


def _of_ess(frame: Frame, size: int) -> Cells:
    """Events of the rows that are used; the others, and those that are not valid, are counted with the frame."""
    piece = _ess(frame.source, *state([frame.source / "events.dat.t"])).events(frame.row)
    events, rejected = Events.checked(piece.t, piece.x, piece.y, piece.p, SENSOR)
    used = events.y < ddd17_export.SIZE[0]
    row, column = (cells(side, size) for side in ddd17_export.SIZE)
    out_2SS = np.zeros((2, size, size), np.uint16)
    try:
        add_counts(column[events.x[used]].astype(np.uint16), row[events.y[used]].astype(np.uint16), events.p[used], out_2SS)
    except OverflowError as e:
        raise DataError(frame.source, f"row {frame.row}: {e}", "Download it again.") from e
    return Cells(out_2SS, len(events) - int(np.count_nonzero(used)), rejected.total + piece.outside)


READERS: dict[str, Callable[[Frame, int], Cells]] = {"recordings": _of_recording, "ev_segnet": _of_export, "ess": _of_ess}
