"""Triton kernels of norm + leaky integrate-and-fire; `snnseg.spiking.fused_triton` says what they compute and calls them.

All walk the matrix [T, N, C] of rows of channels, N = B * H * W pixels of a step, as channels_last lays it in memory. A
tile is BP pixels by BC channels, both powers of two, the last ones masked; a program holds a tile at every time step, so
the potential stays in registers. Arithmetic is float32 whatever is stored. Every sum is of one order: no atomics, so the same
bits in every run. A scalar base address in 64 bits is moved from step to step; offsets inside a tile are small. `step` is what
lies between two steps in memory, `y_step` and `grad_step` likewise, or 0 where all steps are one.
"""
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _spikes(u, threshold, per_threshold, LEVELS: tl.constexpr):
    """Whether a neuron fires, or with LEVELS how often: `snnseg.spiking.integer`, halves to the even number."""
    if LEVELS == 0:
        k = (u - threshold) * per_threshold > 0.0       # at the threshold exactly 0, and right for a negative one
    else:
        m = tl.div_rn(u, threshold + tl.zeros_like(u)) - 1.0 + 1.0      # as the plain form comes to it
        k = tl.minimum(tl.maximum(m, 0.0, tl.PropagateNan.ALL), 1.0 * LEVELS, tl.PropagateNan.ALL) + 12582912.0 - 12582912.0     # rounds: 1.5 * 2^23
    return k


@triton.jit
def _left(u, k, threshold, SOFT: tl.constexpr, LEVELS: tl.constexpr):
    """The potential after `_spikes`."""
    if LEVELS == 0:
        left = tl.where(k, u - threshold if SOFT else 0.0, u)
    else:
        left = u - threshold * k if SOFT else tl.where(k > 0.0, 0.0, u)
    return left


@triton.jit
def _slope(m, scale, SURROGATE: tl.constexpr, LEVELS: tl.constexpr):
    """The slope that stands for the step's, as `snnseg.spiking.surrogate` has it, at m = u / threshold - 1."""
    if SURROGATE == "Triangle":
        slope = tl.maximum(1.0 - tl.abs(m), 0.0)
    elif SURROGATE == "Arctan":
        slope = 1.0 / (1.0 + (3.141592653589793 * m) * (3.141592653589793 * m))
    elif SURROGATE == "Sigmoid":
        e = tl.exp(-4.0 * tl.abs(m))            # s (1 - s) is even in m, and this way round nothing overflows
        slope = 4.0 * e / ((1.0 + e) * (1.0 + e))
    elif SURROGATE == "Integer":
        slope = tl.where((m >= -1.0) & (m <= LEVELS - 1.0), 1.0, 0.0)
    else:
        tl.static_assert(SURROGATE == "Rectangle")
        slope = tl.where(tl.abs(m) < 0.5, 1.0, 0.0)
    return scale * slope


@triton.jit
def _row(table_ptr, number, col, in_c, BC: tl.constexpr):
    """[1, BC] of a leak, threshold or beta: from a [C] table if there is one, else one number for all."""
    if table_ptr is not None:
        row = tl.load(table_ptr + col, mask=in_c, other=1.0)[None, :]
    else:
        row = tl.zeros([1, BC], tl.float32) + number
    return row


@triton.jit
def _current(y, scale_ptr, mean_ptr, table, beta, in_c, NORM: tl.constexpr):
    """z = scale * (y - mean) + beta, and y - mean. Taking the mean away first loses nothing to a large one."""
    centred = y
    z = y
    if NORM:
        centred = y - tl.load(mean_ptr + table, mask=in_c, other=0.0)[None, :]
        z = centred * tl.load(scale_ptr + table, mask=in_c, other=0.0)[None, :] + beta
    return z, centred


@triton.jit
def statistics_kernel(y_ptr, mean_ptr, square_ptr, pixels, channels, step, blocks,
                      CHUNK: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):
    """Mean and sum of squares about it of CHUNK pixels of a step: [T, blocks, C] each; grid (blocks, T, channel tiles).

    Welford's recurrence in every lane, then the lanes together as Chan, Golub and LeVeque (1983) join samples: no difference
    of large sums, however far the mean is from 0.
    """
    block, t = tl.program_id(0), tl.program_id(1)
    col = tl.program_id(2) * BC + tl.arange(0, BC)
    row = block * CHUNK + tl.arange(0, BP)
    base = y_ptr + t.to(tl.int64) * step + block.to(tl.int64) * CHUNK * channels
    offset = tl.arange(0, BP)[:, None] * channels + col[None, :]
    count = tl.zeros([BP], tl.float32)
    mean = tl.zeros([BP, BC], tl.float32)
    square = tl.zeros([BP, BC], tl.float32)
    for i in range(CHUNK // BP):
        inside = (row < pixels)[:, None] & (col < channels)[None, :]
        y = tl.load(base + offset, mask=inside, other=0.0).to(tl.float32)
        delta = tl.where(inside, y - mean, 0.0)
        mean += delta * (1.0 / (i + 1))         # lanes run out of pixels only at the end: i + 1 is the count of those that go on
        square += delta * (y - mean)
        count += tl.where(row < pixels, 1.0, 0.0)
        row += BP
        base += BP * channels
    whole = tl.sum(mean * count[:, None], axis=0) / tl.sum(count, axis=0)
    apart = mean - whole[None, :]
    total = tl.sum(square + count[:, None] * apart * apart, axis=0)
    at = (t * blocks + block) * channels + col
    tl.store(mean_ptr + at, whole, mask=col < channels)
    tl.store(square_ptr + at, total, mask=col < channels)


@triton.jit
def join_kernel(mean_ptr, square_ptr, mean_out, var_out, per_deviation_out, eps, pixels, channels, blocks, rows,
                CHUNK: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):
    """Mean, biased variance and 1 / sqrt(variance + eps) of `rows` blocks of statistics_kernel: [groups, C]; grid (groups, channel tiles)."""
    group = tl.program_id(0)
    col = tl.program_id(1) * BC + tl.arange(0, BC)
    offset = tl.arange(0, BP)[:, None] * channels + col[None, :]
    count = tl.zeros([BP], tl.float32)
    first = tl.zeros([BP, BC], tl.float32)
    row = tl.arange(0, BP)
    for i in range(tl.cdiv(rows, BP)):
        inside = (row < rows)[:, None] & (col < channels)[None, :]
        n = tl.where(row < rows, tl.minimum(pixels - (row % blocks) * CHUNK, CHUNK), 0).to(tl.float32)
        first += n[:, None] * tl.load(mean_ptr + (group * rows + i * BP) * channels + offset, mask=inside, other=0.0)
        count += n
        row += BP
    total = tl.sum(count, axis=0)
    mean = tl.sum(first, axis=0) / total
    second = tl.zeros([BP, BC], tl.float32)
    row = tl.arange(0, BP)
    for i in range(tl.cdiv(rows, BP)):
        inside = (row < rows)[:, None] & (col < channels)[None, :]
        n = tl.where(row < rows, tl.minimum(pixels - (row % blocks) * CHUNK, CHUNK), 0).to(tl.float32)
        at = (group * rows + i * BP) * channels + offset
        apart = tl.load(mean_ptr + at, mask=inside, other=0.0) - mean[None, :]
        second += tl.load(square_ptr + at, mask=inside, other=0.0) + n[:, None] * apart * apart
        row += BP
    var = tl.sum(second, axis=0) / total
    at = group * channels + col
    tl.store(mean_out + at, mean, mask=col < channels)
    tl.store(var_out + at, var, mask=col < channels)
    tl.store(per_deviation_out + at, tl.div_rn(1.0, tl.sqrt_rn(var + eps)), mask=col < channels)


@triton.jit
def fire_kernel(y_ptr, spikes_ptr, bits_ptr, scale_ptr, mean_ptr, beta_ptr, leak_ptr, threshold_ptr, leak, threshold, T, pixels, channels, step, y_step,
                NORM: tl.constexpr, SOFT: tl.constexpr, LEVELS: tl.constexpr, BP: tl.constexpr, BC: tl.constexpr):
    """Spikes of a tile over all steps, also as bits if a place for them is given, eight channels in a byte; grid (pixel tiles, channel tiles)."""
    tile = tl.program_id(0)
    col = tl.program_id(1) * BC + tl.arange(0, BC)
    in_c = col < channels
    inside = ((tile * BP + tl.arange(0, BP)) < pixels)[:, None] & in_c[None, :]
    offset = tl.arange(0, BP)[:, None] * channels + col[None, :]
    base = tile.to(tl.int64) * BP * channels
    y_ptr += base
    if bits_ptr is not None:
        col_8 = tl.program_id(1) * (BC // 8) + tl.arange(0, BC // 8)
        inside_8 = ((tile * BP + tl.arange(0, BP)) < pixels)[:, None] & (col_8 < channels // 8)[None, :]
        offset_8 = tl.arange(0, BP)[:, None] * (channels // 8) + col_8[None, :]
    leak_1C = _row(leak_ptr, leak, col, in_c, BC)
    threshold_1C = _row(threshold_ptr, threshold, col, in_c, BC)
    beta_1C = _row(beta_ptr, 0.0, col, in_c, BC)
    per_threshold = 1.0 / threshold_1C
    table = col
    u = tl.zeros([BP, BC], tl.float32)
    for _ in range(T):
        y = tl.load(y_ptr + offset, mask=inside, other=0.0).to(tl.float32)
        z, centred = _current(y, scale_ptr, mean_ptr, table, beta_1C, in_c, NORM)
        u = leak_1C * u + z
        k = _spikes(u, threshold_1C, per_threshold, LEVELS)
        tl.store(spikes_ptr + base + offset, (tl.where(k, 1.0, 0.0) if LEVELS == 0 else k).to(spikes_ptr.dtype.element_ty), mask=inside)
        if bits_ptr is not None:
            byte = tl.sum(tl.reshape(k.to(tl.int32), [BP, BC // 8, 8]) << tl.arange(0, 8)[None, None, :], axis=2)
            tl.store(bits_ptr + base // 8 + offset_8, byte.to(tl.uint8), mask=inside_8)
        u = _left(u, k, threshold_1C, SOFT, LEVELS)
        y_ptr += y_step
        base += step
        table += channels


@triton.jit
def walk_back_kernel(y_ptr, grad_ptr, out_ptr, scale_ptr, mean_ptr, beta_ptr, leak_ptr, threshold_ptr, leak, threshold, slope_scale,
                     history_ptr, sum_ptr, neuron_ptr, T, pixels, channels, step, y_step, grad_step, tiles,
                     NORM: tl.constexpr, RESCALE: tl.constexpr, SUMS: tl.constexpr, NEURON: tl.constexpr,
                     SOFT: tl.constexpr, SURROGATE: tl.constexpr, REVERSE: tl.constexpr, BITS: tl.constexpr, LEVELS: tl.constexpr,
                     BP: tl.constexpr, BC: tl.constexpr):
    """Gradient of the currents, gz, from that of the spikes; grid (programs, channel tiles), each takes every so many-th tile.

    A tile is walked forward, to know its potentials, and back. u before the reset at every step is kept in `history`
    [programs, T, BP, BC], a scratch that is used again for the next tile, or found again by REVERSE from the last one, the
    input and the spikes, which are kept as BITS bits a value.
    SUMS: sums over the tile of gz and of gz * (y - mean), [2, T, tiles, C]. NEURON: those for leak and threshold, [2, tiles, C].
    RESCALE: out = scale * gz (for statistics that were given), else gz.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    col = tl.program_id(1) * BC + tl.arange(0, BC)
    in_c = col < channels
    offset = tl.arange(0, BP)[:, None] * channels + col[None, :]
    kept = tl.arange(0, BP)[:, None] * BC + tl.arange(0, BC)[None, :]
    history = (tl.program_id(1).to(tl.int64) * programs + program) * T * (BP * BC)
    leak_1C = _row(leak_ptr, leak, col, in_c, BC)
    threshold_1C = _row(threshold_ptr, threshold, col, in_c, BC)
    beta_1C = _row(beta_ptr, 0.0, col, in_c, BC)
    per_threshold = 1.0 / threshold_1C
    per_leak = 1.0 / leak_1C if REVERSE else leak_1C
    tile = program
    for _ in range(program, tiles, programs):
        inside = ((tile * BP + tl.arange(0, BP)) < pixels)[:, None] & in_c[None, :]
        base = tile.to(tl.int64) * BP * channels
        y_at, grad_at, out_at = y_ptr + base, grad_ptr + base, out_ptr + base
        past = history
        table = col
        left = tl.zeros([BP, BC], tl.float32)   # u after the reset
        bits = tl.zeros([BP, BC], tl.int64 if BITS == 64 else tl.int32)
        for t in range(T):
            y = tl.load(y_at + offset, mask=inside, other=0.0).to(tl.float32)
            z, centred = _current(y, scale_ptr, mean_ptr, table, beta_1C, in_c, NORM)
            u = leak_1C * left + z
            k = _spikes(u, threshold_1C, per_threshold, LEVELS)
            left = _left(u, k, threshold_1C, SOFT, LEVELS)
            if REVERSE:
                bits |= k.to(bits.dtype) << t
            else:
                tl.store(history_ptr + past + kept, u)
                past += BP * BC
            y_at += y_step
            grad_at += grad_step
            out_at += step
            table += channels
        if not REVERSE:
            tl.debug_barrier()      # what one thread has stored, another may load

        grad_left = tl.zeros([BP, BC], tl.float32)
        grad_leak = tl.zeros([BP, BC], tl.float32)
        grad_threshold = tl.zeros([BP, BC], tl.float32)
        at = tile * channels + col
        for i in range(T):
            y_at -= y_step
            grad_at -= grad_step
            out_at -= step
            table -= channels
            t = T - 1 - i
            y = tl.load(y_at + offset, mask=inside, other=0.0).to(tl.float32)
            grad = tl.load(grad_at + offset, mask=inside, other=0.0).to(tl.float32)
            z, centred = _current(y, scale_ptr, mean_ptr, table, beta_1C, in_c, NORM)
            if REVERSE:
                k = ((bits >> t) & 1) != 0
                u = tl.where(k, left + threshold_1C, left)     # soft only: a hard reset leaves nothing to go back from
            else:
                past -= BP * BC
                u = tl.load(history_ptr + past + kept)
                k = _spikes(u, threshold_1C, per_threshold, LEVELS)
            m = (u - threshold_1C) * per_threshold
            grad_m = grad * _slope(m, slope_scale, SURROGATE, LEVELS)
            gz = grad_m * per_threshold + (grad_left if SOFT else tl.where(k if LEVELS == 0 else k > 0.0, 0.0, grad_left))
            out = gz
            if RESCALE:
                out = gz * tl.load(scale_ptr + table, mask=in_c, other=0.0)[None, :]
            tl.store(out_at + offset, out.to(out_ptr.dtype.element_ty), mask=inside)
            if SUMS:        # beyond the map the gradient was loaded as 0, so gz is 0
                tl.store(sum_ptr + t * tiles * channels + at, tl.sum(gz, axis=0), mask=in_c)
                tl.store(sum_ptr + (T + t) * tiles * channels + at, tl.sum(gz * centred, axis=0), mask=in_c)
            if NEURON:
                grad_threshold -= grad_m * u * per_threshold * per_threshold
                if SOFT:
                    grad_threshold -= tl.where(k, grad_left, 0.0) if LEVELS == 0 else grad_left * k
            if REVERSE:
                left = (u - z) * per_leak
            elif NEURON:
                before = past - BP * BC + kept
                u = tl.load(history_ptr + before, mask=before >= history, other=0.0)        # before the first step it was 0
                left = _left(u, _spikes(u, threshold_1C, per_threshold, LEVELS), threshold_1C, SOFT, LEVELS)
            if NEURON:
                grad_leak += gz * left
            grad_left = leak_1C * gz
        if NEURON:
            tl.store(neuron_ptr + at, tl.sum(grad_leak, axis=0), mask=in_c)
            tl.store(neuron_ptr + tiles * channels + at, tl.sum(grad_threshold, axis=0), mask=in_c)
        if not REVERSE:
            tl.debug_barrier()      # all have read before the next tile is written over this one
        tile += programs


@triton.jit
def settle_kernel(sum_ptr, shift_ptr, tilt_ptr, per_deviation_ptr, per_deviation_step, per_value, T, rows, channels,
                  BATCH: tl.constexpr, BC: tl.constexpr):
    """From the sums of gz and of gz * (y - mean), [2, T, C], all that is left to know of the norm; grid (channel tiles, groups of `rows` steps).

    The second becomes that of gz * normalised y, in place: gamma's gradient a step. BATCH: a group is what has one mean and deviation,
    and with scale = gamma / deviation dL/dy = scale * (gz - mean of gz - normalised y * mean of gz * normalised y); what
    undo_norm_kernel takes of the last two terms is `shift` and `tilt` [groups, C], and per_value is 1 / count.
    """
    group = tl.program_id(1)
    col = tl.program_id(0) * BC + tl.arange(0, BC)
    in_c = col < channels
    total = tl.zeros([BC], tl.float32)
    total_moment = tl.zeros([BC], tl.float32)
    for i in range(rows):
        at = (group * rows + i) * channels + col
        per_deviation = tl.load(per_deviation_ptr + (group * rows + i) * per_deviation_step + col, mask=in_c, other=0.0)
        moment = per_deviation * tl.load(sum_ptr + T * channels + at, mask=in_c, other=0.0)
        tl.store(sum_ptr + T * channels + at, moment, mask=in_c)
        total += tl.load(sum_ptr + at, mask=in_c, other=0.0)
        total_moment += moment
    if BATCH:       # a group's rows have one deviation
        per_deviation = tl.load(per_deviation_ptr + group * per_deviation_step + col, mask=in_c, other=0.0)
        tl.store(shift_ptr + group * channels + col, total * per_value, mask=in_c)
        tl.store(tilt_ptr + group * channels + col, total_moment * per_deviation * per_value, mask=in_c)


@triton.jit
def undo_norm_kernel(y_ptr, grad_ptr, out_ptr, scale_ptr, mean_ptr, shift_ptr, tilt_ptr, about_step, pixels, channels, step, y_step,
                     BP: tl.constexpr, BC: tl.constexpr):
    """gz -> dL/dy = scale * (gz - shift - tilt * (y - mean)), out may be gz's memory or y's; grid (pixel tiles, T, channel tiles).

    scale and mean are [T, C]; shift and tilt are [T, C] with an about_step of C, or [1, C] with one of 0.
    """
    tile, t = tl.program_id(0), tl.program_id(1)
    col = tl.program_id(2) * BC + tl.arange(0, BC)
    in_c = col < channels
    inside = ((tile * BP + tl.arange(0, BP)) < pixels)[:, None] & in_c[None, :]
    base = tile.to(tl.int64) * BP * channels
    offset = tl.arange(0, BP)[:, None] * channels + col[None, :]
    at = t.to(tl.int64) * step + base + offset
    scale = tl.load(scale_ptr + t * channels + col, mask=in_c, other=0.0)[None, :]
    mean = tl.load(mean_ptr + t * channels + col, mask=in_c, other=0.0)[None, :]
    shift = tl.load(shift_ptr + t * about_step + col, mask=in_c, other=0.0)[None, :]
    tilt = tl.load(tilt_ptr + t * about_step + col, mask=in_c, other=0.0)[None, :]
    y = tl.load(y_ptr + t.to(tl.int64) * y_step + base + offset, mask=inside, other=0.0).to(tl.float32)
    gz = tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, (scale * (gz - shift - tilt * (y - mean))).to(out_ptr.dtype.element_ty), mask=inside)
