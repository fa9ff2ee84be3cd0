"""A confusion counted on the device: that of `Confusion.of`, read when somebody asks."""
import numpy as np
import pytest
import torch

from snnseg.data.store import VOID
from snnseg.evaluation import tally
from snnseg.evaluation.confusion import Confusion

CUDA = torch.cuda.is_available()
pytestmark = pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not CUDA, reason="needs a GPU"))]


def random_set(classes, seed=0):
    rng = np.random.default_rng(seed)
    truth, called = rng.integers(0, classes, (2, 3, 17, 13))
    truth[rng.random(truth.shape) < 0.1] = VOID
    return torch.from_numpy(truth.astype(np.uint8)), torch.from_numpy(called)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("classes", [2, 3, 11, 21])
def test_parts_add_up_to_the_confusion_of_all(classes, device):
    sets = [random_set(classes, seed) for seed in range(3)]
    before = Confusion.of(*(x.numpy() for x in random_set(classes, 9)), classes)
    total = tally.begun(before, torch.device(device))
    for truth, called in sets:
        part = tally.counted(truth.to(device), called.to(device), classes)
        assert part.dtype == torch.int64 and part.device.type == device
        total += part
    expected = sum((Confusion.of(t.numpy(), c.numpy(), classes) for t, c in sets), before)
    assert np.array_equal(tally.read(total).matrix, expected.matrix) and expected.pixels != before.pixels


def test_void_and_nothing():
    for truth in (torch.full((2, 3), VOID, dtype=torch.uint8), torch.empty(0, 3, dtype=torch.uint8)):
        assert tally.read(tally.counted(truth, torch.zeros(truth.shape, dtype=torch.int64), 4)).pixels == [0] * 4


@pytest.mark.parametrize("strange", [2, 3, 254])
def test_strange_labels_are_refused_when_they_are_read(strange):
    counts = tally.counted(torch.tensor([0, strange, 1], dtype=torch.uint8), torch.tensor([0, 1, 1]), 2)
    counts += tally.counted(torch.tensor([0], dtype=torch.uint8), torch.tensor([0]), 2)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        tally.read(counts)


def test_what_was_read_stays_as_it_was():
    total = tally.begun(Confusion.empty(2), torch.device("cpu"))
    first = tally.read(total)
    total += 1
    assert first.pixels == [0, 0]


def test_what_it_begins_with_stays_as_it_was():
    before = Confusion.empty(2)
    total = tally.begun(before, torch.device("cpu"))
    total += 1
    assert before.pixels == [0, 0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_answers_are_the_first_of_the_greatest(dtype, device):
    logits = torch.randint(-2, 3, (5, 4, 16, 16), generator=torch.Generator().manual_seed(0)).to(device, dtype)      # full of equals
    found = tally.answers(logits)
    first = (logits == logits.amax(1, keepdim=True)).int().cpu().numpy().argmax(1)
    assert found.dtype == torch.int64 and np.array_equal(found.cpu().numpy(), first)


@pytest.mark.skipif(not CUDA, reason="needs a GPU")
def test_nobody_waits_for_the_device():
    truth, called = (x.cuda() for x in random_set(5))
    torch.cuda.set_sync_debug_mode("error")
    try:
        total = tally.begun(Confusion.empty(5), torch.device("cuda"))
        total += tally.counted(truth, called, 5)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert tally.read(total).pixels == Confusion.of(truth.cpu().numpy(), called.cpu().numpy(), 5).pixels
