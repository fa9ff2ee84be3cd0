"""How fast events become frames, on one core, from a recording too long for memory.

    python -m benchmarks.events [--quick] [--events N]

The recording is made on the way, a piece at a time: eight edges that move over a DAVIS346, and noise, a million events a
second. `count` makes the paper's 50 ms frames of it, `voxel` five planes in the same time, `decode` reads it back from a DDD17
file that is written first. Making and writing are not timed, nor is the sum over each frame that shows that no event is lost.
Plain numpy, and tonic where it is installed, get the first ten million events. Writes data/bench/events.json; all speeds
are medians, in million events/s.
"""
from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from snnseg import config, seal, seeds
from snnseg.data import ddd17, event_streams
from snnseg.data.events import Events

SIZE = HEIGHT, WIDTH = ddd17.SENSOR
BIN_US = 50_000
PLANES = 5                  # of a voxel grid in each bin
PIECE = 1_000_000           # events
SHORT = 10_000_000          # events for those that hold everything in memory
EDGES = 8
GOAL = {"count": 80, "voxel": 20, "decode": 50}


def recording(count: int) -> Iterator[Events]:
    """`count` events in pieces; the same ones each time."""
    at = 0
    for start in range(0, count, PIECE):
        rng, n = seeds.generator("benchmark events", 0, start), min(PIECE, count - start)
        t = at + np.cumsum(rng.integers(0, 3, n, np.uint8), dtype=np.int64)
        edge = rng.integers(0, EDGES, n, np.uint8)
        x = edge * (WIDTH / EDGES) + t * (WIDTH / 1e6) + 2 * rng.standard_normal(n, np.float32)
        p = edge % 2 ^ (rng.random(n, np.float32) < 0.1)
        yield Events(t, x.astype(np.int64) % WIDTH, rng.integers(0, HEIGHT, n, np.uint16), p, SIZE)
        at = int(t[-1])


def write(path: Path, count: int) -> tuple[tuple[int, int], int]:
    """The recording as a DDD17 file: its span in us, and ON minus OFF events."""
    first, last, signed = None, 0, 0
    with ddd17.Writer(path) as writer:
        for piece in recording(count):
            writer.events(*piece.columns)
            first, last = piece.span_us[0] if first is None else first, piece.span_us[1]
            signed += 2 * int(piece.p.sum()) - len(piece)
    return (first, last), signed


def streamed(frames_of: Callable[[Iterator[Events]], Iterable[np.ndarray]], count: int) -> tuple[float, float]:
    """Million events/s from pieces to finished frames, and the sum of all frames."""
    apart = total = 0.0

    def pieces() -> Iterator[Events]:
        nonlocal apart
        made = recording(count)
        while True:
            began = time.perf_counter()
            piece = next(made, None)
            apart += time.perf_counter() - began
            if piece is None:
                return
            yield piece

    start = time.perf_counter()
    for frame in frames_of(pieces()):
        began = time.perf_counter()
        total += float(frame.sum(dtype=np.float64))
        apart += time.perf_counter() - began
    return count / 1e6 / (time.perf_counter() - start - apart), total


def speed(work: Callable[[], object], count: int, repetitions: int) -> float:
    """Million events/s of something that handles `count` of them."""
    spent = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return count / 1e6 / statistics.median(spent)


def decoded(path: Path, count: int) -> None:
    """Read a file to its end."""
    found = sum(len(piece.t) for piece in ddd17.pieces(path))
    assert found == count, f"{found} of {count} events were read"


def numpy_counts(events: Events) -> None:
    """The count frames in plain numpy."""
    borders = np.searchsorted(events.t, events.edges(BIN_US))
    for start, stop in itertools.pairwise(borders):
        x, y, p = (column[start:stop] for column in events.columns[1:])
        cell = ((1 - p).astype(np.intp) * HEIGHT + y) * WIDTH + x
        np.bincount(cell, minlength=2 * HEIGHT * WIDTH).astype(np.uint16)


def numpy_voxels(events: Events) -> None:
    """The voxel grid in plain numpy, a 50 ms window at a time."""
    borders = np.searchsorted(events.t, events.edges(BIN_US))
    for start, stop in itertools.pairwise(borders):
        t, x, y, p = (column[start:stop] for column in events.columns)
        at = (t - t[0]) * ((PLANES - 1) / max(t[-1] - t[0], 1))
        plane = at.astype(np.intp)
        later, sign = at - plane, p * 2.0 - 1
        cell = (plane * HEIGHT + y) * WIDTH + x
        cells = (PLANES + 1) * HEIGHT * WIDTH
        grid = np.bincount(cell, sign * (1 - later), cells) + np.bincount(cell + HEIGHT * WIDTH, sign * later, cells)
        grid[:PLANES * HEIGHT * WIDTH].astype(np.float32)


def tonic_speeds(events: Events, repetitions: int) -> dict[str, float | None]:
    """The same two representations by tonic, None where it is not installed."""
    if importlib.util.find_spec("tonic") is None:
        return {"tonic_count_meps": None, "tonic_voxel_meps": None}
    from tonic import functional

    rows = np.zeros(len(events), [("t", np.int64), ("x", np.int16), ("y", np.int16), ("p", np.int16)])
    rows["t"], rows["x"], rows["y"], rows["p"] = events.columns
    sensor, planes = (WIDTH, HEIGHT, 2), PLANES * (len(events.edges(BIN_US)) - 1)
    return {"tonic_count_meps": speed(lambda: functional.to_frame_numpy(rows, sensor, time_window=BIN_US), len(events), repetitions),
            # a copy: it writes into the polarities that it is given
            "tonic_voxel_meps": speed(lambda: functional.to_voxel_grid_numpy(rows.copy(), sensor, n_time_bins=planes), len(events), repetitions)}


def peak_mib() -> float:
    """The most memory that this process held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure(count: int, repetitions: int, scratch: Path) -> dict[str, float | None]:
    """All speeds over a recording of `count` events, and the peak memory before those begin that hold theirs at once."""
    file = scratch / "recording.hdf5"
    span, signed = write(file, count)
    bins = (span[1] - span[0]) // BIN_US + 1
    edges = span[0] + BIN_US * np.arange(bins + 1)

    def counts(pieces: Iterator[Events]) -> Iterator[np.ndarray]:
        return event_streams.count_stream(pieces, edges_us=edges, size=SIZE)

    def voxels(pieces: Iterator[Events]) -> Iterator[np.ndarray]:
        return event_streams.voxel_stream(pieces, bins=PLANES * bins, span_us=span, split=False, size=SIZE)

    speeds: dict[str, list[float]] = {"count": [], "voxel": []}
    for k in range(repetitions + 1):
        for name, frames_of, wanted in (("count", counts, count), ("voxel", voxels, signed)):
            taken = min(count, PIECE) if k == 0 else count          # the first time is the compilation's
            found, total = streamed(frames_of, taken)
            if k:
                speeds[name].append(found)
                assert abs(total - wanted) < 0.5, f"{name}: {total} of {wanted} events"
    out: dict[str, float | None] = {f"{name}_meps": statistics.median(found) for name, found in speeds.items()}
    out["decode_meps"] = speed(lambda: decoded(file, count), count, repetitions)
    out["peak_mib"] = peak_mib()

    pieces = list(recording(min(count, SHORT)))
    short = Events(*map(np.concatenate, zip(*(piece.columns for piece in pieces), strict=True)), SIZE)
    out |= {"numpy_count_meps": speed(lambda: numpy_counts(short), len(short), repetitions),
            "numpy_voxel_meps": speed(lambda: numpy_voxels(short), len(short), repetitions)}
    return out | tonic_speeds(short, repetitions) | {"events": count, "repetitions": repetitions}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="ten million events instead of a hundred")
    arguments.add_argument("--events", type=int, metavar="N", help="a recording of N events")
    asked = arguments.parse_args()
    count = asked.events or (10_000_000 if asked.quick else 100_000_000)
    if count < 1:
        arguments.error(f"--events is {count}, has to be 1 or more")
    with tempfile.TemporaryDirectory() as scratch:
        found = measure(count, 3, Path(scratch))
    found |= {"height": HEIGHT, "width": WIDTH, "machine": platform.machine(), "python": platform.python_version()}
    seal.write_file(Path(config.PARAMS).absolute().parent / "data" / "bench" / "events.json", json.dumps(found, indent=1) + "\n")

    print(f"{'':8}{'million events/s':>17}{'goal':>6}{'numpy':>7}{'tonic':>7}   ({count} events, {WIDTH}x{HEIGHT}, medians of {found['repetitions']})")
    for name, told in (("count", "50 ms frames"), ("voxel", f"{PLANES} planes in 50 ms"), ("decode", "DDD17 packets to columns")):
        others = "".join(f"{'-' if (one := found.get(f'{who}_{name}_meps')) is None else format(one, '.1f'):>7}" for who in ("numpy", "tonic"))
        print(f"{name:8}{found[f'{name}_meps']:17.1f}{GOAL[name]:6}{others}   {told}")
    print(f"{'memory':8}{found['peak_mib']:13.0f} MiB   at most")


if __name__ == "__main__":
    main()
