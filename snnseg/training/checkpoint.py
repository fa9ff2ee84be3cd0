"""Checkpoints: sealed folders `step-000123` that a training goes on from, exactly.

    model.safetensors   weights and running statistics
    optim.pt            the optimiser's state (tensors and plain types only)
    state.json          where the training stands, and the config's fingerprint
    seal.json           written last

No random state is kept: every draw follows from (seed, epoch, sample). The newest whole one counts; a damaged one is
passed over for the one before.
"""
from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from snnseg import seal
from snnseg.errors import CheckpointMismatch, StoreAltered, StoreError
from snnseg.models.saved import read_weights, write_weights
from snnseg.ranks import Ranks
from snnseg.training.optim import Adam

REMEDY = "It is removed, and the training goes on from the one before it, or from the beginning"


@dataclass
class State:
    """Where a training stands. `batch` batches of `epoch` are done; the sums are those of this epoch.

    `unreported` has the numbers of an epoch that has ended but is not validated yet: saving comes first.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    confusion: list[list[int]] = field(default_factory=list)
    unreported: dict[str, float | None] = field(default_factory=dict)


def still(x: Tensor) -> Tensor:
    """A copy in main memory; of what a GPU has, complete once the GPU has come so far."""
    return torch.empty_like(x, device="cpu", pin_memory=x.is_cuda).copy_(x, non_blocking=True)


def folder_of(run: Path, step: int) -> Path:
    return run / f"step-{step:06d}"


def all_steps(run: Path) -> list[int]:
    """The steps of the sealed checkpoints in `run`, oldest first."""
    return sorted(int(p.name[5:]) for p in run.glob("step-*") if p.name[5:].isdigit() and seal.is_sealed(p))


def save(run: Path, state: State, weights: dict[str, Tensor], moments: dict[str, list[Tensor]], fingerprint: str, keep: int) -> Path:
    """Write a checkpoint, then drop all but the newest `keep`. Raises NoSpace; the older ones are still there then."""
    folder = folder_of(run, state.step)
    with seal.publish(folder) as partial:
        write_weights(partial / "model.safetensors", weights)
        torch.save(moments, partial / "optim.pt")
        (partial / "state.json").write_text(json.dumps({**asdict(state), "fingerprint": fingerprint}), encoding="utf-8")
    drop(run, keep)
    return folder


def drop(run: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep`."""
    for step in all_steps(run)[:-keep]:
        seal.remove(folder_of(run, step))


class Saver:
    """Saves the checkpoints of a run. Those of a net on a GPU are copied first, and written while the training goes on.

    A context: when it ends, however it does, what was to be saved is on the disk, or NoSpace is raised.
    """

    def __init__(self, run: Path, model: nn.Module, optimizer: Adam, fingerprint: str, keep: int, told: Callable[[int, Path], None]):
        self.run, self.model, self.optimizer, self.told = run, model, optimizer, told
        self.named = {"fingerprint": fingerprint, "keep": keep}
        self.thread = ThreadPoolExecutor(1, "checkpoint") if next(model.parameters()).is_cuda else None
        self.writing: tuple[int, Future[Path]] | None = None

    def save(self, state: State) -> None:
        """Save where the training stands now; waits for the checkpoint before."""
        self.wait()
        weights, moments = self.model.state_dict(), self.optimizer.state_dict()
        if not self.thread:
            self.told(state.step, save(self.run, state, weights, moments, **self.named))
            return
        weights = {name: still(x) for name, x in weights.items()}
        moments = {name: [still(x) for x in tensors] for name, tensors in moments.items()}
        copied = torch.cuda.current_stream().record_event()

        def write(state: State) -> Path:
            copied.synchronize()
            return save(self.run, state, weights, moments, **self.named)

        self.writing = state.step, self.thread.submit(write, replace(state, unreported=dict(state.unreported)))

    def wait(self) -> None:
        """Until the last one is saved, and tell so."""
        if self.writing:
            (step, job), self.writing = self.writing, None
            self.told(step, job.result())

    def __enter__(self) -> Saver:
        drop(self.run, self.named["keep"])      # a process that was killed may not have come to it
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        finally:
            if self.thread:
                self.thread.shutdown()


class Unsaved:
    """In the place of a Saver on a rank that writes no files."""

    def save(self, state: State) -> None:
        """Nothing: the first rank saves."""

    def __enter__(self) -> Unsaved:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def restore(folder: Path, model: nn.Module, optimizer: Adam, fingerprint: str) -> State:
    """Load a checkpoint into `model` and `optimizer`. Raises StoreAltered, CheckpointMismatch."""
    seal.verify(folder, REMEDY)
    told = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    found = told.pop("fingerprint")
    if found != fingerprint:
        raise CheckpointMismatch(folder, found, fingerprint)
    device = next(model.parameters()).device
    try:
        optimizer.load_state_dict(torch.load(folder / "optim.pt", map_location=device, weights_only=True))
    except (pickle.UnpicklingError, ValueError, RuntimeError) as e:
        raise StoreAltered(folder, f"optim.pt cannot be loaded ({str(e).splitlines()[0]})", REMEDY) from e
    read_weights(folder / "model.safetensors", model)       # last: what fails before it leaves the net as it was
    return State(**told)


def newest(run: Path, model: nn.Module, optimizer: Adam, fingerprint: str) -> tuple[State, list[StoreError]]:
    """Go on from the newest whole checkpoint, or from the beginning; damaged ones are returned as what they raised.

    Damaged ones are removed, so that they never count as one of the newest.
    """
    damaged: list[StoreError] = []
    for step in reversed(all_steps(run)):
        try:
            return restore(folder_of(run, step), model, optimizer, fingerprint), damaged
        except StoreError as e:
            damaged.append(e)
            seal.remove(folder_of(run, step))
    return State(), damaged


def newest_of_all(run: Path, model: nn.Module, optimizer: Adam, fingerprint: str, ranks: Ranks) -> tuple[State, list[StoreError]]:
    """`newest`, of the first rank, which may remove damaged ones; the others load the one that it took."""
    state, damaged = newest(run, model, optimizer, fingerprint) if ranks.first else (State(), [])
    if not ranks.alone:
        taken = int(ranks.add(torch.tensor([state.step], device=next(model.parameters()).device)))
        if taken and not ranks.first:
            state = restore(folder_of(run, taken), model, optimizer, fingerprint)
    return state, damaged
