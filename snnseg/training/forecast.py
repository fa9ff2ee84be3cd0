"""How much memory a training step will take, told before it is taken.

What is kept for the backward pass is counted on small forward passes, as each picture and each time step adds the same to it. What
is in use follows from the shapes of the layers; what the process has besides is looked up, in one that has run the net.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from snnseg import memory
from snnseg.models import inputs, zoo
from snnseg.models.backbone import ConvUnit
from snnseg.sections import Config

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Forecast:
    """Bytes. The process itself has none on a GPU, and 0 where nobody looked."""

    kept: int               # for the backward pass
    working: int            # of the layer that needs most while gradients are taken
    weights: int            # with gradients and the optimiser's moments
    process: int = 0

    @property
    def peak(self) -> int:
        return self.kept + self.working + self.weights + self.process

    def __str__(self) -> str:
        mib = {name: f"{getattr(self, name) / 2**20:.0f}" for name in ("peak", "kept", "working", "weights", "process")}
        besides, process = ("", f", {mib['process']} the process itself") if self.process else (" beside the process itself", "")
        return (f"predicted peak {mib['peak']} MiB{besides}: {mib['kept']} kept for the backward pass, {mib['working']} in use, "
                f"{mib['weights']} weights and moments{process}")


def beforehand(config: Config) -> Forecast:
    """The forecast with the process itself, on the device that a training would take; for a process that has loaded what a training
    loads and does nothing else.
    """
    if torch.cuda.is_available():
        return of(config, "cuda")
    model = zoo.build(config.anywhere).train()
    _run(model, config, 2, 1).sum().backward()
    return of(config, process=max(0, memory.resident() - 2 * _bytes(model)))     # less the weights and their gradients


def of(config: Config, device: str = "cpu", process: int = 0) -> Forecast:
    """The forecast of one step of `config` with its batch and time steps. Takes a second or less, on the CPU."""
    model = zoo.build(config.anywhere).train()
    sizes: list[int] = []       # bytes that a layer has at hand in the backward pass, a picture and step

    def note(unit: ConvUnit, given: tuple[Tensor], made: Tensor) -> None:
        sizes.append(_at_hand(math.prod(given[0].shape[2:]), math.prod(made.shape[2:]), config, device))

    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, ConvUnit)]
    kept = _grown(lambda steps: _grown(lambda pictures: _kept(model, config, pictures, steps), config.train.batch, 2), config.timesteps, 1)
    for handle in handles:
        handle.remove()
    return Forecast(kept, max(sizes) * config.train.batch * config.timesteps, _bytes(model) * (5 if config.optim.amsgrad else 4), process)


def _bytes(model: nn.Module) -> int:
    return sum(p.nbytes for p in model.parameters())


def _at_hand(x: int, y: int, config: Config, device: str) -> int:
    """Bytes for x and y values of a convolution and their gradients. On a CPU, oneDNN lays each of them anew; autograd adds tensors
    in float32 where norm and neuron, or norm and ReLU, are not one operator.
    """
    itemsize = 2 if config.train.precision == "bf16" else 4
    if not config.spiking:
        return itemsize * (2 * x + 2 * y) + 16 * y
    each = 1 if device == "cuda" else 2
    return itemsize * each * (2 * x + (3 if config.train.recompute else 2) * y) + (32 * y if config.train.kernels == "reference" else 0)


def _grown(at: Callable[[int], int], n: int, few: int) -> int:
    """`at(n)` of what grows by the same amount with each, from `few` and one more."""
    first = at(few)
    return first if n == few else first + (at(few + 1) - first) * (n - few)


def _run(model: nn.Module, config: Config, pictures: int, steps: int) -> Tensor:
    """The net's logits for so many grey pictures, or frames of so many steps."""
    size = config.data.size
    items = np.full((pictures, steps, 2, size, size), 0.5, np.float32) if config.data.events else np.full((pictures, size, size, 3), 128, np.uint8)
    with torch.autocast("cpu", torch.bfloat16, enabled=config.train.precision == "bf16"):
        return model(inputs.coded(items, np.arange(pictures), config, CPU, ("poisson", 0), steps))


def _kept(model: nn.Module, config: Config, pictures: int, steps: int) -> int:
    """Bytes that `_run` keeps for the backward pass, each place in memory counted once, weights left out."""
    places: dict[int, torch.UntypedStorage] = {}        # held, so that no two have one address
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(x: Tensor) -> Tensor:
        place = x.untyped_storage()
        if place.data_ptr() not in own:
            places[place.data_ptr()] = place
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        _run(model, config, pictures, steps)
    return sum(place.nbytes() for place in places.values())
