"""The benchmark at full size, from the official files below data/raw: run by hand with `make slow`."""
import time

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from snnseg import config, seal
from snnseg.data import ddd17, excerpt, prepare, recordings, store, voc

FULL = ["data.source=archives", "data.size=32", "data.mnist_cifar.classes=binary", "data.mnist_cifar.train=48000", "data.mnist_cifar.test=12000"]


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "data" / "raw" / "mnist").is_dir(), reason="no MNIST and CIFAR-10 below data/raw")
def test_sixty_thousand_pictures(project):
    """60 000 pictures in a minute, the same bytes with one and two processes, each digit once."""
    (project / "data").mkdir()
    (project / "data" / "raw").symlink_to(ROOT / "data" / "raw")
    digests, seconds = [], []
    for workers in (1, 2):
        numbers = config.load(project / "params.yaml", None, [*FULL, f"data.workers={workers}"])
        start = time.perf_counter()
        prepare.prepare(numbers)
        seconds.append(time.perf_counter() - start)
        digests.append(seal.verify(numbers.store, ""))
    print(f"60 000 pictures: {seconds[0]:.1f} s with one process, {seconds[1]:.1f} s with two")
    assert digests[0] == digests[1] and max(seconds) < 60
    train, test = (store.read(numbers.store, s) for s in ("train", "test"))
    assert (len(train), len(test)) == (48_000, 12_000)
    assert 0.02 < np.mean(train.mask_NHW == 1) < 0.05 and set(np.unique(test.mask_NHW)) == {0, 1}
    first = excerpt.read(ROOT / "models" / "mnist_cifar.npz", "binary")
    assert np.array_equal(first.mask_NHW, test.mask_NHW[:len(first)])
    apart = np.abs(first.input.astype(int) - test.input[:len(first)]).mean()       # CIFAR-10 of the file, or of data/raw, may have passed through JPEG
    print(f"models/mnist_cifar.npz: pixels {apart:.2f} apart on average")
    assert apart < 8


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "data" / "raw" / "VOCdevkit").is_dir(), reason="no VOC2012 below data/raw")
def test_voc_as_far_as_it_is_there(project):
    """At least 500 pictures/s with two processes, start included; the same bytes with one; as many pictures of each class as there are."""
    (project / "data").mkdir()
    (project / "data" / "raw").symlink_to(ROOT / "data" / "raw")
    digests, rates = [], []
    for workers in (1, 2):
        numbers = config.load(project / "params.yaml", "voc", ["data.source=archives", "data.size=64", "data.allow_partial=true", f"data.workers={workers}"])
        start = time.perf_counter()
        made = prepare.prepare(numbers)
        rates.append(sum(made.counts.values()) / (time.perf_counter() - start))
        digests.append(seal.verify(numbers.store, ""))
    print(f"{made.told}: {rates[0]:.0f} pictures/s with one process, {rates[1]:.0f} with two")
    assert digests[0] == digests[1] and rates[1] >= 500
    for split in ("train", "test"):
        there = np.zeros(21, int)
        for pair in voc.pairs(numbers.raw, split, True).items:
            if pair.mask.suffix == ".png":
                with Image.open(pair.mask) as mask:
                    there += np.isin(np.arange(21), np.unique(np.asarray(mask)))
        found, about = store.arrays(numbers.store, split)
        of_png = np.isin(found["source"], [about["mask_sources"].index(k) for k in ("voc", "aug")])
        assert np.array_equal(found["present"][of_png].sum(0), there)
        print(split, dict(zip(voc.CLASSES, found["present"].sum(0).tolist(), strict=True)))


RECORDINGS = sorted(p for p in (ROOT / "data" / "raw" / "ddd17").rglob("*.hdf5") if p.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("path", RECORDINGS, ids=lambda p: p.stem)
def test_every_event_of_a_real_recording(path, project):
    """Read = counted + left out, and each frame is what numpy alone counts."""
    folder = project / "data" / "raw" / "ddd17"
    folder.mkdir(parents=True)
    (folder / path.name).symlink_to(path)
    numbers = config.load(project / "params.yaml", "ddd17", ["data.source=archives", "data.size=64"])
    prepare.prepare(numbers)
    found, about = store.arrays(numbers.store, "unlabelled")
    account = about["recordings"][path.stem]
    height, width = recordings.of(path).size
    pieces = list(recordings.of(path).pieces())
    t, x, y, p = (np.concatenate([getattr(piece, name) for piece in pieces]).astype(np.int64) for name in "txyp")
    latest = np.maximum.accumulate(t)
    start, rows = ddd17.first_time(path), min(height, ddd17.ROWS)
    kept = (t == latest) & (t >= start) & (y < rows)
    expected = np.zeros(found["events"].shape, np.int64)
    np.add.at(expected, ((t[kept] - start) // ddd17.BIN_US, 1 - p[kept], y[kept] * 64 // rows, x[kept] * 64 // width), 1)
    print(f"{path.stem}: {account}")
    assert np.array_equal(expected, found["events"])
    assert account["read"] == sum(piece.total for piece in pieces) == sum(v for k, v in account.items() if k != "read")
