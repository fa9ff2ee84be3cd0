"""The tables of docs/results/train_step_gpu.md: training steps on one GPU beside other libraries, and memory over time steps.

    python -m benchmarks.gpu [--parts deeplab fcn direct large memory] [--dtype fp32 bf16] [--forms FORM ...] [--rounds N] [--out FOLDER]

What the file in FOLDER has already of the same machine, and is not measured now, stays; so parts and forms may be measured one by one.
Writes train_step_gpu.json and train_step_gpu.md to FOLDER (data/bench).
"""
from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import forms, frame, turns
from benchmarks.forms import FORMS, Work
from benchmarks.train_step import LAST, PLAIN, TURN
from snnseg import config, seal, stage

NAME = "train_step_gpu"
FEW = [*PLAIN, "snnseg tf32", "paper without cuDNN", LAST[0]]
PARTS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "deeplab": ("Spiking-DeepLab, T = 20, 16 pictures", {}, [*PLAIN, "snnseg tf32", "paper without cuDNN", *LAST]),
    "fcn": ("Spiking-FCN, T = 20, 16 pictures", {"net": "fcn"}, FEW),
    "direct": ("Spiking-DeepLab, direct coding, T = 4, 16 pictures", {"coding": "direct", "timesteps": 4}, FEW),
    "large": ("Spiking-DeepLab, T = 20, 64 pictures", {"batch": 64}, FEW),
}
NO_ROOM = {("large", "fp32"): {"snnseg", "snnseg reference"}}     # beside the 31 GB that cuDNN asks for each of them the others ran out of memory
USUAL = {"net": "deeplab", "coding": "signed_poisson", "timesteps": 20, "batch": 16}
DTYPES = ["fp32", "bf16"]
OVER = 5, 10, 20, 40, 80, 160       # time steps of the memory's part
MEMORY = "Spiking-DeepLab, bf16, 16 pictures: peak memory over time steps"


def work(dtype: str, **asked: Any) -> Work:
    """What is timed: the usual step with the numbers asked for."""
    told = USUAL | asked
    return Work("cuda", dtype, told["net"], "bntt", told["coding"], told["timesteps"], told["batch"], 64, 1.0, str(Path(config.PARAMS).absolute()))


def peaks(timesteps: int) -> list[dict[str, Any]]:
    """Peak memory with and without recomputation."""
    asked, rows = work("bf16", timesteps=timesteps), []
    with turns.workers(["snnseg", "snnseg recompute"], asked) as ready:
        for name, worker in ready.items():
            worker.ask(do="go", warm=5, steps=1)        # the capture included
            rows.append({"part": "memory", "form": name, **asked.row, "peak_mib": worker.ask(do="peak")})
    return rows


def measured(part: str, dtype: str, rounds: int, wanted: list[str]) -> list[dict[str, Any]]:
    """The rows of a part in a dtype, of the forms wanted; of memory there are bf16's alone."""
    if part == "memory":
        if dtype != "bf16":
            return []
        with ThreadPoolExecutor(len(OVER)) as together:
            return [row for rows in together.map(peaks, OVER) for row in rows]
    _, asked, names = PARTS[part]
    todo, left_out = work(dtype, **asked), NO_ROOM.get((part, dtype), set())
    names = forms.measurable([name for name in names if name in wanted and name not in left_out], todo)
    return [{"part": part, **row} for row in turns.timed(names, todo, rounds, **TURN["cuda"])]


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A part's rows as lines of Markdown, and what follows from them."""
    lines = ["| form | dtype | ms | pictures/s | peak MiB |", "|---|---|---:|---:|---:|"]
    lines += [f"| {row['form']} | {row['dtype']} | {row['ms']:.2f} | {row['samples_per_s']:.0f} | {row['peak_mib']:.0f} |" for row in rows]

    def fastest(kind: str, dtype: str, begins: str = "") -> float:
        return min((row["ms"] for row in rows if FORMS[row["form"]].kind == kind and row["dtype"] == dtype and row["form"].startswith(begins)),
                   default=math.inf)

    own = {row["dtype"]: (row["dtype"], row["ms"]) for row in rows if row["form"] == "snnseg"}
    own |= {row["dtype"]: ("tf32", row["ms"]) for row in rows if row["form"] == "snnseg tf32"}      # as the others' fp32 is TF32
    if not own:
        return lines

    def times(ms: float) -> str:
        return " | ".join(f"{ms / mine:.2f}" if math.isfinite(ms) else "-" for _, mine in own.values())

    told = ["", f"| snnseg is so many times as fast as | {' | '.join(name for name, _ in own.values())} |", "|---|" + "---:|" * len(own)]
    for words, kind, begins in (("the fastest other library or loop", "peer", ""), ("the loop as the paper's, the faster layout", "peer", "paper"),
                                ("the convolutions alone, the faster layout", "floor", "")):
        found = {dtype: fastest(kind, dtype, begins) for dtype in own}
        told.append(f"| {words}, same dtype | " + " | ".join(f"{found[d] / own[d][1]:.2f}" if math.isfinite(found[d]) else "-" for d in own) + " |")
    told.append(f"| the fastest other library or loop in any dtype | {times(min(fastest('peer', dtype) for dtype in own))} |")
    told.append(f"| the loop as the paper's in TF32 | {times(fastest('peer', 'fp32', 'paper'))} |")
    if math.isfinite(published := fastest("published", "fp32")):
        told.append(f"| that loop without cuDNN, as the authors' train.py has it | {times(published)} |")
    return lines + told


def over_time(rows: list[dict[str, Any]]) -> list[str]:
    """Peak memory by time steps."""
    names = list(dict.fromkeys(row["form"] for row in rows))
    peak = {(row["form"], row["timesteps"]): row["peak_mib"] for row in rows}
    lines = [f"| T | {' | '.join(names)} |", "|---:|" + "---:|" * len(names)]
    return lines + [f"| {T} | " + " | ".join(f"{peak[name, T]:.0f} MiB" for name in names) + " |" for T in sorted({row["timesteps"] for row in rows})]


def page(found: dict[str, Any]) -> str:
    """The file in Markdown."""
    lines = ["# A training step on one GPU", "", f"{frame.told(found['machine'])}. Pictures of 64 x 64, BNTT, full width, Adam; a step is coding, forward, "
             "loss, backward and update. fp32 is TF32 for all but the rows of snnseg, which has it as a precision of its own; bf16 is autocast. "
             "Medians of turns; every form in a process of its own. Made by `python -m benchmarks.gpu`; the figures of each turn are in train_step_gpu.json."]
    lines += ["", *(f"- {note}" for note in found["notes"])] if found.get("notes") else []
    for part, (title, *_) in PARTS.items():
        if rows := [row for row in found["rows"] if row["part"] == part]:
            lines += ["", f"## {title}", "", *table(rows)]
    if rows := [row for row in found["rows"] if row["part"] == "memory"]:
        lines += ["", f"## {MEMORY}", "", *over_time(rows)]
    return "\n".join(lines) + "\n"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--parts", nargs="+", choices=[*PARTS, "memory"], default=[*PARTS, "memory"])
    arguments.add_argument("--dtype", nargs="+", choices=DTYPES, default=DTYPES)
    arguments.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS), metavar="FORM", help="those of the parts that are measured now")
    arguments.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each form")
    arguments.add_argument("--out", type=Path, default=frame.root() / "data" / "bench", metavar="FOLDER")
    asked = arguments.parse_args()
    forms.checked_device("cuda")
    file, machine = asked.out / f"{NAME}.json", frame.machine("cuda")
    before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    rows = before.get("rows", []) if before.get("machine") == machine else []
    for part, dtype in itertools.product(asked.parts, asked.dtype):
        new = measured(part, dtype, asked.rounds, asked.forms)
        done = {(row["part"], row["dtype"], row["form"], row["timesteps"]) for row in new}
        rows = [row for row in rows if (row["part"], row["dtype"], row["form"], row["timesteps"]) not in done] + new
        rows.sort(key=lambda row: ([*PARTS, "memory"].index(row["part"]), DTYPES.index(row["dtype"]), list(FORMS).index(row["form"])))
        found = {"machine": machine, "command": "python -m benchmarks.gpu", "notes": before.get("notes", []) if before.get("machine") == machine else [],
                 "rows": rows}
        seal.write_file(file, json.dumps(found, indent=1) + "\n")       # after each: the next may be cut short
        seal.write_file(file.with_suffix(".md"), page(found))
        print(f"{part}, {dtype}: measured", file=sys.stderr)
    print(page(found))


if __name__ == "__main__":
    stage.run(main)
