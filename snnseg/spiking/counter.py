"""Uniform numbers from a counter, Philox 4x32-10 (Salmon et al. 2011), instead of from a state that is carried on.

A number is a function of the sample's seed, the time step and the position in the picture, so any stretch of steps can be
made alone, again, and on any device, with the same bits. The seed's two halves are the key; position and step // 4 are the
counter, and step % 4 is which of its four words is taken. This is the plain form, in integer operations of torch, and the
oracle of `counter_cpu` (numba) and `counter_triton`.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

STEPS = 4                                   # time steps that share a counter
ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57        # of the counter's first and third word
WEYL = 0x9E3779B9, 0xBB67AE85               # what the key grows by each round
WORD = 0xFFFFFFFF
UNIT = 2.0**-24                             # 24 of a word's bits fill a float32's mantissa: no number is rounded up to 1

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def _product(factor: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """Upper and lower 32 bits of a product of two words; by halves, since all 64 bits would run over the sign of an int64."""
    below = (word & 0xFFFF) * factor
    above = (word >> 16) * factor + (below >> 16)
    return above >> 16, (above & 0xFFFF) << 16 | below & 0xFFFF


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """The four words at a counter under a key; words are int64 tensors of 0 to 2^32 - 1 whose shapes go together."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(ROUNDS):
        (above, below), (up, down) = _product(MULTIPLIERS[0], c0), _product(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = up ^ c1 ^ k0, down, above ^ c3 ^ k1, below
        k0, k1 = k0 + WEYL[0] & WORD, k1 + WEYL[1] & WORD
    return c0, c1, c2, c3


def keys(seeds: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Seeds of 0 to 2^64 - 1 as the bits of int64 [B] on `device`; does not wait for it."""
    return torch.tensor([s - 2**64 if s >> 63 else s for s in seeds], dtype=torch.int64).to(device, non_blocking=True)


def uniforms(key_B: Tensor, first: int, last: int, shape_CHW: Sequence[int]) -> Tensor:
    """The numbers of steps first to last, float32 in [0, 1), [last - first, B, *shape], on the keys' device."""
    turn_K = torch.arange(first // STEPS, -(-last // STEPS), device=key_B.device)
    place_S = torch.arange(math.prod(shape_CHW), device=key_B.device)
    nothing = torch.zeros_like(place_S[:1])
    key = (key_B & WORD)[:, None], (key_B >> 32 & WORD)[:, None]
    words = torch.broadcast_tensors(*philox((place_S, turn_K[:, None, None], nothing, nothing), key))
    number_TBS = torch.stack([(w >> 8).float() * UNIT for w in words], 1).flatten(0, 1)
    return number_TBS[first % STEPS:][:last - first].unflatten(2, shape_CHW)
