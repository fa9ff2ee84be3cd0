"""One experiment's activations on chosen test pictures, as files below data/result/<benchmark>/<experiment>/.

    activations.npz    maps of layers, answers after each step, potentials and spikes of the traced neurons
    activations.json   means of the maps, how right the answer is after each step, the traced neurons' numbers
    activations.png    maps over time;  activations.gif: the same, moving;  membrane.png: potentials and spikes

The net runs in evaluation mode, with the time steps that it was trained with, on the spikes that it is scored on.
"""
from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from snnseg import lock, memory, seal
from snnseg.data import store
from snnseg.data.loader import batches
from snnseg.errors import ConfigError
from snnseg.evaluation import activations
from snnseg.evaluation.activations import Activations
from snnseg.models import zoo
from snnseg.models.feed import ready
from snnseg.models.inputs import coded
from snnseg.report import activations_figure, pictures
from snnseg.report.opened import opened
from snnseg.sections import Config

FILES = "activations.npz", "activations.json", "activations.png", "membrane.png", "activations.gif"


@dataclass(frozen=True)
class Seen:
    """What a net does with pictures of the test split, numbers `chosen`: u8 images [P,H,W,3], truths [P,H,W]."""

    summary: dict[str, Any]
    about: dict[str, Any]
    chosen: tuple[int, ...]
    pixels: tuple[tuple[int, int], ...]
    images: np.ndarray
    truths: np.ndarray
    found: Activations


def chosen(config: Config, count: int) -> tuple[int, ...]:
    """The numbers of the pictures asked for, of a split of so many. Raises ConfigError for one there is not."""
    asked = config.activations.pictures
    if isinstance(asked, int):
        return tuple(np.linspace(0, count - 1, min(asked, count)).astype(int).tolist())      # from all over the split
    if unknown := [k for k in asked if k >= count]:
        raise ConfigError(f"activations.pictures: there is no picture {unknown[0]}. The test split of {config.benchmark} has {count}, 0 to {count - 1}.")
    return tuple(asked)


def measure(model_folder: Path, config: Config) -> Seen:
    """Run a saved net over the pictures of its test split that `activations.pictures` names.

    `config` gives the section activations, all else is the net's own. Raises StoreError and its kin, OutOfMemory, and ConfigError
    for a picture, layer, pixel or channel that there is not.
    """
    net = opened(model_folder, config)
    trained, about, device = net.config, net.about, net.device
    zoo.compute_in("fp32")
    split, a = net.split("test"), trained.activations
    numbers = chosen(trained, len(split))
    batch = next(batches(split, len(numbers), np.array(numbers)))
    with memory.shortage_named(trained, "activations.pictures", len(numbers)):
        x = coded(ready(batch, device).input, batch.index_B, trained, device, ("evaluate", 0))
        found = activations.measure(net.model, x, a.layers, a.traced, a.pixels, a.channels)
    items, truths = split.take(np.array(numbers))
    pixels = tuple((row, column) for row, column in a.pixels)
    return Seen(_summary(trained, about, numbers, pixels, found, truths), about, numbers, pixels, np.stack([pictures.visible(item) for item in items]), truths,
                found)


def _summary(config: Config, about: dict[str, Any], numbers: tuple[int, ...], pixels: tuple[tuple[int, int], ...], found: Activations,
             truths: np.ndarray) -> dict[str, Any]:
    labelled = truths != store.VOID
    right = [float((answer == truths)[labelled].mean()) if labelled.any() else None for answer in found.answers_TBHW]
    return {
        "benchmark": about["benchmark"], "experiment": about["experiment"], "protocol": config.protocol, "timesteps": config.timesteps,
        "pictures": list(numbers), "right": right,
        "layers": {layer: [float(each) for each in x_TBHW.mean((1, 2, 3), dtype=np.float64)] for layer, x_TBHW in found.maps.items()},
        "traced": {"layer": found.traces.layer, "neurons": _neurons(numbers, pixels, found)},
    }


def _neurons(numbers: tuple[int, ...], pixels: tuple[tuple[int, int], ...], found: Activations) -> list[dict[str, Any]]:
    """A row a neuron: where it is, and its numbers step by step; of an ANN, `values`."""
    t, rows = found.traces, []
    for b, number in enumerate(numbers):
        for n, (pixel, cell) in enumerate(zip(pixels, t.cells, strict=True)):
            for k, channel in enumerate(t.channels):
                before = t.before_TBKN[:, b, k, n].tolist()
                told = {"values": before} if t.spikes_TBKN is None else {
                    "leak": float(t.leak_K[k]), "threshold": float(t.threshold_K[k]), "potential": before,
                    "left": t.after_TBKN[:, b, k, n].tolist(), "spikes": t.spikes_TBKN[:, b, k, n].astype(int).tolist()}
                rows.append({"picture": number, "pixel": list(pixel), "cell": list(cell), "channel": channel, **told})
    return rows


def _arrays(seen: Seen) -> bytes:
    t = seen.found.traces
    traced = {"potential_TPKN": t.before_TBKN} if t.spikes_TBKN is None else {
        "potential_TPKN": t.before_TBKN, "left_TPKN": t.after_TBKN, "spikes_TPKN": t.spikes_TBKN, "leak_K": t.leak_K, "threshold_K": t.threshold_K}
    out = io.BytesIO()
    np.savez_compressed(out, picture=np.array(seen.chosen), image=seen.images, truth=seen.truths, answer_TPHW=seen.found.answers_TBHW,
                        channel=np.array(t.channels), pixel=np.array(seen.pixels), cell=np.array(t.cells), **traced,
                        **{f"map_{layer}": x_TBHW for layer, x_TBHW in seen.found.maps.items()})
    return out.getvalue()


def save(seen: Seen, folder: Path) -> None:
    """Write the files into a folder. Raises Busy, NoSpace."""
    shown = activations_figure.Shown(f"{seen.summary['benchmark']}/{seen.summary['experiment']}", seen.about["palette"], seen.chosen, seen.pixels, seen.images,
                                     seen.truths, seen.found)
    made = (_arrays(seen), json.dumps(seen.summary, indent=1) + "\n", activations_figure.maps(shown), activations_figure.membranes(shown),
            activations_figure.moving(shown))
    with lock.held(folder, "looking at activations"):
        for name, data in zip(FILES, made, strict=True):
            seal.write_file(folder / name, data)


def write(config: Config) -> Seen:
    """Look at the experiment's net and write its files. Raises as `measure` and `save`."""
    seen = measure(config.model_folder, config)
    save(seen, config.result_folder)
    return seen


def lines(summary: dict[str, Any]) -> str:
    """The summary for a person. A potential above the threshold, from which a spike comes, is marked."""
    told = [f"{summary['benchmark']}/{summary['experiment']}, pictures {', '.join(map(str, summary['pictures']))}, step by step",
            f"  {'right':10} " + " ".join("-" if share is None else f"{100 * share:6.2f}" for share in summary["right"]) + "   % of the pixels"]
    told += [f"  {layer:10} " + " ".join(f"{mean:6.3f}" for mean in means) for layer, means in summary["layers"].items()]
    for neuron in summary["traced"]["neurons"]:
        spikes = neuron.get("spikes") or [0] * summary["timesteps"]
        values = " ".join(f"{u:6.2f}{'*' if s else ' '}" for u, s in zip(neuron.get("potential") or neuron["values"], spikes, strict=True))
        told.append(f"  {summary['traced']['layer']:10} {values}  picture {neuron['picture']}, pixel {neuron['pixel']}, channel {neuron['channel']}")
    return "\n".join(told)
