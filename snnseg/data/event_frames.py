"""Events as arrays: five representations, each a pure function of t, x, y, p behind a frozen dataclass that holds its numbers.

On the way of the data: event files -> Events -> **frames** -> sealed store. Shapes: 2 polarities with ON first (the order
of the paper's data), H x W pixels.

Events are conserved: each one inside the window goes in once, the first and the last too; one that is not valid is refused
with a ValueError, and the columns stay as they are. `event_streams` makes the same arrays of a recording that comes in
pieces.
"""
from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np

from snnseg.data import event_kernels as kernels
from snnseg.data.events import NEVER, Events, at_least_one

# ---------------------------------------------------------------------------------------- counts

def whole_times(times_us) -> np.ndarray:
    """Bin borders or other times as int64 [N], N >= 1. Raises ValueError unless they are whole microseconds and do not fall."""
    times = np.asarray(times_us)
    if times.ndim != 1 or len(times) < 1 or times.dtype.kind not in "iu" or (times[1:] < times[:-1]).any() or times[-1] >= 2**63:
        raise ValueError(f"times have to be whole microseconds that do not fall, one at least; these are {times.dtype} of shape {times.shape}")
    return times.astype(np.int64)


def add_counts(x, y, p, frame_2HW: np.ndarray) -> None:
    """Add events to a count frame in place. Raises OverflowError when a pixel is full."""
    if lost := kernels.count(x, y, p, frame_2HW):
        raise OverflowError(f"a frame cannot hold {lost} of its events: more than {kernels.FULL} of one pixel and polarity. Use shorter bins")


def _counted(events: Events, borders: np.ndarray) -> np.ndarray:
    """Frames uint16 [N, 2, H, W]; frame k counts the events from borders[k] on and before borders[k + 1]."""
    frames_N2HW = np.zeros((len(borders) - 1, 2, *events.size), np.uint16)
    for frame_2HW, start, stop in zip(frames_N2HW, borders, borders[1:], strict=False):
        add_counts(events.x[start:stop], events.y[start:stop], events.p[start:stop], frame_2HW)
    return frames_N2HW


def count_frames(t, x, y, p, *, edges_us, size: tuple[int, int]) -> np.ndarray:
    """Events per time bin, polarity and pixel: uint16 [bins, 2, H, W]; bin k holds edges_us[k] <= t < edges_us[k + 1].

    Raises OverflowError when a pixel has more than 65 535 events of one polarity in a bin (1.3 million a second at the
    paper's 50 ms, more than a sensor can send): frames would no longer hold every event, and wider numbers would double
    every store.
    """
    events = Events(t, x, y, p, size)
    return _counted(events, np.searchsorted(events.t, whole_times(edges_us)))


@dataclass(frozen=True)
class CountFrames:
    """Two-channel counts per `bin_us`: the input of the paper with 50 ms."""

    bin_us: int

    def __call__(self, events: Events) -> np.ndarray:
        return count_frames(*events.columns, edges_us=events.edges(self.bin_us), size=events.size)


def stack_events(t, x, y, p, *, count: int, size: tuple[int, int]) -> np.ndarray:
    """Frames of `count` successive events each, whatever time they take: uint16 [frames, 2, H, W]; the last holds the rest.

    "Stacking based on the number of events" (Wang et al., CVPR 2019). Raises OverflowError as `count_frames`.
    """
    at_least_one(count=count)
    events = Events(t, x, y, p, size)
    return _counted(events, np.append(np.arange(0, len(events), count), len(events)))


@dataclass(frozen=True)
class StackEvents:
    """Frames of `count` successive events."""

    count: int

    def __call__(self, events: Events) -> np.ndarray:
        return stack_events(*events.columns, count=self.count, size=events.size)


def signed_counts(t, x, y, p, *, edges_us, size: tuple[int, int]) -> np.ndarray:
    """ON minus OFF events per time bin and pixel: int32 [bins, H, W]; bins as in `count_frames`."""
    events = Events(t, x, y, p, size)
    borders = np.searchsorted(events.t, whole_times(edges_us))
    frames_NHW = np.zeros((len(borders) - 1, *size), np.int32)
    for frame_HW, start, stop in zip(frames_NHW, borders, borders[1:], strict=False):
        kernels.count_signed(events.x[start:stop], events.y[start:stop], events.p[start:stop], frame_HW)
    return frames_NHW


@dataclass(frozen=True)
class SignedCounts:
    """ON minus OFF per `bin_us`."""

    bin_us: int

    def __call__(self, events: Events) -> np.ndarray:
        return signed_counts(*events.columns, edges_us=events.edges(self.bin_us), size=events.size)


# ---------------------------------------------------------------------------------------- time

@dataclass(frozen=True)
class VoxelPlanes:
    """Where the planes of a voxel grid lie: plane k at first + k * span / steps, in microseconds.

    Raises ValueError for no bins, a span that ends before it begins, or numbers beyond int64.
    """

    first: int
    last: int
    bins: int

    def __post_init__(self) -> None:
        for name in ("first", "last", "bins"):                  # numpy's small numbers would wrap below
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        at_least_one(bins=self.bins)
        within = -kernels.TIME_LIMIT <= self.first <= self.last <= kernels.TIME_LIMIT
        if not within or self.span * self.bins >= 2**63:
            raise ValueError(f"a voxel grid of {self.bins} bins from {self.first} to {self.last} us")

    @property
    def steps(self) -> int:
        return self.bins - 1

    @property
    def span(self) -> int:
        """At least 1: where all events are at one time, any length puts them into plane 0."""
        return max(self.last - self.first, 1)

    @property
    def edges(self) -> np.ndarray:
        """int64 [bins + 1]: the first whole microsecond at or after each plane, and the first one after the last event."""
        planes = -(-np.arange(self.bins) * self.span // max(self.steps, 1))      # rounded up
        return np.append(self.first + planes, self.last + 1)

    def after(self, plane: int) -> tuple[int, int, int, int]:
        """For `kernels.share`, of the events between this plane and the next."""
        return self.first, self.steps, self.span, plane * self.span


def voxel_grid(t, x, y, p, *, bins: int, span_us: tuple[int, int], split: bool, size: tuple[int, int]) -> np.ndarray:
    """Signed events, each shared between the two bins next to it in time: float32 [bins, H, W] (Zhu et al., CVPR 2019).

    With first, last = span_us, both inside, an event lies at (t - first) / (last - first) * (bins - 1): the first one
    in bin 0, the last one in bin bins - 1, each with its whole weight of 1. Where first = last, or with one bin, all is in
    bin 0. `split` keeps polarities apart, float32 [bins, 2, H, W] of weights >= 0, whose sum is the number of events.
    """
    events = Events(t, x, y, p, size)
    planes = VoxelPlanes(*span_us, bins)
    borders = np.searchsorted(events.t, planes.edges)
    grid_NCHW = np.zeros((bins, 2 if split else 1, *size))         # float64: a sum of shares loses nothing that float32 shows
    for k, (start, stop) in enumerate(zip(borders, borders[1:], strict=False)):
        within = (column[start:stop] for column in events.columns)
        kernels.share(*within, *planes.after(k), grid_NCHW[k], grid_NCHW[min(k + 1, bins - 1)])
    return (grid_NCHW if split else grid_NCHW[:, 0]).astype(np.float32)


@dataclass(frozen=True)
class VoxelGrid:
    """`bins` planes from the first to the last event; the polarities signed, or `split` into two channels."""

    bins: int
    split: bool

    def __call__(self, events: Events) -> np.ndarray:
        return voxel_grid(*events.columns, bins=self.bins, span_us=events.span_us, split=self.split, size=events.size)


def decayed(latest_2HW: np.ndarray, at_us: int, tau_us: float) -> np.ndarray:
    """exp(-(at_us - latest) / tau_us) where there was an event, else 0: float32 [2, H, W]. Raises ValueError unless tau_us > 0."""
    if not tau_us > 0:
        raise ValueError(f"tau_us is {tau_us}, has to be above 0")
    surface_2HW = np.zeros(latest_2HW.shape, np.float32)
    seen = latest_2HW != NEVER
    surface_2HW[seen] = np.exp((latest_2HW[seen] - at_us) / tau_us)
    return surface_2HW


def time_surface(t, x, y, p, *, at_us: int, tau_us: float, size: tuple[int, int]) -> np.ndarray:
    """How recent the last event of each pixel is: exp(-(at_us - t) / tau_us), float32 [2, H, W]; 0 where none was.

    Events after `at_us` have not happened yet. (Lagorce et al., PAMI 2017.)
    """
    events = Events(t, x, y, p, size)
    latest_2HW = np.full((2, *size), NEVER)
    happened = np.searchsorted(events.t, at_us, side="right")
    kernels.remember(*(column[:happened] for column in events.columns), latest_2HW)
    return decayed(latest_2HW, at_us, tau_us)


@dataclass(frozen=True)
class TimeSurface:
    """Decay with `tau_us`, seen at the last event."""

    tau_us: float

    def __call__(self, events: Events) -> np.ndarray:
        return time_surface(*events.columns, at_us=events.span_us[1], tau_us=self.tau_us, size=events.size)
