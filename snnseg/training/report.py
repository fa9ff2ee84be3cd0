"""What a training tells while it runs. The loop knows this interface only; console, metrics.jsonl and MLflow implement it.
"""
from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from snnseg import seal

Numbers = dict[str, float | None]


class Reporter(Protocol):
    """Whoever wants to know: told in the order of the methods, `numbers` and `saved` many times."""

    def begin(self, step: int, steps: int, epochs: int) -> None:
        """The training starts at `step`, 0 or that of the checkpoint it goes on from."""

    def numbers(self, step: int, numbers: Numbers) -> None:
        """What was measured at `step`; at most once a step, in order."""

    def saved(self, step: int, checkpoint: Path) -> None:
        """A checkpoint of `step` was sealed. All numbers up to it were reported before, but for those of an epoch that ends with
        it: they follow once the epoch is validated, and come again if that is cut short.
        """

    def end(self, status: str) -> None:
        """The training ended: finished, interrupted or failed."""


class Reporters:
    """Several reporters as one, told in this order."""

    def __init__(self, reporters: Iterable[Reporter]):
        self.reporters, self.begun = list(reporters), False

    def begin(self, step: int, steps: int, epochs: int) -> None:
        self.begun = True
        for r in self.reporters:
            r.begin(step, steps, epochs)

    def numbers(self, step: int, numbers: Numbers) -> None:
        for r in self.reporters:
            r.numbers(step, numbers)

    def saved(self, step: int, checkpoint: Path) -> None:
        for r in self.reporters:
            r.saved(step, checkpoint)

    def end(self, status: str) -> None:
        for r in self.reporters:
            r.end(status)


def read_journal(path: Path, up_to: int | None = None) -> list[dict]:
    """The whole lines of a metrics.jsonl, those with a step beyond `up_to` left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            break       # the line that was being written when the process was killed
        if up_to is None or line["step"] <= up_to:
            lines.append(line)
    return lines


def curve_csv(lines: list[dict]) -> str:
    """A journal as the table that plots are drawn from; a number that a step does not have is empty."""
    columns = ["step", "epoch", "train/loss", "train/epoch_loss", "train/miou", "train/lr", "test/miou"]
    rows = [",".join("" if line.get(c) is None else f"{line[c]:.6g}" for c in columns) for line in lines]
    return "\n".join([",".join(columns), *rows]) + "\n"


class Journal:
    """metrics.jsonl: one line a reported step, on the disk when `numbers` returns.

    When a training goes on from a checkpoint, the lines beyond it are cut off: they will be written again.
    """

    def __init__(self, path: Path):
        self.path = path

    def begin(self, step: int, steps: int, epochs: int) -> None:
        kept = read_journal(self.path, up_to=step)
        seal.write_file(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def numbers(self, step: int, numbers: Numbers) -> None:
        finite = {k: v if v is None or math.isfinite(v) else None for k, v in numbers.items()}
        with seal.no_space_named(self.path), open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps({"step": step, **finite}) + "\n")
            f.flush()
            os.fsync(f.fileno())

    def saved(self, step: int, checkpoint: Path) -> None:
        pass

    def end(self, status: str) -> None:
        pass
