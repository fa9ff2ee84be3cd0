"""The arrays of `event_frames` for a recording that comes in pieces: one at a time, in order, with memory for one.

`pieces` are Events in the order of time, such as `Events.checked` makes of what a reader brings. However the recording is
cut, the arrays are those of the whole, bit for bit (tests/test_events.py). Nothing is read ahead: an array is yielded when
the first event after it is seen, or at the end. Raises ValueError when a piece begins before the one before it ended or is
of another size, and what the function of the whole raises.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from snnseg.data import event_kernels as kernels
from snnseg.data.event_frames import VoxelPlanes, add_counts, decayed, whole_times
from snnseg.data.events import NEVER, Events, at_least_one

Columns = tuple[np.ndarray, ...]        # t, x, y, p


def _in_order(pieces: Iterable[Events], size: tuple[int, int]) -> Iterator[Events]:
    latest = NEVER
    for number, piece in enumerate(pieces):
        # made anew, so looked through again: a reader may have used its buffers for something else meanwhile
        events = Events(*piece.columns, piece.size)
        if events.size != tuple(size):
            raise ValueError(f"piece {number} is of {events.size[1]}x{events.size[0]} pixels, not {size[1]}x{size[0]}")
        if len(events):
            if events.span_us[0] < latest:
                raise ValueError(f"piece {number} begins at {events.span_us[0]} us, before the end of the one before at {latest} us")
            latest = events.span_us[1]
            yield events


def _by_time(pieces: Iterable[Events], size: tuple[int, int], edges_us: Iterable[int]) -> Iterator[tuple[Columns, bool]]:
    """Parts of pieces, none across an edge, and whether the bin ends with this part, which may be empty.

    What comes before the first edge or after the last is left out. An iterator of edges may be endless: the last bin is
    then the one of the last event.
    """
    edges = edges_us if isinstance(edges_us, Iterator) else iter(whole_times(edges_us).tolist())
    begun, edge = False, next(edges, None)      # is the first edge behind, and where does the bin (or what is before it) end
    for events in _in_order(pieces, size):
        start = 0
        while edge is not None and edge <= events.span_us[1]:
            stop = int(np.searchsorted(events.t, edge))
            if begun:
                yield _part(events, start, stop), True
            begun, start, before, edge = True, stop, edge, next(edges, None)
            if edge is not None and edge < before:
                raise ValueError(f"edge {edge} us comes after {before} us")
        if edge is None:
            return
        if begun:
            yield _part(events, start, len(events)), False
    none = Events([], [], [], [], size).columns
    if begun:
        yield none, True
    if edges is not edges_us:
        for _ in edges:
            yield none, True


def _part(events: Events, start: int, stop: int) -> Columns:
    return tuple(column[start:stop] for column in events.columns)


def count_stream(pieces: Iterable[Events], *, edges_us: Iterable[int], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """`count_frames`, uint16 [2, H, W] at a time.

    `edges_us` is an array, or an iterator such as `itertools.count(first_us, bin_us)` where the end is not known.
    """
    frame_2HW = np.zeros((2, *size), np.uint16)
    for (_, x, y, p), ends in _by_time(pieces, size, edges_us):
        add_counts(x, y, p, frame_2HW)
        if ends:
            yield frame_2HW
            frame_2HW = np.zeros((2, *size), np.uint16)


def signed_stream(pieces: Iterable[Events], *, edges_us: Iterable[int], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """`signed_counts`, int32 [H, W] at a time; `edges_us` as in `count_stream`."""
    frame_HW = np.zeros(size, np.int32)
    for (_, x, y, p), ends in _by_time(pieces, size, edges_us):
        kernels.count_signed(x, y, p, frame_HW)
        if ends:
            yield frame_HW
            frame_HW = np.zeros(size, np.int32)


def stack_stream(pieces: Iterable[Events], *, count: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """`stack_events`, uint16 [2, H, W] at a time."""
    at_least_one(count=count)
    frame_2HW, room = np.zeros((2, *size), np.uint16), count
    for events in _in_order(pieces, size):
        start = 0
        while start < len(events):
            stop = min(start + room, len(events))
            add_counts(*_part(events, start, stop)[1:], frame_2HW)
            room -= stop - start
            start = stop
            if room == 0:
                yield frame_2HW
                frame_2HW, room = np.zeros((2, *size), np.uint16), count
    if room < count:
        yield frame_2HW


def voxel_stream(pieces: Iterable[Events], *, bins: int, span_us: tuple[int, int], split: bool, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """`voxel_grid`, one plane float32 [H, W] at a time, or [2, H, W] with `split`."""
    planes, plane = VoxelPlanes(*span_us, bins), 0
    now_CHW, next_CHW = np.zeros((2, 2 if split else 1, *size))
    for part, ends in _by_time(pieces, size, planes.edges):
        kernels.share(*part, *planes.after(plane), now_CHW, next_CHW)
        if ends:
            yield (now_CHW if split else now_CHW[0]).astype(np.float32)
            now_CHW.fill(0)
            now_CHW, next_CHW, plane = next_CHW, now_CHW, plane + 1


def surface_stream(pieces: Iterable[Events], *, at_us, tau_us: float, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """`time_surface`, float32 [2, H, W], at each of the times `at_us`, which do not fall."""
    latest_2HW = np.full((2, *size), NEVER)
    times = whole_times(at_us)
    waiting = iter(times.tolist())
    for part, ends in _by_time(pieces, size, np.append(-kernels.TIME_LIMIT, times + 1)):      # + 1: an event at that time has happened
        kernels.remember(*part, latest_2HW)
        if ends:
            yield decayed(latest_2HW, next(waiting), tau_us)
