"""Where every number comes from: commit, seal of the data, machine, seed, and all parameters."""
from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from snnseg.report.page import nets as lying
from snnseg.report.page.blocks import NONE, Cell, Column, Missing, Prose, Section, Table
from snnseg.report.page.glance import titled
from snnseg.report.page.nets import Net
from snnseg.section import flat

WITHOUT = "cluster", "track", "tune"        # change no result


def section(nets: Sequence[Net]) -> Section:
    """Trainings, stores, and the parameters of all nets that the page shows."""
    mine = [net for some in lying.drawn(nets).values() for net in some]
    if not mine:
        return Section("provenance", "Provenance", [Missing("Where results come from", "dvc repro")])
    open_ends = Prose("The weights are those after the last epoch, one training a net, and nothing is chosen on the test split. A commit with + had changes "
                      "that were not committed. Repeat all of it with make repro.")
    return Section("provenance", "Provenance", [open_ends, _trainings(mine), _stores(mine), *_numbers(mine)])


def _trainings(mine: Sequence[Net]) -> Table:
    columns = [Column("Net"), Column("Benchmark"), Column("Commit"), Column("Machine"), Column("Torch"), Column("Seed", "", True), Column("Steps", "", True),
               Column("Parameters", "", True), Column("Time", "s", True), Column("Run")]
    rows = [[Cell(net.title, net=net.experiment), Cell(titled(net.benchmark)), *(Cell(str(net.about.get(key, NONE))) for key in ("commit", "device", "torch")),
             Cell(str(net.about["config"]["train"]["seed"])), *(Cell(str(net.about.get(key, NONE))) for key in ("steps", "parameters", "seconds")),
             Cell(str(net.about.get("fingerprint", NONE))[:12])] for net in mine]
    return Table("trainings", "Trainings", columns, rows, sortable=True)


def _stores(mine: Sequence[Net]) -> Table:
    """Each store once, by its seal."""
    by_seal = {net.about["store"]: net for net in mine}
    columns = [Column("Store"), Column("Data"), Column("Source"), Column("Seed", "", True), Column("Training", "items", True), Column("Test", "items", True),
               Column("Seal", "sha256")]
    rows = [[Cell(net.about.get("store_name", net.benchmark)), Cell(net.dataset), Cell(net.about["config"]["data"]["source"]),
             Cell(str(net.about["config"]["data"]["seed"])), Cell(str(net.about["train_samples"])), Cell(str(net.about["test_samples"])), Cell(seal)]
            for seal, net in by_seal.items()]
    return Table("stores", "Data", columns, rows, "The digest of seal.json in data/store, over every file of the store.")


def _numbers(mine: Sequence[Net]) -> list[Table]:
    """The parameters that all nets share, and those that they do not."""
    told = [{key: _text(value) for key, value in flat({s: v for s, v in net.about["config"].items() if s not in WITHOUT}).items()} for net in mine]
    keys = list(dict.fromkeys(key for one in told for key in one))
    alike = [key for key in keys if len({one.get(key) for one in told}) == 1]
    shared = Table("shared", f"Parameters: {len(alike)} that all nets share", [Column("Parameter"), Column("Value")],
                   [[Cell(key), Cell(told[0][key])] for key in alike], folded=True)
    columns = [Column("Parameter"), *(Column(f"{net.title}", titled(net.benchmark)) for net in mine)]
    others = [[Cell(key), *(Cell(one.get(key, NONE)) for one in told)] for key in keys if key not in alike]
    return [shared, Table("differing", f"Parameters: {len(others)} that differ", columns, others, folded=True)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
