"""Convolution, norm and neuron over all time steps as one operator: spikes -> spikes, in little memory.

    x_TBCHW -> (pool) -> convolution -> y_TBCHW -> norm -> neuron -> spikes_TBCHW

Kept for the backward pass: the input's spikes as bits, y in its own dtype, and [T, C] tables; with `recompute` not even y, which the
backward pass then convolves anew. Where the input is the same at every step (direct coding, an expanded view), it is convolved once.
An input that is drawn (`encode.Rate`) or gathered (`encode.Frames`) is made stretch by stretch, in both passes, and never whole.
`snnseg.spiking.ways` says how norm and neuron are run; this operator is for the fast ways, plain PyTorch is its oracle.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnseg.spiking import bits, convolution, counter, fused, pooling, readout, ways
from snnseg.spiking.bits import Packed
from snnseg.spiking.encode import Coded, Constant, whole
from snnseg.spiking.fused import Fired, Normal, empty_rows, in_rows
from snnseg.spiking.integer import expand
from snnseg.spiking.neuron import LIF

STRETCH = 2**22     # values of a coded input that are made at a time, about: 16 MiB;
ON_GPU = 2**24      # there more: currents of several stretches are put together by a copy, and are many times as large


class Wiring(NamedTuple):
    """What stands before norm and neuron."""

    dilation: int = 1
    pooled: bool = False        # averaged 3x3, stride 2, before the convolution
    of_spikes: bool = True      # the input is 0 and 1, so that bits tell it
    recompute: bool = False     # convolve anew in the backward pass instead of keeping y
    substeps: int = 1           # of a step whose spikes are 0 to so many: convolved one by one as 0 and 1, and added up, plainly


def plain(x_TBCHW: Tensor, weight: Tensor, wiring: Wiring) -> Tensor:
    """y_TBCHW by torch's own operators and gradients."""
    if wiring.substeps > 1:
        return in_substeps(lambda s_TBCHW: plain(s_TBCHW, weight, wiring._replace(substeps=1)), x_TBCHW, wiring.substeps)
    x_NCHW = x_TBCHW.flatten(0, 1)
    y = convolution.forward(pooling.plain(x_NCHW) if wiring.pooled else x_NCHW, weight, wiring.dilation)
    return y.unflatten(0, x_TBCHW.shape[:2])


def in_substeps(linear: Callable[[Tensor], Tensor], k_TBCHW: Tensor, levels: int) -> Tensor:
    """What is linear at each step of integer spikes, given 0 and 1 alone: its answers to a step's sub-steps added up."""
    return linear(expand(k_TBCHW, levels)).unflatten(0, (-1, levels)).sum(1)


def run(x: Tensor | Coded, weight: Tensor, wiring: Wiring, normal: Normal | None, neuron: LIF, way: str = "auto") -> Fired:
    """Spikes of x_TBCHW convolved, normalised, integrated; statistics as `ways.run`, and its errors.

    Under autocast x and the weight are taken in its dtype, and so are y and the spikes. No gradient reaches a coded input.
    """
    T, B, _, height, width = x.shape
    if wiring.pooled:
        height, width = (height + 1) // 2, (width + 1) // 2
    device = weight.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype if isinstance(x, Tensor) else weight.dtype
    likes_y = weight.new_empty(1, dtype=dtype).expand(T, B, len(weight), height, width)
    fused.check(likes_y, normal)
    chosen = ways.choose(likes_y, normal, neuron, way)
    if chosen is None or wiring.substeps > 1:
        return ways.run(plain(whole(x), weight, wiring), normal, neuron, "reference" if chosen is None else way)
    if neuron.levels > 1:       # bits do not tell them
        wiring = wiring._replace(of_spikes=False)
    if isinstance(x, Constant) or wiring.pooled:
        x = whole(x)
    if not torch.is_grad_enabled():
        with torch.autocast(device, enabled=False):
            return _forward(x, weight, wiring, normal, neuron, chosen, dtype)[2]
    return Fired(*_Unit.apply(x, weight, *ways.leaves(normal, neuron), wiring, normal, neuron, chosen, dtype))


def _once(x_TBCHW: Tensor) -> bool:
    """Whether all steps are one place in memory, as in the view that direct coding gives."""
    return len(x_TBCHW) > 1 and x_TBCHW.stride(0) == 0


def _convolved(x: Tensor | Packed, wiring: Wiring) -> Tensor:
    """What the convolution sees, x_NCHW: of x_TBCHW or its packed spikes all steps, or one where they are the same."""
    if isinstance(x, Packed):
        return pooling.of_bits(x) if wiring.pooled else bits.unpack(x).flatten(0, 1)
    x_NCHW = (x[:1] if _once(x) else x).flatten(0, 1)
    return pooling.forward(x_NCHW) if wiring.pooled else x_NCHW


def _gathering(x: Packed | None, weight: Tensor, wiring: Wiring) -> ModuleType | None:
    """The loops that look spikes up or go from one to the next, where they know the layer and win."""
    if x is None or wiring.pooled or x.bits.device.type != "cpu":
        return None
    try:
        from snnseg.spiking import gathered_cpu, looked_up_cpu
    except ImportError:
        return None
    return next((loops for loops in (looked_up_cpu, gathered_cpu) if loops.wins(x, weight)), None)


def _currents(x: Tensor | Packed, weight: Tensor, wiring: Wiring, steps: int, pictures: int) -> Tensor:
    """y_TBCHW in rows, an expanded view where x is of one step: x_NCHW, or spikes that `_gathering` takes."""
    if isinstance(x, Packed):
        y_NCHW = _gathering(x, weight, wiring).forward(x, weight, wiring.dilation)
    else:
        y_NCHW = convolution.forward(x, weight.to(x.dtype), wiring.dilation)
    y_TBCHW = in_rows(y_NCHW.unflatten(0, (-1, pictures)))
    return y_TBCHW.expand(steps, *y_TBCHW.shape[1:])


def _stretches(x: Coded, dtype: torch.dtype, on_gpu: bool) -> Iterator[tuple[slice, Tensor]]:
    """Stretches of a coded input's steps, and x_TBCHW of each, in rows."""
    T, *rest = x.shape
    steps = max(1, (ON_GPU if on_gpu else STRETCH) // math.prod(rest) // counter.STEPS) * counter.STEPS
    for first in range(0, T, steps):
        part = slice(first, min(first + steps, T))
        yield part, in_rows(x.steps(part.start, part.stop).to(dtype))


def _coded_currents(x: Coded, weight: Tensor, wiring: Wiring, dtype: torch.dtype) -> Tensor:
    """`_currents` of a coded input."""
    T, B = x.shape[:2]
    y_TBCHW = None
    for part, x_TBCHW in _stretches(x, dtype, weight.is_cuda):
        y = _currents(x_TBCHW.flatten(0, 1), weight, wiring, len(x_TBCHW), B)
        if len(y) == T:
            return y
        if y_TBCHW is None:
            y_TBCHW = empty_rows(y[:1].expand(T, *y.shape[1:]))
        y_TBCHW[part] = y
    return y_TBCHW


def _forward(x: Tensor | Coded, weight: Tensor, wiring: Wiring, normal: Normal | None, neuron: LIF, way: ModuleType,
             dtype: torch.dtype) -> tuple[Tensor | Packed | Coded, Tensor, Fired, NamedTuple]:
    """x as it is kept, y, what comes out, and what the way keeps of it."""
    if isinstance(x, Tensor):
        taken = x = in_rows(x[:1].to(dtype).expand_as(x) if _once(x) else x.to(dtype))
        if wiring.of_spikes:
            taken = bits.pack(x[:1] if _once(x) else x)
        packed = taken if wiring.of_spikes else None
        seen = packed if _gathering(packed, weight, wiring) else _convolved(packed if wiring.pooled and packed else x, wiring)
        y_TBCHW = _currents(seen, weight, wiring, *x.shape[:2])
    else:
        taken, y_TBCHW = x, _coded_currents(x, weight, wiring, dtype)
    return taken, y_TBCHW, *way.fire(y_TBCHW, normal, neuron)


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, gamma_TC, beta_TC, leak, threshold, wiring: Wiring, normal: Normal | None, neuron: LIF, way: ModuleType, dtype):
        ctx.shape, ctx.packed, ctx.coded, ctx.once = x.shape, None, None, isinstance(x, Tensor) and _once(x)
        with torch.autocast(weight.device.type, enabled=False):
            kept_x, y_TBCHW, fired, kept = _forward(x, weight, wiring, normal, neuron, way, dtype)
            if isinstance(kept_x, Packed):
                kept_x, ctx.packed = kept_x.bits, kept_x._replace(bits=None)
            elif not isinstance(kept_x, Tensor):
                ctx.coded, kept_x = kept_x, None
        ctx.save_for_backward(kept_x, weight, None if wiring.recompute else y_TBCHW, *kept)
        ctx.kept, ctx.how, ctx.likes = type(kept), (wiring, normal, neuron, way, dtype), (gamma_TC, beta_TC, leak, threshold)
        if fired.mean_TC is not None:
            ctx.mark_non_differentiable(*(x for x in fired[1:] if x is not None))
        return tuple(fired)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_TBCHW, *_):
        x, weight, y_TBCHW, *kept = ctx.saved_tensors
        wiring, normal, neuron, way, dtype = ctx.how
        T, B, _, height, width = ctx.shape
        packed = ctx.packed._replace(bits=x) if ctx.packed else None
        gathering = _gathering(packed, weight, wiring)
        seen = packed if gathering else None        # else made where it is needed first: it is as large as y
        if y_TBCHW is None:
            seen = None if ctx.coded else seen or _convolved(packed or x, wiring)
            y_TBCHW = _coded_currents(ctx.coded, weight, wiring, dtype) if ctx.coded else _currents(seen, weight, wiring, T, B)
        gradients = way.unwind(y_TBCHW, ctx.kept(*kept), normal, neuron, g_TBCHW, any(ctx.needs_input_grad[4:6]), over=True)
        torch.autograd.graph.increment_version(y_TBCHW)     # a second walk back through this graph is then an error of torch's
        of_norm_and_neuron = ways.handed_back(gradients._replace(y_TBCHW=None), ctx.likes, ctx.needs_input_grad[2:6])
        gy_TBCHW, w, gx = gradients.y_TBCHW, weight.to(dtype), None
        del y_TBCHW, gradients
        if ctx.coded:
            gw = sum(convolution.backward(gy_TBCHW[part].flatten(0, 1), x_TBCHW.flatten(0, 1), w, wiring.dilation, False)[1]
                     for part, x_TBCHW in _stretches(ctx.coded, dtype, weight.is_cuda))
        else:
            gy_NCHW = in_rows(gy_TBCHW).permute(0, 1, 3, 4, 2).sum(0).permute(0, 3, 1, 2) if ctx.once else gy_TBCHW.flatten(0, 1)
            del gy_TBCHW
            if gathering:
                gw = gathering.of_weight(packed, gy_NCHW, weight, wiring.dilation)
                gx = convolution.backward_to_x(gy_NCHW, w, wiring.dilation) if ctx.needs_input_grad[0] else None
            else:
                seen = _convolved(packed or x, wiring) if seen is None else seen
                if gy_NCHW.is_cuda or convolution.inside(*gy_NCHW.shape[-2:], w.shape[-1], wiring.dilation) < convolution.WORTH:
                    gx, gw = convolution.backward(gy_NCHW, seen, w, wiring.dilation, ctx.needs_input_grad[0])
                else:       # one after the other, so that x and its gradient are not there at a time
                    gw, seen = convolution.backward(gy_NCHW, seen, w, wiring.dilation, False)[1], None
                    gx = convolution.backward_to_x(gy_NCHW, w, wiring.dilation) if ctx.needs_input_grad[0] else None
        if gx is not None:
            gx = (pooling.backward(gx, height, width) if wiring.pooled else gx).unflatten(0, (-1, B))
            gx = gx.expand(ctx.shape) / T if ctx.once else gx       # the view that made x one at all steps adds them up again
        return (gx, gw.to(weight.dtype), *of_norm_and_neuron, *[None] * 5)


class _Analog(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_NCHW, weight, wiring: Wiring, dtype: torch.dtype):
        ctx.wiring, ctx.size, ctx.dtype = wiring, x_NCHW.shape[-2:], x_NCHW.dtype
        with torch.autocast(x_NCHW.device.type, enabled=False):
            x_NCHW = x_NCHW.contiguous(memory_format=torch.channels_last)
            seen = (pooling.forward(x_NCHW) if wiring.pooled else x_NCHW).to(dtype)
            ctx.save_for_backward(seen, weight)
            return convolution.forward(seen, weight.to(dtype), wiring.dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_NOHW):
        seen, weight = ctx.saved_tensors
        g_NOHW = g_NOHW.contiguous(memory_format=torch.channels_last)
        gx, gw = convolution.backward(g_NOHW, seen, weight.to(seen.dtype), ctx.wiring.dilation, ctx.needs_input_grad[0])
        if gx is not None:
            gx = gx.to(ctx.dtype)
            gx = pooling.backward(gx, *ctx.size) if ctx.wiring.pooled else gx
        return gx, gw.to(weight.dtype), None, None


def analog(x_TBCHW: Tensor, weight: Tensor, wiring: Wiring) -> Tensor:
    """`plain` with this room's pool and dilated convolution, for what is no spikes. Under autocast the convolution alone is in its dtype."""
    device = x_TBCHW.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_TBCHW.dtype
    return _Analog.apply(x_TBCHW.flatten(0, 1), weight, wiring, dtype).unflatten(0, x_TBCHW.shape[:2])


def _even(g_NOHW: Tensor, x_NCHW: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """With zeros up to a multiple of eight classes on a GPU, whose tensor cores take others, 21 say, ten times as slowly."""
    missing = -len(weight) % 8 if g_NOHW.is_cuda else 0
    if not missing:
        return g_NOHW, x_NCHW, weight
    g_NHWO = F.pad(g_NOHW.permute(0, 2, 3, 1), (0, missing))
    return g_NHWO.permute(0, 3, 1, 2), x_NCHW, F.pad(weight, (0, 0, 0, 0, 0, 0, 0, missing))


class Tap(torch.autograd.Function):
    """x_TBCHW of spikes, weight, bias or None -> a convolution without norm or neuron, [T, B, O, H, W]; x is kept as bits."""

    @staticmethod
    def forward(ctx, x_TBCHW, weight, bias):
        x_TBCHW, packed = in_rows(x_TBCHW), bits.pack(in_rows(x_TBCHW))
        ctx.save_for_backward(packed.bits, weight)
        ctx.packed = packed._replace(bits=None)
        with torch.autocast(x_TBCHW.device.type, enabled=False):
            y = convolution.forward(x_TBCHW.flatten(0, 1), weight.to(x_TBCHW.dtype), 1)
            y = y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1)
        return y.unflatten(0, x_TBCHW.shape[:2])

    @staticmethod
    @once_differentiable
    def backward(ctx, g_TBOHW):
        packed, weight = ctx.saved_tensors
        x_TBCHW, g_NOHW = bits.unpack(ctx.packed._replace(bits=packed)), g_TBOHW.flatten(0, 1)
        x_NCHW, w = x_TBCHW.flatten(0, 1), weight.to(g_NOHW.dtype)
        if w.shape[-1] == 1 and not g_NOHW.is_cuda:
            gx, gw = readout.pointwise_backward(g_NOHW, x_NCHW, w, ctx.needs_input_grad[0])
        else:
            gx, gw = convolution.backward(*_even(g_NOHW, x_NCHW, w), 1, ctx.needs_input_grad[0])
            gw = gw[:len(weight)]
        of_bias = g_NOHW.sum((0, 2, 3), dtype=torch.float32).to(weight.dtype) if ctx.needs_input_grad[2] else None
        return None if gx is None else gx.unflatten(0, x_TBCHW.shape[:2]), gw.to(weight.dtype), of_bias
