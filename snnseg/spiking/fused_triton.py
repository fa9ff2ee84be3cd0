"""Norm + leaky integrate-and-fire over all time steps in Triton: the same spikes and gradients as `fused.reference`.

Forward reads y once for the statistics and once for the spikes, whose potentials never leave the registers. Backward needs
only y and [T, C] tables: it walks each tile forward again and back, and a last pass takes the gradient through the statistics.
A y or a gradient whose steps are one (an expanded view) is read where it lies. The potential before the reset, u_t, which the
walk back needs at every step, is either put in a scratch of float32 on the way forward (recompute), or found again from the
step after it (reverse): left_t-1 = (u_t - z_t) / leak and u_t = left_t + threshold * s_t. The spikes s_t are then kept as bits,
so none can flip; the surrogate's slope alone sees the error. `reverses` says which. `triton_kernels` has the kernels.

Shapes: T time steps, B pictures, C channels, H x W pixels; N = B * H * W.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from snnseg.spiking import bits, shared
from snnseg.spiking import triton_kernels as kernels
from snnseg.spiking.fused import Fired, Gradients, Normal, empty_rows, in_rows
from snnseg.spiking.integer import Integer, levels
from snnseg.spiking.neuron import LIF
from snnseg.spiking.surrogate import Arctan, Rectangle, Sigmoid, Triangle

CHANNELS = 64           # of a tile, at most: 128 bytes of bf16 in a row
SCAN = 4096, 8          # values of a tile and the warps that share them: of the statistics,
WALK = 2048, 4          # the spikes and the norm undone,
WALK_BACK = 2048, 2     # and the walk back, which sums over its tile
CHUNK = 1024            # pixels of a step whose statistics one program takes
SCRATCH_PROGRAMS = 528  # that recompute at a time: 4 for each of an H100's 132 multiprocessors
ERROR = 1e-5            # of a reversed potential, relative to the largest
INTERPRETED = not isinstance(kernels.fire_kernel, triton.JITFunction)     # on the CPU, as tests do


def reverses(neuron: LIF, timesteps: int) -> bool:
    """Whether the walk back may reverse the dynamics; otherwise potentials are recomputed.

    A step's rounding, at most 3 * 2^-24 of the largest |u|, grows by 1 / leak with every step it is carried back: reversed where
    3 * 2^-24 * (1 / leak + ... + leak^-(T-1)) <= 1e-5. That is T <= 45 with leak 0.99, 18 with 0.9 and 5 with 0.5. A hard reset
    forgets u, the bits are at most 64 and tell no integer neuron's spikes, a leak that is a tensor would have to be waited for: all recomputed.
    """
    if isinstance(neuron.leak, Tensor) or levels(neuron.spike) or not neuron.soft_reset or timesteps > 64 or not 0 < neuron.leak <= 1:
        return False
    growth, power = 0.0, 1.0
    for _ in range(1, timesteps):
        power /= neuron.leak
        growth += power
    return 3 * 2.0**-24 * growth <= ERROR


def refusal(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF) -> str | None:
    """Why this way cannot do it, in words; None if it can. Shapes of y and norm are `fused.check`'s affair."""
    if not (y_TBCHW.is_cuda or INTERPRETED):
        return f"Triton needs a GPU, y is on {y_TBCHW.device}"
    if y_TBCHW.dtype not in (torch.float32, torch.bfloat16):
        return f"y is {y_TBCHW.dtype}, not float32 or bfloat16"
    if type(neuron.spike) not in (Triangle, Arctan, Sigmoid, Rectangle, Integer):
        return f"it has no kernel for the spike function {neuron.spike!r}"
    channels = y_TBCHW.shape[2]
    for name, value in (("leak", neuron.leak), ("threshold", neuron.threshold)):
        if isinstance(value, Tensor) and (value.dim() > 3 or (value.dim() == 3 and value.shape[0] not in (1, channels))
                                          or any(size != 1 for size in value.shape[-2:])):
            return f"{name} is {list(value.shape)}, not a float or one value a channel, [{channels}, 1, 1]"
    tables = () if normal is None else (normal.gamma_TC, normal.beta_TC, normal.mean_TC, normal.var_TC)
    for table in (*tables, neuron.leak, neuron.threshold):
        if isinstance(table, Tensor) and (table.device != y_TBCHW.device or table.dtype not in (torch.float32, torch.bfloat16)):
            return f"a table or parameter is {table.dtype} on {table.device}, not float32 or bfloat16 on {y_TBCHW.device}"
    if any(table is not None and table.requires_grad for table in tables[2:]):
        return "given statistics have no gradient here"
    return None


class Kept(NamedTuple):
    """What `unwind` needs beside y, float32: z = scale * (y - centre) + beta; None without a norm, and for what is one number."""

    scale_TC: Tensor | None
    centre_TC: Tensor | None
    per_deviation_TC: Tensor | None     # [T, C] or [1, C]
    beta_C: Tensor | None
    leak_C: Tensor | None
    threshold_C: Tensor | None
    count: Tensor | None = None         # float64 []: of values that several processes' statistics are of


class _Tiles(NamedTuple):
    """How [T, N, C] is cut: tiles of `BP` pixels and `BC` channels."""

    pixels: int
    channels: int
    BP: int
    BC: int
    warps: int

    @classmethod
    def of(cls, y_TBCHW: Tensor, values: int, warps: int) -> _Tiles:
        _, batch, channels, height, width = y_TBCHW.shape
        pixels = batch * height * width
        across = min(CHANNELS, triton.next_power_of_2(channels))
        return cls(pixels, channels, min(values // across, triton.next_power_of_2(pixels)), across, warps)

    @property
    def along(self) -> int:
        return triton.cdiv(self.pixels, self.BP)

    @property
    def across(self) -> int:
        return triton.cdiv(self.channels, self.BC)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Pixels, channels, and values a step: what every kernel asks for."""
        return self.pixels, self.channels, self.pixels * self.channels

    @property
    def block(self) -> dict[str, int]:
        return {"BP": self.BP, "BC": self.BC, "num_warps": self.warps}


def _apart(x_TBCHW: Tensor) -> int:
    """Values between two steps in memory; 0 where all are one, as in an expanded view."""
    return 0 if len(x_TBCHW) > 1 and x_TBCHW.stride(0) == 0 else x_TBCHW[0].numel()


def _numbers(neuron: LIF) -> list[float]:
    """Leak and threshold for the kernels; one that is a tensor goes to them as a table, and its number is not looked at."""
    return [0.0 if isinstance(value, Tensor) else float(value) for value in neuron[:2]]


def _table(value_TC: Tensor, rows: int) -> Tensor:
    return value_TC.float().expand(rows, -1).contiguous()


def _each_channel(value: float | Tensor, channels: int) -> Tensor | None:
    """A leak or threshold that is a tensor, as float32 [C]; None for a number."""
    return value.float().expand(channels, 1, 1).flatten().contiguous() if isinstance(value, Tensor) else None


def _statistics(y_TBCHW: Tensor, per_step: bool, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, biased variance and 1 / sqrt(variance + eps) of rows y: float32 [T, C] or [1, C]; [1, C] too where all steps are one."""
    steps, tiles = len(y_TBCHW) if _apart(y_TBCHW) else 1, _Tiles.of(y_TBCHW, *SCAN)
    blocks = triton.cdiv(tiles.pixels, CHUNK)
    means, squares = y_TBCHW.new_empty(2, steps, blocks, tiles.channels, dtype=torch.float32)
    block = tiles.block | {"BP": min(tiles.BP, CHUNK)}
    kernels.statistics_kernel[blocks, steps, tiles.across](y_TBCHW, means, squares, *tiles.sizes, blocks, CHUNK=CHUNK, **block)
    groups, rows = (steps, blocks) if per_step else (1, steps * blocks)
    mean_TC, var_TC, per_deviation_TC = (means.new_empty(groups, tiles.channels) for _ in range(3))
    block["BP"] = min(block["BP"], triton.next_power_of_2(rows))
    kernels.join_kernel[groups, tiles.across](means, squares, mean_TC, var_TC, per_deviation_TC, eps, tiles.pixels, tiles.channels,
                                              blocks, rows, CHUNK=CHUNK, **block)
    return mean_TC, var_TC, per_deviation_TC


def fire(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF) -> tuple[Fired, Kept]:
    """`ways.run` without gradients, and what `unwind` needs. y lies in rows (`fused.in_rows`), and so do the spikes."""
    steps, tiles = len(y_TBCHW), _Tiles.of(y_TBCHW, *WALK)
    with torch.cuda.device_of(y_TBCHW):
        mean_TC = var_TC = scale_TC = centre_TC = per_deviation_TC = beta_C = count = None
        if normal is not None:
            if normal.mean_TC is None:
                mean_TC, var_TC, per_deviation_TC = _statistics(y_TBCHW, normal.per_step, normal.eps)
                if normal.share:
                    mean_TC, var_TC, count = shared.statistics(mean_TC, var_TC, tiles.pixels * (1 if normal.per_step else steps), normal.share)
                    per_deviation_TC = (var_TC + normal.eps).sqrt().reciprocal()
            else:
                per_deviation_TC = (normal.var_TC.float() + normal.eps).rsqrt()
            scale_TC = _table(per_deviation_TC if normal.gamma_TC is None else per_deviation_TC * normal.gamma_TC, steps)
            centre_TC = _table(normal.mean_TC if mean_TC is None else mean_TC, steps)
            beta_C = None if normal.beta_TC is None else normal.beta_TC[0].float().contiguous()
        kept = Kept(*(x if x is None else x.detach() for x in (scale_TC, centre_TC, per_deviation_TC, beta_C,
                                                                *(_each_channel(value, tiles.channels) for value in neuron[:2]), count)))
        spikes_TBCHW = empty_rows(y_TBCHW)
        packed = None
        if tiles.channels % 8 == tiles.BC % 8 == 0 and not levels(neuron.spike):
            bits.bring(spikes_TBCHW, packed := spikes_TBCHW.new_empty(spikes_TBCHW.numel() // 8, dtype=torch.uint8))
        kernels.fire_kernel[tiles.along, tiles.across](
            y_TBCHW, spikes_TBCHW, packed, kept.scale_TC, kept.centre_TC, *kept[3:6], *_numbers(neuron), steps, *tiles.sizes, _apart(y_TBCHW),
            NORM=normal is not None, SOFT=neuron.soft_reset, LEVELS=levels(neuron.spike), **tiles.block)
    if mean_TC is not None and normal.per_step:
        mean_TC, var_TC = mean_TC.expand(steps, -1), var_TC.expand(steps, -1)
    return Fired(spikes_TBCHW, mean_TC, var_TC, count), kept


def unwind(y_TBCHW: Tensor, kept: Kept, normal: Normal | None, neuron: LIF, g_TBCHW: Tensor, learned: bool, over: bool = False) -> Gradients:
    """Gradients of y (in rows), of gamma and beta [T, C], None where no table has one, and, if they are learned, leak and threshold [C].

    `over`: y's memory may be taken for its gradient.
    """
    from_batch = normal is not None and normal.mean_TC is None
    sums = from_batch or normal is not None and any(x is not None and x.requires_grad for x in normal[:2])
    reverse, g_TBCHW, grad_TBCHW = reverses(neuron, len(y_TBCHW)), in_rows(g_TBCHW), empty_rows(y_TBCHW)
    with torch.cuda.device_of(y_TBCHW):
        steps, tiles = len(y_TBCHW), _Tiles.of(y_TBCHW, *WALK_BACK)
        programs = tiles.along if reverse else min(tiles.along, max(1, SCRATCH_PROGRAMS // tiles.across))

        def scratch(*shape: int) -> Tensor:
            return y_TBCHW.new_empty(shape, dtype=torch.float32)

        history = None if reverse else scratch(tiles.across * programs, steps, tiles.BP, tiles.BC)
        of_norm_2TKC = scratch(2, steps, tiles.along, tiles.channels) if sums else None
        of_neuron_2KC = scratch(2, tiles.along, tiles.channels) if learned else None
        kernels.walk_back_kernel[programs, tiles.across](
            y_TBCHW, g_TBCHW, grad_TBCHW, kept.scale_TC, kept.centre_TC, *kept[3:6], *_numbers(neuron), neuron.spike.scale,
            history, of_norm_2TKC, of_neuron_2KC, steps, *tiles.sizes, _apart(y_TBCHW), _apart(g_TBCHW), tiles.along,
            NORM=normal is not None, RESCALE=normal is not None and not from_batch, SUMS=sums, NEURON=learned, SOFT=neuron.soft_reset,
            SURROGATE=type(neuron.spike).__name__, REVERSE=reverse, BITS=32 if steps <= 32 else 64,
            LEVELS=levels(neuron.spike), **tiles.block)
        of_gamma_TC = of_beta_TC = None
        if sums:
            of_beta_TC, of_gamma_TC = sums_2TC = of_norm_2TKC.sum(2)
            groups = 1 if from_batch and not normal.per_step else steps       # of values that have statistics of their own
            shift_TC, tilt_TC = undoing_2TC = scratch(2, groups, tiles.channels) if from_batch else (None, None)
            per_value = groups / (steps * tiles.pixels) if kept.count is None else 1.0
            kernels.settle_kernel[tiles.across, groups](
                sums_2TC, shift_TC, tilt_TC, kept.per_deviation_TC, (len(kept.per_deviation_TC) > 1) * tiles.channels,
                per_value, steps, steps // groups, tiles.channels, BATCH=from_batch, BC=tiles.BC, num_warps=1)
            if kept.count is not None:      # gamma's and beta's gradients stay this process's own
                normal.share(undoing_2TC).div_(kept.count)
        if from_batch:
            tiles, gz_TBCHW = _Tiles.of(y_TBCHW, *WALK), grad_TBCHW
            grad_TBCHW = y_TBCHW if over and _apart(y_TBCHW) else gz_TBCHW
            kernels.undo_norm_kernel[tiles.along, steps, tiles.across](
                y_TBCHW, gz_TBCHW, grad_TBCHW, kept.scale_TC, kept.centre_TC, shift_TC, tilt_TC, (groups > 1) * tiles.channels, *tiles.sizes,
                _apart(y_TBCHW), **tiles.block)
        of_leak_C, of_threshold_C = of_neuron_2KC.sum(1) if learned else (None, None)
    return Gradients(grad_TBCHW, of_gamma_TC, of_beta_TC, of_leak_C, of_threshold_C)
