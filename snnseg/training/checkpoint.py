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
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from snnseg import seal
from snnseg.errors import CheckpointMismatch, StoreAltered, StoreError
from snnseg.models.saved import read_weights, write_weights

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


def folder_of(run: Path, step: int) -> Path:
    return run / f"step-{step:06d}"


def all_steps(run: Path) -> list[int]:
    """The steps of the sealed checkpoints in `run`, oldest first."""
    return sorted(int(p.name[5:]) for p in run.glob("step-*") if p.name[5:].isdigit() and seal.is_sealed(p))


def save(run: Path, state: State, model: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str, keep: int) -> Path:
    """Write a checkpoint, then drop all but the newest `keep`. Raises NoSpace; the older ones are still there then."""
    folder = folder_of(run, state.step)
    with seal.publish(folder) as partial:
        write_weights(partial / "model.safetensors", model)
        torch.save(optimizer.state_dict(), partial / "optim.pt")
        (partial / "state.json").write_text(json.dumps({**asdict(state), "fingerprint": fingerprint}), encoding="utf-8")
    for step in all_steps(run)[:-keep]:
        shutil.rmtree(folder_of(run, step))
    return folder


def restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str) -> State:
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


def newest(run: Path, model: nn.Module, optimizer: torch.optim.Optimizer, fingerprint: str) -> tuple[State, list[StoreError]]:
    """Go on from the newest whole checkpoint, or from the beginning; damaged ones are returned as what they raised.

    Damaged ones are removed, so that they never count as one of the newest.
    """
    damaged: list[StoreError] = []
    for step in reversed(all_steps(run)):
        try:
            return restore(folder_of(run, step), model, optimizer, fingerprint), damaged
        except StoreError as e:
            damaged.append(e)
            shutil.rmtree(folder_of(run, step))
    return State(), damaged
