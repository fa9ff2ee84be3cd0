"""One process at a time: a lock beside a folder, let go by the system however its process ends."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import filelock

from snnseg import seal
from snnseg.errors import Busy


@contextlib.contextmanager
def held(folder: Path, doing: str) -> Iterator[None]:
    """Hold `folder` (which need not exist yet) while the block runs; what a killed holder left half written is removed.

    Raises Busy with the number of the process that holds it, NoSpace.
    """
    path = folder.with_name(f".{folder.name}.lock")
    owner = path.with_suffix(".pid")
    with seal.no_space_named(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as e:
            pid = owner.read_text().strip() if owner.exists() else "unknown"
            raise Busy(folder, f"process {pid} is {doing} here", "Wait for it to end, or end it: the same command goes on") from e
    try:
        with seal.no_space_named(folder):
            owner.write_text(f"{os.getpid()}\n")
        seal.sweep(folder)
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
