"""A share of a split kept back, so that numbers can be chosen without a look at the test split."""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from snnseg import seeds
from snnseg.data.store import VOID, Split


def held_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """What is left of `split`, and a `share` of it, drawn from the seed; at least one item each.

    Pictures are drawn one by one. Of event frames a stretch of successive labels is kept back, the same for any number of
    time steps, and windows that share a frame with one of it are in neither part: neighbours show nearly the same. Raises
    ValueError where nothing would be left.
    """
    rng = seeds.generator("holdout", seed)
    if split.window_MT is None:
        order = rng.permutation(len(split))
        kept = max(1, round(share * len(split)))
        back, rest = np.sort(order[:kept]), np.sort(order[kept:])
    else:
        label_M = split.window_MT[:, -1]
        labelled = np.flatnonzero((split.mask_NHW != VOID).any(axis=(1, 2)))
        kept = max(1, round(share * len(labelled)))
        first = rng.integers(len(labelled) - kept + 1)
        back = np.flatnonzero(np.isin(label_M, labelled[first:first + kept]))
        if not len(back):       # the stretch lies where no window ends: at the beginning of an interval
            back = np.abs(label_M - labelled[first]).argmin()[None]
        rest = np.flatnonzero(~np.isin(split.window_MT, split.window_MT[back]).any(axis=1))
    if not len(rest):
        raise ValueError(f"a share of {share} of {len(split)} items leaves none to train on")
    return _part(split, rest), _part(split, back)


def _part(split: Split, index: np.ndarray) -> Split:
    if split.window_MT is not None:
        return replace(split, window_MT=split.window_MT[index])
    return replace(split, input=split.input[index], mask_NHW=split.mask_NHW[index])
