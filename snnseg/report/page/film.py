"""Spikes as they come: maps of a net's layers step by step, to be played, and the membrane potential of single neurons."""
from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image

from snnseg.report import pictures
from snnseg.report.page import nets as lying
from snnseg.report.page.blocks import Block, Drawing, Film, Missing, Section, Strip
from snnseg.report.page.glance import titled
from snnseg.report.page.nets import Net
from snnseg.report.page.plot import Panel, Plot, Point, Rule, Series
from snnseg.report.page.samples import named

FRAMES = 20         # of a film
COLOURS = 32
NETS = 2            # of a benchmark, spiking ones


def section(nets: Sequence[Net]) -> Section:
    """Films of spiking nets, and a trace of a neuron of each."""
    spiking = {benchmark: [net for net in mine if net.spiking and (net.folder / "activations.npz").is_file()][:NETS]
               for benchmark, mine in lying.drawn(nets).items()}
    films: list[Block] = [_film(net) for mine in spiking.values() for net in mine]
    traced = membranes([net for mine in spiking.values() for net in mine])
    blocks = [*films, *([Drawing(traced)] if traced else [])]
    return Section("spikes", "Spikes, step by step", blocks or [Missing("Maps of spikes", "dvc repro activations")], "Spikes")


def strip(frames_THW3: np.ndarray, label: str, alt: str) -> Strip:
    """Frames u8 [T,H,W,3] side by side in one PNG of few colours."""
    count, height, width = frames_THW3.shape[:3]
    whole = Image.fromarray(np.ascontiguousarray(frames_THW3.transpose(1, 0, 2, 3)).reshape(height, count * width, 3))
    out = io.BytesIO()
    whole.quantize(COLOURS, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return Strip("data:image/png;base64," + base64.b64encode(out.getvalue()).decode(), label, alt, count, width, height)


def _film(net: Net) -> Film:
    """The first picture of activations.npz: input, truth, the answer after each step, a map a layer."""
    palette, classes, seen = net.about["palette"], net.about["classes"], net.told("activations.json") or {}
    with np.load(net.folder / "activations.npz", allow_pickle=False) as kept:
        answers, image, truth = kept["answer_TPHW"][:, 0], kept["image"][0], kept["truth"][0]
        maps = {name.removeprefix("map_"): kept[name][:, 0] for name in kept.files if name.startswith("map_")}
    steps = np.unique(np.linspace(0, len(answers) - 1, min(len(answers), FRAMES)).round().astype(int))
    strips = [strip(image[None], "input", f"Input, of {titled(net.benchmark)}"),
              strip(pictures.coloured(truth, palette)[None], "truth", f"Truth: {named(truth, classes)}"),
              strip(pictures.coloured(answers[steps], palette), "answer so far", f"Answer of {net.title} after the last step: {named(answers[-1], classes)}")]
    for layer, map_THW in maps.items():
        most = float(map_THW.max()) or 1.0
        shaded = matplotlib.colormaps["magma"](map_THW[steps] / most, bytes=True)[..., :3]
        strips.append(strip(shaded, f"{layer}, to {most:.2g}", f"Layer {layer}: mean {float(map_THW.mean()):.3f} spikes a neuron and step, at most {most:.2g}"))
    right = seen.get("right") or []
    shares = [f", {100 * right[t]:.0f} % of the pixels right" if t < len(right) and right[t] is not None else "" for t in steps]
    labels = [f"step {t + 1} of {len(answers)}{share}" for t, share in zip(steps, shares, strict=True)]
    return Film(f"film-{net.benchmark}-{net.experiment}", f"{titled(net.benchmark)}, {net.title}", strips, labels)


def membranes(nets: Sequence[Net]) -> Plot | None:
    """The potential of traced neurons before the reset, with the threshold; None where none was traced."""
    panels = []
    for net in nets:
        traced = (net.told("activations.json") or {}).get("traced") or {"neurons": []}
        able = sorted((n for n in traced["neurons"] if "potential" in n), key=lambda n: -sum(n["spikes"]))[:1]
        for n in able:
            points = [Point(t + 1, u) for t, u in enumerate(n["potential"])]
            panels.append(Panel(f"{titled(net.benchmark)}, {net.title}, {traced['layer']}", "time step", "membrane potential", [
                Series(net.experiment, points, label=f"{net.title}, channel {n['channel']} at {n['cell'][0]}, {n['cell'][1]}")],
                [Rule(n["threshold"], "threshold")], from_zero=False))
    return Plot("membrane", "Membrane potentials", "Membrane potential of a neuron at each time step, with the threshold.", panels,
                "A spike comes where the potential is above the threshold; what is over stays (soft reset, eqs. 2 and 3).") if panels else None
