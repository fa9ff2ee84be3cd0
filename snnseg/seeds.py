"""Randomness is an argument: every draw comes from a purpose and the numbers that name it.

    generator("order", seed, epoch)            the order of an epoch's samples
    seed_of("poisson", seed, epoch, sample)    a sample's input spikes

A purpose always comes with as many numbers. The same names give the same draws on any machine, for any worker count and after any resume.
"""
from __future__ import annotations

import zlib

import numpy as np


def _sequence(purpose: str, numbers: tuple[int, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence([zlib.crc32(purpose.encode()), *map(int, numbers)])


def generator(purpose: str, *numbers: int) -> np.random.Generator:
    """A numpy generator (Philox, counter based) for `purpose` at `numbers` (each >= 0)."""
    return np.random.Generator(np.random.Philox(_sequence(purpose, numbers)))


def seed_of(purpose: str, *numbers: int) -> int:
    """A 64-bit seed for `purpose` at `numbers`: the key of a counter-based generator (`spiking.counter`)."""
    return int(_sequence(purpose, numbers).generate_state(1, np.uint64)[0])
