"""Which way norm and neuron are run: the plain form, loops compiled for the CPU, or kernels for a GPU.

`fused.reference` is the oracle of the others. Each of them has `refusal`, `fire` (spikes, and what to keep) and `unwind`
(gradients, from y and what was kept); here they become one operator of autograd.
"""
from __future__ import annotations

import functools
import logging
from types import ModuleType

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnseg.spiking import fused
from snnseg.spiking.fused import Fired, Gradients, Normal
from snnseg.spiking.neuron import LIF

BY_DEVICE = {"cpu": "cpu", "cuda": "triton"}        # the way that `auto` asks first
LOG = logging.getLogger("snnseg")


def run(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF, way: str = "auto") -> Fired:
    """Normalise (or not: None), integrate, fire; gradients reach y, gamma, beta and a learned leak and threshold.

    Raises ValueError where shapes do not fit or the batch has too few values for statistics (see `fused.check`), and where
    `way` is named and cannot do it.
    """
    fused.check(y_TBCHW, normal)
    chosen = choose(y_TBCHW, normal, neuron, way)
    if chosen is None:
        return fused.reference(y_TBCHW, normal, neuron)
    return Fired(*_NormAndFire.apply(y_TBCHW, *leaves(normal, neuron), normal, neuron, chosen))


def choose(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF, way: str = "auto") -> ModuleType | None:
    """The module that does it, None for the plain form. ValueError where `way` is named and cannot."""
    picked = pick(y_TBCHW, normal, neuron, way)
    return None if picked == "reference" else _compiled(picked)


def pick(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF, way: str = "auto") -> str:
    """The way that `choose` takes, by name: reference, cpu or triton.

    `auto` takes the compiled loops for a y in main memory and the Triton kernels for one on a GPU, if they can do it, else the
    reference. What it picked goes to the logger "snnseg", once a process for each device, dtype and reason: at level info, and at
    level warning where it is the reference because the other way refused.
    """
    if way == "auto":
        return _automatic(y_TBCHW, normal, neuron)
    if reason := refusal(way, y_TBCHW, normal, neuron):
        raise ValueError(f"the {way} way of norm and neuron cannot do this: {reason}")
    return way


def _automatic(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF) -> str:
    """The way that `auto` stands for, and word of it to the log."""
    way = BY_DEVICE.get(y_TBCHW.device.type, "reference")
    reason, where = refusal(way, y_TBCHW, normal, neuron), f"norm and neuron of {y_TBCHW.dtype} on {y_TBCHW.device.type}"
    if reason is None:
        _tell(logging.INFO, f"{where} are run the {way} way")
        return way
    _tell(logging.WARNING, f"{where} are run the reference way, which is slower and keeps more memory; the {way} way cannot do this: {reason}")
    return "reference"


@functools.lru_cache(256)       # so many situations are told once; a bound, as reasons may name objects
def _tell(level: int, words: str) -> None:
    LOG.log(level, words)


def refusal(way: str, y_TBCHW: Tensor, normal: Normal | None, neuron: LIF) -> str | None:
    """Why `way` (reference, cpu, triton) cannot do it, in words; None if it can. ValueError for a way there is not."""
    if way == "reference":
        return None
    if way not in ("cpu", "triton"):
        raise ValueError(f"way {way!r} is none of auto, reference, cpu, triton")
    try:
        return _compiled(way).refusal(y_TBCHW, normal, neuron)
    except ImportError as error:
        return f"it cannot be imported here ({error})"


def leaves(normal: Normal | None, neuron: LIF) -> tuple[Tensor | float | None, ...]:
    """gamma, beta, leak, threshold: arguments of an operator, so that gradients find them."""
    return (None if normal is None else normal.gamma_TC, None if normal is None else normal.beta_TC, neuron.leak, neuron.threshold)


def handed_back(gradients: Gradients, likes: tuple[Tensor | float | None, ...], needed: tuple[bool, ...]) -> list[Tensor | None]:
    """The gradients of `leaves` in their shapes and dtypes."""
    leak, threshold = (None if g is None else g.view(-1, 1, 1) for g in gradients[3:])
    return [g.sum_to_size(like.shape).to(like.dtype) if need else None
            for g, like, need in zip((gradients.gamma_TC, gradients.beta_TC, leak, threshold), likes, needed, strict=True)]


class _NormAndFire(torch.autograd.Function):
    """y and `leaves` -> spikes, mean and variance of the batch."""

    @staticmethod
    def forward(ctx, y_TBCHW, gamma_TC, beta_TC, leak, threshold, normal, neuron, way):
        y_TBCHW = fused.in_rows(y_TBCHW)
        fired, kept = way.fire(y_TBCHW, normal, neuron)
        ctx.save_for_backward(y_TBCHW, *kept)
        ctx.kept, ctx.how, ctx.likes = type(kept), (way, normal, neuron), (gamma_TC, beta_TC, leak, threshold)
        if fired.mean_TC is not None:
            ctx.mark_non_differentiable(*(x for x in fired[1:] if x is not None))
        return tuple(fired)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_TBCHW, *_):
        y_TBCHW, *kept = ctx.saved_tensors
        way, normal, neuron = ctx.how
        gradients = way.unwind(y_TBCHW, ctx.kept(*kept), normal, neuron, g_TBCHW, any(ctx.needs_input_grad[3:5]))
        return (gradients.y_TBCHW if ctx.needs_input_grad[0] else None, *handed_back(gradients, ctx.likes, ctx.needs_input_grad[1:5]), None, None, None)


def _compiled(way: str) -> ModuleType:
    """Imported when first used: neither numba nor Triton is loaded for nothing. Raises ImportError."""
    if way == "cpu":
        from snnseg.spiking import fused_cpu

        return fused_cpu
    from snnseg.spiking import fused_triton

    return fused_triton
