"""Several processes that train one net, as a value: which of them this is, how many there are, and how they add tensors up.

The global batch, its order and the learning rate are the config's: each rank takes its slice of every batch, and what the slices
add up to (gradients, loss, statistics, confusion) is added up over all ranks. One process alone is `ALONE`, which adds nothing.
Plain torch.distributed; whoever starts the processes (torchrun, Ray, a test) is not known here.
"""
from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from snnseg.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

TIMEOUT_S = 600         # a rank that waits this long for the others ends: it may wait for a checkpoint to be written, not longer


def unchanged(x: Tensor) -> Tensor:
    """The sum over one process."""
    return x


@dataclass(frozen=True)
class Ranks:
    """Rank `rank` of `size`. `add` sums a dense tensor over all ranks, in place, and returns it; all have to call it in the same order."""

    rank: int = 0
    size: int = 1
    add: Callable[[Tensor], Tensor] = unchanged

    @property
    def alone(self) -> bool:
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files."""
        return self.rank == 0

    def slice(self, count: int) -> slice:
        """This rank's of `count` things: stretches that differ by one at most, in the order of the ranks."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def check(self, samples: int, batch: int) -> None:
        """Raises ConfigError where a batch of an epoch has fewer pictures than there are ranks: each needs one for its statistics."""
        last = samples % batch or min(batch, samples)
        for what, pictures in (("a batch", min(batch, samples)), ("the last batch of an epoch", last)):
            if pictures < self.size:
                raise ConfigError(f"train.workers is {self.size}, but {what} has {pictures} of the {samples} pictures, and each worker takes one at least. "
                                  f"Set train.workers to {pictures} or less, or another train.batch than {batch}.")


ALONE = Ranks()


def added(x: Tensor) -> Tensor:
    """The sum over the processes of torch's own group, in place. On a GPU it is the device that waits for the others."""
    import torch.distributed as dist

    dist.all_reduce(x)
    return x


def here() -> Ranks:
    """This process among those of torch's own group, which somebody has set up."""
    import torch.distributed as dist

    return Ranks(dist.get_rank(), dist.get_world_size(), added) if dist.is_initialized() and dist.get_world_size() > 1 else ALONE


@contextlib.contextmanager
def joined(rank: int, size: int, backend: str, meeting: str = "env://") -> Iterator[Ranks]:
    """Be one of `size` processes that meet at torch's `meeting` place (`file:///PATH`, `env://`), while the block runs.

    `backend` is gloo in main memory, nccl on GPUs. Whoever waits for a rank that is gone raises RuntimeError, after TIMEOUT_S at most.
    """
    import torch.distributed as dist

    if size == 1:
        yield ALONE
        return
    timeout = datetime.timedelta(seconds=TIMEOUT_S)
    store, rank, size = next(dist.rendezvous(meeting, rank, size, timeout=timeout))
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")      # torchrun keeps its store: addresses of ranks that are gone are in it
    dist.init_process_group(backend, timeout=timeout, world_size=size, rank=rank, store=dist.PrefixStore(f"attempt {again}", store))
    try:
        yield here()
    finally:
        dist.destroy_process_group()
