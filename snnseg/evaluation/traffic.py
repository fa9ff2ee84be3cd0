"""Bytes that a picture moves, layer by layer, by a dataflow that is simple and said in full.

    weights       read once at each step at which the layer works (or once a picture, if `weights_held`), with biases and norm
    states        membranes and accumulators, read once and written once a step; the current of a layer that works once for T
                  steps, written once and read at each
    activations   what a layer makes is written once a step, and read once a step by each layer that reads it: spikes as 1 bit,
                  those of both signs as 2, values as `value_bits`; so are maps before their resizing, and skips that are joined

A step of integer neurons is D sub-steps, for what they make and what reads it, bits, weights and states. Pool, norm and neuron work on
what passes by; a pooled input is read as it was before. Zeros are moved, too. An ANN that sees several frames keeps its mean as a state.
"""
from __future__ import annotations

from math import prod

from snnseg.evaluation.activity import Activity
from snnseg.evaluation.layers import INPUT
from snnseg.evaluation.operations import finishing, folds, norm_runs
from snnseg.evaluation.spikes import neurons

PARTS = "weights", "states", "activations"
FULL = 32       # bits of pictures, currents, membranes, accumulators, biases and norms


def input_bits(a: Activity, value_bits: int) -> int:
    """Of a value that the layer reads, as it lies in memory, all sub-steps of a step."""
    if a.of_spikes:
        return 2 if a.signed else a.layer.substeps
    return FULL if a.layer.reads == INPUT else value_bits


def of_layer(a: Activity, weight_bits: int = FULL, value_bits: int = FULL, weights_held: bool = False, fold_norm: bool = True) -> dict[str, float]:
    """Bytes of each of PARTS. `value_bits` are those of values between layers; `fold_norm` as in `operations.of_layer`."""
    layer, times = a.layer, finishing(a)
    grid, result = prod(layer.out_CHW), prod(layer.result_CHW)
    bits = {"weights": _weights(a, weight_bits, weights_held, fold_norm), "states": _states(a) * FULL}
    moved = (a.steps if layer.averaged else a.runs) * prod(layer.read_CHW) * input_bits(a, value_bits)
    if layer.resized_HW:        # what has accumulated is a state already, and only read
        moved += grid * times * FULL * (1 if layer.ends == "accumulates" else 2)
    if layer.joins:
        moved += result * times * value_bits
    if layer.ends == "fires":
        moved += result * a.steps * layer.levels
    elif layer.ends != "accumulates" or layer.resized_HW:
        moved += result * times * value_bits
    return {part: n / 8 for part, n in (bits | {"activations": moved}).items()}


def _weights(a: Activity, weight_bits: int, held: bool, fold_norm: bool) -> float:
    """Bits; a norm has two numbers a channel, or one if it is folded, and those of BNTT are others at each step."""
    layer = a.layer
    norm = layer.out_CHW[0] * (1 if folds(a, fold_norm) else 2) * (min(1, norm_runs(a)) if held and layer.norm == "static" else norm_runs(a))
    return layer.weights * weight_bits * (1 if held else a.runs * layer.substeps) + FULL * (layer.biases * (1 if held else finishing(a)) + norm)


def _states(a: Activity) -> int:
    """Numbers read and written."""
    if a.layer.averaged:
        return 2 * a.steps * prod(a.layer.read_CHW) if a.steps > 1 else 0
    if a.layer.ends not in ("fires", "accumulates"):
        return 0
    count = neurons(a.layer)
    return 2 * a.steps * a.layer.levels * count + ((1 + a.steps) * count if a.runs < a.steps else 0)
