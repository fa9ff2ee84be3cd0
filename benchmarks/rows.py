"""Trainings as rows of a table of docs/results, and rows trained again.

    python -m benchmarks.rows TABLE.csv --add "snnseg train mnist_cifar/ann_fcn --set train.epochs=2" [...] [--no-energy]
    python -m benchmarks.rows TABLE.csv --again 3 [7 ...] [--no-energy]

Each command is carried out here, store, training, score and energy; one that was ended goes on. `--add` appends its row once it is done, makes
TABLE.csv if need be, and leaves out commands that have a row there of this commit. `--again` takes the commands of rows (1 is the first) and shows both
rows' numbers; a training that is finished already, in data/run, is not repeated, so remove its folder first. Writes data/bench/rows.json.
"""
from __future__ import annotations

import argparse
import csv
import shlex
from pathlib import Path
from typing import Any

from benchmarks import frame
from snnseg import config, lock, provenance, seal, stage
from snnseg.errors import UsageError
from snnseg.sections import Config

COLUMNS = ("net protocol coding timesteps epochs batch seed width miou background_miou proxy_mj exact_mj memory_mj exact_3_bits_mj spikes train_s device store "
           "commit command").split()
MEASURED = COLUMNS[COLUMNS.index("miou"):COLUMNS.index("device")]
NONE = "-"


def numbers(command: str) -> Config:
    """What `snnseg train NET --set ...` would train. Raises UsageError, ConfigError."""
    try:
        words = shlex.split(command)
    except ValueError as e:
        raise UsageError(f"{command}: {e}") from e
    sets = words[4::2]
    if words[:2] != ["snnseg", "train"] or len(words) != 3 + 2 * len(sets) or any(word != "--set" for word in words[3::2]):
        raise UsageError(f"{command}: not of the form snnseg train BENCHMARK/EXPERIMENT --set KEY=VALUE ...")
    return config.load(str(Path(config.PARAMS).absolute()), words[2], sets)


def read(table: Path) -> list[dict[str, str]]:
    """The rows of a table, none if there is no such file. Raises UsageError."""
    try:
        with open(table, encoding="utf-8", newline="") as f:
            found = list(csv.DictReader(f))
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, csv.Error) as e:
        raise UsageError(f"{table}: no table in UTF-8 ({e})") from e
    if any(row.keys() != set(COLUMNS) or None in row.values() for row in found):
        raise UsageError(f"{table}: its columns are not {', '.join(COLUMNS)}")
    return found


def energy_told(summary: dict[str, Any] | None) -> dict[str, str]:
    """Energy in mJ a picture by each way of counting, and spikes a neuron and step; `-` where there is none."""
    mj = {} if summary is None else summary["energy_mj"]
    rate = None if summary is None else summary["spikes"]
    ways = {"proxy_mj": "proxy", "exact_mj": "exact", "memory_mj": "with_memory", "exact_3_bits_mj": "exact_3_bits"}
    told = {column: mj.get(way) for column, way in ways.items()}
    told["spikes"] = None if rate is None else rate["a_neuron_and_step"]
    return {column: NONE if value is None else f"{value:.4f}" for column, value in told.items()}


def trained(command: str, counts: bool) -> dict[str, str]:
    """Prepare, train, score, count: the row of a command. Raises what these raise."""
    asked = numbers(command)
    from snnseg.data import prepare
    from snnseg.report import energy, result
    from snnseg.tracking import trainings
    from snnseg.training import run

    if not seal.is_sealed(asked.store):
        prepare.prepare(asked)
    model = run.train(asked, trainings.trackers) / "model"
    scored = result.measure(model, asked)
    counted = energy.measure(model, asked).summary if counts else None
    about = scored.about
    return {"net": about["experiment"], "protocol": asked.protocol, "coding": asked.encode.coding if asked.spiking else NONE,
            "timesteps": str(scored.metrics["timesteps"]), "epochs": str(asked.train.epochs), "batch": str(asked.train.batch), "seed": str(asked.train.seed),
            "width": str(asked.model.width), "miou": f"{scored.metrics['miou']:.2f}", "background_miou": f"{scored.metrics['background_miou']:.2f}",
            **energy_told(counted), "train_s": str(about["seconds"]), "device": about["device"], "store": about["store"][:12], "commit": about["commit"],
            "command": command}


def add(table: Path, row: dict[str, str]) -> None:
    """Append a row, in one step. Raises Busy, NoSpace."""
    from snnseg.report.table import csv_text

    with lock.held(table, "adding a row"):
        seal.write_file(table, csv_text([*read(table), row], COLUMNS))


def beside(before: dict[str, str], now: dict[str, str]) -> str:
    """Two rows' numbers, a line each, and their difference."""
    lines = [f"{'':18}{'row':>12}{'again':>12}{'difference':>12}"]
    for column in MEASURED:
        old, new = before[column], now[column]
        differs = f"{float(new) - float(old):+12.4f}" if NONE not in (old, new) else f"{NONE:>12}"
        lines.append(f"{column:18}{old:>12}{new:>12}{differs}")
    return "\n".join([*lines, *(f"{column:18}{before[column]} / {now[column]}" for column in ("device", "store", "commit"))])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("table", type=Path, metavar="TABLE.csv")
    what = arguments.add_mutually_exclusive_group(required=True)
    what.add_argument("--add", nargs="+", metavar="COMMAND")
    what.add_argument("--again", nargs="+", type=int, metavar="ROW")
    arguments.add_argument("--no-energy", action="store_true", help="leave the energy columns empty")
    asked = arguments.parse_args()
    there = read(asked.table)
    if asked.again and (beyond := [n for n in asked.again if not 1 <= n <= len(there)]):
        raise UsageError(f"--again {beyond[0]}: {asked.table} has {len(there)} rows, from 1")
    commands = [there[n - 1]["command"] for n in asked.again or []] or asked.add
    for command in commands:
        numbers(command)            # what is wrong with the last one is told before the first is trained
    commit = provenance.commit(frame.root())
    known = {row["command"] for row in there if not commit.endswith("+") and commit in row["commit"].split(", then ")}      # +: changed since, who knows how
    made = []
    for k, command in enumerate(commands):
        if asked.add and command in known:
            print(f"has a row already: {command}", flush=True)
            continue
        print(f"{command}", flush=True)
        made.append(trained(command, not asked.no_energy))
        if asked.add:
            add(asked.table, made[-1])
            print("  ".join(f"{column} {made[-1][column]}" for column in MEASURED), flush=True)
        else:
            print(beside(there[asked.again[k] - 1], made[-1]), flush=True)
    import torch

    frame.write("rows", frame.machine("cuda" if torch.cuda.is_available() else "cpu"), made)


if __name__ == "__main__":
    stage.run(main)
