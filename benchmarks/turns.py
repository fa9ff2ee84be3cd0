"""Forms that take turns: A B A B ..., each in a process of its own that lives on between its turns.

So all see the same machine, as warm and as busy, and each has the memory and the settings that its own user would have. Only
one computes at a time; the others wait for a line to read.

    parent -> worker    {"form": ..., "work": {...}}, then {"do": "go", "warm": 1, "steps": 5}, {"do": "peak"}, {"do": "kept"}
    worker -> parent    a line of JSON for each: what was measured
"""
from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import torch

from benchmarks import frame, kept
from benchmarks.forms import FORMS, Work
from snnseg import stage
from snnseg.errors import OutOfMemory, SnnsegError

# OpenMP's threads wait awake for some milliseconds after work before they sleep. OMP_WAIT_POLICY=PASSIVE would have them sleep
# at once, but slows steps of many small operators by a fifth: every form keeps the default, and the next turn waits for it
PAUSE_S = 0.1
LEAST_S = 0.3       # that a turn measures: short steps are more of them
FOLDER = Path(__file__).resolve().parent.parent


class FormEnded(SnnsegError, RuntimeError):
    """A form's process ended before it had measured all: killed for its memory, most often."""


class Worker:
    """The process of a form, seen from the one that gives turns."""

    def __init__(self, form: str, work: Work):
        self.form = form
        self.process = subprocess.Popen([sys.executable, "-m", "benchmarks.turns"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, cwd=FOLDER)
        self.send(form=form, work=vars(work))

    def send(self, **message: Any) -> None:
        with contextlib.suppress(BrokenPipeError):      # it has ended, which `answer` tells
            print(json.dumps(message), file=self.process.stdin, flush=True)

    def answer(self) -> Any:
        """The next answer. Raises FormEnded."""
        line = self.process.stdout.readline()
        if not line:
            raise FormEnded(f"{self.form}: its process ended with exit code {self.process.wait()}, its row is left out.")
        return json.loads(line)

    def ask(self, **message: Any) -> Any:
        self.send(**message)
        return self.answer()

    def end(self) -> None:
        """At once: it holds nothing that would have to be saved, and may be in a long step when all is interrupted."""
        self.process.kill()
        with contextlib.suppress(BrokenPipeError), self.process:
            pass            # closes the pipes and waits


@contextlib.contextmanager
def workers(names: list[str], work: Work) -> Iterator[dict[str, Worker]]:
    """A worker for each form, made ready; those that end before are named on stderr and not among them."""
    started = {name: Worker(name, work) for name in names}
    try:
        yield {name: worker for name, worker in started.items() if _lives(worker)}
    finally:
        for worker in started.values():
            worker.end()


def _lives(worker: Worker) -> bool:
    try:
        return bool(worker.answer())
    except FormEnded as e:
        print(e, file=sys.stderr)
        return False


def timed(names: list[str], work: Work, rounds: int, steps: int, warm: int) -> list[dict[str, Any]]:
    """A row for each form: `ms` is the median of the turns, a turn's the median of its steps, `steps` of them or more.

    Before a form's first turn two steps are not timed (things are compiled and chosen), and `warm` before each later one.
    """
    with workers(names, work) as ready:
        turns: dict[str, list[float]] = {name: [] for name in ready}
        peaks: dict[str, float] = {}
        for k in range(rounds):
            for name, worker in list(ready.items()):
                time.sleep(PAUSE_S)
                try:
                    turns[name].append(statistics.median(worker.ask(do="go", warm=warm if k else max(2, warm), steps=steps)))
                    peaks[name] = worker.ask(do="peak")
                except FormEnded as e:
                    print(e, file=sys.stderr)
                    del ready[name]
    return [{"form": name, **work.row, "ms": 1e3 * (s := statistics.median(turns[name])), "samples_per_s": work.batch / s,
             "peak_mib": peaks[name], "turns_ms": [round(1e3 * turn, 3) for turn in turns[name]]} for name in ready]


def serve(out: TextIO) -> None:
    """A worker's life: make a form ready, then answer until nothing more is asked. Raises OutOfMemory."""
    asked = json.loads(sys.stdin.readline())
    try:
        _serve(asked["form"], Work(**asked["work"]), out)
    except torch.OutOfMemoryError as e:
        raise OutOfMemory(f"{asked['form']}: out of memory on the device. Lower --batch.") from e


def _serve(name: str, work: Work, out: TextIO) -> None:
    def answer(found: Any) -> None:
        print(json.dumps(found), file=out, flush=True)

    form, cuda = FORMS[name], work.device == "cuda"
    torch.backends.cudnn.benchmark = True
    ready = form.ready(work)
    wait = torch.cuda.synchronize if cuda else lambda: None
    answer(True)
    while line := sys.stdin.readline():
        message = json.loads(line)
        if message["do"] == "go":
            for _ in range(message["warm"]):
                ready.step()
            wait()
            seconds = []
            while len(seconds) < message["steps"] or sum(seconds) < LEAST_S:
                start = time.perf_counter()
                ready.step()
                wait()
                seconds.append(time.perf_counter() - start)
            answer(seconds)
        elif message["do"] == "peak":
            answer(torch.cuda.max_memory_allocated() / 2**20 if cuda else frame.peak_mib())
            if cuda:        # the next one may need it
                torch.cuda.empty_cache()
        else:
            answer(kept.bytes_per_neuron_step(form, work))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)        # the parent is interrupted too, and ends its workers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)           # what libraries print is no answer
    stage.run(serve, answers)
