"""A sweep's book: `ledger.jsonl`, a line when a trial begins and one when it is settled, on the disk before anything follows from it.

    {"trial": 7, "params": {...}}                           begun: it is this trial from here on
    {"trial": 7, "state": "finished", "miou": 78.3, ...}    settled: it is never run again

Ray Tune and Optuna can both save their state, Ray as pickles that know nothing of what happened since the last one, Optuna in a
database in which trials of a killed process run forever. The book is less and exact: after `kill -9` at any moment a trial is
settled, or begun and therefore run again under its number in its folder, where its checkpoints are, or its outcome if only the
second line was missing. The sampler and the early stopping are built anew from the lines, which tell all that they know.
"""
from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from snnseg import seal
from snnseg.tuning.space import Params, Value

LEDGER = "ledger.jsonl"
OUTCOME = "outcome.json"
FINISHED, STOPPED, NOT_FINITE, OUT_OF_MEMORY, FAILED, CRASHED = "finished", "stopped", "not finite", "out of memory", "failed", "crashed"
COUNTED = FINISHED, STOPPED         # these have a score


@dataclass
class Trial:
    """One set of numbers and what became of it; `state` is None until it is settled. mIoU in per cent, on the pictures held out."""

    number: int
    params: Params
    state: str | None = None
    miou: float | None = None           # after the last epoch it was asked for
    energy_mj: float | None = None      # a picture, exact count
    epochs: int = 0
    seconds: float = 0.0                # of training, over all attempts
    curve: list[list[float]] = field(default_factory=list)     # [epoch, mIoU]
    why: str = ""

    @property
    def counted(self) -> bool:
        """Whether it has a score. One that diverged or crashed has none, whatever its last epoch said."""
        return self.state in COUNTED and self.miou is not None

    def after(self, epoch: int) -> float | None:
        """mIoU after so many epochs: what trials that were stopped and others can be compared by. None where it has no score."""
        return next((miou for at, miou in self.curve if at == epoch), None) if self.counted else None

    @property
    def row(self) -> dict[str, Value]:
        """For trials.csv."""
        told = asdict(self)
        del told["curve"], told["params"]
        return {"trial": told.pop("number"), **self.params, **told}


def outcome_file(folder: Path, number: int) -> Path:
    """Where a trial's process leaves what became of it."""
    return trial_folder(folder, number) / OUTCOME


def trial_folder(folder: Path, number: int) -> Path:
    return folder / "trials" / f"{number:04}"


class Ledger:
    """The trials of a sweep's folder, in order of their number. Who writes holds the folder's lock, and calls `mend` first."""

    def __init__(self, folder: Path):
        self.path = folder / LEDGER
        self.trials: dict[int, Trial] = {}
        self.lines = _whole_lines(self.path)
        for line in self.lines:
            if "params" in line:
                self.trials[line["trial"]] = Trial(line["trial"], line["params"])
            else:
                _settle(self.trials[line["trial"]], line)

    def mend(self) -> None:
        """Cut off the line that was being written when a process was killed, if there is one. Raises NoSpace."""
        if self.path.exists():
            seal.write_file(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))

    @property
    def settled(self) -> list[Trial]:
        return [t for t in self.trials.values() if t.state]

    @property
    def open(self) -> list[Trial]:
        """Begun and not settled: to be run before any new one."""
        return [t for t in self.trials.values() if not t.state]

    def begin(self, params: Params) -> Trial:
        """Give a set of numbers its number. Raises NoSpace."""
        trial = Trial(len(self.trials), params)
        self._write({"trial": trial.number, "params": params})
        self.trials[trial.number] = trial
        return trial

    def settle(self, number: int, state: str, **told: Any) -> Trial:
        """Close a trial, once. Raises NoSpace, ValueError for one that is closed."""
        trial = self.trials[number]
        if trial.state:
            raise ValueError(f"trial {number} is settled as {trial.state}, not to be settled as {state}")
        line = {"trial": number, "state": state, **told}
        self._write(line)
        _settle(trial, line)
        return trial

    def _write(self, line: dict[str, Any]) -> None:
        with seal.no_space_named(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as f:
                f.write(json.dumps(line) + "\n")
                f.flush()
                os.fsync(f.fileno())


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _settle(trial: Trial, line: dict[str, Any]) -> None:
    for key, value in line.items():
        if key != "trial":
            setattr(trial, key, value)
