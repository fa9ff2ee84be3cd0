"""The gradient of a convolution's weight on the CPU, from values (`cpu_products`): no thread waits for another within it.

oneDNN's own multiplies the padding, and where it shares the pixels out its threads wait awake for each other, so that one that is kept from its
core holds up all of them for a time slice. Sums are float32, of one order whatever the number of threads.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from snnseg.spiking import cpu_products
from snnseg.spiking.cpu_kernels import loop, record
from snnseg.spiking.cpu_products import FEW, LANES
from snnseg.spiking.gathered_cpu import widest
from snnseg.spiking.team import STORED, together

PIXELS = 256            # of whole pictures, about, that are near a core while it goes over all taps and channels
NEAR = 2**16            # values of a picture: larger ones do not stay in the second cache, where oneDNN packs them and these loops do not
GROUPS, SMALL = 8, 2**15        # of the pictures, whose sums are made apart, where the weight has fewer values


def fits(g_NOHW: Tensor, x_NCHW: Tensor) -> bool:
    """Whether the loops know the layer and win: float32 in main memory, out-channels in whole vectors, sixteen of which the processor holds, small maps."""
    return (g_NOHW.device.type == "cpu" and g_NOHW.dtype == x_NCHW.dtype == torch.float32 and g_NOHW.shape[1] % LANES == 0
            and max(x_NCHW[0].numel(), g_NOHW[0].numel()) <= NEAR and widest() == LANES)


def of_weight(g_NOHW: Tensor, x_NCHW: Tensor, like_OIKK: Tensor, dilation: int) -> Tensor:
    """The gradient of the weight, of its shape and channels last."""
    out, channels, kernel, _ = like_OIKK.shape
    few = channels <= FEW
    x_NHWC, g_NHWO = _padded(x_NCHW, FEW if few else LANES), _padded(g_NOHW, LANES)
    if few:
        return _sums(x_NHWC, g_NHWO, kernel, -dilation, FEW, 1)[:channels].permute(3, 0, 1, 2).contiguous(memory_format=torch.channels_last)
    vectors = 1 if x_NHWC.shape[-1] % (2 * LANES) else 2
    return _sums(g_NHWO, x_NHWC, kernel, dilation, LANES // vectors, vectors)[..., :channels].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


def _padded(x_NCHW: Tensor, multiple: int) -> Tensor:
    """Channels innermost, with zeros up to a multiple."""
    x_NHWC, missing = x_NCHW.permute(0, 2, 3, 1), -x_NCHW.shape[1] % multiple
    return (F.pad(x_NHWC, (0, missing)) if missing else x_NHWC).contiguous()


def _sums(g_NHWO: Tensor, x_NHWC: Tensor, kernel: int, dilation: int, rows: int, vectors: int) -> Tensor:
    """[out, kernel, kernel, channels]."""
    (N, height, width, channels), out = x_NHWC.shape, g_NHWO.shape[-1]
    groups = min(N, GROUPS) if out * kernel * kernel * channels < SMALL else 1
    sums = torch.empty(groups, out, kernel, kernel, channels)
    work = record(STORED[torch.float32], cpu_products.NUMBERS, cpu_products.ADDRESSES)(
        pictures=N, height=height, width=width, channels=channels, out=out, kernel=kernel, dilation=dilation, groups=groups,
        block=max(1, PIXELS // (height * width)), rows=rows, vectors=vectors, x=x_NHWC.data_ptr(), g=g_NHWO.data_ptr(), sums=sums.data_ptr())
    together(loop(cpu_products.weigh, type(work)), work, g_NHWO.numel())
    return sums[0] if groups == 1 else sums.sum(0)
