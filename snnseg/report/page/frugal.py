"""How frugal: energy a picture by each way of counting, accuracy over energy, and how often the neurons of each layer fire (figure 14)."""
from __future__ import annotations

from collections.abc import Sequence

from snnseg.report.page import nets as lying
from snnseg.report.page.blocks import Block, Drawing, Missing, Prose, Section
from snnseg.report.page.glance import titled
from snnseg.report.page.nets import Net
from snnseg.report.page.plot import Panel, Plot, Point, Series

WAYS = {"proxy": "proxy", "exact": "exact", "with_memory": "with memory"}


def section(nets: Sequence[Net]) -> Section:
    """Accuracy over energy, the ways of counting, spikes by layer."""
    found = {b: [net for net in mine if net.energy] for b, mine in lying.drawn(nets).items()}
    found = {b: mine for b, mine in found.items() if mine}
    if not found:
        return Section("energy", "Energy and spikes", [Missing("Energy and spikes", "dvc repro energy")], "Energy")
    counted = Prose("Three ways of counting: the paper's proxy (eqs. 8 to 12), which has an ANN multiply its zeros, too; exact, where nobody does; "
                    "and exact with the bytes of weights, membrane potentials and activations that move. Bits: the ANN quantised to what as many "
                    "time steps of spikes can tell apart, the fairer rival.")
    blocks: list[Block] = [counted, Drawing(trade(found)), Drawing(ways(found))]
    if fired := firing(found):
        blocks.append(Drawing(fired))
    return Section("energy", "Energy and spikes", blocks, "Energy")


def trade(found: dict[str, list[Net]]) -> Plot:
    """mIoU over energy: the upper left corner is where a net should be. Twins also with activations of few bits, where these were scored."""
    panels = []
    for b, mine in found.items():
        series = [Series(net.experiment, [Point(net.energy["energy_mj"]["exact"], net.metrics["miou"])], joined=False, label=net.title) for net in mine]
        series += [Series(net.experiment, points, label=f"{net.title}, few bits") for net in mine if (points := few_bits(net))]
        panels.append(Panel(titled(b), "energy a picture, exact, mJ", "mIoU, %", series, log_x=True, from_zero=False))
    return Plot("trade", "Accuracy over energy", "Mean IoU of each net over the energy it spends on a picture.", panels, "Up and to the left is better. "
                "Few bits: the twin with its activations quantised without training.")


def few_bits(net: Net) -> list[Point]:
    """A twin's scores and energies with activations of few bits, the fewest first."""
    mj = {q["bits"]: q["exact_mj"] for q in net.energy.get("quantised", [])}
    return [Point(mj[q["bits"]], q["miou"]) for q in (net.told("conversion.json") or {}).get("quantised", []) if q["bits"] in mj]


def ways(found: dict[str, list[Net]]) -> Plot:
    """Millijoules a picture by way of counting."""
    panels = []
    for b, mine in found.items():
        keys = list(dict.fromkeys(way for net in mine for way in net.energy["energy_mj"]))
        series = [Series(net.experiment, [Point(keys.index(way), mj) for way, mj in net.energy["energy_mj"].items()], joined=False, label=net.title)
                  for net in mine]
        panels.append(Panel(titled(b), "way of counting", "energy a picture, mJ", series, categories=[WAYS.get(k, k.replace("_", " ")) for k in keys],
                            log_y=True))
    return Plot("energy", "Energy by each way of counting", "Energy a picture of each net, counted in several ways, on a logarithmic axis.", panels,
                "Means over test pictures, at 45 nm.")


def firing(found: dict[str, list[Net]]) -> Plot | None:
    """Spikes a neuron and step by layer, a panel a net, in the order of the layers."""
    panels = []
    for b, mine in found.items():
        for net in mine:
            layers: dict[str, list[float]] = {}
            for row in net.rows("spikes.csv"):
                layers.setdefault(row["layer"], []).append(float(row["rate"]))
            if layers:
                points = [Point(k, sum(r) / len(r), min(r), max(r)) for k, r in enumerate(layers.values())]
                panels.append(Panel(f"{titled(b)}, {net.title}", "layer", "spikes a neuron and step", [Series(net.experiment, points, label=net.title)],
                                    categories=list(layers)))
    return Plot("spikes", "Spike rates by layer", "Spikes a neuron and time step of each layer that fires.", panels,
                "As figure 14 of the paper, divided by the number of time steps.", "Bars: from the least to the most of the time steps.") if panels else None
