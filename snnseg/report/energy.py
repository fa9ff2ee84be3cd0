"""One experiment's spikes and energy: a trained net run over test pictures, counted, and as files below data/result/<benchmark>/<experiment>/.

    energy.json   energy a picture in millijoules by each way of counting, operations, spike rates
    energy.csv    the same layer by layer: operations, bytes, picojoules by part
    spikes.csv    spikes a neuron and time step of each layer that fires (figure 14)

The net runs in evaluation mode with the running statistics of its norms, with the time steps that it was trained with.
"""
from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snnseg import lock, memory, seal
from snnseg.data import store
from snnseg.data.loader import batches
from snnseg.evaluation import activity, energy, spikes
from snnseg.evaluation.energy import Arithmetic, Energy, Memory
from snnseg.evaluation.spikes import SpikeRate
from snnseg.models import zoo
from snnseg.models.feed import ready
from snnseg.models.inputs import keys, source
from snnseg.report.opened import opened
from snnseg.report.table import csv_text
from snnseg.sections import Config
from snnseg.spiking.encode import Coded

FILES = "energy.json", "energy.csv", "spikes.csv"
BITS = range(1, 9)      # of a twin's activations, were they quantised


@dataclass(frozen=True)
class Counted:
    """What a net spends on a picture, counted in several ways, and how its neurons fire."""

    summary: dict[str, Any]
    about: dict[str, Any]
    ways: tuple[Energy, ...]
    rates: tuple[SpikeRate, ...]


def constants(config: Config) -> tuple[Arithmetic, Memory]:
    """The section energy as what `evaluation.energy` takes."""
    e = config.energy
    return (Arithmetic(e.multiply_pj, e.add_pj, e.weight_bits, e.activation_bits, e.pooled_bits, e.fold_norm),
            Memory(e.weight_byte_pj, e.state_byte_pj, e.activation_byte_pj, e.weights_held))


def inputs(config: Config, split: store.Split, device: torch.device) -> Iterator[Coded]:
    """The first pictures of the split as the net sees them, coded as `evaluate` codes them."""
    first = np.arange(min(config.energy.pictures, len(split)))
    for batch in batches(split, config.evaluate.batch, first):
        here = ready(batch, device)
        key_B = keys(batch.index_B, config, ("evaluate", 0))
        yield source(here.input, None if key_B is None else torch.from_numpy(key_B).to(device), config)


def measure(model_folder: Path, config: Config) -> Counted:
    """Count a saved net's spikes and energy over the first `energy.pictures` pictures of its test split.

    `config` gives the section energy, all else is the net's own. Raises StoreError and its kin, and OutOfMemory.
    """
    net = opened(model_folder, config)
    trained, about = net.config, net.about
    zoo.compute_in("fp32")
    with memory.shortage_named(trained, "evaluate.batch", trained.evaluate.batch):
        counts = activity.measure(net.model, inputs(trained, net.split("test"), net.device))
    rival = None if trained.spiking else trained.energy.rival_timesteps
    ways = energy.side_by_side(counts, *constants(trained), rival_of=rival)
    rates = spikes.rates(counts, trained.energy.saturated)
    summary = _summary(trained, about, counts[0].pictures, ways, rates)
    if not trained.spiking:
        few = {bits: energy.quantised(counts, 2**bits - 1, constants(trained)[0]) for bits in BITS}
        summary["quantised"] = [{"bits": bits, "exact_mj": counted.mj} for bits, counted in few.items()]
    return Counted(summary, about, ways, rates)


def _key(way: str) -> str:
    """`exact, 3 bits` as a name: exact_3_bits."""
    return way.replace(", ", "_").replace(" ", "_")


def _summary(config: Config, about: dict[str, Any], pictures: int, ways: tuple[Energy, ...], rates: tuple[SpikeRate, ...]) -> dict[str, Any]:
    exact = next(way for way in ways if way.way == "exact")
    fired, neurons = sum(r.spikes for r in rates), sum(r.neurons for r in rates)
    return {
        "benchmark": about["benchmark"], "experiment": about["experiment"], "protocol": config.protocol, "timesteps": config.timesteps, "pictures": pictures,
        "picojoules": {"multiply": config.energy.multiply_pj, "add": config.energy.add_pj},
        "energy_mj": {_key(way.way): way.mj for way in ways},
        "operations": {name: exact.totals[name] for name in ("dense_macs", "macs", "acs")},
        "parts_mj": {part: pj / energy.MILLIJOULE for part, pj in exact.by_part.items()},
        "spikes": None if not rates else {
            "a_picture": fired, "a_neuron_and_step": fired / neurons / config.timesteps, "of_layers": {r.layer: r.rate / config.timesteps for r in rates},
            "dead_channels": {r.layer: len(r.dead) for r in rates if r.dead}, "saturated_channels": {r.layer: len(r.saturated) for r in rates if r.saturated}},
    }


def _layers(ways: tuple[Energy, ...]) -> str:
    rows = list(itertools.chain(*(way.rows() for way in ways)))
    for row in rows:
        row["products_per_step"] = " ".join(f"{n:.1f}" for n in row["products_per_step"])
    columns = list(dict.fromkeys(itertools.chain(*rows)))
    return csv_text([{c: "" if row.get(c) is None else f"{row[c]:.6g}" if isinstance(row[c], float) else row[c] for c in columns} for row in rows], columns)


def _steps(rates: tuple[SpikeRate, ...]) -> str:
    rows = [{"layer": r.layer, "channels": r.channels, "neurons": r.neurons, "step": t + 1, "rate": f"{rate:.6f}"}
            for r in rates for t, rate in enumerate(r.per_step)]
    return csv_text(rows, ["layer", "channels", "neurons", "step", "rate"])


def write(config: Config) -> Counted:
    """Count the experiment's net and write its files. Raises as `measure`, and Busy, NoSpace."""
    counted, folder = measure(config.model_folder, config), config.result_folder
    with lock.held(folder, "counting energy"):
        for name, text in zip(FILES, (json.dumps(counted.summary, indent=1) + "\n", _layers(counted.ways), _steps(counted.rates)), strict=True):
            seal.write_file(folder / name, text)
    return counted


def lines(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    rate = "" if summary["spikes"] is None else f"   {summary['spikes']['a_neuron_and_step']:.3f} spikes a neuron and step"
    told = [f"{summary['benchmark']}/{summary['experiment']}, {summary['pictures']} pictures{rate}"]
    told += [f"  {way.replace('_', ' '):24}{mj:10.4f} mJ a picture" for way, mj in summary["energy_mj"].items()]
    if few := summary.get("quantised"):
        told += [f"  exact, activations of {few[0]['bits']} to {few[-1]['bits']} bits: {' '.join(format(q['exact_mj'], '.4f') for q in few)}"]
    return "\n".join(told)
