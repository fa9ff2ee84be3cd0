"""A trained net as a sealed folder: model.safetensors, about.json (config and provenance), seal.json."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from snnseg import seal
from snnseg.errors import StoreAltered, StoreError
from snnseg.models import zoo
from snnseg.sections import Config

REMEDY = "Train it again: dvc repro train, or snnseg train BENCHMARK/EXPERIMENT"


def save(folder: Path, model: nn.Module, about: dict[str, Any]) -> None:
    """Publish the weights and what is known of them. Raises NoSpace."""
    with seal.publish(folder) as partial:
        write_weights(partial / "model.safetensors", model.state_dict())
        (partial / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def write_weights(path: Path, weights: dict[str, Tensor]) -> None:
    # safetensors' own file writer reports a full disk as an error of its own; bytes are written by Python
    path.write_bytes(to_bytes({k: v.detach().cpu().contiguous() for k, v in weights.items()}))


def read_weights(path: Path, model: nn.Module) -> None:
    """Load weights into a net of the same shape. Raises StoreAltered."""
    try:
        model.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as e:
        raise StoreAltered(path, f"does not hold this net's weights ({str(e).splitlines()[0]})", REMEDY) from e


def read_about(folder: Path) -> dict[str, Any]:
    """What is known of a saved net, after its seal was checked. Raises StoreMissing, StoreAltered."""
    seal.verify(folder, REMEDY)
    return json.loads((folder / "about.json").read_text(encoding="utf-8"))


def load(folder: Path, root: Path, changes: dict[str, Any] | None = None) -> tuple[nn.Module, Config, dict[str, Any]]:
    """A saved net in evaluation mode, the config it was trained with, and what is known of it.

    `changes` are sections that take the place of those it was trained with. Raises StoreMissing, StoreAltered, StoreError.
    """
    about = read_about(folder)
    try:
        config = Config.of(about, root, changes)
    except ValidationError as e:
        key = ".".join(map(str, e.errors()[0]["loc"]))
        raise StoreError(folder, f"saved by another version of snnseg, whose numbers differ at {key}", REMEDY) from e
    model = zoo.build(config.anywhere)      # the device that it was trained on may not be here
    read_weights(folder / "model.safetensors", model)
    return model.eval(), config, about
