"""Events of a DVS: what an event is, which ones are valid, and what happens to the others.

On the way of the data: event files -> **Events** -> frames (`event_frames`) -> sealed store. An event is a time t in
microseconds, a pixel x, y and a polarity p: 1 = ON, brighter, 0 = OFF, darker. Shapes: N events, H x W pixels; size is
(H, W).

Whoever holds an `Events` holds valid ones in the order of time: loops that run over them need no checks.
"""
from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from snnseg.data import event_kernels as kernels

NEVER = np.iinfo(np.int64).min      # a time before all others
MOST = 2**16 - 1                    # pixels along a side: the largest x is then one less, and 65 535 is free to mean outside


@dataclass(frozen=True)
class Rejected:
    """Events that were left out, each counted once, under the first of its faults."""

    outside: int = 0        # x or y beyond the sensor
    polarity: int = 0       # neither 0 nor 1
    time_beyond: int = 0    # further than 73 000 years from 0
    time_back: int = 0      # earlier than a valid event before it

    @property
    def total(self) -> int:
        return sum(getattr(self, f.name) for f in fields(self))

    def __add__(self, other: Rejected) -> Rejected:
        """Of two pieces of a recording."""
        return Rejected(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, eq=False)
class Events:
    """Valid events: t int64, x and y uint16, p uint8, each [N] and read-only; views of what was given where that fits.

    Raises ValueError for columns that are no whole numbers or differ in length, and for any event that is not valid.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray
    size: tuple[int, int]

    def __post_init__(self) -> None:
        height, width = map(int, self.size)
        if not (1 <= height <= MOST and 1 <= width <= MOST):
            raise ValueError(f"a sensor of {width}x{height} pixels, not 1 to {MOST} a side")
        columns = _columns(*self.columns)
        if kernels.refuses(*columns, height, width):
            rejected = Events.checked(*columns, (height, width))[1]
            raise ValueError(f"{rejected.total} events are not valid on {width}x{height} pixels: {rejected}. Events.checked leaves them out")
        for name, column in zip("txyp", columns, strict=True):
            object.__setattr__(self, name, column)
        object.__setattr__(self, "size", (height, width))

    @classmethod
    def checked(cls, t, x, y, p, size: tuple[int, int], after: int = NEVER) -> tuple[Events, Rejected]:
        """The valid ones of any events, and how many were not; `after` is the time of the last valid one of the piece before.

        Nothing wraps: a negative or too large number counts as outside, whatever the type it comes in. Raises ValueError
        for columns that are no whole numbers or differ in length.
        """
        none = cls([], [], [], [], size)
        columns = _columns(t, x, y, p)
        keep = np.empty(len(columns[0]), bool)
        rejected = Rejected(*kernels.reject(*columns, *none.size, int(after), keep))
        return cls(*(columns if rejected.total == 0 else (column[keep] for column in columns)), none.size), rejected

    def __len__(self) -> int:
        return len(self.t)

    @property
    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.t, self.x, self.y, self.p

    @property
    def span_us(self) -> tuple[int, int]:
        """Times of the first and the last event; 0, 0 without events."""
        return (int(self.t[0]), int(self.t[-1])) if len(self) else (0, 0)

    def edges(self, bin_us: int) -> np.ndarray:
        """Borders int64 [bins + 1] of equal bins: the first begins at the first event, the last one holds the last event."""
        at_least_one(bin_us=bin_us)
        first, last = self.span_us
        bins = (last - first) // bin_us + 1 if len(self) else 0
        return first + bin_us * np.arange(bins + 1)

    def window(self, start_us: int, stop_us: int) -> Events:
        """The events with start_us <= t < stop_us."""
        within = slice(*np.searchsorted(self.t, (start_us, stop_us)))
        return Events(*(column[within] for column in self.columns), self.size)


def _column(name: str, values, dtype: type) -> np.ndarray:
    """A column in the type of the kernels; what that cannot hold becomes its largest number, which is never valid."""
    values = np.asarray(values)
    if values.ndim != 1 or values.dtype.kind not in "iub" and len(values):
        raise ValueError(f"{name} is {values.dtype} of shape {values.shape}, not a column of whole numbers")
    column = np.ascontiguousarray(values, dtype).view()
    if not np.can_cast(values.dtype, dtype):
        column[(values < 0) | (values > np.iinfo(dtype).max)] = np.iinfo(dtype).max       # a copy by now: the type differs
    column.flags.writeable = False
    return column


def _columns(t, x, y, p) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    columns = _column("t", t, np.int64), _column("x", x, np.uint16), _column("y", y, np.uint16), _column("p", p, np.uint8)
    if len({len(column) for column in columns}) != 1:
        raise ValueError(f"t, x, y, p of {', '.join(str(len(column)) for column in columns)} events")
    return columns


def at_least_one(**numbers: int) -> None:
    """Raises ValueError for a number of bins, events or microseconds below 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}, has to be 1 or more")
