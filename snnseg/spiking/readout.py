"""What brings features to scores: 1x1 convolutions and transposed ones of few channels, with their gradients as matrix products on a CPU.

The forward pass is torch's own. Of a weight with two classes oneDNN's gradient is a moment's work, but its threads wait awake for
each other in it: where one of them has to share its core, each such gradient takes a time slice of the other's, 4 ms.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def linear(conv: nn.Conv2d | nn.ConvTranspose2d, x_NCHW: Tensor) -> Tensor:
    """conv(x_NCHW) of a 1x1 convolution or a transposed one without padding; on a GPU and under autocast torch's own in all."""
    if x_NCHW.is_cuda or torch.is_autocast_enabled(x_NCHW.device.type) or not torch.is_grad_enabled():
        return conv(x_NCHW)
    if isinstance(conv, nn.ConvTranspose2d):
        return Transposed.apply(x_NCHW, conv.weight, conv.stride[0])
    return Pointwise.apply(x_NCHW, conv.weight, conv.bias)


def in_pixels(x_NCHW: Tensor) -> Tensor:
    """[N * H * W, C], a view where channels are innermost."""
    return x_NCHW.permute(0, 2, 3, 1).reshape(-1, x_NCHW.shape[1])


def pointwise_backward(g_NOHW: Tensor, x_NCHW: Tensor, weight_OI11: Tensor, of_x: bool) -> tuple[Tensor | None, Tensor]:
    """Gradients of x (None if it is not asked for) and of the weight, channels last."""
    g_PO, (N, _, H, W) = in_pixels(g_NOHW), g_NOHW.shape
    gx_NCHW = (g_PO @ weight_OI11.flatten(1)).view(N, H, W, -1).permute(0, 3, 1, 2) if of_x else None
    return gx_NCHW, (g_PO.t() @ in_pixels(x_NCHW)).view(weight_OI11.shape)


def transposed_backward(g_NOHW: Tensor, x_NCHW: Tensor, weight_IOKK: Tensor, stride: int, of_x: bool) -> tuple[Tensor | None, Tensor]:
    """Likewise of a transposed convolution without padding: each pixel of x meets a window of g."""
    inputs, outs, kernel, _ = weight_IOKK.shape
    N, _, H, W = x_NCHW.shape
    g_NHWO = g_NOHW.permute(0, 2, 3, 1).contiguous()
    picture, row, pixel, _ = g_NHWO.stride()
    g_PV = g_NHWO.as_strided((N, H, W, kernel, kernel, outs), (picture, stride * row, stride * pixel, row, pixel, 1)).reshape(N * H * W, -1)
    weight_IV = weight_IOKK.permute(0, 2, 3, 1).reshape(inputs, -1)
    gx_NCHW = (g_PV @ weight_IV.t()).view(N, H, W, inputs).permute(0, 3, 1, 2) if of_x else None
    return gx_NCHW, (in_pixels(x_NCHW).t() @ g_PV).view(inputs, kernel, kernel, outs).permute(0, 3, 1, 2)


class Pointwise(torch.autograd.Function):
    """x_NCHW, weight [O, C, 1, 1], bias [O] or None -> [N, O, H, W]."""

    @staticmethod
    def forward(ctx, x_NCHW, weight, bias):
        ctx.save_for_backward(x_NCHW, weight)
        return F.conv2d(x_NCHW, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_NOHW):
        gx, gw = pointwise_backward(g_NOHW, *ctx.saved_tensors, ctx.needs_input_grad[0])
        return gx, gw, in_pixels(g_NOHW).sum(0) if ctx.needs_input_grad[2] else None


class Transposed(torch.autograd.Function):
    """x_NCHW, weight [C, O, K, K], stride -> [N, O, (H - 1) * stride + K, ...]."""

    @staticmethod
    def forward(ctx, x_NCHW, weight, stride: int):
        ctx.stride = stride
        ctx.save_for_backward(x_NCHW, weight)
        return F.conv_transpose2d(x_NCHW, weight, stride=stride)

    @staticmethod
    @once_differentiable
    def backward(ctx, g_NOHW):
        return *transposed_backward(g_NOHW, *ctx.saved_tensors, ctx.stride, ctx.needs_input_grad[0]), None
