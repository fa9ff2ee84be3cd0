"""Coding: a picture as the input of T time steps (section 4.2).

Pure functions; the random numbers of rate coding come in as an argument, made from a seed a sample (`uniforms`), so that
a sample's spikes do not depend on its neighbours in the batch. `Constant`, `Rate`, `Frames` and `timed.Timed` are inputs of T
steps of which any stretch can be asked for: `shape` is (T, B, C, H, W), `steps(first, last)` gives x_TBCHW of those steps alone.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from snnseg.spiking import counter
from snnseg.spiking.timed import Timed


def direct(x_BCHW: Tensor, timesteps: int) -> Tensor:
    """The same real-valued picture at every step: x_TBCHW, a view."""
    return x_BCHW.expand(timesteps, *x_BCHW.shape)


def poisson(x_BCHW: Tensor, uniform_TBCHW: Tensor) -> Tensor:
    """A spike with probability x, for x in [0, 1]: x_TBCHW of 0 and 1.

    The paper's prose has the comparison the other way round; its figure 5 and the cited coder are as here.
    """
    return (uniform_TBCHW < x_BCHW).to(x_BCHW.dtype)


def signed_poisson(x_BCHW: Tensor, uniform_TBCHW: Tensor) -> Tensor:
    """The authors' coder on normalised x: a spike sign(x) with probability min(|x|, 1): x_TBCHW of -1, 0 and 1."""
    return (uniform_TBCHW <= x_BCHW.abs()).to(x_BCHW.dtype) * x_BCHW.sign()


def uniforms(seeds: Sequence[int], timesteps: int, shape_CHW: Sequence[int], device: torch.device | str = "cpu", first: int = 0) -> Tensor:
    """Uniform numbers in [0, 1) of so many steps from `first` on, float32 [T, B, *shape], those of sample b from `seeds[b]` alone.

    Bit for bit the same wherever they are made. Seeds are 0 to 2^64 - 1.
    """
    way = _compiled(torch.device(device)) or counter
    return way.uniforms(counter.keys(seeds, device), first, first + timesteps, shape_CHW)


@dataclass(frozen=True)
class Constant:
    """The same picture at every step."""

    x_BCHW: Tensor
    timesteps: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.timesteps, *self.x_BCHW.shape

    def steps(self, first: int, last: int) -> Tensor:
        return direct(self.x_BCHW, last - first)


@dataclass(frozen=True)
class Rate:
    """Spikes with the rate x, drawn when they are asked for; `signed` as in `signed_poisson`. `key_B` from `counter.keys`."""

    x_BCHW: Tensor
    key_B: Tensor
    timesteps: int
    signed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.timesteps, *self.x_BCHW.shape

    def steps(self, first: int, last: int) -> Tensor:
        """Stretches that begin and end at multiples of `counter.STEPS` draw no number twice."""
        x = self.x_BCHW
        if x.dtype == torch.float32 and (way := _compiled(x.device)):
            return way.spikes(x, self.key_B, first, last, self.signed)
        uniform_TBCHW = counter.uniforms(self.key_B, first, last, x.shape[1:])
        return signed_poisson(x, uniform_TBCHW) if self.signed else poisson(x, uniform_TBCHW)


@dataclass(frozen=True)
class Frames:
    """Frames of events, of which each is the input of one step."""

    x_BTCHW: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        B, T, *rest = self.x_BTCHW.shape
        return T, B, *rest

    def steps(self, first: int, last: int) -> Tensor:
        return self.x_BTCHW[:, first:last].transpose(0, 1).contiguous()


Coded = Constant | Rate | Frames | Timed


def whole(x: Tensor | Coded) -> Tensor:
    """All steps at once: x_TBCHW."""
    return x if isinstance(x, Tensor) else x.steps(0, x.shape[0])


def _compiled(device: torch.device) -> ModuleType | None:
    """How numbers are drawn on a device other than by the plain form; imported when first used, as in `ways`."""
    if device.type == "cpu":
        from snnseg.spiking import counter_cpu

        return counter_cpu
    try:
        from snnseg.spiking import counter_triton
    except ImportError:         # PyTorch for some systems comes without Triton
        return None
    return counter_triton if device.type == "cuda" else None
