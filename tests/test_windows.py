"""Windows over event frames: all runs of T successive frames, none over a border."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snnseg.data import ddd17_export
from snnseg.data.windows import windows


def test_windows_by_hand():
    """Sequence 0 has frames 3 4 5 and 7, sequence 1 has 8; stored out of order, one frame outside of all."""
    sequence, frame = np.array([0, 0, 1, 0, 0, -1]), np.array([5, 3, 8, 4, 7, 9])
    assert windows(sequence, frame, 2).tolist() == [[1, 3], [3, 0]]
    assert windows(sequence, frame, 3).tolist() == [[1, 3, 0]]
    assert windows(sequence, frame, 4).shape == (0, 4)
    assert windows(sequence, frame, 1).tolist() == [[1], [3], [0], [4], [2]]
    assert windows(np.zeros(0), np.zeros(0), 2).shape == (0, 2)
    with pytest.raises(ValueError, match="frame 3 is there twice"):
        windows([0, 0], [3, 3], 1)


@settings(max_examples=200, deadline=None)
@given(st.sets(st.tuples(st.integers(-1, 3), st.integers(0, 25)), max_size=60), st.integers(1, 6), st.randoms(use_true_random=False))
def test_windows_are_all_runs_and_no_border_is_crossed(items, steps, random):
    items = sorted(items)
    random.shuffle(items)
    sequence, frame = (np.array([i[k] for i in items], np.int64) for k in (0, 1))
    got = windows(sequence, frame, steps)
    assert (np.diff(frame[got], axis=1) == 1).all() and (sequence[got] == sequence[got[:, :1]]).all()
    here = set(items)
    expected = sorted((s, f) for s, f in here if s >= 0 and all((s, f - k) in here for k in range(steps)))
    assert [items[last] for last in got[:, -1]] == expected


def test_windows_of_the_whole_table():
    """An interval of n frames has n - T + 1 windows: 15 950 - 16 * 19 and 3 890 - 4 * 19 with T = 20."""
    for split, count in (("train", 15_950 - 16 * 19), ("test", 3_890 - 4 * 19)):
        table = [i for i in ddd17_export.intervals() if i.split == split]
        sequence = np.concatenate([np.full(i.stop - i.start, k) for k, i in enumerate(table)])
        frame = np.concatenate([np.arange(i.start, i.stop) for i in table])
        assert len(windows(sequence, frame, 20)) == count
