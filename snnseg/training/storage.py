"""Copies of a run's checkpoints in a second place, a folder or a URL (`cluster.storage`): for machines that come and go.

    STORAGE/RUN/step-000123/    the files of the checkpoint; its seal.json is written last, as on the disk
    STORAGE/RUN/about.json      metrics.jsonl, as of the newest: the same run goes on, in MLflow too

A training that finds a newer checkpoint there than in its own folder goes on from that.
"""
from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from snnseg import seal
from snnseg.errors import SnnsegError, Unusable
from snnseg.training import checkpoint
from snnseg.training.report import Numbers

OF_THE_RUN = "about.json", "metrics.jsonl"
OF_A_STEP = "model.safetensors", "optim.pt", "state.json", "seal.json"


class Storage:
    """The place of one run's copies. Also a reporter, which copies each checkpoint that is saved and drops all but the newest `keep`."""

    def __init__(self, place: str, run: Path, keep: int):
        self.place, self.run, self.keep = place, run, keep

    @contextlib.contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        """Whatever that kind of place raises is Unusable."""
        try:
            yield
        except (SnnsegError, KeyboardInterrupt):
            raise
        except Exception as e:
            raise Unusable(f"cluster.storage {self.place}", f"cannot be {what} ({str(e).splitlines()[0] if str(e) else type(e).__name__})") from e

    def _open(self) -> tuple[Any, str]:
        """The file system, and the run's folder in it. Raises Unusable."""
        import fsspec  # some of its systems are packages of their own

        try:
            system, path = fsspec.core.url_to_fs(self.place)
        except (ImportError, ValueError) as e:
            raise Unusable(f"cluster.storage {self.place}", f"no such kind of place ({str(e).splitlines()[0]})") from e
        return system, f"{path.rstrip('/')}/{self.run.name}"

    def check(self) -> None:
        """See that it can be written, before anything is trained. Raises Unusable."""
        system, folder = self._open()
        with self._doing("written"):
            system.makedirs(folder, exist_ok=True)
            system.pipe_file(f"{folder}/.probe", b"written")
            system.rm_file(f"{folder}/.probe")

    def _steps(self, system: Any, folder: str, whole: bool = True) -> list[int]:
        """The steps of the whole copies, or of all, oldest first."""
        found = (re.fullmatch(r"step-(\d+)", path.rstrip("/").rpartition("/")[2]) for path in system.ls(folder, detail=False))
        return sorted(int(m[1]) for m in found if m and (not whole or system.exists(f"{folder}/{m[0]}/seal.json")))

    def fetch(self) -> int | None:
        """Bring the newest copy into the run's folder, if it has none as new; which step that was. Raises Unusable, NoSpace."""
        system, folder = self._open()
        with seal.no_space_named(self.run), self._doing("read"):
            steps = self._steps(system, folder)
            if not steps or steps[-1] <= max(checkpoint.all_steps(self.run), default=-1):
                return None
            target = checkpoint.folder_of(self.run, steps[-1])
            target.mkdir(parents=True, exist_ok=True)
            for name in OF_THE_RUN:
                system.get_file(f"{folder}/{name}", str(self.run / name))
            for name in OF_A_STEP:      # without the last it does not count
                system.get_file(f"{folder}/{target.name}/{name}", str(target / name))
        return steps[-1]

    def saved(self, step: int, folder: Path) -> None:
        """Copy a checkpoint, and drop the oldest."""
        system, run = self._open()
        with self._doing("written"):
            system.makedirs(f"{run}/{folder.name}", exist_ok=True)
            for name in OF_THE_RUN:
                system.put_file(str(self.run / name), f"{run}/{name}")
            for name in OF_A_STEP:
                system.put_file(str(folder / name), f"{run}/{folder.name}/{name}")
            oldest = self._steps(system, run)[-self.keep:][0]
            for old in self._steps(system, run, whole=False):       # what was being removed when it was killed, too
                if old < oldest:
                    system.rm(f"{run}/step-{old:06d}", recursive=True)

    def begin(self, step: int, steps: int, epochs: int) -> None:
        pass

    def numbers(self, step: int, numbers: Numbers) -> None:
        pass

    def end(self, status: str) -> None:
        pass
