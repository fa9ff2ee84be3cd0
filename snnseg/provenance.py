"""Where a result comes from: the commit of the code and the machine that computed it."""
from __future__ import annotations

import ast
import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

CODE = ("snnseg", "pipelines", "params.yaml", "dvc.yaml")      # what may change a result
COMMIT = "SNNSEG_COMMIT"        # in the environment of a job on a cluster, whose copy of the project has no history


def commit(root: Path) -> str:
    """Short hash of HEAD, `+` if code or parameters differ from it, `unknown` outside a git checkout."""
    if told := os.environ.get(COMMIT):
        return told

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "--short=12", "HEAD")
    if head is None:
        return "unknown"
    return head + ("+" if git("status", "--porcelain", "--", *CODE) else "")


def code_digest(paths: Iterable[Path]) -> str:
    """sha256 of Python sources, comments and layout left out."""
    told = hashlib.sha256()
    for path in sorted(paths):
        told.update(path.name.encode() + ast.dump(ast.parse(path.read_bytes())).encode())
    return told.hexdigest()


def device_name(kind: str) -> str:
    """`cuda` as the name of the card, `cpu` as architecture and number of threads in use."""
    import torch

    if kind == "cuda":
        return torch.cuda.get_device_name()
    return f"cpu {platform.machine()} x{torch.get_num_threads()}"
