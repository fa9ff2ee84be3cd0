"""Batches on the device: the next ones are taken, copied and augmented while the net works on this one.

On a GPU one thread is up to AHEAD batches in front: it takes them from the split, puts them into memory that the GPU reads
without the processor, and has them copied and moved on a stream of its own; nobody waits for the device. On a CPU all cores
work for the net, a thread has nothing to wait for, and batches are made when they are asked for.
"""
from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from snnseg.data import augment
from snnseg.data.loader import Batch
from snnseg.models import moves
from snnseg.models.inputs import on

AHEAD = 2
ARRAYS = "input", "mask_BHW", "moves_3B", "key_B"        # what the device needs of a batch


def ready(batch: Batch, device: torch.device) -> Batch:
    """The batch's arrays as tensors on `device`, its moves made."""
    if device.type == "cpu":
        batch = augment.applied(batch)          # slices of main memory are faster than a gather
    here = {name: getattr(batch, name) for name in ARRAYS if getattr(batch, name) is not None}
    tensors = {name: on(torch.from_numpy(array).pin_memory() if device.type == "cuda" else array, device) for name, array in here.items()}
    return moves.applied(replace(batch, **tensors))


def _ahead(batches: Iterator[Batch], device: torch.device, ahead: int) -> Iterator[Batch]:
    """The same batches, made by a thread that ends with this generator; what fails there is raised here, in its turn."""
    side = torch.cuda.Stream(device) if device.type == "cuda" else None

    def make() -> tuple[Batch, torch.cuda.Event | None] | None:
        with torch.cuda.stream(side):           # no stream, no change
            batch = next(batches, None)
            return batch and (ready(batch, device), side and side.record_event())

    with ThreadPoolExecutor(1, "feed") as thread:
        waiting = deque(thread.submit(make) for _ in range(ahead))
        try:
            while made := waiting.popleft().result():
                waiting.append(thread.submit(make))
                batch, event = made
                if event:
                    now = torch.cuda.current_stream(device)
                    now.wait_event(event)       # the GPU does, not this thread
                    for tensor in (batch.input, batch.mask_BHW, batch.key_B):
                        tensor is not None and tensor.record_stream(now)       # its memory is free again once this stream is done with it
                yield batch
        finally:
            thread.shutdown(cancel_futures=True)


@contextlib.contextmanager
def fed(batches: Iterator[Batch], device: torch.device, ahead: int | None = None) -> Iterator[Iterator[Batch]]:
    """Iterate over `batches` as tensors on `device`; `ahead` is how many may wait there, 0 for none and no thread.

    When the context ends, however it does, the thread has ended and no more is taken from `batches`.
    """
    ahead = (AHEAD if device.type == "cuda" else 0) if ahead is None else ahead
    made = _ahead(batches, device, ahead) if ahead else (ready(batch, device) for batch in batches)
    with contextlib.closing(made):
        yield made
