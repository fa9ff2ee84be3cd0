"""A command as a job: what travels to the cluster, how it is called there, and what its end tells.

The code travels, the data does not: the job's copy of the project lasts as long as its cluster, so what it reads and writes
lies in the project's data folder as the job's machine sees it (`sections.data_folder`).
"""
from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnseg import provenance, sections
from snnseg.sections import Config

# in the syntax of .gitignore; a slash in front holds the name to the project's folder, so that snnseg/data travels
EXCLUDES = ("/data", "/.venv", "/venv", "/.git", "/.dvc", "/dvc_plots", ".env", "__pycache__", "*.egg-info", ".pytest_cache", ".ruff_cache", ".hypothesis")
STOP_WAIT_S = 60        # a training that is asked to stop finishes its step and saves; Ray's own limit is 3 s
COMMAND = "snnseg"      # in a job's metadata: the command it was submitted as
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
PREFIXES = ("Running entrypoint for job ",)
NO_PYTHON = ("python: not found", "python: command not found", "No module named", "No such file or directory: 'python'", "env: 'python'", "env: ‘python’")


@dataclass(frozen=True)
class Order:
    """What a cluster is asked to run. `files` is the folder that travels, `gpus` what the job has to itself."""

    job: str
    command: str
    entrypoint: str
    files: Path
    variables: dict[str, str]
    gpus: int


@dataclass(frozen=True)
class Told:
    """What a cluster tells of a job. Times are seconds since 1970, `code` is the exit code of one that ended by itself."""

    job: str
    status: str
    command: str
    began: float | None
    ended: float | None
    code: int | None
    message: str

    @property
    def over(self) -> bool:
        return self.status in ENDED

    @property
    def exit_code(self) -> int:
        """Of a command that followed the job to its end: the job's own; 130 for one that was stopped, 9 where none is known."""
        if self.status == "SUCCEEDED":
            return 0
        if self.status == "STOPPED":
            return 130
        if not self.code:
            return 9
        return self.code if self.code > 0 else 128 - self.code      # by a signal, as a shell tells it

    def seconds(self, now: float) -> float | None:
        """How long it has run at `now`, or ran."""
        return None if self.began is None else max(0.0, (self.ended or now) - self.began)


def order(arguments: Sequence[str], numbers: Config) -> Order:
    """The command line `arguments` as a job on the cluster of `numbers`."""
    data = numbers.cluster.data or str(sections.data_folder(numbers.root).resolve())
    # Ray gives a job that reserves no core one thread; env takes that back, so that torch uses the machine
    entrypoint = shlex.join(["env", "-u", "OMP_NUM_THREADS", "python", "-m", "snnseg", *arguments])
    variables = {sections.DATA: data, provenance.COMMIT: provenance.commit(numbers.root), "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}
    job = f"{arguments[0]}-{time.strftime('%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}"
    return Order(job, shlex.join(arguments), entrypoint, numbers.root, variables, numbers.cluster.job_gpus)


def runtime_env(asked: Order) -> dict[str, Any]:
    """`asked` as Ray's runtime environment."""
    return {"working_dir": str(asked.files), "excludes": list(EXCLUDES), "env_vars": asked.variables}


def first_error(log: str) -> str:
    """The line of a job's log that tells why it ended: snnseg's own, else the end of the first traceback, else the last line."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip() and not line.startswith(PREFIXES)]
    for line in lines:
        if line.startswith("snnseg: "):
            return line.removeprefix("snnseg: ")
    trace = next((k for k, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")), None)
    if trace is not None:
        for line in lines[trace + 1:]:
            if not line.startswith(" "):
                return line
    return lines[-1] if lines else ""


def why_failed(told: Told, log: str) -> tuple[str, str]:
    """Fact and remedy of a job that ended without success, from its log and, where that is empty, from what Ray says."""
    if told.status == "STOPPED":
        return "was stopped; what it had saved is kept", "Submit the same command again to go on"
    first = first_error(log) or (told.message.strip().splitlines() or ["it left no log"])[0]
    remedy = f"The whole log: snnseg jobs logs {told.job}"
    if any(sign in first for sign in NO_PYTHON):
        remedy = "Start Ray in an environment whose `python` has snnseg's packages (docs/cluster.md)"
    return f"failed with exit code {told.exit_code}: {first.rstrip('.')[:600]}", remedy
