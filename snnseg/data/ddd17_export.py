"""DDD17 with labels: the interval table and the two published forms of the labelled frames.

Ev-SegNet (Alonso and Murillo, "EV-SegNet: Semantic Segmentation for Event-based Cameras", 2019) labelled frames of 50 ms
in 20 intervals of six recordings; each is a `.npy` and a PNG. ESS (Sun et al., "ESS: Learning Event-based Semantic
Segmentation from Still Images", 2022) gives the same labels beside all events of the recordings.
"""
from __future__ import annotations

import csv
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from snnseg.data.ddd17 import ROWS, SENSOR, Piece
from snnseg.data.store import VOID
from snnseg.errors import DataError, DataMissing

CLASSES = ("flat", "construction and sky", "object", "nature", "human", "vehicle")
SIZE = (ROWS, SENSOR[1])                         # of a labelled frame
TABLE = Path(__file__).with_name("ddd17_intervals.csv")
FRAMES = {"train": 15_950, "test": 3_890, "other": 200}    # the split `other` was labelled and is used by nobody
EVENTS_NAME = re.compile(r"(rec\d+)_export_(\d+)\.npy")
MASK_NAME = re.compile(r".*_(\d+)\.png")
ESS_FOLDERS = 7
ESS_SPLITS = {"train": (0, 2, 3, 5, 6), "test": (1,), "other": (4,)}    # places among the sorted folders dir*
DOWNLOAD = "Download it again from the data set's site and put it there."


@dataclass(frozen=True)
class Interval:
    """Labelled frames [start, stop) of one recording, numbered as in its 50 ms export."""

    split: str
    recording: str      # rec<ten digits>
    start: int
    stop: int


def intervals(table: Path = TABLE) -> tuple[Interval, ...]:
    """Ev-SegNet's intervals: 15 950 frames to train, 3 890 to test. Raises DataError if the table does not add up."""
    with open(table, newline="", encoding="utf-8") as file:
        found = tuple(Interval(row["split"], row["recording"].rpartition("/")[2], int(row["start"]), int(row["stop"]))
                      for row in csv.DictReader(file))
    frames = {split: sum(i.stop - i.start for i in found if i.split == split) for split in sorted({i.split for i in found})}
    if frames != FRAMES:
        raise DataError(table, f"has frames {frames}, not {FRAMES}", "Install snnseg again.")
    for a, b in zip(ordered := sorted(found, key=lambda i: (i.recording, i.start)), ordered[1:], strict=False):
        if a.recording == b.recording and b.start <= a.stop:
            raise DataError(table, f"intervals of {a.recording} touch at frame {b.start}", "Install snnseg again.")
    return found


def sequences(recording_N: Sequence[str], frame_N: np.ndarray, table: Sequence[Interval]) -> np.ndarray:
    """Which interval each frame is of: its place in `table`, int64 [N]; -1 for frames of none."""
    recording_N, frame_N = np.asarray(recording_N, str), np.asarray(frame_N, np.int64)
    sequence_N = np.full(len(frame_N), -1, np.int64)
    for place, i in enumerate(table):
        sequence_N[(recording_N == i.recording) & (frame_N >= i.start) & (frame_N < i.stop)] = place
    return sequence_N


@dataclass(frozen=True)
class Pair:
    """One labelled frame of Ev-SegNet's export."""

    recording: str
    frame: int
    events: Path
    label: Path


def pairs(root: Path, split: str, allow_partial: bool = False) -> list[Pair]:
    """Frames of a split and their labels, paired by name and sorted by recording and frame; with `allow_partial`, those that have one.

    Below `root` lie events/<split> and labels/<split>, or <split>/events and <split>/labels. Raises DataMissing, DataError.
    """
    places = [Path(root) / "events" / split, Path(root) / split / "events"]
    folder = next((p for p in places if p.is_dir()), None)
    if folder is None:
        raise DataMissing(places[0], f"Put Ev-SegNet's data set there, or as {places[1]}.")
    labels = Path(root) / "labels" / split if folder == places[0] else Path(root) / split / "labels"
    have = {p.name for p in labels.glob("*.png")}
    found: dict[tuple[str, int], Pair] = {}
    for path in sorted(folder.glob("[!.]*")):
        named = EVENTS_NAME.fullmatch(path.name)
        if named is None:
            raise DataError(path, "not named rec<number>_export_<frame>.npy", "Move it out of the data set.")
        key = named[1], int(named[2])
        if key in found:
            raise DataError(path, f"the same frame as {found[key].events.name}", "Move one of them out of the data set.")
        if f"{path.stem}.png" not in have:
            if allow_partial:
                continue
            raise DataMissing(labels / f"{path.stem}.png", f"Put the label of {path.name} there.")
        found[key] = Pair(*key, path, labels / f"{path.stem}.png")
    if not found:
        raise DataMissing(folder / "rec*_export_*.npy", "Put Ev-SegNet's data set there.")
    return [found[key] for key in sorted(found)]


def read_events(path: Path) -> np.ndarray:
    """ON and OFF channel of an exported frame, f32 [200, 346, 2]: counts scaled to -1 (none) to 1 by Ev-SegNet.

    The file has six channels; mean and deviation of the times in the others are left. Raises DataMissing, DataError.
    """
    _check_npy(path, "f", lambda shape: shape == (*SIZE, 6), f"floats {[*SIZE, 6]}")
    frame = np.load(path, allow_pickle=False)[..., :2].astype(np.float32)
    if not np.isfinite(frame).all():
        raise DataError(path, "holds values that are not finite", DOWNLOAD)
    return frame


def _check_npy(path: Path, kinds: str, fits, wanted: str) -> None:
    """Look at the header before a byte of the array is read or room is made for it."""
    if not Path(path).is_file():
        raise DataMissing(path, DOWNLOAD)
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"version {version}")
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = reader(file)
            left = Path(path).stat().st_size - file.tell()
    except (OSError, ValueError, EOFError) as e:
        raise DataError(path, f"not a .npy file ({e})", DOWNLOAD) from e
    if dtype.hasobject:
        raise DataError(path, "holds Python objects, which are not unpickled", DOWNLOAD)
    if dtype.kind not in kinds or dtype.itemsize not in (4, 8) or not fits(shape):
        raise DataError(path, f"{dtype} {list(shape)}, not {wanted}", DOWNLOAD)
    if left != (size := int(np.prod(shape, dtype=object)) * dtype.itemsize):
        raise DataError(path, f"{left} bytes of {size}", DOWNLOAD)


def read_label(path: Path, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Classes u8 [200, 346], 0 to 5 and 255 for void, of a grey PNG of that `size`. Raises DataMissing, DataError."""
    if not Path(path).is_file():
        raise DataMissing(path, DOWNLOAD)
    try:
        with open(path, "rb") as file:
            head = file.read(26)
        signature, width, height, depth, colour = struct.unpack(">16sIIBB", head)
        if signature != b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR":
            raise ValueError("no PNG")
        # looked at here and not by the picture library, so that no picture is ever larger than this
        if (height, width) != tuple(size) or (depth, colour) not in ((8, 0), (8, 3)):
            raise DataError(path, f"{width} x {height} of depth {depth} and colour type {colour}, not {size[1]} x {size[0]} grey of 8 bits", DOWNLOAD)
        with Image.open(path, formats=["PNG"]) as picture:
            label_HW = np.array(picture, np.uint8)
    except DataError:
        raise
    except (OSError, ValueError, SyntaxError, struct.error) as e:
        raise DataError(path, f"cut off or not a PNG ({e})", DOWNLOAD) from e
    if (bad := label_HW[(label_HW >= len(CLASSES)) & (label_HW != VOID)]).size:
        raise DataError(path, f"label {bad[0]}, the classes are 0 to {len(CLASSES) - 1} and {VOID}", DOWNLOAD)
    return label_HW


def ess_folders(root: Path, split: str) -> list[Path]:
    """Folders of the recordings of a split of ESS. Its validation is Ev-SegNet's test split.

    The split is told by the place in the sorted list, so all seven have to be there. Raises DataMissing, DataError.
    """
    found = sorted(p for p in Path(root).glob("dir*") if p.is_dir())
    if not found:
        raise DataMissing(Path(root) / "dir*", "Unpack ddd17_seg.tar.gz of ESS there.")
    if len(found) != ESS_FOLDERS:
        raise DataError(root, f"{len(found)} folders dir*, not {ESS_FOLDERS}: which split they are of is not known",
                        "Unpack the whole of ddd17_seg.tar.gz of ESS there.")
    return [found[k] for k in ESS_SPLITS[split]]


@dataclass(frozen=True)
class Recording:
    """One recording of ESS, its events left on the disk."""

    folder: Path
    t_ns: np.ndarray            # int64 [N]
    xyp: np.ndarray             # int16 [N, 3]
    index: np.ndarray           # [K, 3]: time in ns, number of its last event, number of the last event before
    masks: dict[int, Path]      # row of the index -> mask

    def events(self, row: int) -> Piece:
        """Events of one 50 ms frame of the sensor's full height, t in us. Raises DataError."""
        stop, start = int(self.index[row, 1]), max(int(self.index[row, 2]), 0)
        if not start <= stop <= len(self.t_ns):
            raise DataError(self.folder / "index", f"row {row} names events {start} to {stop} of {len(self.t_ns)}", DOWNLOAD)
        x, y, p = np.array(self.xyp[start:stop]).T
        if ((p < 0) | (p > 1)).any():
            raise DataError(self.folder / "events.dat.xyp", f"event {start + int(np.argmax((p < 0) | (p > 1)))} has a polarity that is not 0 or 1", DOWNLOAD)
        kept = (x >= 0) & (x < SENSOR[1]) & (y >= 0) & (y < SENSOR[0])
        t = self.t_ns[start:stop][kept] // 1000
        return Piece(t, x[kept].astype(np.uint16), y[kept].astype(np.uint16), p[kept].astype(np.uint8), 0, stop - start - len(t), (start, stop))


def ess_recording(folder: Path) -> Recording:
    """Open one folder of ESS; the mask numbered j belongs to row j - 1 of the index. Raises DataMissing, DataError."""
    t_ns, xyp = (_memmap(folder / name, dtype, width) for name, dtype, width in (("events.dat.t", "<i8", 1), ("events.dat.xyp", "<i2", 3)))
    if len(t_ns) != len(xyp):
        raise DataError(folder, f"{len(t_ns)} times but {len(xyp)} events", DOWNLOAD)
    path = folder / "index" / "index_50ms.npy"
    _check_npy(path, "iuf", lambda shape: len(shape) == 2 and shape[1] == 3, "numbers [K, 3]")
    index = np.load(path, allow_pickle=False)
    if not np.isfinite(index).all() or (index[:, 1:] != np.floor(index[:, 1:])).any():
        raise DataError(path, "names events by fractions", DOWNLOAD)
    if not (folder / "segmentation_masks").is_dir():
        raise DataMissing(folder / "segmentation_masks", "Unpack segmentation_masks.zip there.")
    masks = {}
    for mask in sorted((folder / "segmentation_masks").glob("[!.]*.png")):
        named = MASK_NAME.fullmatch(mask.name)
        row = int(named[1]) - 1 if named else -1
        if not 0 <= row < len(index) or row in masks:
            raise DataError(mask, f"its number is none of 1 to {len(index)}, or is there twice", DOWNLOAD)
        masks[row] = mask
    return Recording(folder, t_ns[:, 0], xyp, index, masks)


def _memmap(path: Path, dtype: str, width: int) -> np.ndarray:
    """Rows of an array without header, left on the disk."""
    if not path.is_file():
        raise DataMissing(path, DOWNLOAD)
    size, row = path.stat().st_size, np.dtype(dtype).itemsize * width
    if not size or size % row:
        raise DataError(path, f"{size} bytes are not a whole number of rows of {row}", DOWNLOAD)
    return np.memmap(path, dtype, mode="r", shape=(size // row, width))
