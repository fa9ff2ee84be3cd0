"""How many products a layer makes: those of whose factors, input and weight, neither is zero.

An input that is not zero makes as many products as non-zero weights meet it on the map: its fan-out, in which padding,
dilation, stride and transposition are counted in. So

    products = sum over inputs of [x != 0] * fan-out(input)

which is what running the layer with ones in place of all that is not zero adds up to (NeuroBench's effective synaptic
operations), at the price of a scalar product. Counts are whole numbers in float64, exact below 2^53.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snnseg.spiking import pooling

POOL = 9        # pixels of the average pool's window


def _slope(answer: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Of a linear map's summed answer, by each of its inputs [C, H, W]: what weight an input has in it."""
    with torch.enable_grad():
        x_1CHW = torch.zeros(1, *shape, dtype=torch.float64, device=device, requires_grad=True)
        (slope_1CHW,) = torch.autograd.grad(answer(x_1CHW).sum(), x_1CHW)
    return slope_1CHW[0]


def of_convolution(conv: nn.Conv2d | nn.ConvTranspose2d, height: int, width: int) -> Tensor:
    """Fan-out float64 [C, H, W] of the inputs of a convolution or a transposed one. Raises ValueError for one of groups."""
    if conv.groups != 1:
        raise ValueError(f"a convolution of one group is counted, not of {conv.groups}")
    there = (conv.weight != 0).double()
    if isinstance(conv, nn.ConvTranspose2d):
        of_all_IO = there.sum(1, keepdim=True)      # all outputs of a tap as one output: only their number matters

        def answer(x: Tensor) -> Tensor:
            return F.conv_transpose2d(x, of_all_IO, None, conv.stride, conv.padding, conv.output_padding, 1, conv.dilation)
    else:
        of_all_OI = there.sum(0, keepdim=True)

        def answer(x: Tensor) -> Tensor:
            return F.conv2d(x, of_all_OI, None, conv.stride, conv.padding, conv.dilation)

    return _slope(answer, (conv.in_channels, height, width), conv.weight.device).round()


def of_pool(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Windows of the average pool that hold a pixel: float64 [1, H, W], of any channel."""
    return (POOL * _slope(pooling.plain, (1, height, width), torch.device(device))).round()


def taps(side: int, to_side: int) -> Tensor:
    """How many outputs of a bilinear resizing of one side, corners aligned, have each input in them: float64 [side].

    Output i lies at i (side - 1) / (to_side - 1): on an input, or between two. In whole numbers, as floats would put some of
    those that lie on an input beside it.
    """
    met = torch.zeros(side, dtype=torch.float64)
    for i in range(to_side):
        at, beyond = divmod(i * (side - 1), max(1, to_side - 1))
        met[at] += 1
        if beyond:
            met[at + 1] += 1
    return met


def of_resizing(height: int, width: int, to_height: int, to_width: int, device: torch.device | str = "cpu") -> Tensor:
    """Fan-out float64 [1, H, W] of the inputs of a bilinear resizing, corners aligned: outputs in which an input has a weight."""
    return torch.outer(taps(height, to_height), taps(width, to_width)).to(device)[None]


def active(x_BCHW: Tensor, levels: int = 1) -> Tensor:
    """Pictures in which an input is not zero: int64 [C, H, W]. Of spikes 0 to `levels`, sub-steps at which it is 1."""
    return (x_BCHW != 0).sum(0) if levels == 1 else x_BCHW.long().sum(0)


def products(active_CHW: Tensor, fan_out_CHW: Tensor) -> Tensor:
    """Products of all pictures, a whole number as float64."""
    return (active_CHW * fan_out_CHW).sum()
