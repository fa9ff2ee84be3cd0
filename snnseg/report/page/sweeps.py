"""What sweeps found: the best trials of each, and a link to its own page. No stage makes them, `snnseg tune` does."""
from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from snnseg.errors import StoreAltered
from snnseg.report.page.blocks import NONE, Block, Cell, Column, Missing, Prose, Section, Table

SWEEPS = 6          # the newest names last
TRIALS = 10         # of a sweep


def section(tune: Path) -> Section:
    """`tune` is data/tune; a sweep that has not come to its verdict is left out. Raises StoreAltered."""
    folders = sorted(path.parent for path in tune.glob("*/best.json"))
    blocks: list[Block] = [block for folder in folders[-SWEEPS:] for block in _sweep(folder)]
    if len(folders) > SWEEPS:
        blocks.append(Prose(f"{len(folders) - SWEEPS} more sweeps lie below data/tune."))
    return Section("sweeps", "Sweeps", blocks or [Missing("Sweeps of leak, threshold and time steps", "snnseg tune BENCHMARK/EXPERIMENT")])


def _read(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    try:
        with open(folder / "trials.csv", encoding="utf-8", newline="") as f:
            return json.loads((folder / "best.json").read_text(encoding="utf-8")), list(csv.DictReader(f))
    except (ValueError, FileNotFoundError) as e:
        raise StoreAltered(folder, "its verdict cannot be read", "Run the same snnseg tune again, or remove the folder") from e


def _sweep(folder: Path) -> list[Block]:
    best, trials = _read(folder)
    keys = [k for k in (trials[0] if trials else {}) if "." in k]
    ranked = sorted((t for t in trials if t["miou"]), key=lambda t: (t["trial"] != str(best["best"]["number"]), -float(t["miou"])))
    columns = [Column("Trial"), *(Column(key, "", True) for key in keys), Column("mIoU", "held out, %", True), Column("Energy", "mJ", True),
               Column("Epochs", "", True), Column("State")]
    rows = [[Cell(t["trial"]), *(Cell(_number(t[key])) for key in keys), Cell(f"{float(t['miou']):.2f}"),
             Cell(_number(t["energy_mj"]) if t["energy_mj"] else NONE), Cell(t["epochs"]), Cell(t["state"])] for t in ranked[:TRIALS]]
    states = ", ".join(f"{count} {state}" for state, count in best["trials"].items())
    weight = ", ".join(f"{key} {share:.2f}" for key, share in best["importance"].items())
    tested = "" if best["test_miou"] is None else f" The best trial's net scores {best['test_miou']:.2f} % on the test split."
    note = f"{states}. Validated on {best['validated_on']}.{tested}{f' Importance: {weight}.' if weight else ''} Train the best: {best['command']}"
    page = [Prose("All trials as figures:", f"../tune/{folder.name}/sweep.html", f"{folder.name}/sweep.html")]
    return [Table(f"sweep-{folder.name}", f"Sweep {folder.name} of {best['experiment']}: its best trials", columns, rows, note, sortable=True),
            *(page if (folder / "sweep.html").is_file() else [])]


def _number(text: str) -> str:
    """Four digits of a number, anything else as it is."""
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text
