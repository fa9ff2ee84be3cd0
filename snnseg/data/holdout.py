"""A share of a split kept back, so that numbers can be chosen without a look at the test split."""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from snnseg import seeds
from snnseg.data.store import Split


def held_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """What is left of `split`, and a `share` of it, drawn from the seed; at least one item each.

    Pictures are drawn one by one. Of event frames a stretch of successive windows is kept back, and those that share a frame
    with it are in neither part: a window's neighbours show nearly the same. Raises ValueError where nothing would be left.
    """
    count = len(split)
    kept = max(1, round(share * count))
    rng = seeds.generator("holdout", seed)
    if split.window_MT is None:
        order = rng.permutation(count)
        back, rest = np.sort(order[:kept]), np.sort(order[kept:])
    else:
        first = rng.integers(count - kept + 1)
        back = np.arange(first, first + kept)
        rest = np.flatnonzero(~np.isin(split.window_MT, split.window_MT[back]).any(axis=1))
    if not len(rest):
        raise ValueError(f"a share of {share} of {count} items leaves none to train on")
    return _part(split, rest), _part(split, back)


def _part(split: Split, index: np.ndarray) -> Split:
    if split.window_MT is not None:
        return replace(split, window_MT=split.window_MT[index])
    return replace(split, input=split.input[index], mask_NHW=split.mask_NHW[index])
