"""The MNIST-CIFAR10 benchmark: one picture by hand, slices, splits that share nothing."""
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets

from snnseg.data import cifar10, mnist, mnist_cifar, samples
from snnseg.data.mnist_cifar import Pool, compose, make, pool

NOWHERE = Path("/nowhere")


@pytest.fixture(scope="module")
def sample_pools():
    return {split: pool("sample", NOWHERE, split, 0) for split in mnist_cifar.SPLITS}


@pytest.fixture
def small():
    """Five digits that are full squares of ink, seven photographs of one grey each."""
    return Pool(np.full((5, 14, 14), 255, np.uint8), np.array([3, 1, 4, 1, 9], np.uint8),
                np.stack([np.full((32, 32, 3), 10 * k, np.uint8) for k in range(7)]))


# ------------------------------------------------------------------------------------------------ one picture

def test_compose_by_hand():
    """Ink is what is above 0.3 of 255 = 76.5: byte 76 is paper, 77 is ink and adds 200 * 77 / 255 = 60.39, 255 adds 200."""
    digit = np.zeros((14, 14), np.uint8)
    digit[0, 0], digit[0, 1], digit[0, 13], digit[13, 0], digit[13, 13] = 76, 77, 255, 128, 255
    photo = np.full((32, 32, 3), (10, 50, 100), np.uint8)
    image, ink = compose(digit, photo, 3, 17)

    expected, where = photo.copy(), np.zeros((32, 32), bool)
    expected[3, 18], where[3, 18] = (70, 110, 160), True        # 60.39 more
    expected[3, 30], where[3, 30] = (210, 250, 255), True       # 200 more, clipped
    expected[16, 17], where[16, 17] = (110, 150, 200), True     # 200 * 128 / 255 = 100.39 more
    expected[16, 30], where[16, 30] = (210, 250, 255), True
    assert image.dtype == np.uint8 and ink.dtype == bool
    assert np.array_equal(image, expected)
    assert np.array_equal(ink, where)
    assert (photo == (10, 50, 100)).all()       # the photograph itself is as it was


def test_every_ink_value_against_the_formula():
    for value in range(256):
        image, ink = compose(np.full((14, 14), value, np.uint8), np.full((32, 32, 3), 100, np.uint8), 0, 0)
        above = value / 255 > 0.3
        assert ink[:14, :14].all() == above and ink.sum() == (196 if above else 0)
        assert (image[:14, :14] == (min(round(100 + 200 * value / 255), 255) if above else 100)).all()
        assert (image[14:] == 100).all() and (image[:, 14:] == 100).all()


def test_digits_lie_at_offsets_0_to_17_and_each_occurs(small):
    """The squares of ink show where they lie; the last row and column never hold any."""
    out = make(small, "binary", 32, 0, "train", 0, 400)
    places = set()
    for mask in out["mask"]:
        rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
        assert len(rows) == len(columns) == 14 and mask.sum() == 196
        places.add((int(rows[0]), int(columns[0])))
    assert {top for top, _ in places} == {left for _, left in places} == set(range(18))
    assert len(places) > 200        # rows and columns are drawn apart
    assert not out["mask"][:, 31].any() and not out["mask"][:, :, 31].any()


def test_make_is_compose_with_what_it_names(small):
    out = make(small, "binary", 32, 5, "train", 0, 60)
    assert out["digit"].dtype == out["photo"].dtype == np.int32
    assert out["digit"].tolist() == [i % 5 for i in range(60)]       # in turn
    assert set(out["photo"].tolist()) == set(range(7))               # drawn
    for image, mask, digit, photo in zip(out["image"], out["mask"], out["digit"], out["photo"], strict=True):
        top, left = np.argwhere(mask)[0]
        expected, ink = compose(small.digits[digit], small.photos[photo], top, left)
        assert np.array_equal(image, expected) and np.array_equal(mask, ink)


# ------------------------------------------------------------------------------------------------ many pictures

@pytest.mark.parametrize("size", [32, 64])
def test_a_slice_is_the_slice_of_the_whole(small, size):
    whole = make(small, "digits", size, 1, "train", 0, 24)
    for start, stop in ((0, 24), (0, 1), (5, 13), (23, 24)):
        part = make(small, "digits", size, 1, "train", start, stop)
        assert part.keys() == whole.keys() == {"image", "mask", "digit", "photo"}
        assert all(np.array_equal(part[k], whole[k][start:stop]) for k in whole)


def test_pictures_follow_from_seed_and_split(small):
    first = make(small, "binary", 32, 1, "train", 0, 12)["image"]
    assert np.array_equal(first, make(small, "binary", 32, 1, "train", 0, 12)["image"])
    assert not np.array_equal(first, make(small, "binary", 32, 2, "train", 0, 12)["image"])
    assert not np.array_equal(first, make(small, "binary", 32, 1, "test", 0, 12)["image"])


def test_classes_change_the_labels_only(small):
    """`digits` numbers a digit one above itself, since 0 is the background."""
    binary, digits = (make(small, classes, 32, 0, "test", 0, 15) for classes in ("binary", "digits"))
    assert np.array_equal(binary["image"], digits["image"])
    assert np.array_equal(binary["mask"] > 0, digits["mask"] > 0)
    assert set(np.unique(binary["mask"])) == {0, 1}
    for mask, digit in zip(digits["mask"], digits["digit"], strict=True):
        assert set(np.unique(mask)) == {0, small.labels[digit] + 1}
    assert {name: len(labels) for name, labels in mnist_cifar.CLASSES.items()} == {"binary": 2, "digits": 11}
    assert mnist_cifar.CLASSES["digits"][9 + 1] == "9"


@pytest.mark.parametrize("classes", ["binary", "digits"])
def test_size_64_doubles_each_pixel_of_the_mask(sample_pools, classes):
    small, large = (make(sample_pools["test"], classes, size, 0, "test", 0, 10) for size in (32, 64))
    assert large["image"].shape == (10, 64, 64, 3) and large["mask"].shape == (10, 64, 64)
    assert large["image"].dtype == large["mask"].dtype == np.uint8
    assert np.array_equal(large["mask"], small["mask"].repeat(2, 1).repeat(2, 2))
    # upsampled between the pixels: the mean of a picture stays, and nothing is brighter or darker than the original
    for a, b in zip(small["image"], large["image"], strict=True):
        assert abs(a.mean() - b.mean()) < 2 and a.min() <= b.min() and b.max() <= a.max()
        assert not np.array_equal(b, a.repeat(2, 0).repeat(2, 1))


# ------------------------------------------------------------------------------------------------ splits

def test_no_digit_is_in_both_splits_of_the_sample(sample_pools):
    """80 and 20 per cent of 1 797: every drawing is in exactly one split."""
    digits, labels = samples.digits()
    assert digits.shape == (1797, 14, 14) and digits.max() == 255 and digits.min() == 0
    train, test = sample_pools["train"], sample_pools["test"]
    assert (len(train.digits), len(test.digits)) == (1438, 359)
    everything = sorted(d.tobytes() for d in digits)
    assert sorted(d.tobytes() for d in [*train.digits, *test.digits]) == everything
    assert len(set(everything)) == 1797     # no drawing occurs twice, so disjoint indices are disjoint pictures
    assert np.bincount(np.concatenate([train.labels, test.labels])).tolist() == np.bincount(labels).tolist()
    label_of = {d.tobytes(): int(n) for d, n in zip(digits, labels, strict=True)}
    assert all(label_of[d.tobytes()] == n for p in (train, test) for d, n in zip(p.digits, p.labels, strict=True))
    assert set(test.labels.tolist()) == set(range(10))


def test_another_seed_shares_the_digits_out_anew(sample_pools):
    other = pool("sample", NOWHERE, "train", 1)
    assert len(other.digits) == 1438
    assert {d.tobytes() for d in other.digits} != {d.tobytes() for d in sample_pools["train"].digits}


def test_photos_of_the_sample_are_the_crops_they_are_said_to_be(sample_pools):
    """Two photographs of 427x640. Left 480 columns: 46 x 53 crops of 64 at stride 8, right 160: 46 x 13; each halved."""
    photos = sklearn.datasets.load_sample_images().images
    assert [p.shape for p in photos] == [(427, 640, 3)] * 2
    for split, first, across in (("train", 0, 53), ("test", 480, 13)):
        backgrounds = sample_pools[split].photos
        assert backgrounds.shape == (2 * 46 * across, 32, 32, 3) and backgrounds.dtype == np.uint8
        for k in (0, across - 1, across, 46 * across - 1, 46 * across, len(backgrounds) - 1):
            which, place = divmod(k, 46 * across)
            down, right = divmod(place, across)
            region = photos[which][8 * down : 8 * down + 64, first + 8 * right : first + 8 * right + 64].astype(float)
            halved = region.reshape(32, 2, 32, 2, 3).mean((1, 3))
            assert abs(backgrounds[k] - halved).max() <= 1      # Pillow rounds once for each direction


def test_no_region_of_a_photo_is_in_both_splits(monkeypatch, sample_pools):
    """Painting the right quarter over changes every test background and no training one; the left part the other way round."""
    photos = sklearn.datasets.load_sample_images().images

    def with_painted(columns):
        painted = [p.copy() for p in photos]
        for p in painted:
            p[:, columns] = 255 - p[:, columns]
        monkeypatch.setattr(sklearn.datasets, "load_sample_images", lambda: sklearn.utils.Bunch(images=painted))
        return {split: (samples.photos(split) != sample_pools[split].photos).any((1, 2, 3)) for split in ("train", "test")}

    right = with_painted(slice(480, None))
    assert not right["train"].any() and right["test"].all()
    left = with_painted(slice(0, 480))
    assert left["train"].all() and not left["test"].any()


def test_archives_are_shared_out_80_to_20(monkeypatch):
    """100 digits and 50 photographs that are told apart by their bytes; digits lose every second row and column."""
    images = np.zeros((100, 28, 28), np.uint8)
    images[:, ::2, ::2] = np.arange(100, dtype=np.uint8)[:, None, None]
    images[:, 1::2] = images[:, :, 1::2] = 255
    photos = np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((32, 32, 3), np.uint8)
    monkeypatch.setattr(mnist, "load", lambda folder, split: (images, np.arange(100, dtype=np.uint8) % 10))
    monkeypatch.setattr(cifar10, "load", lambda raw, split: (photos, np.zeros(50, np.uint8)))

    pools = {split: pool("archives", NOWHERE, split, 0) for split in ("train", "test")}
    for of, what, count in ((lambda p: p.digits, "digits", 100), (lambda p: p.photos, "photos", 50)):
        train, test = (of(pools[split]).reshape(len(of(pools[split])), -1) for split in ("train", "test"))
        assert (len(train), len(test)) == (0.8 * count, 0.2 * count), what
        assert (train == train[:, :1]).all() and (test == test[:, :1]).all()
        assert sorted([*train[:, 0], *test[:, 0]]) == list(range(count))
        assert train[:, 0].tolist() != list(range(len(train)))       # not simply the first ones
    for p in pools.values():
        assert p.digits.shape[1:] == (14, 14)
        assert np.array_equal(p.labels, p.digits[:, 0, 0] % 10)
