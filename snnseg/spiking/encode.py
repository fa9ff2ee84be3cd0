"""Coding: a picture as the input of T time steps (section 4.2).

Pure functions; the random numbers of rate coding come in as an argument, made from a seed a sample (`uniforms`), so that
a sample's spikes do not depend on its neighbours in the batch.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


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


def uniforms(seeds: Sequence[int], timesteps: int, shape_CHW: Sequence[int]) -> Tensor:
    """Uniform numbers in [0, 1), float32 [T, B, *shape], those of sample b from `seeds[b]` alone."""
    draws = [torch.rand(timesteps, *shape_CHW, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(draws, 1)
