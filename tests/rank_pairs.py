"""Several ranks for tests: real ones, processes that meet by gloo and do what they are asked; and replayed ones, in one process."""
from __future__ import annotations

import contextlib
import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from snnseg.ranks import joined

PATIENCE_S = 120


def _rank(rank: int, size: int, meeting: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    with joined(rank, size, "gloo", meeting) as ranks:
        while asked := pipe.recv():
            function, arguments = asked
            try:
                pipe.send(function(ranks, *arguments))
            except Exception as e:      # goes back to who asked
                pipe.send(e)


class Pair:
    """Two processes; `call(function, ...)` has both do `function(ranks, ...)`, and returns what each returned or raised."""

    def __init__(self, size: int = 2):
        context = multiprocessing.get_context("spawn")
        self.folder = tempfile.TemporaryDirectory()
        self.pipes, ends = zip(*(context.Pipe() for _ in range(size)), strict=True)
        self.processes = [context.Process(target=_rank, args=(k, size, f"file://{Path(self.folder.name) / 'meeting'}", end), daemon=True)
                          for k, end in enumerate(ends)]
        for process in self.processes:
            process.start()

    def ask(self, function: Callable, *arguments: Any) -> None:
        for pipe in self.pipes:
            pipe.send((function, arguments))

    def answer(self, rank: int) -> Any:
        assert self.pipes[rank].poll(PATIENCE_S), f"rank {rank} does not answer"
        return self.pipes[rank].recv()

    def call(self, function: Callable, *arguments: Any) -> list[Any]:
        self.ask(function, *arguments)
        return [self.answer(rank) for rank in range(len(self.processes))]

    def close(self) -> None:
        for pipe in self.pipes:
            with contextlib.suppress(OSError):      # of a process that is gone
                pipe.send(None)
        for process in self.processes:
            process.join(10)
            process.kill()
        self.folder.cleanup()


def replayed(parts: int, run: Callable[[int, Callable], Any], sums: int = 2) -> list[Any]:
    """`run(part, share)` of each part, as if all ran at once: again and again, until each of the sums over them is known.

    A part's k-th contribution may depend on the sums before it alone.
    """
    known: list[torch.Tensor] = []
    for _ in range(sums + 1):
        made: list[list[torch.Tensor]] = []
        found = []
        for part in range(parts):
            mine: list[torch.Tensor] = []
            made.append(mine)

            def share(x, mine=mine, known=known):
                mine.append(x.clone())
                return x.copy_(known[len(mine) - 1]) if len(mine) <= len(known) else x

            found.append(run(part, share))
        assert all(len(mine) == sums for mine in made), "one sum forward and one back"
        known = [torch.stack(contributions).sum(0) for contributions in list(zip(*made, strict=True))[:len(known) + 1]]
    return found
