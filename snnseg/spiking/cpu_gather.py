"""A convolution of spikes goes from spike to spike: each adds a row of weights, and nothing is multiplied with the zeros between them.

    forward    y[pixel] += weight[tap, c]         for each spike of channel c that a tap of the pixel meets
    backward   gw[tap, c] += gy[pixel]            likewise

Both are sums over rows of `channels` values whose places are listed first (`gather`); the sums stay in vector registers meanwhile. Of
a bfloat16 row two neighbours are one word, so sums are kept as the sixteen even ones, then the sixteen odd ones of 32 channels
(`narrowed`, `spread`). Rows are [taps, in, out]; `turn` and `turn_back` make them of a weight [out, taps, in] and back.
"""
from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from snnseg.spiking.cpu_kernels import ZERO, called, compiled, narrow, place, take

LANES = 16                          # values that a sum's vector holds
JOINED = 16                         # blocks whose sums are one part of the total: a sum of all would lose digits
GROUP = 32                          # pixels of which a channel's spikes are found at a time
FOUND = 8                           # spikes of a byte, at most
BYTES = np.arange(256)[:, None] >> np.arange(FOUND) & 1
COUNT = BYTES.sum(1).astype(np.int64)
PLACES = np.argsort(-BYTES, axis=1, kind="stable").astype(np.uint16)        # of the set bits, in order; then of the others
NONE = np.uint8(0)
TWOS, FOURS, EIGHTS, EACH = np.array([0x55, 0x33, 0x0F, 0x01], np.uint64) * np.uint64(0x0101010101010101)     # of each byte
ONE, TWO, FOUR, LAST = np.array([1, 2, 4, 56], np.uint64)
NUMBERS = "pictures height width channels out kernel dilation lanes rows group piece"
ADDRESSES = "spikes weight y turned g"


def summing(vectors: int):
    """`vectors` * LANES sums at address `sums`, plus the rows at `rows` + place * apart bytes, for n places u16 at `places`."""
    @intrinsic
    def add(typing, sums, rows, places, n, apart, like):
        def code(context, builder, signature, arguments):
            i16, i32, i64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
            floats, words = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(i32, LANES)
            sums, rows, places, n, apart, _ = arguments

            def load(address, offset, kind):
                found = builder.load(builder.inttoptr(builder.add(address, i64(offset)), kind.as_pointer()))
                found.align = 2
                return found

            def values(row, k):
                """The k-th vector of a row: of bfloat16, the even or the odd values of a vector of words."""
                if like == types.float32:
                    return load(row, 4 * LANES * k, floats)
                pair = load(row, 4 * LANES * (k // 2), words)
                if k % 2:
                    return builder.bitcast(builder.and_(pair, ir.Constant(words, [0xFFFF0000] * LANES)), floats)
                return builder.bitcast(builder.shl(pair, ir.Constant(words, [16] * LANES)), floats)

            begun, before = [load(sums, 4 * LANES * k, floats) for k in range(vectors)], builder.block
            loop, done = builder.append_basic_block("rows"), builder.append_basic_block("done")
            builder.cbranch(builder.icmp_signed(">", n, i64(0)), loop, done)
            builder.position_at_end(loop)
            i = builder.phi(i64)
            totals = [builder.phi(floats) for _ in begun]
            at = builder.load(builder.inttoptr(builder.add(places, builder.shl(i, i64(1))), i16.as_pointer()))
            row = builder.add(rows, builder.mul(builder.zext(at, i64), apart))
            added = [builder.fadd(total, values(row, k)) for k, total in enumerate(totals)]
            following = builder.add(i, i64(1))
            i.add_incoming(i64(0), before)
            i.add_incoming(following, loop)
            builder.cbranch(builder.icmp_signed("<", following, n), loop, done)
            builder.position_at_end(done)
            ended = [builder.phi(floats) for _ in begun]
            for total, end, first, last in zip(totals, ended, begun, added, strict=True):
                for phi in (total, end):
                    phi.add_incoming(first, before)
                    phi.add_incoming(last, loop)
            for k, end in enumerate(ended):
                builder.store(end, builder.inttoptr(builder.add(sums, i64(4 * LANES * k)), floats.as_pointer())).align = 4
            return context.get_dummy_value()

        return types.none(types.int64, types.int64, types.int64, types.int64, types.int64, like), code

    return add


add_2, add_4, add_8, add_16 = (summing(vectors) for vectors in (2, 4, 8, 16))


@intrinsic
def in_pairs(typing, like):
    """Whether values like `like` are bfloat16."""
    def code(context, builder, signature, arguments):
        return ir.Constant(ir.IntType(1), like != types.float32)

    return types.boolean(like), code


@intrinsic
def having(typing, words, bit):
    """Which of GROUP words u16 at an address have a bit: the first one's answer in the lowest bit of a u32."""
    def code(context, builder, signature, arguments):
        i16, i32 = ir.IntType(16), ir.IntType(32)
        kind = ir.VectorType(i16, GROUP)
        found = builder.load(builder.inttoptr(arguments[0], kind.as_pointer()))
        found.align = 2
        one = builder.shl(i16(1), builder.trunc(arguments[1], i16))
        splat = builder.shuffle_vector(builder.insert_element(ir.Constant(kind, ir.Undefined), one, i32(0)), ir.Constant(kind, ir.Undefined),
                                       ir.Constant(ir.VectorType(i32, GROUP), [0] * GROUP))
        return builder.bitcast(builder.icmp_unsigned("!=", builder.and_(found, splat), ir.Constant(kind, [0] * GROUP)), i32)

    return types.uint32(words, bit), code


@called
def fired(bits):
    """Spikes among bits u8."""
    total, whole = 0, len(bits) // 8
    for word in bits[:8 * whole].view(np.uint64):
        word -= word >> ONE & TWOS
        word = (word & FOURS) + (word >> TWO & FOURS)
        total += (((word + (word >> FOUR)) & EIGHTS) * EACH) >> LAST
    for b in bits[8 * whole:]:
        total += COUNT[b]
    return total


@compiled
def gather(lanes, sums, rows, places, n, apart, like):
    """`summing` for `lanes` sums: 256, 128, 64 or 32."""
    if lanes == 16 * LANES:
        add_16(sums, rows, places, n, apart, like)
    elif lanes == 8 * LANES:
        add_8(sums, rows, places, n, apart, like)
    elif lanes == 4 * LANES:
        add_4(sums, rows, places, n, apart, like)
    else:
        add_2(sums, rows, places, n, apart, like)


@compiled
def listed(bits, places):
    """The spikes among bits: their places, in order, and how many; up to FOUND values behind them are written over, too."""
    n = 0
    for j in range(len(bits)):
        b, base = bits[j], np.uint16(FOUND * j)
        for i in range(FOUND):
            places[n + i] = PLACES[b, i] + base
        n += COUNT[b]
    return n


@compiled
def narrowed(sums, y):
    """Sums, in their order, to y as it is stored."""
    if in_pairs(y[0]):
        for first in range(0, len(y), 2 * LANES):
            even, odd, out = sums[first:first + LANES], sums[first + LANES:first + 2 * LANES], y[first:first + 2 * LANES]
            for i in range(LANES):
                out[2 * i], out[2 * i + 1] = narrow(even[i], out), narrow(odd[i], out)
    else:
        for i in range(len(y)):
            y[i] = narrow(sums[i], y)


@compiled
def add_over(total, part):
    """Add a part to its total, and begin it anew."""
    for i in range(len(total)):
        total[i] += part[i]
        part[i] = ZERO


def turn(work):
    """Weights float32 [out, taps, in] at `weight` to rows [taps, in, out] at `turned`, as they are stored; LANES in-channels of a tap at a time."""
    work = carray(work, 1)[0]
    C, outs, taps = work.channels, work.out, work.kernel * work.kernel
    weight_OKI, rows_KIO = carray(place(work.weight, ZERO), (outs, taps, C)), carray(place(work.turned, work.like), (taps, C, outs))
    task = take(work)
    while task < taps * (C // LANES):
        tap, block = divmod(task, C // LANES)
        first = block * LANES
        for o in range(outs):
            row = weight_OKI[o, tap, first:first + LANES]
            for i in range(LANES):
                rows_KIO[tap, first + i, o] = narrow(row[i], rows_KIO)
        task = take(work)


def turn_back(work):
    """Sums float32 [taps, in, out] at `turned` to a gradient [out, taps, in] at `weight`."""
    work = carray(work, 1)[0]
    C, outs, taps, pairs = work.channels, work.out, work.kernel * work.kernel, in_pairs(work.like)
    weight_OKI, sums_KIO = carray(place(work.weight, ZERO), (outs, taps, C)), carray(place(work.turned, ZERO), (taps, C, outs))
    task = take(work)
    while task < taps * (C // LANES):
        tap, block = divmod(task, C // LANES)
        first = block * LANES
        for at in range(outs):
            lane = at % (2 * LANES)
            o = at - lane + (2 * lane if lane < LANES else 2 * (lane - LANES) + 1) if pairs else at
            row = weight_OKI[o, tap, first:first + LANES]
            for i in range(LANES):
                row[i] = sums_KIO[tap, first + i, at]
        task = take(work)


def convolve(work):
    """y of the spikes, `rows` rows of a picture, or `group` whole ones, at a time, `lanes` of the channels together."""
    work = carray(work, 1)[0]
    N, H, W, C, outs, kernel, dilation = work.pictures, work.height, work.width, work.channels, work.out, work.kernel, work.dilation
    lanes, R, G, reach, size = work.lanes, work.rows, work.group, work.dilation * (work.kernel // 2), 2 if in_pairs(work.like) else 4
    bits, y = carray(place(work.spikes, NONE), N * H * W * C // 8), carray(place(work.y, work.like), N * H * W * outs)
    blocks, line, seen = -(-H // R), C + FOUND, min(H, R + 2 * reach) * W
    task = take(work)
    if task >= -(-N // G) * blocks:
        return
    places, count, sums = np.empty((G * seen, line), np.uint16), np.empty(G * seen, np.int64), np.empty(G * R * W * lanes, np.float32)
    places_at, sums_at = places.ctypes.data, sums.ctypes.data
    while task < -(-N // G) * blocks:
        n, first = task // blocks * G, task % blocks * R
        pictures, last = min(G, N - n), min(first + R, H)
        above, below = max(0, first - reach), min(H, last + reach)
        for m in range(pictures):
            for q in range((below - above) * W):
                begin = (((n + m) * H + above) * W + q) * C // 8
                count[m * seen + q] = listed(bits[begin:begin + C // 8], places[m * seen + q])
        for o in range(0, outs, lanes):
            sums[:] = ZERO
            for tap in range(kernel * kernel):
                down, right = (tap // kernel - kernel // 2) * dilation, (tap % kernel - kernel // 2) * dilation
                weights = work.weight + size * (tap * C * outs + o)
                for m in range(pictures):
                    for h in range(max(first, -down), min(last, H - down)):
                        for x in range(max(0, -right), min(W, W - right)):
                            q = m * seen + (h + down - above) * W + x + right
                            at = sums_at + 4 * ((m * R + h - first) * W + x) * lanes
                            gather(lanes, at, weights, places_at + 2 * q * line, count[q], size * outs, work.like)
            for m in range(pictures):
                for p in range((last - first) * W):
                    begin, at = (((n + m) * H + first) * W + p) * outs + o, (m * R * W + p) * lanes
                    narrowed(sums[at:at + lanes], y[begin:begin + lanes])
        task = take(work)


def weigh(work):
    """Sums of g for each weight, `piece` in-channels at a time: [taps, in, out] at `turned`.

    Of `rows` rows of a picture the spikes are listed channel by channel, for each of the kernel's columns those whose pixel lies in the map.
    """
    work = carray(work, 1)[0]
    N, H, W, C, outs, kernel, dilation = work.pictures, work.height, work.width, work.channels, work.out, work.kernel, work.dilation
    lanes, R, piece, size = work.lanes, work.rows, work.piece, 2 if in_pairs(work.like) else 4
    spikes, sums = carray(place(work.spikes, NONE), N * H * W * C // 8), carray(place(work.turned, ZERO), (kernel * kernel, C, outs))
    task, groups = take(work), -(-R * W // GROUP)
    if task * piece >= C:
        return
    words, seen = np.zeros((piece // LANES, GROUP * groups), np.uint16), np.empty(groups, np.uint32)
    latest, taps = np.empty((kernel * kernel, piece, outs), np.float32), kernel * kernel
    places, count = np.empty((kernel, piece, GROUP * groups + FOUND), np.uint16), np.empty((kernel, piece), np.int64)
    inside = np.zeros((kernel, groups), np.uint32)      # pixels whose column a tap of the kernel's column meets
    for column in range(kernel):
        for p in range(R * W):
            if 0 <= p % W - (column - kernel // 2) * dilation < W:
                inside[column, p // GROUP] |= np.uint32(1) << np.uint32(p % GROUP)
    words_at, places_at, latest_at, line = words.ctypes.data, places.ctypes.data, latest.ctypes.data, GROUP * groups + FOUND
    while task * piece < C:
        begin, channels = task * piece, min(piece, C - task * piece)
        sums[:, begin:begin + channels], latest[:] = ZERO, ZERO
        for block in range(N * -(-H // R)):
            n, first = block // -(-H // R), block % -(-H // R) * R
            rows = min(R, H - first)
            for part in range(channels // LANES):
                row = words[part]
                for p in range(rows * W):
                    at = (((n * H + first) * W + p) * C + begin) // 8 + 2 * part
                    row[p] = np.uint16(spikes[at]) | np.uint16(spikes[at + 1]) << np.uint16(8)
                row[rows * W:] = 0
            for c in range(channels):
                for column in range(kernel):
                    for k in range(groups):
                        seen[k] = having(words_at + 2 * ((c // LANES) * GROUP * groups + k * GROUP), c % LANES) & inside[column, k]
                    count[column, c] = listed(seen.view(np.uint8), places[column, c])
            for o in range(0, outs, lanes):
                for tap in range(kernel * kernel):
                    down, column = (tap // kernel - kernel // 2) * dilation, tap % kernel
                    top, bottom = max(0, down - first) * W, (min(rows, H - first + down)) * W
                    if top >= bottom:
                        continue
                    g = work.g + size * (((n * H + first - down) * W - (column - kernel // 2) * dilation) * outs + o)
                    for c in range(channels):
                        found, begun, ended = places[column, c], 0, count[column, c]
                        while begun < ended and found[begun] < top:
                            begun += 1
                        while ended > begun and found[ended - 1] >= bottom:
                            ended -= 1
                        gather(lanes, latest_at + 4 * ((tap * piece + c) * outs + o), g, places_at + 2 * ((column * piece + c) * line + begun), ended - begun,
                               size * outs, work.like)
            if (block + 1) % JOINED == 0 or block + 1 == N * -(-H // R):
                for tap in range(taps):
                    for c in range(channels):
                        add_over(sums[tap, begin + c], latest[tap, c])
        task = take(work)
