"""The benchmark at full size, from the official files below data/raw: run by hand with `make slow`."""
import time

import numpy as np
import pytest
from conftest import ROOT

from snnseg import config, seal
from snnseg.data import prepare, store

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
