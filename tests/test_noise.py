"""Noise: what each kind does to an item, that it hangs on its names alone, and that a level of 0 is the clean item."""
import numpy as np
import pytest

from snnseg.data.store import Split
from snnseg.evaluation import noise

RNG = np.random.default_rng(0)
PICTURES = Split(RNG.integers(0, 256, (12, 16, 16, 3), np.uint8), np.zeros((12, 16, 16), np.uint8), {})
FRAMES = Split(RNG.poisson(3.0, (12, 2, 16, 16)).astype(np.uint16), np.zeros((12, 16, 16), np.uint8), {}, np.arange(12)[:, None])
KINDS = [(PICTURES, kind) for kind in noise.OF_PICTURES] + [(FRAMES, kind) for kind in noise.OF_EVENTS]
LEVELS = {"gaussian": 40.0, "salt_pepper": 0.2, "blur": 1.0, "dropped": 0.3, "added": 0.5, "jittered": 1.0}


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("split", "kind"), KINDS, ids=[f"{'pictures' if s is PICTURES else 'frames'}-{k}" for s, k in KINDS])
def test_the_same_names_give_the_same_bytes(split, kind):
    def made(items=12, **changed):
        few = Split(split.input[:items], split.mask_NHW[:items], {}, None if split.window_MT is None else split.window_MT[:items])
        return noise.noisy(few, **{"kind": kind, "level": LEVELS[kind], "seed": 0, "draw": 0} | changed)

    before = split.input.copy()
    first = made()
    assert np.array_equal(split.input, before) and first.mask_NHW is not None and first.input.shape == split.input.shape
    assert noise.digest(first) == noise.digest(made()) != noise.digest(split)
    assert np.array_equal(made(5).input, first.input[:5]), "an item's noise does not hang on the others"
    others = [made(draw=1), made(seed=1), made(level=LEVELS[kind] / 2)]
    told = {noise.digest(each) for each in [first, *others]}
    assert len(told) == (2 if kind in noise.DRAWS_NOTHING else 4)
    assert made(level=0.0).input is not None and noise.digest(made(level=0.0)) == noise.digest(split)


def test_gaussian_noise_has_its_spread_and_is_alike_in_all_channels():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noisy = noise.gaussian(grey, 20.0, generator()).astype(int) - 128
    assert abs(noisy.std() - 20) < 0.3 and abs(noisy.mean()) < 0.3
    assert (noisy == noisy[..., :1]).all()
    ends = noise.gaussian(np.array([[[0] * 3, [255] * 3]] * 50, np.uint8), 60.0, generator())
    assert ends.min() == 0 and ends.max() == 255 and ends.dtype == np.uint8


def test_gaussian_noise_of_frames_goes_by_their_largest_count():
    frame = np.zeros((2, 100, 100), np.uint16)
    frame[0, 0, 0], frame[1, 0, 0] = 51, 255
    noisy = noise.gaussian_events(frame, 10.0, generator()) - frame
    assert noisy.dtype == np.float32 and abs(noisy[0].std() - 2) < 0.1 and abs(noisy[1].std() - 10) < 0.5 and noisy.min() < 0


def test_salt_and_pepper_take_their_share_half_each():
    noisy = noise.salt_pepper(np.full((300, 300, 3), 128, np.uint8), 0.2, generator())
    white, black = (noisy == 255).all(-1).mean(), (noisy == 0).all(-1).mean()
    assert abs(white - 0.1) < 0.01 and abs(black - 0.1) < 0.01 and ((noisy == 128).all(-1).mean() + white + black) == pytest.approx(1)
    assert (noise.salt_pepper(np.full((9, 9, 3), 128, np.uint8), 1.0, generator()) != 128).all()


def test_blur_keeps_the_mean_and_lowers_the_spread():
    picture = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    blurred = noise.blur(picture, 1.5, generator())
    assert abs(blurred.mean() - picture.mean()) < 2 and blurred.std() < picture.std() / 3
    flat = np.full((8, 8, 3), 77, np.uint8)
    assert np.array_equal(noise.blur(flat, 2.0, generator()), flat), "borders are no darker"


def test_events_are_lost_added_and_displaced_one_by_one():
    frame = RNG.poisson(20.0, (2, 40, 40)).astype(np.uint16)
    total = frame.sum(dtype=np.int64)
    fewer, more = noise.dropped(frame, 0.3, generator()), noise.added(frame, 0.5, generator())
    assert (fewer <= frame).all() and abs(fewer.sum() / total - 0.7) < 0.01
    assert (more >= frame).all() and more.sum(dtype=np.int64) == total + round(0.5 * int(total))
    assert noise.dropped(frame, 1.0, generator()).sum() == 0
    moved = noise.jittered(frame, 0.0, generator())
    assert np.array_equal(moved, frame), "no displacement, no change"
    point = np.zeros((2, 41, 41), np.uint16)
    point[1, 20, 20] = 5000
    moved = noise.jittered(point, 2.0, generator())
    assert moved[0].sum() == 0 and moved.sum() == 5000
    y, x = np.nonzero(moved[1])
    for place in (y, x):
        mean = np.average(place, weights=moved[1][y, x])
        assert abs(mean - 20) < 0.1 and abs(np.sqrt(np.average((place - mean)**2, weights=moved[1][y, x])) - 2) < 0.1
    assert noise.jittered(point[:, :21, :21], 2.0, generator()).sum() < 5000, "what leaves the map is lost"
    assert noise.jittered(np.zeros((2, 4, 4), np.uint16), 1.0, generator()).sum() == 0


def test_counts_do_not_wrap_round():
    full = np.full((2, 3, 3), 65_535, np.uint16)
    assert (noise.added(full, 0.5, generator()) == 65_535).all()
