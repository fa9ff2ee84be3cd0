"""Norm and neuron as one operator on the CPU: loops compiled by numba at their first call, one walk through memory a channel.

A channel is walked in blocks of neurons that stay in the processor's cache through all T. Forward: statistics, then
normalise, integrate and fire. Backward: the block's potentials are computed anew, the reverse walk overwrites them with the
gradient of z, and once the channel's sums are known that becomes the gradient of y. Kept between the two: y as it came and
tables [T, C]. A channel belongs to one thread, so results do not depend on their number.
"""
from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnseg.spiking.fused import Fired, Normal
from snnseg.spiking.neuron import LIF
from snnseg.spiking.surrogate import Arctan, Rectangle, Sigmoid, Triangle

BLOCK = 4096            # neurons walked together: 320 KiB of potentials at T = 20; fewer would read memory in shorter runs
LANES = 128             # a sum runs in so many parts side by side: one part would run a value at a time, as there is no fastmath
SMALL = 2**15           # values: fewer are done before a second thread has begun
KINDS = {Triangle: 0, Arctan: 1, Sigmoid: 2, Rectangle: 3}
SHIFT = {torch.float32: np.uint32(0), torch.bfloat16: np.uint32(16)}        # bfloat16 is the upper half of a float32
ZERO, HALF, ONE, FOUR, SIXTEEN, PI = np.float32([0, 0.5, 1, 4, 16, np.pi])      # with python's floats, float32 becomes float64
E2, E3, E4, E5 = np.float32([1 / 2, 1 / 6, 1 / 24, 1 / 120])                    # of the exponential series


def compiled(function):
    """Compiled at the first call, some seconds; kept on disk for other processes, where there is a place that can be written."""
    try:
        return njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:        # neither beside this file nor in the home folder
        return njit(nogil=True, error_model="numpy")(function)


@compiled
def take(source, at, block, gap, shift, row):
    """Fill a row float32 with a block's values of the step and channel that begin at `at`; its pictures lie `gap` apart."""
    row_bits, first, pictures, pixels = row.view(np.uint32), at + block[0], block[1], block[2]
    for k in range(pictures):       # views first: sums as indices may be negative to numba, which keeps the loop from vectors
        values, bits = source[first + k * gap:first + k * gap + pixels], row_bits[k * pixels:(k + 1) * pixels]
        for i in range(len(bits)):
            bits[i] = np.uint32(values[i]) << shift


@compiled
def give(row, at, block, gap, shift, target):
    """The way back of `take`: float32 as it is, bfloat16 rounded to nearest even; what is not a number stays so."""
    row_bits, first, pictures, pixels = row.view(np.uint32), at + block[0], block[1], block[2]
    half, odd = (np.uint32(0x7FFF), np.uint32(1)) if shift else (np.uint32(0), np.uint32(0))
    for k in range(pictures):
        bits, values = row_bits[k * pixels:(k + 1) * pixels], target[first + k * gap:first + k * gap + pixels]
        for i in range(len(bits)):
            number = (bits[i] & np.uint32(0x7FFFFFFF)) <= np.uint32(0x7F800000)
            rounded = bits[i] + half + ((bits[i] >> shift) & odd)
            values[i] = (rounded if number else bits[i] | np.uint32(0x400000)) >> shift


@compiled
def total(row, lanes):
    """Sum of a row: in float32 over BLOCK / LANES values a lane, then pairwise."""
    lanes[:] = ZERO
    whole = len(row) // LANES * LANES
    for j in range(0, whole, LANES):
        part = row[j:j + LANES]
        for k in range(LANES):
            lanes[k] += part[k]
    width = LANES // 2
    while width:
        for k in range(width):
            lanes[k] += lanes[k + width]
        width //= 2
    for value in row[whole:]:
        lanes[0] += value
    return np.float64(lanes[0])


@compiled
def statistics(y, size, blocks, c, first, last, shift, row, lanes):
    """Mean and biased variance of channel c over steps first to last, block after block (Chan, Golub, LeVeque 1983)."""
    _, B, C, S = size
    count, mean, squares = 0, 0.0, 0.0
    for t in range(first, last):
        for block in blocks:
            x = row[:block[1] * block[2]]
            take(y, (t * B * C + c) * S, block, C * S, shift, x)
            here = total(x, lanes) / len(x)
            centre = np.float32(here)
            for i in range(len(x)):
                x[i] = (x[i] - centre) * (x[i] - centre)
            away = here - mean
            squares += total(x, lanes) + away * away * count * len(x) / (count + len(x))
            count += len(x)
            mean += away * len(x) / count
    return mean, squares / count


@compiled
def left(u, threshold, soft):
    """What is left of the potential u after its spike, if it fires."""
    return (u - threshold if soft else ZERO) if u > threshold else u


@compiled
def slopes(kind, scale, u, threshold, out):
    """Slope of a surrogate (surrogate.py) by u, where m = u / threshold - 1. NaN stays NaN."""
    inverse = ONE / threshold
    factor = scale * inverse
    if kind == 0:
        for i in range(len(u)):
            m = abs(u[i] * inverse - ONE)
            out[i] = ZERO if m > ONE else factor * (ONE - m)
    elif kind == 1:
        for i in range(len(u)):
            m = PI * (u[i] * inverse - ONE)
            out[i] = factor / (ONE + m * m)
    elif kind == 2:         # 4 s (1 - s) = 4 e / (1 + e)^2 with e = exp(-4 |m|); libm's exp would take one value at a time
        for i in range(len(u)):
            r = -abs(u[i] * inverse - ONE) / SIXTEEN
            r = -ONE if r < -ONE else r
            e = ONE + r * (ONE + r * (E2 + r * (E3 + r * (E4 + r * E5))))
            for _ in range(6):      # exp(64 r), to 4e-6
                e *= e
            out[i] = factor * FOUR * e / ((ONE + e) * (ONE + e))
    else:
        for i in range(len(u)):
            out[i] = factor if abs(u[i] * inverse - ONE) < HALF else ZERO


@compiled
def fire(y, size, blocks, tables_4TC, neuron_2C, steps, eps, soft, shift, spikes, worker, workers):
    """Channels worker, worker + workers, ...: the spikes, and in the tables what the norm does: z = scale * y + level.

    `steps` is how many time steps share statistics; 0 says that they are given. Rounds as the plain form does.
    """
    T, B, C, S = size
    mean_TC, var_TC, scale_TC, level_TC = tables_4TC
    rows, lanes = np.empty((3, BLOCK), np.float32), np.empty(LANES, np.float32)
    for c in range(worker, C, workers):
        leak, threshold = neuron_2C[:, c]
        for t in range(T):
            if steps and t % steps == 0:
                mean_TC[t:t + steps, c], var_TC[t:t + steps, c] = statistics(y, size, blocks, c, t, t + steps, shift, rows[0], lanes)
            scale_TC[t, c] *= ONE / np.sqrt(var_TC[t, c] + eps)
            level_TC[t, c] -= mean_TC[t, c] * scale_TC[t, c]
        for block in blocks:
            n = block[1] * block[2]
            x, v, s = rows[0, :n], rows[1, :n], rows[2, :n]
            v[:] = ZERO
            for t in range(T):
                at, scale, level = (t * B * C + c) * S, scale_TC[t, c], level_TC[t, c]
                take(y, at, block, C * S, shift, x)
                for i in range(n):
                    u = leak * v[i] + (x[i] * scale + level)        # eq. 2
                    s[i] = ONE if u > threshold else ZERO           # eq. 3
                    v[i] = left(u, threshold, soft)
                give(s, at, block, C * S, shift, spikes)


@compiled
def unwind(y, g_spikes, size, blocks, tables_4TC, neuron_2C, steps, eps, soft, shift, kind, scale, learned,
           grad, sums_2TC, ends_2C, worker, workers):
    """The gradient of y, and sums: of z's gradient, alone and times (y - mean); of what reaches leak and threshold."""
    T, B, C, S = size
    mean_TC, var_TC, scale_TC, level_TC = tables_4TC
    rows, lanes, channel = np.empty((5, BLOCK), np.float32), np.empty(LANES, np.float32), np.empty(T * B * S, np.float32)
    for c in range(worker, C, workers):
        leak, threshold = neuron_2C[:, c]
        done = 0
        for block in blocks:
            n = block[1] * block[2]
            x, v, slope, g, spare = rows[0, :n], rows[1, :n], rows[2, :n], rows[3, :n], rows[4, :n]
            u_TN = channel[done:done + T * n].reshape(T, n)
            done += T * n
            v[:] = ZERO
            for t in range(T):
                take(y, (t * B * C + c) * S, block, C * S, shift, x)
                u, factor, level = u_TN[t], scale_TC[t, c], level_TC[t, c]
                for i in range(n):
                    u[i] = leak * v[i] + (x[i] * factor + level)
                    v[i] = left(u[i], threshold, soft)
            v[:] = ZERO             # from here on, the gradient of what is left of the potential after the spike
            for t in range(T - 1, -1, -1):
                u, before, mean = u_TN[t], u_TN[max(t - 1, 0)], mean_TC[t, c]
                take(y, (t * B * C + c) * S, block, C * S, shift, x)
                take(g_spikes, (t * B * C + c) * S, block, C * S, shift, g)
                slopes(kind, scale, u, threshold, slope)
                if learned:         # the threshold divides in m, and is what a soft reset takes
                    for i in range(n):
                        spare[i] = -g[i] * slope[i] * u[i] / threshold - (v[i] if soft and u[i] > threshold else ZERO)
                    ends_2C[1, c] += total(spare, lanes)
                for i in range(n):
                    u[i] = g[i] * slope[i] + (ZERO if u[i] > threshold and not soft else v[i])      # none through the reset's spike
                    v[i] = leak * u[i]
                    x[i] = u[i] * (x[i] - mean)
                if learned and t:
                    for i in range(n):
                        spare[i] = u[i] * left(before[i], threshold, soft)
                    ends_2C[0, c] += total(spare, lanes)
                sums_2TC[0, t, c] += total(u, lanes)
                sums_2TC[1, t, c] += total(x, lanes)
        for t in range(T):          # z's gradient less its mean, and less what follows (y - mean), is y's
            first = t // steps * steps if steps else t
            count = np.float64(steps * B * S) if steps else np.inf
            mean, factor = mean_TC[t, c], scale_TC[t, c]
            level = np.float32(sums_2TC[0, first:first + steps, c].sum() / count)
            tilt = np.float32(sums_2TC[1, first:first + steps, c].sum() / count / (var_TC[t, c] + eps))
            done = 0
            for block in blocks:
                n = block[1] * block[2]
                x, u = rows[0, :n], channel[done + t * n:done + (t + 1) * n]
                done += T * n
                take(y, (t * B * C + c) * S, block, C * S, shift, x)
                for i in range(n):
                    x[i] = factor * (u[i] - level - (x[i] - mean) * tilt)
                give(x, (t * B * C + c) * S, block, C * S, shift, grad)


@functools.cache
def pool(process: int) -> ThreadPoolExecutor:
    """Threads that wait for work; a forked process has none of its parent's and so makes its own."""
    return ThreadPoolExecutor(os.cpu_count(), "norm-and-fire")


def spread(kernel, values: int, *what) -> None:
    """Call a kernel from as many threads as torch may use, or from this one alone where there is little to do."""
    workers = min(torch.get_num_threads(), 1 + values // SMALL)
    others = [pool(os.getpid()).submit(kernel, *what, worker, workers) for worker in range(1, workers)]
    kernel(*what, 0, workers)
    for other in others:
        other.result()


def bits(x_TBCHW: Tensor) -> np.ndarray:
    """A contiguous tensor's memory as uint32 or uint16, flat: numpy has no bfloat16. No copy."""
    whole = x_TBCHW.detach().view(torch.int32 if x_TBCHW.dtype == torch.float32 else torch.int16).numpy()
    return whole.view(f"uint{whole.itemsize * 8}").reshape(-1)


def cut(y_TBCHW: Tensor) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """T, B, C and S = H * W, and how a channel's step is cut into blocks, int64 [K, 3]: where from its first value on, pictures, pixels."""
    T, B, C, H, W = y_TBCHW.shape
    S, pictures, pixels = H * W, max(1, BLOCK // (H * W)), min(H * W, BLOCK)
    return (T, B, C, S), np.array([(b * C * S + p, min(pictures, B - b), min(pixels, S - p)) for b in range(0, B, pictures) for p in range(0, S, pixels)])


class NormAndFire(torch.autograd.Function):
    """y [T, B, C, H, W]; gamma, beta, mean, var [T, C]; leak, threshold [C] -> spikes and the tables [4, T, C] of `fire`."""

    @staticmethod
    def forward(ctx, y, gamma_TC, beta_TC, leak_C, threshold_C, mean_TC, var_TC, steps, eps, surrogate, soft):
        y = y.contiguous()
        tables_4TC, neuron_2C = torch.stack([mean_TC, var_TC, gamma_TC, beta_TC]), torch.stack([leak_C, threshold_C])
        spikes = torch.empty_like(y)
        ctx.how = steps, np.float32(eps), soft, SHIFT[y.dtype]
        ctx.surrogate = KINDS[type(surrogate)], np.float32(surrogate.scale)
        spread(fire, y.numel(), bits(y), *cut(y), tables_4TC.numpy(), neuron_2C.numpy(), *ctx.how, bits(spikes))
        ctx.save_for_backward(y, tables_4TC, neuron_2C)
        ctx.mark_non_differentiable(tables_4TC)
        return spikes, tables_4TC

    @staticmethod
    @once_differentiable
    def backward(ctx, g, _):
        y, tables_4TC, neuron_2C = ctx.saved_tensors
        grad, sums_2TC = torch.empty_like(y), torch.zeros(2, *tables_4TC.shape[1:], dtype=torch.float64)
        ends_2C = torch.zeros(2, y.shape[2], dtype=torch.float64)
        learned = any(ctx.needs_input_grad[3:5])
        spread(unwind, y.numel(), bits(y), bits(g.contiguous()), *cut(y), tables_4TC.numpy(), neuron_2C.numpy(), *ctx.how,
               *ctx.surrogate, learned, bits(grad), sums_2TC.numpy(), ends_2C.numpy())
        gamma_TC = sums_2TC[1] / (tables_4TC[1] + ctx.how[1]).sqrt()
        return grad, gamma_TC.float(), sums_2TC[0].float(), *ends_2C.float(), *[None] * 6


def refusal(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF) -> str | None:
    """Why it cannot be done here, in words; None if it can. Shapes of y and norm are `fused.check`'s affair."""
    if y_TBCHW.device.type != "cpu" or y_TBCHW.dtype not in SHIFT:
        return f"it takes float32 or bfloat16 on the CPU, not {y_TBCHW.dtype} on {y_TBCHW.device}"
    if type(neuron.spike) not in KINDS:
        return f"it knows the surrogates {', '.join(kind.__name__ for kind in KINDS)}, not {neuron.spike!r}"
    for name in ("leak", "threshold"):
        value, shape = torch.as_tensor(getattr(neuron, name)), (y_TBCHW.shape[2], 1, 1)
        if value.dim() > 3 or any(n not in (1, whole) for n, whole in zip(value.shape[::-1], shape[::-1], strict=False)):
            return f"the {name} is one number or one a channel, {list(shape)}, not {list(value.shape)}"
        if name == "threshold" and not (value > 0).all():
            return "a threshold of 0 or less turns the comparison round"
    return None


def run(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF) -> Fired:
    """`ways.run` on the CPU, which has asked `fused.check` and `refusal` before. Spikes are contiguous, whatever y is."""
    T, _, C = y_TBCHW.shape[:3]

    def table(given_TC, otherwise):
        return (torch.tensor([[float(otherwise)]]) if given_TC is None else given_TC.float()).expand(T, C)

    def ends(value):
        return torch.as_tensor(value, dtype=torch.float32).expand(C, 1, 1).reshape(C)

    gamma, beta, per_step, eps, mean, var = normal or (None, None, True, 0.0, None, None)       # without a norm, z = 1 * y + 0
    steps = 0 if normal is None or mean is not None else 1 if per_step else T
    spikes, tables_4TC = NormAndFire.apply(y_TBCHW, table(gamma, 1), table(beta, 0), ends(neuron.leak), ends(neuron.threshold),
                                           table(mean, 0), table(var, 1), steps, eps, neuron.spike, neuron.soft_reset)
    return Fired(spikes, *(tables_4TC[:2, ::steps].clone() if steps else (None, None)))
