"""`counter.uniforms` on a GPU, and spikes drawn with them, as one Triton kernel: the plain form would be some 300 launches."""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from snnseg.spiking.counter import STEPS

BLOCK = 512         # positions of a program


@triton.jit(do_not_specialize=["first", "last"])
def draw(out, x, keys, B, S, first, last, KIND: tl.constexpr, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    """out [last - first, B, S] from x [B, S] and keys [B]; a program takes BLOCK positions of picture b at the steps of a counter."""
    place, b, turn = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.program_id(1), first // STEPS + tl.program_id(2)
    there, nothing = place < S, tl.zeros([BLOCK], tl.int32)
    w0, w1, w2, w3 = tl.philox(tl.load(keys + b), place, nothing + turn, nothing, nothing)
    value = tl.load(x + b.to(tl.int64) * S + place, there, 0.0) if KIND != "numbers" else nothing.to(tl.float32)
    for k in tl.static_range(STEPS):
        word = w0 if k == 0 else w1 if k == 1 else w2 if k == 2 else w3
        number = (word >> 8).to(tl.float32) * 5.9604644775390625e-08        # counter.UNIT
        t = turn * STEPS + k
        if KIND == "poisson":
            number = tl.where(number < value, 1.0, 0.0)
        elif KIND == "signed":
            number = tl.where(number <= tl.abs(value), tl.where(value > 0, 1.0, tl.where(value < 0, -1.0, 0.0)), 0.0)
        tl.store(out + ((t - first).to(tl.int64) * B + b) * S + place, number, there & (t >= first) & (t < last))


def _drawn(x: Tensor, key_B: Tensor, first: int, last: int, shape_CHW: Sequence[int], kind: str) -> Tensor:
    B, S = len(key_B), math.prod(shape_CHW)
    out = torch.empty(last - first, B, *shape_CHW, device=key_B.device)
    turns = -(-last // STEPS) - first // STEPS
    if out.numel():
        draw[triton.cdiv(S, BLOCK), B, turns](out, x, key_B, B, S, first, last, kind, STEPS, BLOCK)
    return out


def uniforms(key_B: Tensor, first: int, last: int, shape_CHW: Sequence[int]) -> Tensor:
    """As `counter.uniforms`."""
    return _drawn(key_B, key_B, first, last, shape_CHW, "numbers")


def spikes(x_BCHW: Tensor, key_B: Tensor, first: int, last: int, signed: bool) -> Tensor:
    """As `encode.poisson` or `encode.signed_poisson` of x, float32, and the numbers of steps first to last."""
    return _drawn(x_BCHW.contiguous(), key_B, first, last, x_BCHW.shape[1:], "signed" if signed else "poisson")
