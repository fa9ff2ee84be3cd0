"""AEDAT-2: recordings of jAER, made with a DAVIS or a DVS128.

Lines of text that begin with `#`, then records of 8 bytes, big-endian: address u32, time i32 in us. The line `# AEChip:`
tells the sensor, and so what the bits of an address mean. Sources: iniVation, "AEDAT file formats"; jAER's `DavisChip`,
`DavisBaseCamera`, `DVS128` and `AEFileInputStream`. jAER mirrors x and counts y from below; here both count from the
upper left of the picture. A DVS128 has 0 for ON: jAER's extractor says so and turns it, where iniVation's page has 1.

The clock wraps at 32 bits, in some files at 31. AEDAT-2 has no mark for a reset, so a step back of more than a second is
taken for one: time then goes on from the last event before.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from snnseg.data.ddd17 import Piece
from snnseg.errors import DataError, DataMissing

RECORD = 8                          # bytes
BLOCK = 1 << 17                     # records read at once: they and what becomes of them fit into a processor's cache
LINE_BYTES = 1 << 16                # a header line; jAER's longest have a thousand
END = b"#end of ascii header"
CHIP_LINE = re.compile(rb"#\s*(AEChip|HardwareInterface):(.*)")
BACK_US = 1_000_000                 # jAER's own disorder is some ms; a longer step back is no disorder
GAP_US = 1 << 30                    # 18 minutes without an event: a longer step is one back, seen through a wrap
CLOCK = 1 << 32
HALF = 1 << 31
DOWNLOAD = "Record or download it again."


@dataclass(frozen=True)
class Chip:
    """A sensor [height, width] and its addresses: field = address >> shift & mask."""

    height: int
    width: int
    skip: int                       # any of these bits set: no event of the DVS
    x_shift: int
    x_mask: int
    y_shift: int
    y_mask: int
    p_shift: int
    on: int                         # the bit of an ON event


def _davis(height: int, width: int) -> Chip:
    # bit 31: picture or IMU, bit 10: pulse at a pin of the camera
    return Chip(height, width, 1 << 31 | 1 << 10, 12, 0x3FF, 22, 0x1FF, 11, 1)


CHIPS = {
    "DAVIS128": _davis(128, 128),
    "DAVIS208": _davis(192, 208),
    "DAVIS240": _davis(180, 240),
    "DAVIS346": _davis(260, 346),
    "DAVIS640": _davis(480, 640),
    "DVS128": Chip(128, 128, 1 << 31 | 1 << 15, 1, 0x7F, 8, 0x7F, 0, 0),       # bits 31 and 15: pulse at a pin
}
CHIP_NAME = re.compile("|".join(CHIPS), re.IGNORECASE)


def sensor(path: Path) -> tuple[int, int]:
    """Height and width of the sensor that the header names. Raises DataMissing, DataError."""
    with _opened(path) as (chip, _, _):
        return chip.height, chip.width


def pieces(path: Path) -> Iterator[Piece]:
    """All DVS events of a recording, some hundred thousand at a time; memory does not grow with the file.

    Pictures, IMU samples and pulses are in no piece and no count; `rows` numbers records, these too. Time may run back a
    little where the recording does. An address beyond the sensor gives an x or y beyond it, for the caller to leave out.
    Raises DataMissing, DataError.
    """
    with _opened(path) as (chip, file, records):
        clock = _Clock()
        for start in range(0, records, BLOCK):
            stop = min(start + BLOCK, records)
            data = file.read(RECORD * (stop - start))
            if len(data) < RECORD * (stop - start):
                raise DataError(path, f"became shorter while it was read: record {start + len(data) // RECORD} is gone", DOWNLOAD)
            yield _piece(chip, clock, np.frombuffer(data, ">u4").reshape(-1, 2), (start, stop))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Chip, BinaryIO, int]]:
    """The sensor, the file at its first record, and how many records there are."""
    if not Path(path).is_file():
        raise DataMissing(path, "Put the recording there.")
    try:
        with open(path, "rb") as file:
            chip, at = _header(path, file)
            records, rest = divmod(Path(path).stat().st_size - at, RECORD)
            if rest:
                raise DataError(path, f"cut off: {rest} bytes of a record of {RECORD} after record {records - 1}", DOWNLOAD)
            file.seek(at)
            yield chip, file, records
    except OSError as e:
        raise DataError(path, f"cannot be read ({e})", "Check the disk and the file's permissions.") from e


def _header(path: Path, file: BinaryIO) -> tuple[Chip, int]:
    """The sensor and where the records begin."""
    line = file.readline(LINE_BYTES)
    _check_version(path, line)
    at, named = 0, {}
    # jAER knows data by its first byte not being '#'. An event can begin with that byte, but then has a 0 as its fourth
    while line.startswith(b"#") and b"\0" not in line[:4]:
        if not line.endswith(b"\n"):
            raise DataError(path, f"the header line at byte {at} has no end", DOWNLOAD)
        at += len(line)
        if line.strip().lower() == END:
            break
        if found := CHIP_LINE.match(line):
            named.setdefault(found[1], found[2].decode("latin-1").strip())
        line = file.readline(LINE_BYTES)
    name = named.get(b"AEChip", named.get(b"HardwareInterface", ""))
    if known := CHIP_NAME.search(name):
        return CHIPS[known[0].upper()], at
    raise DataError(path, f"made with {name[:80]}, whose addresses are not known here" if name else "does not say its sensor",
                    f"If that is one of {', '.join(CHIPS)}, name it in a line '# AEChip: DVS128' below the first one.")


def _check_version(path: Path, line: bytes) -> None:
    found = re.match(rb"#!AER-DAT(\d+)(\.\d+)?", line)
    major = int(found[1][:9]) if found else 1       # the first files had no line for the version
    if major != 2:
        remedies = {1: "Open it with jAER and save it as AEDAT-2.", 4: "Open it with recordings.of."}
        raise DataError(path, f"is AEDAT-{found[0][9:29].decode()}, not AEDAT-2" if found else "does not begin with #!AER-DAT2.0: it is AEDAT-1, or no AEDAT",
                        remedies.get(major, "Convert it to AEDAT-4 with iniVation's DV."))


def _piece(chip: Chip, clock: _Clock, pairs: np.ndarray, rows: tuple[int, int]) -> Piece:
    address, time = pairs[:, 0].astype(np.uint32), pairs[:, 1].astype(np.uint32)
    if (address & np.uint32(chip.skip)).any():
        kept = (address & np.uint32(chip.skip)) == 0
        address, time = address[kept], time[kept]
    # what is beyond the sensor goes below 0 and comes out near 65 535, which is beyond it too
    x = np.uint16(chip.width - 1) - (address >> chip.x_shift & chip.x_mask).astype(np.uint16)
    y = np.uint16(chip.height - 1) - (address >> chip.y_shift & chip.y_mask).astype(np.uint16)
    p = (address >> chip.p_shift & 1).astype(np.uint8)
    return Piece(clock.times(time), x, y, p if chip.on else p ^ np.uint8(1), 0, 0, rows)


class _Clock:
    """Time over wraps and resets, carried from piece to piece."""

    def __init__(self) -> None:
        self.raw: int | None = None                     # of the last event, as stored
        self.time = 0                                   # of the last event
        self.reset: tuple[int, int] | None = None       # the last event was taken for the first of a new clock: raw before, step

    def times(self, raw_N: np.ndarray) -> np.ndarray:
        """int64 [N] in us of the stored u32 [N]; the first one of a recording is taken as it is."""
        if not len(raw_N):
            return np.empty(0, np.int64)
        if self.raw is None:
            self.raw = self.time = int(raw_N[0])
        step_N = np.empty(len(raw_N), np.uint32)
        step_N[0] = (int(raw_N[0]) - self.raw) % CLOCK
        np.subtract(raw_N[1:], raw_N[:-1], out=step_N[1:])                              # modulo 2**32
        leaps = np.flatnonzero(step_N + np.uint32(BACK_US) > BACK_US + GAP_US)
        step_N = step_N.view(np.int32)
        if len(leaps) or self.reset is not None:
            step_N = step_N.astype(np.int64)
            for i in np.unique([0, *leaps, *(leaps + 1)]):
                if i < len(raw_N):
                    step_N[i] = self._step(int(raw_N[i - 1]) if i else self.raw, int(raw_N[i]))
        t_N = np.cumsum(step_N, dtype=np.int64)
        t_N += self.time
        self.raw, self.time = int(raw_N[-1]), int(t_N[-1])
        return t_N

    def _step(self, before: int, now: int) -> int:
        """us from one event to the next, where they are far apart or the one before was."""
        reset, self.reset = self.reset, None
        if reset is not None and abs(back := _signed(now - reset[0])) <= BACK_US:
            return back - reset[1]                      # it was one bad time, jAER meets zeros, and the old clock goes on
        step = _signed(now - before)
        if -BACK_US <= step <= GAP_US:
            return step
        if now >= before:
            return now - before                         # a long silence
        if HALF - BACK_US <= before < HALF and now < BACK_US:
            return now - before + HALF                  # a clock of 31 bits
        self.reset = before, now
        return now


def _signed(difference: int) -> int:
    """A difference of two clocks as the shorter way round."""
    return (difference + HALF) % CLOCK - HALF
