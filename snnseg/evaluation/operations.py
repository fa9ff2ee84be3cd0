"""Operations that a picture takes, layer by layer and part by part, with what is zero left out.

A product of the convolution is a multiply-accumulate (MAC), or an accumulate (AC) where the input is spikes: -1, 0, 1. So MAC are the first layer under
direct coding or with frames of events, the layers behind an average pool, whose inputs are multiples of 1/9 (behind a max pool they are spikes), the FCN's
first transposed convolution, which reads scores, and all of an ANN, whose zeros are left out too. A spike of weighted phase stands for a power of two, the
same for all of a step, so it shifts their sum: ACs, and one more a neuron and step.
An integer neuron's k spikes are k accumulates, and D comparisons a step; a pool adds a step's sub-steps up.

Where a net is linear to its end, its software convolves the mean over time, once. Counted for a spiking net is what neuromorphic
hardware does: the classifier (FCN: last stage and its skip) adds up weights at each spike; what then follows (bias, resizing,
skip added) is done once a picture. An ANN averages values first, so there it is as in software. That logits are a sum or a mean
over time is not counted, as it changes no answer.
"""
from __future__ import annotations

from math import prod
from typing import NamedTuple

from snnseg.evaluation.activity import Activity
from snnseg.evaluation.spikes import neurons


class Work(NamedTuple):
    """Operations a picture. A lone multiplication is counted as a MAC, a comparison or subtraction as an AC."""

    macs: float = 0.0
    acs: float = 0.0


PARTS = "synapses", "pooling", "norm", "neuron", "adds", "resizing"


def finishing(a: Activity) -> int:
    """Times a picture at which bias, resizing and skip are done."""
    return 1 if a.layer.finished_once else a.runs


def folds(a: Activity, fold_norm: bool) -> bool:
    """A norm of the same numbers at each step can be folded into the convolution, which leaves the addition of its shift; BNTT cannot."""
    return fold_norm and a.layer.norm == "static"


def norm_runs(a: Activity) -> int:
    """Times a picture at which the norm is done: at each step if its numbers differ, else as often as the convolution."""
    return {"none": 0, "static": a.runs, "step": a.steps}[a.layer.norm]


def of_layer(a: Activity, fold_norm: bool = True) -> dict[str, Work]:
    """Work of each of PARTS:

    synapses   the convolution's products; once a picture where its input is the same at each step (direct coding's first layer);
               of weighted phase also a shift a neuron and step
    pooling    an AC an input that is not zero and each window that it lies in: an addition of the average, whose division by 9 is folded
               into the weights behind it, or a comparison of the max pool (of spikes an OR, so this is no less than it takes)
    norm       a MAC a neuron and step, or an AC where it is folded (`fold_norm`; only norms of the same numbers at each step)
    neuron     at each step a MAC for leak and input (an AC where the leak is 1), an AC for each comparison, and for a soft
               reset one a spike; a hard reset writes zero. A rectified unit compares. An accumulator's work is its synapses'
    adds       biases, joined skips, and the averaging over time of an ANN that sees several frames
    resizing   a MAC for each product of the bilinear resizing, neither factor zero
    """
    layer, count, products = a.layer, neurons(a.layer), sum(a.products_R) / a.pictures
    normed = count * norm_runs(a)
    adds = (finishing(a) * (prod(layer.out_CHW) * bool(layer.biases) + prod(layer.result_CHW) * (layer.joins is not None))
            + (a.steps - 1) * prod(layer.read_CHW) * layer.averaged)
    return {
        "synapses": Work(acs=products + count * a.runs * a.weighted) if a.accumulates else Work(macs=products),
        "pooling": Work(acs=sum(a.pooled_R) / a.pictures),
        "norm": Work(acs=normed) if folds(a, fold_norm) else Work(macs=normed),
        "neuron": _neuron(a, count),
        "adds": Work(acs=adds),
        "resizing": Work(macs=sum(a.resized_R) / a.pictures),
    }


def _neuron(a: Activity, count: int) -> Work:
    if a.layer.ends == "rectifies":
        return Work(acs=count * a.runs)
    if a.layer.ends != "fires":
        return Work()
    updates, resets = count * a.steps, a.spikes / a.pictures if a.layer.soft_reset else 0.0
    compared = updates * a.layer.levels
    return Work(updates, compared + resets) if a.layer.leaky else Work(0.0, updates + compared + resets)
