"""Batches in an order that follows from (seed, epoch), and changes that follow from (seed, epoch, sample)."""
import numpy as np
import pytest

from snnseg.data.augment import Augment, moved
from snnseg.data.loader import Batch, batches, epoch_order
from snnseg.data.store import VOID, Split


@pytest.fixture(scope="module")
def split():
    """23 pictures of noise; the mask is the parity of the first channel, so that picture and mask must stay together."""
    image = np.random.default_rng(0).integers(1, 256, (23, 12, 10, 3), dtype=np.uint8)
    return Split(image, image[..., 0] % 2, {})


def indices(made):
    return [b.index_B.tolist() for b in made]


# ------------------------------------------------------------------------------------------------ batches

@pytest.mark.parametrize("size", [1, 4, 5, 22, 23, 24, 100])
def test_an_epoch_shows_each_picture_once(split, size):
    order = epoch_order(23, 0, 0)
    made = list(batches(split, size, order))
    assert [i for b in indices(made) for i in b] == order.tolist() and sorted(order) == list(range(23))
    assert [len(b.index_B) for b in made] == [size] * (23 // size) + [23 % size] * (23 % size > 0)
    for b in made:
        assert b.input.dtype == b.mask_BHW.dtype == np.uint8
        assert np.array_equal(b.input, split.input[b.index_B])
        assert np.array_equal(b.mask_BHW, split.mask_NHW[b.index_B])


def test_without_an_order_as_stored(split):
    assert indices(batches(split, 8)) == [list(range(8)), list(range(8, 16)), list(range(16, 23))]


def test_a_part_of_the_split(split):
    assert indices(batches(split, 2, np.array([9, 3, 9]))) == [[9, 3], [9]]


def test_order_follows_from_seed_and_epoch_alone():
    first = epoch_order(500, 1, 2)
    np.random.seed(99)
    assert np.array_equal(first, epoch_order(500, 1, 2))
    orders = {tuple(epoch_order(500, seed, epoch)) for seed in range(4) for epoch in range(5)}
    assert len(orders) == 20


def test_order_is_that_of_the_first_release():
    """A resumed training of an older version sees the pictures it has not seen: these numbers must never change."""
    assert epoch_order(8, 0, 0).tolist() == [5, 3, 4, 0, 2, 7, 1, 6]
    assert epoch_order(8, 1, 3).tolist() == [4, 7, 5, 3, 0, 1, 2, 6]


@pytest.mark.parametrize("size", [4, 5, 23])
def test_start_gives_what_would_have_come(split, size):
    order = epoch_order(23, 0, 1)
    whole = list(batches(split, size, order))
    for start in range(len(whole) + 1):
        rest = list(batches(split, size, order, start))
        assert indices(rest) == indices(whole[start:])
        assert all(np.array_equal(a.input, b.input) for a, b in zip(rest, whole[start:], strict=True))


# ------------------------------------------------------------------------------------------------ moved

def test_moved_by_hand():
    """Down 1 and right -1: the top row and the right column come in from outside, black and void."""
    image = np.arange(1, 10, dtype=np.uint8).reshape(3, 3, 1) * np.ones(3, np.uint8)
    mask = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]], np.uint8)
    new_image, new_mask = moved(image, mask, 1, -1)
    assert new_image[..., 2].tolist() == [[0, 0, 0], [2, 3, 0], [5, 6, 0]]
    assert new_mask.tolist() == [[VOID] * 3, [1, 2, VOID], [4, 5, VOID]]


@pytest.mark.parametrize("down", [-5, -4, -1, 0, 2, 4, 5])
@pytest.mark.parametrize("right", [-6, -2, 0, 1, 6])
def test_moved_pixel_by_pixel(down, right):
    """A picture of 5 rows and 6 columns, moved by up to its whole size."""
    image = np.arange(1, 91, dtype=np.uint8).reshape(5, 6, 3)
    mask = np.arange(30, dtype=np.uint8).reshape(5, 6)
    new_image, new_mask = moved(image, mask, down, right)
    for y, x in np.ndindex(5, 6):
        inside = 0 <= y - down < 5 and 0 <= x - right < 6
        assert new_mask[y, x] == (mask[y - down, x - right] if inside else VOID)
        assert new_image[y, x].tolist() == (image[y - down, x - right].tolist() if inside else [0, 0, 0])


# ------------------------------------------------------------------------------------------------ augment

def what_happened(split, batch):
    """Mirror and shift of each sample, found by trying all."""
    found = []
    for index, image, mask in zip(batch.index_B, batch.input, batch.mask_BHW, strict=True):
        fits = []
        for mirror in (False, True):
            source, labels = split.input[index], split.mask_NHW[index]
            if mirror:
                source, labels = source[:, ::-1], labels[:, ::-1]
            for down in range(-4, 5):
                for right in range(-4, 5):
                    there = moved(source, labels, down, right)
                    if np.array_equal(there[0], image) and np.array_equal(there[1], mask):
                        fits.append((mirror, down, right))
        assert len(fits) == 1, f"sample {index}: picture and mask were not changed alike"
        found.append(fits[0])
    return found


def whole(split):
    return next(batches(split, len(split)))


@pytest.mark.parametrize("augment", [Augment(flip=True), Augment(shift=3), Augment(flip=True, shift=2)], ids=str)
def test_picture_and_mask_are_mirrored_and_moved_alike(split, augment):
    found = [change for epoch in range(4) for change in what_happened(split, augment(whole(split), 0, epoch))]
    mirrored, shifts = [m for m, _, _ in found], {s for _, *s in map(tuple, found) for s in s}
    assert (0.3 < np.mean(mirrored) < 0.7) if augment.flip else not any(mirrored)
    assert shifts == set(range(-augment.shift, augment.shift + 1))


def test_what_comes_in_is_black_and_void_and_nothing_else_is(split):
    """The pictures have no black and no void of their own."""
    out = Augment(shift=3)(whole(split), 0, 0)
    assert (out.mask_BHW == VOID).any()
    assert np.array_equal(out.mask_BHW == VOID, (out.input == 0).all(-1))
    kept = out.mask_BHW != VOID
    assert np.array_equal(out.mask_BHW[kept], out.input[..., 0][kept] % 2)


def test_change_follows_from_seed_epoch_and_sample(split):
    """The same sample in another batch, place or company is changed alike; another seed or epoch changes it otherwise."""
    augment = Augment(flip=True, shift=3)
    everything = augment(whole(split), 3, 7)
    for order, size in ((epoch_order(23, 0, 0), 4), (np.array([22, 0, 5]), 2)):
        for batch in batches(split, size, order):
            out = augment(batch, 3, 7)
            assert np.array_equal(out.index_B, batch.index_B)
            assert np.array_equal(out.input, everything.input[batch.index_B])
            assert np.array_equal(out.mask_BHW, everything.mask_BHW[batch.index_B])
    changes = [tuple(what_happened(split, augment(whole(split), *names))) for names in ((3, 7), (4, 7), (3, 8), (7, 3))]
    assert len(set(changes)) == 4
    assert len(set(changes[0])) > 10        # and each sample of an epoch otherwise


def test_mirror_does_not_disturb_the_shift(split):
    """With `flip` the same samples move by the same pixels as without."""
    alone, both = (what_happened(split, Augment(flip, 3)(whole(split), 0, 0)) for flip in (False, True))
    assert [c[1:] for c in alone] == [c[1:] for c in both]
    assert any(c[0] for c in both)


MIRRORED = [[0, 1, 1, 0, 0], [2, -3, 0, 2, 3], [1, -2, 2, 3, 0]]       # or not; pixels down; pixels right


def test_moves_are_those_of_the_first_release():
    """A resumed training of an older version changes its samples as before: these numbers must never change."""
    batch = Batch(np.array([0, 1, 2, 3, 40_000]), None, None)
    assert Augment(flip=True, shift=3).drawn(batch, 0, 0).moves_3B.tolist() == MIRRORED
    assert Augment(flip=False, shift=3).drawn(batch, 0, 0).moves_3B.tolist() == [[0] * 5, *MIRRORED[1:]]


def test_no_augmentation_returns_the_batch_itself(split):
    batch = whole(split)
    assert Augment()(batch, 0, 0) is batch and Augment().drawn(batch, 0, 0) is batch


def test_the_input_is_not_modified(split):
    image, mask = split.input.copy(), split.mask_NHW.copy()
    batch = Batch(np.arange(23), image, mask)       # views of the split, not copies of it
    out = Augment(flip=True, shift=3)(batch, 0, 0)
    assert np.array_equal(image, split.input) and np.array_equal(mask, split.mask_NHW)
    assert not np.array_equal(out.input, image)
