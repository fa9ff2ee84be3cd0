"""What all files below data/bench have: the machine, the command, and rows."""
from __future__ import annotations

import importlib.metadata
import json
import platform
import resource
import shlex
import sys
from pathlib import Path
from typing import Any

from snnseg import config, seal

PACKAGES = ("torch", "numba", "triton", "spikingjelly", "snntorch")


def root() -> Path:
    """The project's folder."""
    return Path(config.PARAMS).absolute().parent


def machine(device: str = "cpu") -> dict[str, Any]:
    """The processor or GPU, its threads, and the versions of what computes."""
    found: dict[str, Any] = {"cpu": _processor(), "machine": platform.machine(), "python": platform.python_version()}
    if "torch" in sys.modules:
        import torch

        found["threads"] = torch.get_num_threads()
        if device == "cuda":
            found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:         # not Linux
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or platform.machine())


def told(found: dict[str, Any]) -> str:
    """A machine as one line."""
    where = found.get("gpu") or f"{found['cpu']}, {found['threads']} threads"
    return ", ".join([where, *(f"{name} {found[name]}" for name in PACKAGES if name in found)])


def write(name: str, found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Replace data/bench/<name>.json in the project's folder."""
    command = shlex.join(["python", *sys.orig_argv[1:]])
    seal.write_file(root() / "data" / "bench" / f"{name}.json", json.dumps({"machine": found, "command": command, "rows": rows}, indent=1) + "\n")


def peak_mib() -> float:
    """The most memory that this process held."""
    try:        # where there is one; ru_maxrss begins with what the process that started this one held
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    held = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**10 if sys.platform == "darwin" else 1) if held is None else held) / 2**10
