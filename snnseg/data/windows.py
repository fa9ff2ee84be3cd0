"""Windows over event frames: an item of training is T successive frames of one interval of one recording.

An index into the stored frames, never copies of them.
"""
from __future__ import annotations

import numpy as np


def windows(sequence_N: np.ndarray, frame_N: np.ndarray, steps: int) -> np.ndarray:
    """All runs of `steps` successive frames of one sequence, int64 [M, steps] into the N; the label is that of the last.

    A run never goes over the end of a sequence or a frame that is not there (the authors' loader goes over both). Frames
    of sequence -1 are in no window. Windows come in the order of (sequence, frame), wherever the frames are stored.
    """
    sequence_N, frame_N = np.asarray(sequence_N, np.int64), np.asarray(frame_N, np.int64)
    if steps < 1 or sequence_N.shape != frame_N.shape or frame_N.ndim != 1:
        raise ValueError(f"windows of {steps} steps over sequences {sequence_N.shape} and frames {frame_N.shape}")
    order = np.lexsort((frame_N, sequence_N))
    order = order[sequence_N[order] >= 0]
    sequence, frame = sequence_N[order], frame_N[order]
    same, gap = sequence[1:] == sequence[:-1], frame[1:] - frame[:-1]
    if (same & (gap == 0)).any():
        raise ValueError(f"frame {frame[1:][same & (gap == 0)][0]} is there twice")
    first = np.concatenate([[True], ~(same & (gap == 1))])[:len(order)]     # of a run
    place = np.arange(len(order))
    length = place - np.maximum.accumulate(np.where(first, place, 0)) + 1   # of the run up to here
    last = np.flatnonzero(length >= steps)
    return order[last[:, None] + np.arange(1 - steps, 1)]
