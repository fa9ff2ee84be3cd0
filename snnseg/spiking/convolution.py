"""A 3x3 or 1x1 convolution forward and backward, as plain functions of tensors [N, C, H, W], channels last.

A convolution that is dilated so far that most of its taps lie outside the map (12 on a map of 16 x 16: 2.25 of 9 taps meet it)
is taken apart into 1x1 convolutions over the positions that lie inside: oneDNN's backward pass multiplies the padding as well, and
cuDNN has no fast kernel for it at all (of a step of Spiking-DeepLab in bf16, 211 of 225 ms on an H100). On a GPU `dilated_triton` does
the same without copies, where it knows the layer.
"""
from __future__ import annotations

from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

WORTH = 0.5         # share of multiplications inside the map below which products win


def inside(height: int, width: int, kernel: int, dilation: int) -> float:
    """Share of a convolution's multiplications that meet the map and not its padding."""
    def share(n: int) -> float:
        return sum(max(0, n - abs(k - kernel // 2) * dilation) for k in range(kernel)) / (kernel * n)

    return share(height) * share(width)


def _kernels(x_NCHW: Tensor, weight_OIKK: Tensor, dilation: int) -> ModuleType | None:
    """On a GPU, kernels that know the layer; they have no gradient of torch's, and no part in autocast."""
    if not x_NCHW.is_cuda or x_NCHW.dtype != weight_OIKK.dtype or torch.is_grad_enabled() or torch.is_autocast_enabled("cuda"):
        return None
    try:
        from snnseg.spiking import dilated_triton
    except ImportError:
        return None
    return dilated_triton if dilated_triton.takes(x_NCHW, weight_OIKK, dilation) else None


def _loops(g_NOHW: Tensor, x_NCHW: Tensor) -> ModuleType | None:
    """On a CPU, loops for the gradient of the weight, where they know the layer."""
    if g_NOHW.device.type != "cpu":
        return None
    try:
        from snnseg.spiking import products_cpu
    except ImportError:
        return None
    return products_cpu if products_cpu.fits(g_NOHW, x_NCHW) else None


def forward(x_NCHW: Tensor, weight_OIKK: Tensor, dilation: int) -> Tensor:
    """Same height and width, no bias."""
    kernel = weight_OIKK.shape[-1]
    if x_NCHW.is_cuda and inside(*x_NCHW.shape[-2:], kernel, dilation) < WORTH:
        kernels = _kernels(x_NCHW, weight_OIKK, dilation)
        return kernels.forward(x_NCHW, weight_OIKK, dilation) if kernels else forward_inside(x_NCHW, weight_OIKK, dilation)
    return F.conv2d(x_NCHW, weight_OIKK, padding=dilation * (kernel // 2), dilation=dilation)


def runs(size: int, kernel: int, dilation: int) -> list[tuple[slice, list[tuple[int, slice]]]]:
    """Stretches of positions that meet the same taps, with each tap's number and the stretch that it meets."""
    met = [[k for k in range(kernel) if 0 <= p + (k - kernel // 2) * dilation < size] for p in range(size)]
    edges = [p for p in range(size) if p == 0 or met[p] != met[p - 1]] + [size]
    return [(slice(a, b), [(k, slice(a + (k - kernel // 2) * dilation, b + (k - kernel // 2) * dilation)) for k in met[a]])
            for a, b in zip(edges, edges[1:], strict=False)]


def forward_inside(x_NCHW: Tensor, weight_OIKK: Tensor, dilation: int) -> Tensor:
    """`forward` as one 1x1 convolution for each part of the map whose positions meet the same taps, these side by side as channels."""
    kernel = weight_OIKK.shape[-1]
    N, _, H, W = x_NCHW.shape
    device = x_NCHW.device
    dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else x_NCHW.dtype
    y_NOHW = torch.empty(N, len(weight_OIKK), H, W, dtype=dtype, device=device, memory_format=torch.channels_last)
    for rows, down in runs(H, kernel, dilation):
        for columns, right in runs(W, kernel, dilation):
            x = torch.cat([x_NCHW[:, :, of, to] for _, of in down for _, to in right], 1)
            w = torch.cat([weight_OIKK[:, :, i:i + 1, j:j + 1] for i, _ in down for j, _ in right], 1)
            y_NOHW[:, :, rows, columns] = F.conv2d(x, w)
    return y_NOHW


def backward(g_NOHW: Tensor, x_NCHW: Tensor, weight_OIKK: Tensor, dilation: int, of_x: bool) -> tuple[Tensor | None, Tensor]:
    """Gradients of x (None if it is not asked for) and of the weight."""
    kernel = weight_OIKK.shape[-1]
    if loops := _loops(g_NOHW, x_NCHW):
        return backward_to_x(g_NOHW, weight_OIKK, dilation) if of_x else None, loops.of_weight(g_NOHW, x_NCHW, weight_OIKK, dilation)
    if inside(*x_NCHW.shape[-2:], kernel, dilation) < WORTH:
        kernels = _kernels(x_NCHW, weight_OIKK, dilation)
        if kernels:
            return kernels.backward(g_NOHW, x_NCHW, weight_OIKK, dilation, of_x)
        return backward_inside(g_NOHW, x_NCHW, weight_OIKK, dilation, of_x)
    padding = dilation * (kernel // 2)
    return torch.ops.aten.convolution_backward(g_NOHW, x_NCHW, weight_OIKK, None, [1, 1], [padding] * 2, [dilation] * 2, False, [0, 0], 1,
                                               [of_x, True, False])[:2]


def backward_to_x(g_NOHW: Tensor, weight_OIKK: Tensor, dilation: int) -> Tensor:
    """The gradient of x alone."""
    return F.conv_transpose2d(g_NOHW, weight_OIKK, padding=dilation * (weight_OIKK.shape[-1] // 2), dilation=dilation)


def backward_inside(g_NOHW: Tensor, x_NCHW: Tensor, weight_OIKK: Tensor, dilation: int, of_x: bool) -> tuple[Tensor | None, Tensor]:
    """`backward` tap by tap, each a 1x1 convolution over the positions that it meets (on a CPU twice as fast as torch's matrix product)."""
    kernel, (H, W) = weight_OIKK.shape[-1], x_NCHW.shape[-2:]
    gx_NCHW = torch.zeros_like(x_NCHW, memory_format=torch.channels_last) if of_x else None
    gw_OKKI = weight_OIKK.new_zeros(len(weight_OIKK), kernel, kernel, weight_OIKK.shape[1])
    for i in range(kernel):
        for j in range(kernel):
            down, right = (i - kernel // 2) * dilation, (j - kernel // 2) * dilation
            if abs(down) >= H or abs(right) >= W:
                continue
            to = (..., slice(max(0, -down), H - max(0, down)), slice(max(0, -right), W - max(0, right)))
            of = (..., slice(max(0, down), H - max(0, -down)), slice(max(0, right), W - max(0, -right)))
            g, x = (part.contiguous(memory_format=torch.channels_last) for part in (g_NOHW[to], x_NCHW[of]))
            gx, gw = torch.ops.aten.convolution_backward(g, x, weight_OIKK[:, :, i:i + 1, j:j + 1], None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1,
                                                         [of_x, True, False])[:2]
            gw_OKKI[:, i, j] = gw[:, :, 0, 0]
            if gx_NCHW is not None:
                gx_NCHW[of] += gx
    return gx_NCHW, gw_OKKI.permute(0, 3, 1, 2)
