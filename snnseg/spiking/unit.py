"""Convolution, norm and neuron over all time steps as one operator: spikes -> spikes, in little memory.

    x_TBCHW -> (pool) -> convolution -> y_TBCHW -> norm -> neuron -> spikes_TBCHW

Kept for the backward pass: the input's spikes as bits, y in its own dtype, and [T, C] tables; with `recompute` not even y, which the
backward pass then convolves anew. Where the input is the same at every step (direct coding, an expanded view), it is convolved once.
`snnseg.spiking.ways` says how norm and neuron are run; this operator is for the fast ways, plain PyTorch is its oracle.
"""
from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnseg.spiking import bits, convolution, ways
from snnseg.spiking.fused import Fired, Normal, in_rows
from snnseg.spiking.neuron import LIF


class Wiring(NamedTuple):
    """What stands before norm and neuron."""

    dilation: int = 1
    pooled: bool = False        # averaged 3x3, stride 2, before the convolution
    of_spikes: bool = True      # the input is 0 and 1, so that bits tell it
    recompute: bool = False     # convolve anew in the backward pass instead of keeping y


def pool(x_NCHW: Tensor) -> Tensor:
    """Average of 3x3, stride 2, padding 1 counted in: what leaves it is no longer binary."""
    return F.avg_pool2d(x_NCHW, 3, 2, 1)


def plain(x_TBCHW: Tensor, weight: Tensor, wiring: Wiring) -> Tensor:
    """y_TBCHW by torch's own operators and gradients."""
    x_NCHW = x_TBCHW.flatten(0, 1)
    y = convolution.forward(pool(x_NCHW) if wiring.pooled else x_NCHW, weight, wiring.dilation)
    return y.unflatten(0, x_TBCHW.shape[:2])


def run(x_TBCHW: Tensor, weight: Tensor, wiring: Wiring, normal: Normal | None, neuron: LIF, way: str = "auto") -> Fired:
    """Spikes of x convolved, normalised, integrated; statistics as `ways.run`, and its errors.

    Under autocast x and the weight are taken in its dtype, and so are y and the spikes.
    """
    dtype = torch.get_autocast_dtype(x_TBCHW.device.type) if torch.is_autocast_enabled(x_TBCHW.device.type) else x_TBCHW.dtype
    side = (x_TBCHW.shape[-1] + 1) // 2 if wiring.pooled else x_TBCHW.shape[-1]
    tall = (x_TBCHW.shape[-2] + 1) // 2 if wiring.pooled else x_TBCHW.shape[-2]
    likes_y = x_TBCHW.new_empty(1, dtype=dtype).expand(*x_TBCHW.shape[:2], len(weight), tall, side)
    chosen = ways.choose(likes_y, normal, neuron, way)
    if chosen is None:
        return ways.run(plain(x_TBCHW, weight, wiring), normal, neuron, "reference")
    return Fired(*_Unit.apply(x_TBCHW, weight, *ways.leaves(normal, neuron), wiring, normal, neuron, chosen, dtype))


def _once(x_TBCHW: Tensor) -> bool:
    """Whether all steps are one place in memory, as in the view that direct coding gives."""
    return len(x_TBCHW) > 1 and x_TBCHW.stride(0) == 0


def _currents(x_TBCHW: Tensor, weight: Tensor, wiring: Wiring) -> tuple[Tensor, Tensor]:
    """y_TBCHW in rows, and what was convolved: x_NCHW of all steps, or of one where they are the same."""
    once = _once(x_TBCHW)
    x_NCHW = (x_TBCHW[:1] if once else x_TBCHW).flatten(0, 1)
    if wiring.pooled:
        x_NCHW = pool(x_NCHW)
    y_NCHW = convolution.forward(x_NCHW, weight.to(x_NCHW.dtype), wiring.dilation)
    y_TBCHW = in_rows(y_NCHW.unflatten(0, (1 if once else len(x_TBCHW), x_TBCHW.shape[1])))
    return y_TBCHW.expand(len(x_TBCHW), *y_TBCHW.shape[1:]), x_NCHW


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x_TBCHW, weight, gamma_TC, beta_TC, leak, threshold, wiring: Wiring, normal: Normal | None, neuron: LIF, way: ModuleType, dtype):
        with torch.autocast(x_TBCHW.device.type, enabled=False):
            x_TBCHW = in_rows(x_TBCHW.to(dtype))
            y_TBCHW, _ = _currents(x_TBCHW, weight, wiring)
            fired, kept = way.fire(y_TBCHW, normal, neuron)
            packed = bits.pack(x_TBCHW[:1] if _once(x_TBCHW) else x_TBCHW) if wiring.of_spikes else None
        ctx.save_for_backward(x_TBCHW if packed is None else packed.bits, weight, None if wiring.recompute else y_TBCHW, *kept)
        ctx.packed, ctx.shape = packed and packed._replace(bits=None), x_TBCHW.shape
        ctx.kept, ctx.how, ctx.likes = type(kept), (wiring, normal, neuron, way), (gamma_TC, beta_TC, leak, threshold)
        if fired.mean_TC is not None:
            ctx.mark_non_differentiable(fired.mean_TC, fired.var_TC)
        return tuple(fired)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_TBCHW, *_):
        x, weight, y_TBCHW, *kept = ctx.saved_tensors
        wiring, normal, neuron, way = ctx.how
        x_TBCHW = x if ctx.packed is None else bits.unpack(ctx.packed._replace(bits=x)).expand(ctx.shape)
        once = _once(x_TBCHW)
        if y_TBCHW is None:
            y_TBCHW, x_NCHW = _currents(x_TBCHW, weight, wiring)
        else:
            x_NCHW = (x_TBCHW[:1] if once else x_TBCHW).flatten(0, 1)
            x_NCHW = pool(x_NCHW) if wiring.pooled else x_NCHW
        gradients = way.unwind(y_TBCHW, ctx.kept(*kept), normal, neuron, g_TBCHW, any(ctx.needs_input_grad[4:6]))
        gy_NCHW = in_rows(gradients.y_TBCHW).permute(0, 1, 3, 4, 2).sum(0).permute(0, 3, 1, 2) if once else gradients.y_TBCHW.flatten(0, 1)
        del y_TBCHW
        gx, gw = convolution.backward(gy_NCHW, x_NCHW, weight.to(x_NCHW.dtype), wiring.dilation, ctx.needs_input_grad[0])
        if gx is not None:
            if wiring.pooled:
                gx = torch.ops.aten.avg_pool2d_backward(gx, (x_TBCHW[:1] if once else x_TBCHW).flatten(0, 1), [3, 3], [2, 2], [1, 1], False, True, None)
            gx = gx.unflatten(0, (-1, x_TBCHW.shape[1]))
            gx = gx.expand(x_TBCHW.shape) / len(x_TBCHW) if once else gx     # the view that made x one at all steps adds them up again
        return (gx, gw.to(weight.dtype), *ways.handed_back(gradients._replace(y_TBCHW=None), ctx.likes, ctx.needs_input_grad[2:6]), *[None] * 5)


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
        gx, gw = convolution.backward(g_NOHW, x_TBCHW.flatten(0, 1), weight.to(g_NOHW.dtype), 1, ctx.needs_input_grad[0])
        of_bias = g_NOHW.sum((0, 2, 3), dtype=torch.float32).to(weight.dtype) if ctx.needs_input_grad[2] else None
        return None if gx is None else gx.unflatten(0, x_TBCHW.shape[:2]), gw.to(weight.dtype), of_bias
