"""The head of the page: in a sentence and a small table which net is how accurate, how robust and how frugal."""
from __future__ import annotations

from collections.abc import Sequence

from snnseg.report.page import nets as lying
from snnseg.report.page.blocks import NONE, Cell, Column, Missing, Section, Table
from snnseg.report.page.nets import Net
from snnseg.report.table import NOT_RUN

TITLES = {"mnist_cifar": "MNIST-CIFAR10", "voc": "VOC2012", "ddd17": "DDD17"}


def titled(benchmark: str) -> str:
    """A benchmark as a person calls it; one of the user's own has its own name."""
    return TITLES.get(benchmark, benchmark)


def headlines(nets: Sequence[Net]) -> list[str]:
    """A sentence for each benchmark: its most accurate spiking net beside the twin."""
    told = []
    for benchmark, mine in lying.drawn(nets).items():
        spiking = [net for net in mine if net.spiking]
        if spiking:
            told.append(_sentence(benchmark, max(spiking, key=lambda net: net.metrics["miou"]), nets))
    return told


def _sentence(benchmark: str, net: Net, nets: Sequence[Net]) -> str:
    twin, noise = lying.twin(net, nets), lying.usual_noise(nets, benchmark)
    parts = [f"On {titled(benchmark)}, {net.title} reaches {net.metrics['miou']:.1f} % mIoU"
             + (f" ({twin.metrics['miou']:.1f} for its ANN twin)" if twin else "")]
    mine, its = (_drop(one, noise) for one in (net, twin))
    if noise and mine is not None:
        parts.append(f"loses {max(0.0, mine):.0f} % of it to Gaussian noise of {noise[1]:g} of 255"
                     + (f" (twin {max(0.0, its):.0f} %)" if its is not None else ""))
    if net.energy:
        mj = net.energy["energy_mj"]["exact"]
        other = twin.energy["energy_mj"]["exact"] if twin and twin.energy else None
        parts.append(f"spends {mj:.3g} mJ a picture" + (f", {other / mj:.1f} times less than the twin" if other and other > 1.1 * mj
                                                        else f" (twin {other:.3g})" if other else ""))
    return (", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]) + "."


def _drop(net: Net | None, noise: tuple[str, float] | None) -> float | None:
    point = lying.drop(net, *noise) if net and noise else None
    return point["drop"] if point else None


def section(nets: Sequence[Net]) -> Section:
    """A table with a row for each net of each benchmark."""
    found = lying.drawn(nets)
    if not found:
        return Section("glance", "At a glance", [Missing("A net's scores", "dvc repro evaluate")], "Glance")
    columns = [Column("Net"), Column("Accurate", "mIoU, %", True), Column("Robust", "drop, %", True), Column("Frugal", "mJ", True)]
    tables = []
    for benchmark, mine in found.items():
        noise, most = lying.usual_noise(nets, benchmark), max((net.energy["energy_mj"]["exact"] for net in mine if net.energy), default=1.0)
        rows = []
        for net in mine:
            drop, mj = _drop(net, noise), net.energy["energy_mj"]["exact"] if net.energy else None
            missing = NOT_RUN if net.robustness is None else NONE
            rows.append([Cell(net.title, net=net.experiment), Cell(f"{net.metrics['miou']:.2f}", bar=net.metrics["miou"] / 100),
                         Cell(missing if drop is None else f"{drop:.1f}", bar=None if drop is None else min(1.0, max(0.0, drop / 100))),
                         Cell(NOT_RUN if mj is None else f"{mj:#.3g}".rstrip("."), bar=None if mj is None else mj / most)])
        level = f" Drop: of mIoU, under Gaussian noise of {noise[1]:g} of 255." if noise else ""
        tables.append(Table(f"glance-{benchmark}", f"{titled(benchmark)}, at a glance", columns, rows,
                            f"The first class everywhere has {mine[0].metrics['background_miou']:.2f} %.{level} Energy a picture: counted exactly, at 45 nm."))
    return Section("glance", "At a glance", tables, "Glance", cards=True)
