"""The paper's tables: its figure, ours, the difference, and what makes the two comparable or not."""
from __future__ import annotations

from collections.abc import Sequence

from snnseg.report import paper, style
from snnseg.report.page.blocks import NONE, Cell, Column, Prose, Section, Table
from snnseg.report.page.glance import titled
from snnseg.report.page.nets import Net, twin
from snnseg.report.table import NOT_RUN

SAME = "the paper's setting"
ACCURACY = (("table 2", "voc"), ("table 3", "ddd17"), ("table 4", "mnist_cifar"))


def nearest(nets: Sequence[Net], dataset: str, model: str) -> Net | None:
    """The net of ours that stands beside a number of the paper: of those with this data and model the one with the fewest other numbers."""
    able = [net for net in nets if net.metrics and net.dataset == dataset and net.model == model]
    return min(able, key=lambda net: (len(paper.deviations(net.about, net.metrics)), net.experiment != model), default=None)


def setting(net: Net, timesteps: int | None = None) -> str:
    """The mark that a number of ours carries beside one of the paper's; `timesteps` where both were had with so many."""
    other = [words for words in paper.deviations(net.about, net.metrics) if timesteps is None or not words.startswith(("T = ", "read at"))]
    return f"other setting: {', '.join(other)}" if other else SAME


def signed(value: float, digits: int) -> str:
    """A difference with its sign."""
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def difference(value: float, mark: str) -> Cell:
    """A difference that says itself when it is none of a reproduction, whatever of the row is seen."""
    return Cell(signed(value, 2), note="" if mark == SAME else mark.partition(":")[0])


def _accuracy(nets: Sequence[Net], place: str, dataset: str) -> Table:
    columns = [Column("Method"), Column("mIoU", "paper, %", True), Column("mIoU", "ours, %", True), Column("Difference", "points", True),
               Column("Setting of ours", long=True), Column("Time steps", "paper", True), Column("Time steps", "ours", True)]
    rows = []
    for told in paper.of("miou", dataset):
        net = nearest(nets, dataset, told.net)
        row = [Cell(style.named(told.net), net=told.net), Cell(told.value)]
        if net is None:
            rows.append([*row, *[Cell(NOT_RUN)] * 3, Cell(told.timesteps or NONE), Cell(NOT_RUN)])
        else:
            steps = str(net.metrics["timesteps"]) if net.spiking or dataset == "ddd17" else NONE
            named = "" if net.experiment == told.net else f" ({net.name})"
            rows.append([*row, Cell(f"{net.metrics['miou']:.2f}"), difference(net.metrics["miou"] - told.number, setting(net)),
                         Cell(setting(net) + named), Cell(told.timesteps or NONE), Cell(steps)])
    return Table(f"paper-{place.replace(' ', '-')}", f"The paper's {place}: mean IoU on {titled(dataset)}", columns, rows)


def _constants(nets: Sequence[Net]) -> Table:
    """Table 5 beside the constants that our counts were made with."""
    used = next((net.energy["picojoules"] for net in nets if net.energy and "picojoules" in net.energy), None)
    columns = [Column("Operation, 45 nm CMOS"), Column("Energy", "paper, pJ", True), Column("Energy", "ours, pJ", True), Column("Difference", "pJ", True)]
    names = {"multiply_pj": "32-bit FP MULT", "add_pj": "32-bit FP ADD", "mac_pj": "32-bit FP MAC", "ac_pj": "32-bit FP AC"}
    ours = used and {"multiply_pj": used["multiply"], "add_pj": used["add"], "mac_pj": used["multiply"] + used["add"], "ac_pj": used["add"]}
    rows = [[Cell(names[told.quantity]), Cell(told.value), *([Cell(NOT_RUN)] * 2 if not ours else
             [Cell(f"{ours[told.quantity]:.1f}"), Cell(signed(ours[told.quantity] - told.number, 1))])] for told in paper.figures() if told.place == "table 5"]
    return Table("paper-table-5", "The paper's table 5: energy of an operation", columns, rows)


def ratios(net: Net, nets: Sequence[Net]) -> tuple[float, float] | None:
    """E_ANN / E_SNN of a net beside its twin: by the paper's proxy, and counted exactly."""
    ann = twin(net, nets)
    if not (net.energy and ann and ann.energy):
        return None
    return tuple(ann.energy["energy_mj"][way] / net.energy["energy_mj"][way] for way in ("proxy", "exact"))


def _energy(nets: Sequence[Net]) -> Table:
    columns = [Column("Method"), Column("E_ANN / E_method", "paper", True), Column("By the proxy", "ours", True), Column("Difference", "", True),
               Column("Counted exactly", "ours", True), Column("Setting of ours", long=True)]
    rows = []
    for told in paper.of("energy_ratio"):
        net = nearest(nets, told.dataset, told.net)
        found = ratios(net, nets) if net else None
        row = [Cell(f"{style.named(told.net)}, {titled(told.dataset)}", net=told.net), Cell(f"{told.value}\N{MULTIPLICATION SIGN}")]
        rows.append([*row, *[Cell(NOT_RUN)] * 4] if found is None else
                    [*row, Cell(f"{found[0]:.2f}\N{MULTIPLICATION SIGN}"), difference(found[0] - told.number, setting(net)),
                     Cell(f"{found[1]:.2f}\N{MULTIPLICATION SIGN}"), Cell(setting(net))])
    return Table("paper-table-6", "The paper's table 6: how many times the energy its ANN twin spends", columns, rows,
                 "The proxy is eqs. 8 to 12: an ANN's products all counted, zeros too. Counted exactly, products with zeros are free in both nets.")


def section(nets: Sequence[Net]) -> Section:
    """Tables 2 to 6. What the paper shows in figures alone (3, 11, 13, 14) has no numbers to stand beside."""
    marked = Prose("A difference is no reproduction unless its row says “" + SAME + "”: other data, size, width, epochs or time steps are named "
                   "with each. The paper gives one number each, without a spread.")
    return Section("paper", "Beside the paper", [marked, *(_accuracy(nets, *which) for which in ACCURACY), _energy(nets), _constants(nets)], "Paper")
