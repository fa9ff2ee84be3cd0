"""The sample in VOC's and SBD's layout: read as the real files are, the same everywhere, honest about what is in it."""
import hashlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from snnseg.data import pictures, voc, voc_sample
from snnseg.errors import DataError, DataMissing, NoSpace, UsageError

TRAIN, TEST, SEED = 14, 9, 5


def digests(folder):
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Written once and only read, but by the tests that take a folder of their own."""
    folder = tmp_path_factory.mktemp("sample")
    voc_sample.write(folder, TRAIN, TEST, SEED)
    return folder


@pytest.fixture(scope="module")
def pairs(raw):
    return {split: voc.pairs(raw, split, True) for split in ("train", "test")}


def drawn(pair):
    """The mask without void that was drawn for this pair."""
    split, number = pair.name.split("_")
    return voc_sample.compose(split, SEED, int(number))[1]


def test_counts(pairs):
    assert [(p.listed, p.found) for p in pairs.values()] == [(TRAIN, TRAIN), (TEST, TEST)]
    sources = [pair.source for pair in pairs["train"].items]
    assert sources == ["voc"] * 5 + ["sbd"] * 9 and {pair.source for pair in pairs["test"].items} == {"voc"}
    assert all(len(pair.name) <= len("2007_000032") for p in pairs.values() for pair in p.items)


@pytest.mark.parametrize(("train", "test"), [(1, 1), (2, 1), (3, 5), (7, 2)])
def test_small_counts(tmp_path, train, test):
    voc_sample.write(tmp_path, train, test, 0)
    assert [voc.pairs(tmp_path, split, True).found for split in ("train", "test")] == [train, test]


def test_every_pair_loads(pairs):
    """Through the reader of the real files; most pictures are landscapes, some portraits, and none is empty."""
    seen, shapes = set(), set()
    for pair in (*pairs["train"].items, *pairs["test"].items):
        image, mask, _ = voc.load(pair, 64, "stretch")
        assert image.shape == (64, 64, 3) and mask.shape == (64, 64) and image.std() > 5
        labels = set(np.unique(mask).tolist())
        assert labels <= {0, 15, 16, 20, 255} and labels & {15, 16, 20}
        seen |= labels
        shapes.add(drawn(pair).shape)
    assert seen == {0, 15, 16, 20, 255}
    assert {height > width for height, width in shapes} == {True, False} and all(100 < side < 180 for shape in shapes for side in shape)


def test_objects_are_large_and_of_all_kinds():
    masks = [voc_sample.compose("train", 0, i)[1] for i in range(60)]
    for label in (15, 16, 20):
        shares = [(mask == label).mean() for mask in masks if (mask == label).any()]
        assert len(shares) > 20 and 0.05 < np.median(shares) < 0.4
    assert all((mask > 0).mean() > 0.02 for mask in masks)
    counts = np.bincount([len(np.unique(mask)) - 1 for mask in masks], minlength=4)
    assert counts[0] == 0 and (counts[1:] > 3).all()


def test_void_goes_round_every_object_of_voc(pairs):
    """No pixel of an object touches one of another class, at the corners neither; apart from void the mask is what was drawn."""
    for pair in (*pairs["train"].items, *pairs["test"].items):
        if pair.source == "sbd":
            continue
        mask = pictures.png_mask(pair.mask)
        void = mask == 255
        assert void.any() and np.array_equal(mask[~void], drawn(pair)[~void])
        height, width = mask.shape
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
            one = mask[: height - dy, max(0, -dx) : width - max(0, dx)]
            other = mask[dy:, max(0, dx) : width + min(0, dx)]
            assert ((one == other) | (one == 255) | (other == 255)).all()


def test_void_is_two_pixels_wide():
    mask = np.zeros((12, 12), np.uint8)
    mask[4:9, 4:] = 15                                      # goes on at the picture's border: no void there
    void = voc_sample.border(mask)
    assert void[6].nonzero()[0].tolist() == [3, 4] and void[:, 8].nonzero()[0].tolist() == [3, 4, 8, 9]
    assert not voc_sample.border(np.full((3, 4), 20, np.uint8)).any()


def test_png_is_as_official(pairs):
    """Eight bits, with the colours of VOC."""
    for pair in pairs["test"].items[:2]:
        data = pair.mask.read_bytes()
        assert (data[24], data[25]) == (8, 3)               # bits, palette
        with Image.open(pair.mask) as image:
            palette = image.getpalette()
            assert image.mode == "P" and len(palette) == 768
        assert ["#" + bytes(palette[3 * k : 3 * k + 3]).hex() for k in range(21)] == voc.PALETTE and palette[-3:] == [224, 224, 192]


def test_masks_of_sbd_are_what_was_drawn(pairs):
    masks = [pair for pair in pairs["train"].items if pair.source == "sbd"]
    for pair in masks:
        assert pair.mask.suffix == ".mat" and np.array_equal(pictures.mat_mask(pair.mask), drawn(pair))


def test_scipy_reads_the_masks_of_sbd(pairs):
    pair = next(pair for pair in pairs["train"].items if pair.source == "sbd")
    found = loadmat(pair.mask)["GTcls"]
    assert found.dtype.names == ("Boundaries", "Segmentation", "CategoriesPresent") and found.shape == (1, 1)
    boundaries, mask, present = found[0, 0]
    assert mask.dtype == np.uint8 and np.array_equal(mask, drawn(pair))
    assert present.dtype == np.uint8 and present.tolist() == [[label] for label in np.unique(mask) if label]
    assert boundaries.shape == (20, 1)
    for label in range(1, 21):
        edge = boundaries[label - 1, 0].toarray()
        assert edge.shape == mask.shape and edge.any() == (label in present) and (mask[edge != 0] == label).all()


def test_overlapping_names_are_used_once(raw, pairs):
    """SBD lists and masks some pictures of both lists of VOC: VOC's mask is taken, and none of val is trained on."""
    sbd = raw / "benchmark_RELEASE" / "dataset"
    listed = [name for which in ("train", "val") for name in (sbd / f"{which}.txt").read_text().split()]
    train, test = ([pair.name for pair in pairs[split].items] for split in ("train", "test"))
    own = [pair.name for pair in pairs["train"].items if pair.source == "voc"]
    assert len(set(listed) & set(own)) == len(set(listed) & set(test)) == 3
    assert len(listed) == len(set(listed)) == 9 + 6 and len(set(train)) == TRAIN and not set(train) & set(test)
    for name in listed:
        assert (sbd / "img" / f"{name}.jpg").is_file() and (sbd / "cls" / f"{name}.mat").is_file()


def test_splits_share_no_picture(pairs):
    train, test = ({hashlib.sha256(pair.image.read_bytes()).digest() for pair in pairs[split].items} for split in ("train", "test"))
    assert len(train) == TRAIN and len(test) == TEST and not train & test


def test_backgrounds_are_disjoint():
    """No pixel of a photograph belongs to both splits, and none to the flower."""
    for photo in ("china.jpg", "flower.jpg"):
        used = np.zeros((427, 640), int)
        for regions in voc_sample.REGIONS.values():
            for name, (left, upper, right, lower) in regions:
                if name == photo:
                    used[upper:lower, left:right] += 1
        assert used.max() == 1
        x, y, radius = voc_sample.FLOWER_DISC
        if photo == "flower.jpg":
            assert not used[y - radius + 1 : y + radius, x - radius + 1 : x + radius].any()


def test_same_bytes_everywhere(raw, tmp_path, environment):
    """Again in this process, over an earlier sample, and in another process with other hashes and another locale."""
    want = digests(raw)
    voc_sample.write(tmp_path / "again", TRAIN, TEST, SEED)
    assert digests(tmp_path / "again") == want
    voc_sample.write(tmp_path / "again", TRAIN, TEST, SEED)
    assert digests(tmp_path / "again") == want
    code = f"import pathlib, sys; from snnseg.data import voc_sample; voc_sample.write(pathlib.Path(sys.argv[1]), {TRAIN}, {TEST}, {SEED})"
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path / "other")], check=True, cwd=tmp_path,
                   env=environment | {"PYTHONHASHSEED": "7", "LC_ALL": "C", "TZ": "Asia/Tokyo"})
    assert digests(tmp_path / "other") == want


def test_more_pictures_do_not_change_the_first_ones():
    assert np.array_equal(voc_sample.compose("test", 3, 1)[0], voc_sample.compose("test", 3, 1)[0])
    others = [voc_sample.compose(*names)[0] for names in (("test", 3, 2), ("train", 3, 1), ("test", 4, 1))]
    assert not any(np.array_equal(voc_sample.compose("test", 3, 1)[0], other) for other in others)


def test_another_seed_gives_other_pictures(raw, tmp_path):
    voc_sample.write(tmp_path, TRAIN, TEST, SEED + 1)
    one, other = digests(raw), digests(tmp_path)
    assert one.keys() == other.keys()
    assert {name for name in one if one[name] == other[name]} == {name for name in one if name.endswith(".txt")}


def test_official_lists_are_not_overwritten(tmp_path):
    path = tmp_path / "benchmark_RELEASE" / "dataset" / "val.txt"
    path.parent.mkdir(parents=True)
    path.write_text("2008_000002\n")
    with pytest.raises(DataError, match="val.txt: names pictures that are not of the sample. Give the sample a folder of its own."):
        voc_sample.write(tmp_path, 2, 2, 0)
    assert digests(tmp_path).keys() == {"benchmark_RELEASE/dataset/val.txt"}


@pytest.mark.parametrize(("train", "test"), [(0, 3), (3, 0), (-1, 3)])
def test_each_split_needs_a_picture(tmp_path, train, test):
    with pytest.raises(UsageError, match="each needs one at least"):
        voc_sample.write(tmp_path, train, test, 0)
    assert not list(tmp_path.iterdir())


def test_cut_off_run_leaves_no_lists(raw, tmp_path, monkeypatch):
    """Over an earlier sample: what is there then is not taken for a whole one."""
    voc_sample.write(tmp_path, 3, 2, 0)
    compose = voc_sample.compose

    def full(split, seed, i):
        if split == "test":
            raise OSError(28, "No space left on device")
        return compose(split, seed, i)
    monkeypatch.setattr(voc_sample, "compose", full)
    with pytest.raises(NoSpace):
        voc_sample.write(tmp_path, 3, 2, 1)
    with pytest.raises(DataMissing):
        voc.pairs(tmp_path, "train", True)
