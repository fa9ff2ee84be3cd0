"""Norm + leaky integrate-and-fire over all time steps in Triton: the same spikes and gradients as `fused.reference`.

Forward reads y once for the statistics and once for the spikes, whose potentials never leave the registers. Backward keeps
only y and [T, C] tables: it walks each tile forward again and back, and a last pass takes the gradient through the
statistics. The potential before the reset, u_t, which the walk back needs at every step, is either put in a scratch of float32
on the way forward (recompute), or found again from the step after it (reverse): left_t-1 = (u_t - z_t) / leak and u_t = left_t +
threshold * s_t. The spikes s_t are then kept as bits, so none can flip; the surrogate's slope alone sees the error. `reverses`
says which. `snnseg.spiking.triton_kernels` has the kernels.

Shapes: T time steps, B pictures, C channels, H x W pixels; N = B * H * W.
"""
from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnseg.spiking import triton_kernels as kernels
from snnseg.spiking.fused import Fired, Normal
from snnseg.spiking.neuron import LIF
from snnseg.spiking.surrogate import Arctan, Rectangle, Sigmoid, Triangle

CHANNELS = 64           # of a tile, at most: 128 bytes of bf16 in a row
SCAN = 4096, 8          # values of a tile and the warps that share them: of the statistics,
WALK = 2048, 4          # the spikes and the norm undone,
WALK_BACK = 1024, 1     # and the walk back, where one warp sums over its tile without waiting for others
CHUNK = 1024            # pixels of a step whose statistics one program takes
SCRATCH_PROGRAMS = 1056 # that recompute at a time: 8 for each of an H100's 132 multiprocessors
ERROR = 1e-5            # of a reversed potential, relative to the largest


def reverses(neuron: LIF, timesteps: int) -> bool:
    """Whether the walk back may reverse the dynamics; otherwise potentials are recomputed.

    A step's rounding, at most 3 * 2^-24 of the largest |u|, grows by 1 / leak with every step it is carried back: reversed where
    3 * 2^-24 * (1 / leak + ... + leak^-(T-1)) <= 1e-5. That is T <= 45 with leak 0.99, 18 with 0.9 and 5 with 0.5. A hard reset
    forgets u, the bits are at most 64, and the value of a leak that is a tensor would have to be waited for: all recomputed.
    """
    if isinstance(neuron.leak, Tensor) or not neuron.soft_reset or timesteps > 64 or not 0 < neuron.leak <= 1:
        return False
    growth, power = 0.0, 1.0
    for _ in range(1, timesteps):
        power /= neuron.leak
        growth += power
    return 3 * 2.0**-24 * growth <= ERROR


def refusal(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF) -> str | None:
    """Why this way cannot do it, in words; None if it can. Shapes of y and norm are `fused.check`'s affair."""
    if not (y_TBCHW.is_cuda or triton.knobs.runtime.interpret):
        return f"Triton needs a GPU, y is on {y_TBCHW.device}"
    if y_TBCHW.dtype not in (torch.float32, torch.bfloat16):
        return f"y is {y_TBCHW.dtype}, not float32 or bfloat16"
    if type(neuron.spike) not in (Triangle, Arctan, Sigmoid, Rectangle):
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


def run(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF) -> Fired:
    """As `fused.reference`, in channels_last: y [T, B, C, H, W] that lies otherwise is copied once, spikes come out so.

    The caller asks `refusal` first. Not differentiable twice.
    """
    gamma_TC, beta_TC = (None, None) if normal is None else (normal.gamma_TC, normal.beta_TC)
    return Fired(*_NormLIF.apply(y_TBCHW, gamma_TC, beta_TC, neuron.leak, neuron.threshold, normal, neuron))


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


def _rows(x_TBCHW: Tensor) -> Tensor:
    """The same tensor, laid in memory as [T, B, H, W, C]."""
    return x_TBCHW.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def _table(value_TC: Tensor, rows: int) -> Tensor:
    return value_TC.float().expand(rows, -1).contiguous()


def _each_channel(value: float | Tensor, channels: int) -> Tensor | None:
    """A leak or threshold that is a tensor, as float32 [C]; None for a number."""
    return value.float().expand(channels, 1, 1).flatten().contiguous() if isinstance(value, Tensor) else None


def _statistics(y_TBCHW: Tensor, per_step: bool, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, biased variance and 1 / sqrt(variance + eps) of rows y: float32 [T, C] or [1, C]."""
    steps, tiles = len(y_TBCHW), _Tiles.of(y_TBCHW, *SCAN)
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


class _NormLIF(torch.autograd.Function):
    """Norm, neuron and surrogate as one operator. gamma, beta, leak and threshold are arguments so that gradients find them."""

    @staticmethod
    def forward(ctx, y_TBCHW, gamma_TC, beta_TC, leak, threshold, normal: Normal | None, neuron: LIF):
        with torch.cuda.device_of(y_TBCHW):
            y_TBCHW = _rows(y_TBCHW)
            steps, tiles = len(y_TBCHW), _Tiles.of(y_TBCHW, *WALK)
            tables = [None if beta_TC is None else beta_TC[0].float().contiguous(),
                      *(_each_channel(value, tiles.channels) for value in neuron[:2])]
            numbers = [0.0 if isinstance(value, Tensor) else float(value) for value in neuron[:2]]
            mean_TC = var_TC = scale_TC = centre_TC = per_deviation_TC = None
            if normal is not None:
                if normal.mean_TC is None:
                    mean_TC, var_TC, per_deviation_TC = _statistics(y_TBCHW, normal.per_step, normal.eps)
                else:
                    per_deviation_TC = (normal.var_TC.float() + normal.eps).rsqrt()
                scale_TC = _table(per_deviation_TC if gamma_TC is None else per_deviation_TC * gamma_TC, steps)
                centre_TC = _table(normal.mean_TC if mean_TC is None else mean_TC, steps)
            spikes_TBCHW = torch.empty_like(y_TBCHW)
            kernels.fire_kernel[tiles.along, tiles.across](
                y_TBCHW, spikes_TBCHW, scale_TC, centre_TC, *tables, *numbers, steps, *tiles.sizes,
                NORM=normal is not None, SOFT=neuron.soft_reset, **tiles.block)
        ctx.save_for_backward(y_TBCHW, gamma_TC, scale_TC, centre_TC, per_deviation_TC, *tables)
        ctx.numbers = numbers
        ctx.from_batch, ctx.per_step = mean_TC is not None, normal is not None and normal.per_step
        ctx.spike, ctx.soft, ctx.reverse = neuron.spike, neuron.soft_reset, reverses(neuron, steps)
        ctx.likes = [(x.shape, x.dtype) if isinstance(x, Tensor) else None for x in (gamma_TC, beta_TC, *neuron[:2])]
        if ctx.from_batch:
            ctx.mark_non_differentiable(mean_TC, var_TC)
        return spikes_TBCHW, mean_TC, var_TC

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_TBCHW, *_):
        y_TBCHW, gamma_TC, scale_TC, centre_TC, per_deviation_TC, *tables = ctx.saved_tensors
        of_y, of_gamma, of_beta, of_leak, of_threshold = ctx.needs_input_grad[:5]
        norm, of_neuron, sums = scale_TC is not None, of_leak or of_threshold, of_gamma or of_beta or ctx.from_batch
        with torch.cuda.device_of(y_TBCHW):
            steps, tiles = len(y_TBCHW), _Tiles.of(y_TBCHW, *WALK_BACK)
            programs = tiles.along if ctx.reverse else min(tiles.along, max(1, SCRATCH_PROGRAMS // tiles.across))

            def scratch(*shape: int) -> Tensor:
                return y_TBCHW.new_empty(shape, dtype=torch.float32)

            history = None if ctx.reverse else scratch(tiles.across * programs, steps, tiles.BP, tiles.BC)
            of_norm_2TKC = scratch(2, steps, tiles.along, tiles.channels) if sums else None
            of_neuron_2KC = scratch(2, tiles.along, tiles.channels) if of_neuron else None
            out_TBCHW = torch.empty_like(y_TBCHW)
            kernels.walk_back_kernel[programs, tiles.across](
                y_TBCHW, _rows(grad_TBCHW), out_TBCHW, scale_TC, centre_TC, *tables, *ctx.numbers, ctx.spike.scale,
                history, of_norm_2TKC, of_neuron_2KC, steps, *tiles.sizes, tiles.along,
                NORM=norm, RESCALE=norm and not ctx.from_batch, SUMS=sums, NEURON=of_neuron, SOFT=ctx.soft,
                SURROGATE=type(ctx.spike).__name__, REVERSE=ctx.reverse, BITS=32 if steps <= 32 else 64, **tiles.block)
            of_gamma_TC = of_beta_TC = None
            if sums:
                sums_2TC = of_norm_2TKC.sum(2)
                totals, slope_TC, shift_TC = scratch(2, 1, tiles.channels), torch.empty_like(scale_TC), torch.empty_like(scale_TC)
                rows = (None, 0) if gamma_TC is None else (_table(gamma_TC, len(gamma_TC)), (len(gamma_TC) > 1) * tiles.channels)
                kernels.settle_kernel[tiles.across,](
                    sums_2TC, totals, slope_TC, shift_TC, *rows, per_deviation_TC, (len(per_deviation_TC) > 1) * tiles.channels,
                    1 / tiles.pixels / (1 if ctx.per_step else steps), steps, tiles.channels, BATCH=ctx.from_batch, PER_STEP=ctx.per_step,
                    BC=tiles.BC, num_warps=1)
                of_gamma_TC, of_beta_TC = sums_2TC[1] if rows[1] else totals[1], totals[0]
            if of_y and ctx.from_batch:
                tiles = _Tiles.of(y_TBCHW, *WALK)
                kernels.undo_norm_kernel[tiles.along, steps, tiles.across](
                    y_TBCHW, out_TBCHW, scale_TC, centre_TC, slope_TC, shift_TC, *tiles.sizes, **tiles.block)
            of_leak_C11, of_threshold_C11 = of_neuron_2KC.sum(1).view(2, -1, 1, 1) if of_neuron else (None, None)
        gradients = of_gamma_TC, of_beta_TC, of_leak_C11, of_threshold_C11
        return (out_TBCHW if of_y else None, *(gradient.sum_to_size(like[0]).to(like[1]) if needed else None for needed, gradient, like
                                               in zip(ctx.needs_input_grad[1:5], gradients, ctx.likes, strict=True)), None, None)
