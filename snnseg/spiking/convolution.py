"""A 3x3 or 1x1 convolution forward and backward, as plain functions of tensors [N, C, H, W], channels last.

A convolution that is dilated so far that most of its taps lie outside the map (12 on a map of 16 x 16: 2.25 of 9 taps meet it)
has its backward pass as matrix products over the positions that lie inside; oneDNN and cuDNN multiply the padding as well.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WORTH = 0.5         # share of multiplications inside the map below which products win (python -m benchmarks.scan --dilated)


def inside(height: int, width: int, kernel: int, dilation: int) -> float:
    """Share of a convolution's multiplications that meet the map and not its padding."""
    def share(n: int) -> float:
        return sum(max(0, n - abs(k - kernel // 2) * dilation) for k in range(kernel)) / (kernel * n)

    return share(height) * share(width)


def forward(x_NCHW: Tensor, weight_OIKK: Tensor, dilation: int) -> Tensor:
    """Same height and width, no bias."""
    return F.conv2d(x_NCHW, weight_OIKK, padding=dilation * (weight_OIKK.shape[-1] // 2), dilation=dilation)


def backward(g_NOHW: Tensor, x_NCHW: Tensor, weight_OIKK: Tensor, dilation: int, of_x: bool) -> tuple[Tensor | None, Tensor]:
    """Gradients of x (None if it is not asked for) and of the weight."""
    kernel = weight_OIKK.shape[-1]
    if inside(*x_NCHW.shape[-2:], kernel, dilation) < WORTH:
        return backward_inside(g_NOHW, x_NCHW, weight_OIKK, dilation, of_x)
    padding = dilation * (kernel // 2)
    return torch.ops.aten.convolution_backward(g_NOHW, x_NCHW, weight_OIKK, None, [1, 1], [padding] * 2, [dilation] * 2, False, [0, 0], 1,
                                               [of_x, True, False])[:2]


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
