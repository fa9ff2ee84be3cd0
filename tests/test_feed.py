"""Batches on the device: the same ones in the same order, a thread that fails in its turn and ends with the loop."""
import threading

import numpy as np
import pytest
import torch

from snnseg.data.augment import Augment
from snnseg.data.loader import batches, epoch_order
from snnseg.data.store import Split
from snnseg.models.feed import AHEAD, fed

CUDA = torch.cuda.is_available()
pytestmark = pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not CUDA, reason="needs a GPU"))]


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    return Split(rng.integers(0, 256, (23, 12, 10, 3), dtype=np.uint8), rng.integers(0, 3, (23, 12, 10), dtype=np.uint8), {})


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("feed")]


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    assert not threads()


def counted(source, taken):
    """The source, and how far it was asked."""
    for item in source:
        taken.append(item)
        yield item


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ahead", [0, 1, 2, 9, None])
@pytest.mark.parametrize("augment", [Augment(), Augment(flip=True, shift=3)], ids=str)
def test_what_is_fed_is_what_was_taken(split, ahead, augment, device):
    order = epoch_order(23, 0, 0)
    plain = [augment(b, 0, 1) for b in batches(split, 4, order, start=1)]
    with fed((augment.drawn(b, 0, 1) for b in batches(split, 4, order, start=1)), torch.device(device), ahead) as here:
        found = list(here)
    assert len(found) == len(plain) == 5
    for a, b in zip(found, plain, strict=True):
        assert a.input.device.type == a.mask_BHW.device.type == device and a.moves_3B is None
        assert np.array_equal(a.index_B, b.index_B)
        for name in ("input", "mask_BHW"):
            tensor, array = getattr(a, name), getattr(b, name)
            assert tensor.is_contiguous() and np.array_equal(tensor.cpu().numpy(), array) and tensor.cpu().numpy().dtype == array.dtype


def test_no_batch(split):
    for ahead in (0, 2):
        with fed(batches(split, 4, np.arange(0)), torch.device("cpu"), ahead) as here:
            assert list(here) == []


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_no_more_is_taken_than_may_wait(split, ahead):
    taken = []
    with fed(counted(batches(split, 2), taken), torch.device("cpu"), ahead) as here:
        for k, _ in enumerate(here):
            assert len(taken) <= k + 1 + ahead
            if k == 3:
                break
    assert len(taken) <= 4 + ahead


def test_without_a_thread_each_is_taken_when_it_is_asked_for(split):
    taken = []
    with fed(counted(batches(split, 2), taken), torch.device("cpu")) as here:
        assert taken == [] and not threads()
        next(here)
        assert len(taken) == 1 and not threads()
    assert AHEAD == 2


class Broken(Exception):
    pass


def breaks(source, at):
    for k, item in enumerate(source):
        if k == at:
            raise Broken(k)
        yield item


@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("at", [0, 1, 3])
def test_an_error_comes_in_its_turn(split, ahead, at):
    """After the whole batches before it, although the thread met it earlier."""
    seen = []
    with pytest.raises(Broken, match=str(at)), fed(breaks(batches(split, 4), at), torch.device("cpu"), ahead) as here:
        for batch in here:
            seen.append(batch)
    assert len(seen) == at


@pytest.mark.parametrize("ahead", [0, 2])
def test_an_error_of_the_loop_ends_the_thread(split, ahead):
    """At once, while the error still holds the frame with the generator."""
    taken = []
    with pytest.raises(Broken) as caught, fed(counted(batches(split, 2), taken), torch.device("cpu"), ahead) as here:
        next(here)
        assert len(threads()) == (ahead > 0)
        raise Broken
    assert not threads() and caught.value
    assert len(taken) <= 1 + ahead


@pytest.mark.skipif(not CUDA, reason="needs a GPU")
@pytest.mark.parametrize("ahead", [0, 2])
def test_nobody_waits_for_the_device(split, ahead):
    augment = Augment(flip=True, shift=3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with fed((augment.drawn(b, 0, 1) for b in batches(split, 4)), torch.device("cuda"), ahead) as here:
            assert len(list(here)) == 6
    finally:
        torch.cuda.set_sync_debug_mode("default")
