"""Events to arrays: truth tables by hand, every representation against a slow reference, nothing lost in any cut."""
import itertools
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snnseg.data import event_frames as frames
from snnseg.data import event_streams as streams
from snnseg.data.event_kernels import TIME_LIMIT
from snnseg.data.events import NEVER, Events, Rejected

SIZE = (3, 4)       # rows, columns
#            t  x  y  p
BY_HAND = [(10, 0, 0, 1),
           (10, 3, 2, 0),
           (14, 0, 0, 1),
           (15, 1, 1, 0),
           (20, 0, 0, 0)]


def columns(rows, dtypes=(np.int64, np.uint16, np.uint16, np.uint8)):
    table = np.array(rows, np.int64).reshape(-1, 4)
    return [table[:, k].astype(dtype) for k, dtype in enumerate(dtypes)]


def events(rows, size=SIZE):
    return Events(*columns(rows), size)


def cells(array):
    """What is not zero: {index: value}."""
    return {tuple(map(int, at)): array[tuple(at)].item() for at in np.argwhere(array)}


# ------------------------------------------------------------------------------------------------ by hand

def test_counts_by_hand():
    """Bins of 5 us: [10, 15) has three events, [15, 20) one, [20, 25) the last."""
    made = frames.CountFrames(bin_us=5)(events(BY_HAND))
    assert made.shape == (3, 2, 3, 4) and made.dtype == np.uint16
    assert cells(made) == {(0, 0, 0, 0): 2, (0, 1, 2, 3): 1, (1, 1, 1, 1): 1, (2, 1, 0, 0): 1}


def test_edges_are_closed_below_and_open_above():
    made = frames.count_frames(*columns(BY_HAND), edges_us=[11, 14, 14, 15, 20], size=SIZE)
    assert cells(made) == {(2, 0, 0, 0): 1, (3, 1, 1, 1): 1}        # [14, 15) and [15, 20); nothing is in [11, 14) and [14, 14)


def test_signed_counts_by_hand():
    made = frames.SignedCounts(bin_us=11)(events(BY_HAND))
    assert made.shape == (1, 3, 4) and made.dtype == np.int32
    assert cells(made) == {(0, 0, 0): 1, (0, 1, 1): -1, (0, 2, 3): -1}


def test_voxels_by_hand():
    """3 bins over 10 to 20 us lie at 10, 15 and 20: an event at 14 is 0.8 of the way."""
    made = frames.VoxelGrid(bins=3, split=False)(events(BY_HAND))
    assert made.shape == (3, 3, 4) and made.dtype == np.float32
    assert cells(made) == pytest.approx({(0, 0, 0): 1.2, (0, 2, 3): -1, (1, 0, 0): 0.8, (1, 1, 1): -1, (2, 0, 0): -1})
    split = frames.VoxelGrid(bins=3, split=True)(events(BY_HAND))
    assert split.shape == (3, 2, 3, 4)
    assert cells(split) == pytest.approx({(0, 0, 0, 0): 1.2, (0, 1, 2, 3): 1, (1, 0, 0, 0): 0.8, (1, 1, 1, 1): 1, (2, 1, 0, 0): 1})


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("bins", [1, 2, 5])
def test_a_voxel_grid_is_defined_for_few_events(bins, split):
    """No event: zeros. One event, or several at one time: all of their weight in the first bin."""
    grid = frames.VoxelGrid(bins, split)
    assert not grid(events([])).any()
    one = grid(events([(7, 2, 1, 1)]))
    assert cells(one) == {(0, 0, 1, 2) if split else (0, 1, 2): 1}
    same = grid(events([(7, 2, 1, 1)] * 3 + [(7, 0, 0, 0)]))
    assert cells(same) == ({(0, 0, 1, 2): 3, (0, 1, 0, 0): 1} if split else {(0, 1, 2): 3, (0, 0, 0): -1})


def test_a_voxel_grid_takes_no_event_from_outside_its_span():
    made = frames.voxel_grid(*columns(BY_HAND), bins=2, span_us=(14, 14), split=True, size=SIZE)
    assert cells(made) == {(0, 0, 0, 0): 1}                         # the next one comes 1 us later
    made = frames.voxel_grid(*columns(BY_HAND), bins=2, span_us=(11, 15), split=True, size=SIZE)
    assert cells(made) == {(0, 0, 0, 0): 0.25, (1, 0, 0, 0): 0.75, (1, 1, 1, 1): 1}


def test_time_surface_by_hand():
    """Seen at 20 with tau 5: OFF at (0, 0) just now, ON there 6 us ago, the others 5 and 10 us ago."""
    made = frames.TimeSurface(tau_us=5)(events(BY_HAND))
    assert made.shape == (2, 3, 4) and made.dtype == np.float32
    assert cells(made) == pytest.approx({(0, 0, 0): np.exp(-6 / 5), (1, 0, 0): 1, (1, 1, 1): np.exp(-1), (1, 2, 3): np.exp(-2)})
    earlier = frames.time_surface(*columns(BY_HAND), at_us=14, tau_us=5, size=SIZE)
    assert cells(earlier) == pytest.approx({(0, 0, 0): 1, (1, 2, 3): np.exp(-4 / 5)})


def test_stacks_by_hand():
    made = frames.StackEvents(count=2)(events(BY_HAND))
    assert made.shape == (3, 2, 3, 4) and made.dtype == np.uint16
    assert cells(made) == {(0, 0, 0, 0): 1, (0, 1, 2, 3): 1, (1, 0, 0, 0): 1, (1, 1, 1, 1): 1, (2, 1, 0, 0): 1}


def test_no_events_make_no_frames():
    none = events([])
    for make in (frames.CountFrames(5), frames.SignedCounts(5), frames.StackEvents(5)):
        assert len(make(none)) == 0 and make(none).shape[-2:] == SIZE
    assert not frames.TimeSurface(5)(none).any()
    assert not frames.count_frames(*columns([]), edges_us=[0, 5, 10], size=SIZE).any()


def test_a_representation_prints_compares_and_pickles():
    grid = frames.VoxelGrid(bins=5, split=True)
    assert repr(grid) == "VoxelGrid(bins=5, split=True)"
    assert pickle.loads(pickle.dumps(grid)) == grid != frames.VoxelGrid(bins=4, split=True)


def test_a_full_pixel_is_told_not_wrapped():
    """65 535 events of one pixel fit; one more does not, in the whole and in pieces."""
    zeros = np.zeros(65_536, np.int64)
    full = Events(zeros[1:], zeros[1:], zeros[1:], zeros[1:], (1, 1))
    assert frames.CountFrames(5)(full).tolist() == [[[[0]], [[65_535]]]]
    over = Events(zeros, zeros, zeros, zeros, (1, 1))
    for made in (frames.CountFrames(5), frames.StackEvents(70_000), lambda e: [*streams.stack_stream([e], count=70_000, size=(1, 1))],
                 lambda e: [*streams.count_stream([full, e.window(0, 1)], edges_us=[0, 5], size=(1, 1))]):
        with pytest.raises(OverflowError, match="more than 65535 of one pixel"):
            made(over)
    assert frames.SignedCounts(5)(over).item() == -65_536


# ------------------------------------------------------------------------------------------------ what is not valid

def test_each_fault_is_counted_under_its_name():
    rows = [(10, 0, 0, 1), (11, 4, 0, 1), (12, 0, 3, 1), (13, -1, 0, 1), (14, 70_000, 0, 1), (15, 0, 0, 2), (16, 0, 0, -1), (9, 1, 1, 0),
            (2**62, 0, 0, 1), (10, 3, 2, 0), (99, 4, 0, 1), (11, 0, 0, 1)]
    kept, rejected = Events.checked(*columns(rows, (np.int64,) * 4), SIZE)
    assert rejected == Rejected(outside=5, polarity=2, time_beyond=1, time_back=1) and rejected.total == 9
    assert np.array_equal(np.stack(kept.columns, 1), [(10, 0, 0, 1), (10, 3, 2, 0), (11, 0, 0, 1)])      # (99, 4, ...) moves no clock
    assert [c.dtype for c in kept.columns] == [np.int64, np.uint16, np.uint16, np.uint8]


@pytest.mark.parametrize("dtypes", [(np.uint64, np.int16, np.int32, np.int8), (np.int32, np.uint32, np.int64, np.int64),
                                    (">i8", ">i2", np.uint64, np.int16)])
def test_no_type_wraps(dtypes):
    """-1 as int16 is 65 535 as uint16: outside even where the sensor is that large; 256 as uint8 would be 0."""
    wrong = columns([(11, -1, 0, 1), (11, 65_536, 0, 1), (11, 0, -65_536, 1), (11, 0, 0, 256), (11, 0, 0, -255)], (np.int64,) * 4)
    assert Events.checked(*wrong, (65_535, 65_535))[1] == Rejected(outside=3, polarity=2)
    small = columns([(10, 0, 0, 1), (10, 3, 2, 0)], dtypes)
    assert np.array_equal(np.stack(Events(*small, SIZE).columns, 1), [(10, 0, 0, 1), (10, 3, 2, 0)])


def test_a_time_that_int64_cannot_hold_is_beyond():
    late = np.array([5, 2**64 - 1, 2**63, 6], np.uint64)
    zeros = np.zeros(4, np.uint16)
    kept, rejected = Events.checked(late, zeros, zeros, zeros > 0, (1, 1))
    assert rejected == Rejected(time_beyond=2) and kept.t.tolist() == [5, 6]
    assert len(Events([-TIME_LIMIT, TIME_LIMIT], [0, 0], [0, 0], [0, 1], (1, 1))) == 2


def test_pieces_know_the_time_of_the_one_before():
    first, none = Events.checked(*columns(BY_HAND), SIZE)
    later, rejected = Events.checked(*columns([(19, 0, 0, 1), (20, 0, 0, 1), (21, 0, 0, 7)]), SIZE, after=first.span_us[1])
    assert later.t.tolist() == [20] and none + rejected == Rejected(polarity=1, time_back=1)


def test_events_that_are_not_valid_are_refused_by_every_function():
    rows = [(10, 0, 0, 1), (9, 0, 0, 1)]
    for bad in (columns(rows), columns([(1, 4, 0, 1)]), columns([(1, 0, 3, 1)]), columns([(1, 0, 0, 2)]), columns([(2**62, 0, 0, 1)])):
        for make in WHOLE.values():
            with pytest.raises(ValueError, match="1 events are not valid on 4x3 pixels: Rejected"):
                make(*bad, cuts=(0, 5, 10), size=SIZE)


@pytest.mark.parametrize("wrong", [([0.5], [0], [0], [0]), ([0], [[0]], [0], [0]), ([0, 1], [0], [0], [0]), ([0], ["a"], [0], [0]),
                                   ([0], np.array([0], object), [0], [0])])
def test_columns_are_whole_numbers_of_one_length(wrong):
    for make in (Events, Events.checked):
        with pytest.raises(ValueError, match="whole numbers|events"):
            make(*wrong, SIZE)


@pytest.mark.parametrize("wrong", [
    lambda: Events([], [], [], [], (0, 4)),
    lambda: Events([], [], [], [], (4, 65_536)),
    lambda: frames.CountFrames(0)(events(BY_HAND)),
    lambda: frames.StackEvents(0)(events(BY_HAND)),
    lambda: frames.VoxelGrid(0, False)(events(BY_HAND)),
    lambda: frames.TimeSurface(0)(events(BY_HAND)),
    lambda: frames.TimeSurface(float("nan"))(events(BY_HAND)),
    lambda: frames.count_frames(*columns(BY_HAND), edges_us=[10, 5], size=SIZE),
    lambda: frames.count_frames(*columns(BY_HAND), edges_us=[0.0, 5.5], size=SIZE),
    lambda: frames.count_frames(*columns(BY_HAND), edges_us=np.array([0, 2**63], np.uint64), size=SIZE),
    lambda: frames.voxel_grid(*columns(BY_HAND), bins=2, span_us=(5, 4), split=False, size=SIZE),
    lambda: frames.voxel_grid(*columns(BY_HAND), bins=2**10, span_us=(0, 2**60), split=False, size=SIZE),
    lambda: [*streams.count_stream([events(BY_HAND)] * 2, edges_us=[0, 99], size=SIZE)],
    lambda: [*streams.count_stream([events(BY_HAND)], edges_us=[0, 99], size=(4, 3))],
    lambda: [*streams.count_stream([events(BY_HAND)], edges_us=iter([0, 12, 11]), size=SIZE)],
])
def test_numbers_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        wrong()


def test_an_array_that_changed_meanwhile_is_looked_at_again():
    """`Events` are views: a reader that uses its buffer again must not make a loop write outside of a frame."""
    t, x, y, p = columns(BY_HAND)
    held = Events(t, x, y, p, SIZE)
    assert held.x.base is not None and not held.x.flags.writeable and x.flags.writeable
    x[:] = 60_000
    for made in (frames.CountFrames(5), lambda e: [*streams.count_stream([e], edges_us=[0, 99], size=SIZE)]):
        with pytest.raises(ValueError, match="5 events are not valid"):
            made(held)


# ------------------------------------------------------------------------------------------------ against references

def counts_reference(t, x, y, p, cuts, size):
    made = np.zeros((len(cuts) - 1, 2, *size), np.int64)
    for k, (low, high) in enumerate(itertools.pairwise(cuts)):
        within = (t >= low) & (t < high)
        np.add.at(made[k], (1 - p[within].astype(int), y[within], x[within]), 1)
    return made


def signed_reference(t, x, y, p, cuts, size):
    made = counts_reference(t, x, y, p, cuts, size)
    return made[:, 0] - made[:, 1]


def voxel_reference(t, x, y, p, cuts, size, split):
    """As the paper writes it: every event looks at every bin, with weight max(0, 1 - distance)."""
    first, last, bins = cuts[0], cuts[-1], len(cuts)
    made = np.zeros((bins, 2, *size))
    for ti, xi, yi, pi in zip(t.tolist(), x.tolist(), y.tolist(), p.tolist(), strict=True):
        if first <= ti <= last:
            at = (ti - first) / (last - first) * (bins - 1) if last > first else 0
            made[:, 1 - pi, yi, xi] += np.maximum(0, 1 - np.abs(np.arange(bins) - at))
    return made if split else made[:, 0] - made[:, 1]


def surface_reference(t, x, y, p, cuts, size):
    made = np.zeros((len(cuts), 2, *size))
    for k, at in enumerate(cuts):
        for ti, xi, yi, pi in zip(t.tolist(), x.tolist(), y.tolist(), p.tolist(), strict=True):
            if ti <= at:
                made[k, 1 - pi, yi, xi] = np.exp(-(at - ti) / 7)
    return made


def stack_reference(t, x, y, p, cuts, size):
    made = np.zeros((-(-len(t) // len(cuts)), 2, *size), np.int64)
    np.add.at(made, (np.arange(len(t)) // len(cuts), 1 - p.astype(int), y, x), 1)
    return made


# each takes columns, three or more times `cuts` that do not fall, and a size; stacks hold len(cuts) events
REFERENCE = {"count": counts_reference, "signed": signed_reference, "voxel": partial(voxel_reference, split=False),
             "voxel split": partial(voxel_reference, split=True), "surface": surface_reference, "stack": stack_reference}


def voxels(t, x, y, p, cuts, size, split):
    return frames.voxel_grid(t, x, y, p, bins=len(cuts), span_us=(cuts[0], cuts[-1]), split=split, size=size)


WHOLE = {
    "count": lambda t, x, y, p, cuts, size: frames.count_frames(t, x, y, p, edges_us=cuts, size=size),
    "signed": lambda t, x, y, p, cuts, size: frames.signed_counts(t, x, y, p, edges_us=cuts, size=size),
    "voxel": partial(voxels, split=False),
    "voxel split": partial(voxels, split=True),
    "surface": lambda t, x, y, p, cuts, size: np.stack([frames.time_surface(t, x, y, p, at_us=at, tau_us=7, size=size) for at in cuts]),
    "stack": lambda t, x, y, p, cuts, size: frames.stack_events(t, x, y, p, count=len(cuts), size=size),
}
STREAM = {
    "count": lambda pieces, cuts, size: streams.count_stream(pieces, edges_us=cuts, size=size),
    "signed": lambda pieces, cuts, size: streams.signed_stream(pieces, edges_us=cuts, size=size),
    "voxel": lambda pieces, cuts, size: streams.voxel_stream(pieces, bins=len(cuts), span_us=(cuts[0], cuts[-1]), split=False, size=size),
    "voxel split": lambda pieces, cuts, size: streams.voxel_stream(pieces, bins=len(cuts), span_us=(cuts[0], cuts[-1]), split=True, size=size),
    "surface": lambda pieces, cuts, size: streams.surface_stream(pieces, at_us=cuts, tau_us=7, size=size),
    "stack": lambda pieces, cuts, size: streams.stack_stream(pieces, count=len(cuts), size=size),
}


@st.composite
def cases(draw):
    """Rows t, x, y, p with faults in some of them, a small sensor, times to cut at, and places that break the rows into pieces."""
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    origin = draw(st.sampled_from([0, -5, 1_500_000_000_000_000]))
    faults = draw(st.booleans())
    rows = draw(st.lists(st.tuples(st.sampled_from([0, 0, 1, 2, 3, 20] + [-1] * faults), st.integers(-faults, size[1] - 1 + faults),
                                   st.integers(-faults, size[0] - 1 + faults), st.integers(0, 1 + faults)), max_size=24))
    table_N4 = np.array(rows, np.int64).reshape(-1, 4)
    table_N4[:, 0] = origin + table_N4[:, 0].cumsum()
    cuts = origin + draw(st.integers(-9, 30)) + np.array(draw(st.lists(st.integers(0, 12), min_size=3, max_size=6))).cumsum()
    breaks = sorted(draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    return table_N4, size, cuts, breaks


def kept_and_rejected(table_N4, size):
    """What `Events.checked` says, in ten lines of Python."""
    kept, latest, outside, polarity, back = [], None, 0, 0, 0
    for row in table_N4.tolist():
        t, x, y, p = row
        if not (0 <= x < size[1] and 0 <= y < size[0]):
            outside += 1
        elif p not in (0, 1):
            polarity += 1
        elif latest is not None and t < latest:
            back += 1
        else:
            kept.append(row)
            latest = t
    return np.array(kept, np.int64).reshape(-1, 4), Rejected(outside, polarity, 0, back)


def hold(case):
    """Of one stream, each representation: right, conserved, finite, the same in pieces, and what came in is as it was."""
    table_N4, size, cuts, breaks = case
    kept_N4, rejected = kept_and_rejected(table_N4, size)
    raw_4N = table_N4.T.copy()
    pieces, told, latest = [], Rejected(), NEVER
    for start, stop in itertools.pairwise([0, *breaks, len(table_N4)]):
        piece, left_out = Events.checked(*raw_4N[:, start:stop], size, after=latest)
        latest = piece.span_us[1] if len(piece) else latest
        pieces.append(piece)
        told += left_out
    assert told == rejected and sum(map(len, pieces)) + told.total == len(table_N4)
    assert np.array_equal(raw_4N, table_N4.T)

    t, x, y, p = columns(kept_N4)
    before = [column.tobytes() for column in (t, x, y, p)]
    conserved = {"count": ((t >= cuts[0]) & (t < cuts[-1])).sum(), "voxel split": ((t >= cuts[0]) & (t <= cuts[-1])).sum(), "stack": len(t)}
    for name, whole in WHOLE.items():
        made = whole(t, x, y, p, cuts=cuts, size=size)
        expected = REFERENCE[name](t, x, y, p, cuts, size)
        exact = made.dtype != np.float32
        assert made.shape == expected.shape and np.isfinite(made).all(), name
        assert np.array_equal(made, expected) if exact else np.allclose(made, expected, rtol=1e-6, atol=1e-6), name
        if name in conserved:
            assert abs(made.sum(dtype=np.float64) - conserved[name]) <= (0 if exact else 1e-5), name
        again = list(STREAM[name](iter(pieces), cuts=cuts, size=size))
        assert [(a.dtype, a.tobytes()) for a in again] == [(m.dtype, m.tobytes()) for m in made], name
    assert [column.tobytes() for column in (t, x, y, p)] == before and all(c.flags.writeable for c in (t, x, y, p))


def over_cases(number):
    """The same cases each time, nothing kept on disk, no deadline on busy machines."""
    @settings(max_examples=number, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(cases())
    def check(case):
        hold(case)
    check()


def test_every_representation_of_random_streams():
    over_cases(500)


@pytest.mark.slow
def test_every_representation_of_ten_thousand_random_streams():
    over_cases(10_000)


@pytest.mark.parametrize("make", [frames.CountFrames(7), frames.StackEvents(7), frames.SignedCounts(7), frames.VoxelGrid(4, True),
                                  frames.VoxelGrid(1, False), frames.TimeSurface(7)])
def test_dataclasses_take_every_event(make):
    """Many events, three of them at the very end: their sum tells what is missing."""
    rng = np.random.default_rng(0)
    n = 5000
    some = Events(np.sort(np.append(rng.integers(0, 1000, n - 3), [1000] * 3)), rng.integers(0, 4, n), rng.integers(0, 3, n), rng.integers(0, 2, n), SIZE)
    signed = 2 * int(some.p.sum()) - n
    wanted = signed if isinstance(make, frames.SignedCounts) or make == frames.VoxelGrid(1, False) else n
    if isinstance(make, frames.TimeSurface):
        assert make(some).max() == 1 and (make(some) > 0).all()
    else:
        assert make(some).sum(dtype=np.float64) == pytest.approx(wanted, rel=1e-6)


# ------------------------------------------------------------------------------------------------ streams

def test_edges_without_an_end():
    """The frames of bins from the first event on, though nobody knows the last one."""
    whole = events(BY_HAND)
    pieces = [whole.window(0, 11), whole.window(11, 12), whole.window(12, 20), whole.window(20, 21)]
    made = [*streams.count_stream(pieces, edges_us=itertools.count(10, 3), size=SIZE)]
    assert np.array_equal(made, frames.CountFrames(bin_us=3)(whole))
    assert [*streams.count_stream([events([])], edges_us=itertools.count(10, 3), size=SIZE)] == []
    assert [*streams.count_stream([whole], edges_us=itertools.count(21, 3), size=SIZE)] == []


def test_a_frame_comes_as_soon_as_it_is_finished_and_nothing_is_read_after_the_last():
    """Pieces of one event each: the frame of [10, 15) comes with the event at 15, the one of [15, 20) with that at 20."""
    taken = []

    def pieces():
        for row in [*BY_HAND, (30, 0, 0, 0)]:
            taken.append(row[0])
            yield events([row])

    stream = streams.count_stream(pieces(), edges_us=[10, 15, 20], size=SIZE)
    assert taken == []
    assert cells(next(stream)) == {(0, 0, 0): 2, (1, 2, 3): 1} and taken == [10, 10, 14, 15]
    assert cells(next(stream)) == {(1, 1, 1): 1} and taken == [10, 10, 14, 15, 20]
    assert list(stream) == [] and taken == [10, 10, 14, 15, 20]


def test_frames_that_were_yielded_stay_as_they_are():
    whole = events(BY_HAND)
    for make in STREAM.values():
        made = []
        for frame in make([whole], cuts=np.array([10, 14, 15, 21]), size=SIZE):
            made.append((frame, frame.copy()))
        assert len(made) >= 2 and all(np.array_equal(a, b) for a, b in made)
        assert len({id(a) for a, _ in made}) == len(made)


# ------------------------------------------------------------------------------------------------ the loops

def test_nothing_is_compiled_at_import_and_each_loop_once(environment):
    """Whatever type, layout and protection the columns come in."""
    code = """if True:
        import numpy as np
        from snnseg.data import event_frames, event_kernels as kernels, events, event_streams
        loops = [kernels.refuses, kernels.reject, kernels.count, kernels.count_signed, kernels.share, kernels.remember]
        assert [len(loop.signatures) for loop in loops] == [0] * 6
        table = np.arange(8, dtype=np.int32).reshape(2, 4) % 2
        locked = np.zeros((4, 2), np.uint8); locked.flags.writeable = False
        for t, x, y, p in (table.T, locked, locked.astype(np.int64)[:, ::-1]):
            some, _ = events.Events.checked(t, x, y, p, np.array([3, 4], np.int32))
            for make in (event_frames.CountFrames(5), event_frames.SignedCounts(np.int32(5)), event_frames.VoxelGrid(2, True),
                         event_frames.VoxelGrid(np.int16(2), False), event_frames.TimeSurface(5.0), event_frames.StackEvents(1)):
                make(some)
            list(event_streams.voxel_stream([some], bins=2, span_us=some.span_us, split=False, size=(3, 4)))
        assert [len(loop.signatures) for loop in loops] == [1] * 6, [loop.signatures for loop in loops]
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
