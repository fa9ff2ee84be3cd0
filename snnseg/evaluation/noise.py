"""Disturbed inputs: pictures with noise or blurred, event frames with noise, or with events lost, added and displaced.

What is drawn hangs on (seed, level, draw, item) alone, so every net sees the same bytes. A level of 0 leaves an item as it is. In byte values:

    gaussian                N(0, level) for all channels of a pixel alike (the authors' program); of frames in 255ths of the largest count
    salt_pepper             a share of pixels is black or white
    blur                    a Gaussian window of so many pixels
    dropped, added          each event is lost with this probability; so many further ones, as a share of the frame's, anywhere
    jittered                each event is displaced by N(0, level) cells in x and y; what leaves the map is lost
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from snnseg import seeds
from snnseg.data.store import Split

Noise = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
FULL = 255


def gaussian(item_HWC: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """A picture u8 [H,W,3] with noise, rounded and cut off at 0 and 255."""
    noise_HW1 = rng.normal(0.0, sigma, (*item_HWC.shape[:2], 1))
    return np.rint(item_HWC + noise_HW1).clip(0, FULL).astype(np.uint8)


def gaussian_events(item_2HW: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Counts u16 [2,H,W] -> f32 with noise, which may be below 0."""
    most_2HW = item_2HW.max((1, 2), keepdims=True)
    return (item_2HW + rng.normal(0.0, sigma, item_2HW.shape) * most_2HW / FULL).astype(np.float32)


def salt_pepper(item_HWC: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A picture u8 [H,W,3] of which a share of pixels is 0 or 255, as likely."""
    where_HW = rng.random(item_HWC.shape[:2])
    out = item_HWC.copy()
    out[where_HW < share / 2], out[where_HW >= 1 - share / 2] = 0, FULL
    return out


def blur(item_HWC: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """A picture u8 [H,W,3] seen through a Gaussian window; nothing is drawn."""
    return np.rint(gaussian_filter(item_HWC.astype(np.float32), (sigma, sigma, 0), mode="nearest")).clip(0, FULL).astype(np.uint8)


def dropped(item_2HW: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Counts u16 [2,H,W] of which each event stays with probability 1 - share."""
    return rng.binomial(item_2HW, 1 - share).astype(np.uint16)


def added(item_2HW: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Counts u16 [2,H,W] and round(share * their sum) further events, each in any cell."""
    more = rng.multinomial(round(share * int(item_2HW.sum())), np.full(item_2HW.size, 1 / item_2HW.size))
    return (item_2HW + more.reshape(item_2HW.shape)).clip(0, np.iinfo(np.uint16).max).astype(np.uint16)


def jittered(item_2HW: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Counts u16 [2,H,W] whose events are displaced."""
    _, H, W = item_2HW.shape
    polarity, y, x = (np.repeat(place, item_2HW[np.nonzero(item_2HW)]) for place in np.nonzero(item_2HW))
    y, x = (np.rint(place + rng.normal(0.0, sigma, len(place))).astype(np.int64) for place in (y, x))
    inside = (0 <= y) & (y < H) & (0 <= x) & (x < W)
    cell = (polarity[inside] * H + y[inside]) * W + x[inside]
    return np.bincount(cell, minlength=item_2HW.size).reshape(item_2HW.shape).astype(np.uint16)


OF_PICTURES: dict[str, Noise] = {"gaussian": gaussian, "salt_pepper": salt_pepper, "blur": blur}
OF_EVENTS: dict[str, Noise] = {"gaussian": gaussian_events, "dropped": dropped, "added": added, "jittered": jittered}
DRAWS_NOTHING = {"blur"}


def noisy(split: Split, kind: str, level: float, seed: int, draw: int) -> Split:
    """The split with each item disturbed; masks, windows and attributes are its own. `level` has three decimals."""
    if level == 0:
        return split
    apply = (OF_PICTURES if split.window_MT is None else OF_EVENTS)[kind]
    items = [apply(item, level, seeds.generator(f"noise/{kind}", seed, round(1000 * level), draw, i)) for i, item in enumerate(split.input)]
    return replace(split, input=np.stack(items))


def digest(split: Split) -> str:
    """sha256 of the inputs' bytes."""
    return hashlib.sha256(np.ascontiguousarray(split.input)).hexdigest()
