"""How much memory a training step will take, told before it is taken.

What is kept for the backward pass is counted on a small forward pass, two pictures of one and of two time steps, as it grows with
pictures and with every step after the first by the same amount. The rest follows from the shapes of the layers and the weights.
"""
from __future__ import annotations

from dataclasses import dataclass

import torch

from snnseg.models import zoo
from snnseg.models.backbone import ConvUnit
from snnseg.sections import Config

PROCESS = 680 * 2**20       # of a process that has loaded torch, numba and the rest of a training and made its first step, on Linux
PICTURES = 2


@dataclass(frozen=True)
class Forecast:
    """Bytes. On a GPU the process's own memory is not the device's."""

    kept: int               # for the backward pass
    working: int            # of the layer that needs most while gradients are taken
    weights: int            # with gradients and the optimiser's moments
    process: int

    @property
    def peak(self) -> int:
        return self.kept + self.working + self.weights + self.process

    def __str__(self) -> str:
        mib = {name: f"{getattr(self, name) / 2**20:.0f}" for name in ("kept", "working", "weights", "process")}
        return (f"predicted peak {self.peak / 2**20:.0f} MiB: {mib['kept']} kept for the backward pass, {mib['working']} in use, "
                f"{mib['weights']} weights and moments, {mib['process']} the process itself")


def of(config: Config, device: str = "cpu") -> Forecast:
    """The forecast of one step of `config` with its batch and time steps. Takes a second or less, on the CPU."""
    model = zoo.build(config).train()
    itemsize = 2 if config.train.precision == "bf16" else 4
    sizes: list[int] = []       # bytes that a layer has at hand in the backward pass, a picture and step

    def note(unit: ConvUnit, inputs: tuple[torch.Tensor], spikes: torch.Tensor) -> None:
        x, y = inputs[0][0, 0].numel(), spikes[0, 0].numel()
        plain = config.train.kernels == "reference" or not config.spiking
        sizes.append(itemsize * (2 * x + (3 if config.train.recompute else 2) * y) + (16 * y if plain else 0))

    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, ConvUnit)]
    steps = config.timesteps
    first = _kept(model, config, 1)
    each = _kept(model, config, 2) - first if steps > 1 else 0
    for handle in handles:
        handle.remove()
    weights = sum(p.numel() for p in model.parameters()) * 4 * (5 if config.optim.amsgrad else 4)
    pictures = config.train.batch / PICTURES
    return Forecast(int(pictures * (first + each * (steps - 1))), max(sizes) * config.train.batch * steps, weights, PROCESS if device == "cpu" else 0)


def _kept(model: torch.nn.Module, config: Config, steps: int) -> int:
    """Bytes that PICTURES pictures of so many steps keep for the backward pass, each place in memory counted once, weights left out."""
    places: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def note(x: torch.Tensor) -> torch.Tensor:
        place = x.untyped_storage()
        if place.data_ptr() not in own:
            places[place.data_ptr()] = place.nbytes()
        return x

    size = config.data.size
    x = torch.randn(1 if config.encode.coding == "direct" and not config.data.events else steps, PICTURES, config.channels, size, size)
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x), torch.autocast("cpu", torch.bfloat16, enabled=config.train.precision == "bf16"):
        held = model(x.expand(steps, -1, -1, -1, -1))       # noqa: F841  (keeps what it keeps until it was counted)
    for name, b in model.named_buffers():
        b.copy_(buffers[name])
    return sum(places.values())
