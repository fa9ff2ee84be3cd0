"""A saved net and the store it was trained with, as every measurement needs them: verified, together, on the device there is."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from snnseg.data import store
from snnseg.errors import StoreError
from snnseg.models import saved
from snnseg.sections import Config

REMEDY = "The net was trained on another one: train it anew, or set data as in its about.json and run snnseg prepare"


@dataclass(frozen=True)
class Opened:
    """A net in evaluation mode on its device, its numbers, what is known of it."""

    model: nn.Module
    config: Config
    about: dict[str, Any]
    device: torch.device

    def split(self, name: str, items: int | None = None, timesteps: int | None = None) -> store.Split:
        """A split of the net's store, or its first items; of events in windows of the net's own time steps, if no others are named."""
        return store.read(self.config.store, name, timesteps or self.config.timesteps).first(items)


def opened(model_folder: Path, config: Config) -> Opened:
    """The net with its own numbers, but for the sections that shape no weights, which are `config`'s.

    Raises StoreError and its kin for the net or the store.
    """
    model, trained, about = saved.load(model_folder, config.root, config.around)
    if store.check(trained.store, trained.store_params, REMEDY) != about["store"]:
        raise StoreError(trained.store, f"not the store that {model_folder} was trained with", REMEDY)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Opened(model.to(device), trained, about, device)
