"""A trained net and the store it is measured on, as every measurement needs them: verified, together, on the device there is.

A saved net, a folder, is measured on the store that it was trained with. A published one, a file, may be measured on any store whose
data fit it.
"""
from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from snnseg.data import store
from snnseg.errors import StoreError
from snnseg.models import published, saved
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


def opened(model: Path, config: Config) -> Opened:
    """The net with its own numbers, but for the sections that shape no weights, which are `config`'s; of a published file, the data, too.

    Raises StoreError and its kin for the net's folder or the store, DataError and DataMissing for the file.
    """
    if model.suffix == published.SUFFIX:
        net, its_config, about = published.load(model, config)
        its_config, about = on_data_of(its_config, config, model), about | {"benchmark": config.benchmark}
        digest = store.check(its_config.store, its_config.store_params)
        if digest != about["store"]:
            print(f"{model.name}: measured on {its_config.store}, {config.protocol} of {config.data.source} ({digest[:12]}), not on the store that it was "
                  f"trained with ({about['store'][:12]})", file=sys.stderr)
    else:
        net, its_config, about = saved.load(model, config.root, config.around)
        if store.check(its_config.store, its_config.store_params, REMEDY) != about["store"]:
            raise StoreError(its_config.store, f"not the store that {model} was trained with", REMEDY)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Opened(net.to(device), its_config, about, device)


def on_data_of(trained: Config, config: Config, file: Path) -> Config:
    """A published net's config with `config`'s benchmark, data and store. Raises StoreError where their classes, size or kind differ."""
    def kind(c: Config) -> tuple[str, int, int]:
        return c.data.dataset, c.classes, c.data.size

    if kind(config) != kind(trained):
        told, wanted = (f"{c.data.dataset} {c.protocol}, {c.classes} classes" for c in (config, trained))
        sets = [f"--set data.size={trained.data.size}"] * (config.data.size != trained.data.size)
        if trained.data.dataset == "mnist_cifar" and config.data.dataset == "mnist_cifar" and config.classes != trained.classes:
            sets.append(f"--set data.mnist_cifar.classes={trained.data.chosen.protocol}")
        remedy = f"Name data that fit: {' '.join(sets)}" if config.data.dataset == trained.data.dataset else f"Name a benchmark of {trained.data.dataset}"
        raise StoreError(config.store, f"{told}; {file.name} is a net for {wanted}", remedy)
    return trained.model_copy(update={"benchmark": config.benchmark, "data": config.data, "store_name": config.store_name})
