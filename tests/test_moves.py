"""Mirror and shift on the device: bit for bit what the plain form in main memory does."""
from dataclasses import replace

import numpy as np
import pytest
import torch

from snnseg.data import augment
from snnseg.data.augment import Augment
from snnseg.data.loader import Batch
from snnseg.models import moves

pytestmark = pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
ALL = np.array([(mirror, down, right) for mirror in (0, 1) for down in (-6, -5, -2, 0, 1, 6) for right in (-8, -7, -3, 0, 2, 8)]).T
H, W = 6, 8         # the largest shifts take the whole picture away; none is larger (sections.Train)


def batch_of(events: bool, moves_3B: np.ndarray | None) -> Batch:
    rng, count = np.random.default_rng(0), len(ALL[0])
    items = rng.random((count, 3, 2, H, W), np.float32) if events else rng.integers(1, 256, (count, H, W, 3), dtype=np.uint8)
    return Batch(np.arange(count), items, rng.integers(0, 5, (count, H, W), dtype=np.uint8), moves_3B)


def as_tensors(batch: Batch, device: str) -> Batch:
    return replace(batch, **{name: torch.from_numpy(getattr(batch, name)).to(device) for name in ("input", "mask_BHW", "moves_3B")})


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("events", [False, True])
def test_every_move_is_that_of_main_memory(events, device):
    batch = batch_of(events, ALL)
    plain, found = augment.applied(batch), moves.applied(as_tensors(batch, device))
    assert found.moves_3B is None and found.index_B is batch.index_B
    for name in ("input", "mask_BHW"):
        there, here = getattr(plain, name), getattr(found, name).cpu().numpy()
        assert here.dtype == there.dtype and np.array_equal(here, there)


@pytest.mark.parametrize("events", [False, True])
@pytest.mark.parametrize("changes", [Augment(flip=True), Augment(shift=3), Augment(flip=True, shift=6)], ids=str)
def test_drawn_moves(changes, events):
    drawn = changes.drawn(batch_of(events, None), 3, 1)
    plain, found = augment.applied(drawn), moves.applied(as_tensors(drawn, "cpu"))
    assert np.array_equal(found.input.numpy(), plain.input) and np.array_equal(found.mask_BHW.numpy(), plain.mask_BHW)


def test_without_moves_the_batch_itself():
    batch = batch_of(False, None)
    assert moves.applied(batch) is batch and augment.applied(batch) is batch


def test_the_input_is_not_modified():
    batch = as_tensors(batch_of(False, ALL), "cpu")
    before = batch.input.clone(), batch.mask_BHW.clone()
    moves.applied(batch)
    assert torch.equal(batch.input, before[0]) and torch.equal(batch.mask_BHW, before[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("events", [False, True])
def test_nobody_waits_for_the_device(events):
    batch = as_tensors(batch_of(events, ALL), "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        moves.applied(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
