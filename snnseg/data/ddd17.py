"""DDD17: raw driving recordings of a DAVIS346B, one HDF5 file each, in the packets of cAER.

Row of `dvs/data` (vlen u8 [N, 3]): host time as ASCII digits (us), packet header of 28 bytes, payload. Files grow by
2048 rows, so the last rows may be empty. Binas et al., "DDD17: End-To-End DAVIS Driving Dataset", 2017; the structs are
libcaer's `events/*.h`, little-endian.

The clock of a packet has 31 bits: t = (eventTSOverflow << 31) + timestamp. A special event "timestamp reset" starts it
at 0 again; time then goes on from the last event before. The authors' own reader leaves out the overflow, the number of
events and their valid bit.
"""
from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from snnseg.errors import DataError, DataMissing

SENSOR = (260, 346)                 # rows, columns of a DAVIS346B
ROWS = 200                          # the top rows that Ev-SegNet and the paper use; below is the car's bonnet
BIN_US = 50_000                     # one frame of the paper
SPECIAL, POLARITY, FRAME, IMU6 = 0, 1, 2, 3
WRAP, RESET = 0, 1                  # types of special events
HEADER = np.dtype([("type", "<i2"), ("source", "<i2"), ("size", "<i4"), ("ts_offset", "<i4"), ("overflow", "<i4"),
                   ("capacity", "<i4"), ("number", "<i4"), ("valid", "<i4")])
FRAME_HEADER = struct.Struct("<I8i")  # info, start and end of frame, start and end of exposure, width, height, x, y
SHIFT_Y, SHIFT_X, MASK = 2, 17, 0x7FFF
WRAP_BITS = 31
LATEST = 1 << 55                    # us, a thousand years: no clock comes here, and sums of two stay in int64
GROWTH, CHUNK = 2048, 128           # rows: how the authors' recorder grows and chunks a file
BLOCK_BYTES = 1 << 22               # payload read at once: half a million events
BLOCK_ROWS = 512
DOWNLOAD = "Download the recording again."


@dataclass(frozen=True)
class Piece:
    """Consecutive DVS events of one recording, in the order of the file, and the count of those left out.

    t int64 [N] in us, x and y u16 [N] from the upper left, p u8 [N] (1 = ON). `rows` are the [start, stop) they are from.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    invalid: int        # events whose valid bit is clear
    outside: int        # valid events beyond the sensor
    rows: tuple[int, int]

    @property
    def total(self) -> int:
        """All events of these rows, kept or not."""
        return len(self.t) + self.invalid + self.outside


@dataclass(frozen=True)
class Frame:
    """One picture of the APS: u8 [h, w], its end t in us, its upper left corner on the sensor, its valid bit, its row."""

    t: int
    image_HW: np.ndarray
    y: int
    x: int
    valid: bool
    row: int


def pieces(path: Path, size: tuple[int, int] = SENSOR) -> Iterator[Piece]:
    """All DVS events of a recording, some hundred thousand at a time; memory does not grow with the file.

    Every event is in a piece or in its counts. Time may run back where the recording does. Raises DataMissing, DataError.
    """
    for block in _blocks(path):
        if (block.heads["type"] == POLARITY).any():
            yield _polarity(block, size)


def frames(path: Path, size: tuple[int, int] = SENSOR) -> Iterator[Frame]:
    """All APS frames of a recording, the upper 8 of their 16 bits. Raises DataMissing, DataError."""
    for block in _blocks(path):
        for r in np.flatnonzero(block.heads["type"] == FRAME):
            head = block.heads[r]
            for k in range(head["number"]):
                yield _frame(path, block.row + int(r), block.payloads[r][k * head["size"]:(k + 1) * head["size"]], int(block.base_R[r]), size)


def first_time(path: Path) -> int:
    """Time in us of the first DVS or APS event of the file, valid or not: where bin 0 of an export starts.

    Raises DataMissing, DataError.
    """
    for block in _blocks(path):
        for r in np.flatnonzero(_timed(block.heads)):
            at = 4 if block.heads["type"][r] == POLARITY else 8
            return int(block.base_R[r]) + _int32(block.payloads[r], at)
    raise DataError(path, "holds no event and no frame", DOWNLOAD)


def frame_index(t_N: np.ndarray, start: int, bin_us: int = BIN_US) -> np.ndarray:
    """Frame that each time belongs to, int64 [N]: frame k is start + [k, k + 1) bin_us. Labels are joined by this number.

    The authors' export closes a bin when a packet crosses its end; events of packets that come late are then one bin
    further on than here.
    """
    return (np.asarray(t_N, np.int64) - start) // bin_us


@dataclass(frozen=True)
class _Block:
    """Checked rows in memory: headers [R], payloads u8 of each, and the time in us that its timestamps count from."""

    path: Path
    row: int
    heads: np.ndarray
    payloads: np.ndarray
    base_R: np.ndarray


@contextmanager
def _dataset(path: Path) -> Iterator[h5py.Dataset]:
    """`dvs/data` of this very file: a link or an external storage could make HDF5 read any other."""
    if not Path(path).is_file():
        raise DataMissing(path, "Put the recording of DDD17 there.")
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            node = file
            for name in ("dvs", "data"):
                link = node.get(name, getlink=True) if isinstance(node, h5py.Group) else None
                if link is None:
                    raise DataError(path, f"has no {'group dvs' if node is file else 'data set dvs/data'}", "Use a raw recording of DDD17.")
                if not isinstance(link, h5py.HardLink):
                    raise DataError(path, f"{name} is a link, which is not followed", "Use the recording as it was published.")
                node = node[name]
            if not isinstance(node, h5py.Dataset) or h5py.check_vlen_dtype(node.dtype) != np.uint8 or node.shape[1:] != (3,):
                raise DataError(path, "dvs/data is not vlen u8 [N, 3]", "Use a raw recording of DDD17.")
            if node.is_virtual or node.external:
                raise DataError(path, "dvs/data lies in another file, which is not read", "Use the recording as it was published.")
            yield node
    except DataError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, MemoryError) as e:
        raise DataError(path, f"cut off, damaged or not HDF5 ({e})", DOWNLOAD) from e


def _blocks(path: Path) -> Iterator[_Block]:
    """The rows of a recording, checked, about BLOCK_BYTES at a time."""
    clock, row, step, end = _Clock(path), 0, 16, None
    with _dataset(path) as data:
        while row < len(data):
            cells = data[row:row + step]
            length = np.fromiter(map(len, cells.ravel()), np.int64, cells.size).reshape(-1, 3)
            used = int(np.count_nonzero(length.any(axis=1)))
            if end is not None and used or not length[:used].any(axis=1).all():
                hole = row + int(np.argmin(length.any(axis=1))) if end is None else end
                raise DataError(path, f"row {hole} is empty and later ones are not", DOWNLOAD)
            if used:
                yield clock.block(row, _headers(path, row, cells[:used], length[:used]), cells[:used, 2])
            if used < len(cells) and end is None:
                end = row + used
            row += len(cells)
            # rows of a quiet street are small and those of frames large: the next block follows the last one's mean
            step = min(max(BLOCK_BYTES * len(cells) // int(length.sum()), 1), BLOCK_ROWS) if used else BLOCK_ROWS


def _headers(path: Path, row: int, cells: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Headers [R] of rows that hold together; the first that does not is named."""
    def refuse(bad_R: np.ndarray, fact: str, **shown: np.ndarray) -> None:
        if bad_R.any():
            r = int(np.argmax(bad_R))
            raise DataError(path, f"row {row + r}: " + fact.format(**{k: v[r] for k, v in shown.items()}), DOWNLOAD)

    stamp = np.concatenate(cells[:, 0])
    if not ((stamp >= ord("0")) & (stamp <= ord("9"))).all() or not length[:, 0].all():
        refuse(np.array([not s.tobytes().isdigit() for s in cells[:, 0]]), "the system time is not digits")
    refuse(length[:, 1] != HEADER.itemsize, "header of {n} bytes, not 28", n=length[:, 1])
    heads = np.concatenate(cells[:, 1]).view(HEADER)
    kind, size, number, capacity = heads["type"], heads["size"].astype(np.int64), heads["number"], heads["capacity"]
    refuse((kind < 0) | (size <= 0), "packet of type {kind} with events of {size} bytes", kind=kind, size=size)
    refuse((heads["valid"] < 0) | (heads["valid"] > number) | (number > capacity), "{valid} valid of {number} events in room for {capacity}",
           valid=heads["valid"], number=number, capacity=capacity)
    refuse((kind <= POLARITY) & (size != 8) | (kind == FRAME) & (size < FRAME_HEADER.size),
           "packet of type {kind} with events of {size} bytes", kind=kind, size=size)
    # the room for all events is stored, used or not; a recorder may as well have cut the unused part off
    refuse((length[:, 2] != size * capacity) & (length[:, 2] != size * number), "payload of {found} bytes, the header says {said}",
           found=length[:, 2], said=size * capacity)
    refuse(heads["overflow"] < 0, "clock overflow {overflow}", overflow=heads["overflow"])
    return heads


class _Clock:
    """Time over resets: `offset` us are added since the last one, `last` is the time of the last event so far."""

    def __init__(self, path: Path):
        self.path, self.offset, self.last = path, 0, 0

    def block(self, row: int, heads: np.ndarray, payloads: np.ndarray) -> _Block:
        """The rows with their time base; goes on to their end."""
        base_R = heads["overflow"].astype(np.int64) << WRAP_BITS
        resets = [r for r in np.flatnonzero(heads["type"] == SPECIAL) if _resets(payloads[r], heads["number"][r])]
        start = 0
        for stop in [*resets, len(heads)]:
            base_R[start:stop] += self.offset
            if (late := base_R[start:stop] > LATEST).any():
                raise DataError(self.path, f"row {row + start + int(late.argmax())}: the clock is beyond a thousand years", DOWNLOAD)
            self._pass(heads[start:stop], payloads[start:stop], base_R[start:stop])
            if stop < len(heads):
                self.offset = self.last
            start = stop
        return _Block(self.path, row, heads, payloads, base_R)

    def _pass(self, heads: np.ndarray, payloads: np.ndarray, base_R: np.ndarray) -> None:
        """Look at the last event of each kind; in a packet the last is the latest."""
        timed = _timed(heads)
        for kind, at in ((POLARITY, 4), (FRAME, 8)):
            rows = np.flatnonzero(timed & (heads["type"] == kind))
            if len(rows):
                r = rows[-1]
                self.last = max(self.last, int(base_R[r]) + _int32(payloads[r], int(heads["number"][r] - 1) * int(heads["size"][r]) + at))


def _timed(heads: np.ndarray) -> np.ndarray:
    """Rows that hold DVS events or frames, bool [R]."""
    return ((heads["type"] == POLARITY) | (heads["type"] == FRAME)) & (heads["number"] > 0)


def _int32(payload: np.ndarray, at: int) -> int:
    return int.from_bytes(payload[at:at + 4].tobytes(), "little", signed=True)


def _resets(payload: np.ndarray, number: int) -> bool:
    """Whether a special packet sets the clock to 0. A wrap does not: the headers after it count it as overflow."""
    word = payload[:8 * number].view("<u4")[::2]
    return bool(((word & 0xFF) == (RESET << 1 | 1)).any())


def _polarity(block: _Block, size: tuple[int, int]) -> Piece:
    """An event is a word (bit 0 valid, 1 polarity, 2-16 y, 17-31 x) and a timestamp in us, 4 bytes each."""
    rows = np.flatnonzero(block.heads["type"] == POLARITY)
    number = block.heads["number"][rows]
    pairs = np.concatenate([block.payloads[r][:8 * n] for r, n in zip(rows, number, strict=True)]).view("<u4").reshape(-1, 2)
    word = np.ascontiguousarray(pairs[:, 0])
    t = pairs[:, 1].view("<i4").astype(np.int64)
    base = block.base_R[rows]
    t += base[0] if (base == base[0]).all() else np.repeat(base, number)
    x = (word >> SHIFT_X).astype(np.uint16)
    y = (word >> SHIFT_Y).astype(np.uint16) & np.uint16(MASK)
    p = (word >> 1).astype(np.uint8) & np.uint8(1)
    valid = (word & 1).astype(bool)
    kept = valid & (x < size[1]) & (y < size[0])
    invalid, total = len(valid) - int(np.count_nonzero(valid)), int(np.count_nonzero(kept))
    outside = len(valid) - invalid - total
    if total < len(valid):
        t, x, y, p = t[kept], x[kept], y[kept], p[kept]
    return Piece(t, x, y, p, invalid, outside, (block.row, block.row + len(block.heads)))


def _frame(path: Path, row: int, payload: np.ndarray, base: int, size: tuple[int, int]) -> Frame:
    info, _, end, _, _, width, height, x, y = FRAME_HEADER.unpack(payload[:FRAME_HEADER.size].tobytes())
    pixels = payload[FRAME_HEADER.size:]
    inside = 0 <= x and 0 < width <= size[1] - x and 0 <= y and 0 < height <= size[0] - y
    if not inside or 2 * width * height > len(pixels):
        raise DataError(path, f"row {row}: frame of {width} x {height} at {x}, {y} with {len(pixels)} bytes on a sensor of "
                              f"{size[1]} x {size[0]}", "Use the size of the recording's sensor, or download it again.")
    if (info >> 1 & 7) > 1:
        raise DataError(path, f"row {row}: a colour frame, the DAVIS of DDD17 is grey", "Use a recording of DDD17.")
    image = (pixels[:2 * width * height].view("<u2") >> 8).astype(np.uint8).reshape(height, width)
    return Frame(base + end, image, y, x, bool(info & 1), row)


class Writer:
    """Writes a recording in this layout, a part at a time: `with Writer(path) as w: w.events(...); w.frame(...)`.

    As in a real one the first row is a reset, each overflow of the clock is told by a special event, and IMU packets lie
    between. The bytes depend on the arguments alone.
    """

    EPOCH_US = 1_487_417_411_000_000    # host time of t = 0

    def __init__(self, path: Path | BinaryIO, size: tuple[int, int] = SENSOR, packet: int = 4096):
        self.size, self.packet, self.count, self.overflow = size, packet, 0, 0
        self.waiting: list[tuple[bytes, bytes, bytes]] = []
        self.file = h5py.File(path, "w")
        self.data = self.file.create_dataset("dvs/data", (GROWTH, 3), h5py.vlen_dtype(np.uint8), chunks=(CHUNK, 3), maxshape=(None, 3))
        self.stamp = self.file.create_dataset("dvs/timestamp", (GROWTH,), np.int64, chunks=(CHUNK,), maxshape=(None,))
        self._row(SPECIAL, 0, struct.pack("<Ii", RESET << 1 | 1, 0), 1)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self.file.close()

    def events(self, t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> None:
        """Append events, t in us from 0; a packet ends where it is full or the clock overflows."""
        if len(t) and (t.min() < 0 or x.min() < 0 or y.min() < 0 or x.max() >= self.size[1] or y.max() >= self.size[0] or p.min() < 0 or p.max() > 1):
            raise ValueError("events before time 0, outside the sensor or of a third polarity")
        cuts = np.flatnonzero(np.diff(t >> WRAP_BITS)) + 1
        for start, stop in zip([0, *cuts], [*cuts, len(t)], strict=True):
            for a in range(int(start), int(stop), self.packet):
                part = slice(a, min(a + self.packet, int(stop)))
                body = np.empty((part.stop - a, 2), "<u4")
                body[:, 0] = (x[part].astype(np.uint32) << SHIFT_X) | (y[part].astype(np.uint32) << SHIFT_Y) | (p[part].astype(np.uint32) << 1) | 1
                body[:, 1] = t[part] & (1 << WRAP_BITS) - 1
                self._row(POLARITY, int(t[part.stop - 1]), body.tobytes(), len(body))

    def frame(self, t: int, image_HW: np.ndarray) -> None:
        """Append a frame u8 [H, W] that ended at t us."""
        if image_HW.shape != self.size or image_HW.dtype != np.uint8:
            raise ValueError(f"frame {image_HW.dtype} {image_HW.shape}, not uint8 {self.size}")
        low = t & (1 << WRAP_BITS) - 1
        head = FRAME_HEADER.pack(1 | 1 << 1, low, low, low, low, self.size[1], self.size[0], 0, 0)
        self._row(FRAME, t, head + (image_HW.astype("<u2") << 8).tobytes(), 1, offset=8)

    def _row(self, kind: int, t: int, payload: bytes, number: int, offset: int = 4) -> None:
        if t >> WRAP_BITS > self.overflow:
            self.overflow = t >> WRAP_BITS
            self._row(SPECIAL, t, struct.pack("<Ii", WRAP << 1 | 1, (1 << WRAP_BITS) - 1), 1)
        head = struct.pack("<hhiiiiii", kind, 1, len(payload) // number, offset, t >> WRAP_BITS, number, number, number)
        self.waiting.append((str(self.EPOCH_US + t).encode(), head, payload))
        if len(self.waiting) == CHUNK:
            self._flush()
        if kind == POLARITY and (self.count + len(self.waiting)) % 16 == 3:
            self._row(IMU6, t, struct.pack("<Ii7f", 1, t & (1 << WRAP_BITS) - 1, *[0.0] * 7), 1)

    def _flush(self) -> None:
        if not self.waiting:
            return
        stop = self.count + len(self.waiting)
        if stop > len(self.data):
            for grown in (self.data, self.stamp):
                grown.resize(len(grown) + GROWTH, axis=0)
        cells = np.empty((len(self.waiting), 3), object)
        for r, row in enumerate(self.waiting):
            cells[r] = [np.frombuffer(b, np.uint8) for b in row]
        self.data[self.count:stop] = cells
        self.stamp[self.count:stop] = [int(row[0]) for row in self.waiting]
        self.count, self.waiting = stop, []


def write(path: Path, t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray, frames: Iterable[tuple[int, np.ndarray]] = (),
          size: tuple[int, int] = SENSOR, packet: int = 4096) -> None:
    """A whole recording at once: events in their order, each frame (t in us, u8 [H, W]) before the first event after it."""
    with Writer(path, size, packet) as writer:
        latest, done = np.maximum.accumulate(t), 0
        for when, image in sorted(frames, key=lambda frame: frame[0]):
            until = max(done, int(np.searchsorted(latest, when, "right")))
            writer.events(t[done:until], x[done:until], y[done:until], p[done:until])
            writer.frame(when, image)
            done = until
        writer.events(t[done:], x[done:], y[done:], p[done:])
