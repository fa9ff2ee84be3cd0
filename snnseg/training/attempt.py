"""What the workers of one attempt at a training leave in the run's folder for the process that started them: `workers/`.

    rank-0.json     a worker has begun: its process, machine and device
    begun.json      the step that the training goes on from, of how many
    failed-0.json   what a worker ended with
    done.json       the training is finished
    stop            asks the workers to finish their step and save

Plain files that all machines see, so that whoever is killed, the others' are there.
"""
from __future__ import annotations

import json
import os
import shutil
import socket
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnseg import errors, seal
from snnseg.errors import SnnsegError
from snnseg.training.report import Numbers

# of an error that another rank's end has caused, in the words of gloo, NCCL and torch
ECHOES = ("connection closed by peer", "connection reset", "broken pipe", "gloo", "nccl", "connectpeer", "timed out")


@dataclass(frozen=True)
class Failure:
    """What a worker ended with; `error` is one of ours, or None, `echo` what followed from another's end."""

    rank: int
    at: float
    kind: str
    message: str
    error: SnnsegError | None
    echo: bool


class Attempt:
    """The folder of an attempt, as its workers and their starter see it. Also a reporter, which notes what the training begins with."""

    def __init__(self, run: Path):
        self.run, self.folder = run, run / "workers"

    def clear(self) -> None:
        """Begin anew: nothing is left of an attempt before."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with seal.no_space_named(self.folder):
            self.folder.mkdir(parents=True)

    def _write(self, name: str, **told: Any) -> None:
        seal.write_file(self.folder / name, json.dumps(told) + "\n")

    def read(self, name: str) -> dict[str, Any] | None:
        """A file by its name; None if there is none."""
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def joined(self, rank: int, **more: Any) -> None:
        self._write(f"rank-{rank}.json", pid=os.getpid(), host=socket.gethostname(), **more)

    def begun(self) -> bool:
        """Whether a worker has."""
        return any(self.folder.glob("rank-*.json"))

    def failed(self, rank: int, error: BaseException) -> None:
        """Keep an error, with its traceback if it is none of ours."""
        trace = None if isinstance(error, SnnsegError) else "".join(traceback.format_exception(error))
        self._write(f"failed-{rank}.json", at=time.time(), kind=type(error).__name__, message=str(error), ours=isinstance(error, SnnsegError), trace=trace)

    def done(self, **more: Any) -> None:
        self._write("done.json", **more)

    def ask_to_stop(self) -> None:
        (self.folder / "stop").touch()

    def asked_to_stop(self) -> bool:
        return (self.folder / "stop").exists()

    def failures(self) -> list[Failure]:
        """All of them, the first one first."""
        found = []
        for path in self.folder.glob("failed-*.json"):
            told = json.loads(path.read_text(encoding="utf-8"))
            kind = getattr(errors, told["kind"], None) if told["ours"] else None
            error = errors._again(kind, told["message"]) if kind else None
            echo = not told["ours"] and any(word in told["message"].lower() for word in ECHOES)
            found.append(Failure(int(path.stem.rpartition("-")[2]), told["at"], told["kind"], told["message"], error, echo))
        return sorted(found, key=lambda failure: failure.at)

    def begin(self, step: int, steps: int, epochs: int) -> None:
        self._write("begun.json", step=step, steps=steps, epochs=epochs)

    def numbers(self, step: int, numbers: Numbers) -> None:
        pass

    def saved(self, step: int, checkpoint: Path) -> None:
        pass

    def end(self, status: str) -> None:
        pass
