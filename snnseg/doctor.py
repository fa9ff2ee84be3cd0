"""What a training will need, looked at before it does: versions, device, disk, seals, MLflow's database, a cluster.

Each check looks at one thing and changes nothing; none waits longer than its limit.
"""
from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

from snnseg import seal
from snnseg.cluster import address
from snnseg.errors import SnnsegError
from snnseg.sections import Config, data_folder

ANSWER_S = 1.0          # of a cluster, and of a database that another process writes
SCARCE, NONE = 5 * 2**30, 2**28         # bytes of disk: a warning, a failure
PACKAGES = ("torch", "zarr", "numba", "ray", "mlflow", "dvc")
OTHERS_READ, OTHERS_ENTER = stat.S_IRGRP | stat.S_IROTH, stat.S_IXGRP | stat.S_IXOTH
RESOLVE = "Install the tested versions: pip install -c constraints.txt -e '.[dev]'"


@dataclass(frozen=True)
class Finding:
    """What was looked at, `ok`, `warn` or `fail`, what was found, and what to do about it."""

    what: str
    state: str
    fact: str
    remedy: str = ""


def _versions(root: Path) -> Iterator[Finding]:
    """Python and what the nets stand on, beside the versions that were tested, where the project has the list."""
    tested = {}
    with contextlib.suppress(OSError, ValueError):
        tested = dict(line.split("==") for line in (root / "constraints.txt").read_text(encoding="utf-8").split())
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.machine()}")
    for name in PACKAGES:
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, "fail", "not installed", RESOLVE)
            continue
        other = name in tested and found.partition("+")[0] != tested[name]
        yield Finding(name, "warn" if other else "ok", found + (f", tested with {tested[name]}" if other else ""), RESOLVE if other else "")


def _device() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as e:
        return Finding("device", "fail", f"torch cannot be loaded ({str(e).splitlines()[0][:150]})", RESOLVE)
    if torch.cuda.is_available():
        free, whole = torch.cuda.mem_get_info()
        return Finding("device", "ok", f"{torch.cuda.get_device_name()}, {free / 2**30:.1f} of {whole / 2**30:.1f} GiB free")
    if shutil.which("nvidia-smi"):
        return Finding("device", "warn", f"there is an NVIDIA driver, but torch {torch.__version__} sees no GPU",
                       "Install a torch for the driver's CUDA, or see nvidia-smi")
    return Finding("device", "ok", f"CPU, {torch.get_num_threads()} threads")


def _disk(data: Path) -> Finding:
    place = next(p for p in (data, *data.parents) if p.exists())
    if not os.access(place, os.W_OK):
        return Finding("disk", "fail", f"{place} may not be written", "Give this user the right to write there")
    free = shutil.disk_usage(place).free
    state = "ok" if free > SCARCE else "warn" if free > NONE else "fail"
    return Finding("disk", state, f"{free / 2**30:.1f} GiB free at {place}", "" if state == "ok" else "Free some; data/run holds finished runs that may go")


def _sealed(kind: str, folders: list[Path], remedy: str) -> Iterator[Finding]:
    """Files and sizes of sealed folders; every byte is verified when one is opened."""
    whole = 0
    for folder in folders:
        try:
            seal.verify(folder, remedy, contents=False)
            whole += 1
        except SnnsegError as e:
            yield Finding(kind, "fail", str(e).removesuffix(f". {remedy}"), remedy)
    if whole:
        yield Finding(kind, "ok", f"{whole} whole, by names and sizes")
    if not folders:
        yield Finding(kind, "warn", "none yet", remedy)


def _tracking(database: Path) -> Finding:
    if not database.is_file():
        return Finding("mlflow runs", "ok", "none tracked yet")
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True, timeout=ANSWER_S, isolation_level=None)) as opened:
            runs, = opened.execute("select count(*) from runs").fetchone()
            opened.execute("begin immediate")       # as for writing, which is then not done
            opened.execute("rollback")
    except sqlite3.OperationalError as e:
        if "locked" in str(e):
            return Finding("mlflow runs", "warn", f"{database} is being written by another process", "Nothing, if it goes away; numbers wait in metrics.jsonl")
        return Finding("mlflow runs", "fail", f"{database} cannot be written ({e})", "Move it away and send all again: snnseg track")
    except sqlite3.DatabaseError as e:
        return Finding("mlflow runs", "fail", f"{database} is no database of MLflow ({e})", "Move it away and send all again: snnseg track")
    return Finding("mlflow runs", "ok", f"{runs} in {database}")


def _cluster(url: str) -> Iterator[Finding]:
    parts = urlsplit(url)
    try:
        token = address.token_place()
    except SnnsegError as e:
        yield Finding("token", "fail", str(e), "Put the cluster's token there")
        return
    usual = Path.home() / ".ray" / "auth_token"
    if token == "~/.ray/auth_token" and usual.stat().st_mode & OTHERS_READ and Path.home().stat().st_mode & OTHERS_ENTER:
        yield Finding("token", "warn", f"{token} can be read by other users", f"chmod 600 {token}")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        with contextlib.closing(kind(parts.hostname or "", parts.port, timeout=ANSWER_S)) as asked:
            asked.request("GET", "/api/authentication_mode")
            mode = json.loads(asked.getresponse().read(10_000))["authentication_mode"]
    except (OSError, http.client.HTTPException):
        yield Finding("cluster", "ok", f"no cluster at {url}; only snnseg submit needs one")
        return
    except (ValueError, KeyError, TypeError):
        yield Finding("cluster", "warn", f"what answers at {url} is no Ray dashboard", "Name another: cluster.dashboard")
        return
    if mode == "disabled":
        yield Finding("cluster", "warn", f"{url} asks for no token: whoever reaches it runs what he likes", address.OFF_REMEDY)
    elif token is None:
        yield Finding("cluster", "warn", f"{url} asks for a token, and none was found here", address.OFF_REMEDY)
    else:
        yield Finding("cluster", "ok", f"{url} asks for a token, as {token} has one")


def examine(numbers: Config) -> list[Finding]:
    """All checks, in the order of what stands on what."""
    data = data_folder(numbers.root)
    stores = sorted(p for p in (data / "store").glob("*") if p.is_dir() and not p.name.startswith("."))
    models = sorted(p for p in (data / "model").glob("*/*") if p.is_dir() and not p.name.startswith("."))
    return [*_versions(numbers.root), _device(), _disk(data), *_sealed("stores", stores, "Make them: make repro, or snnseg prepare BENCHMARK"),
            *_sealed("models", models, "Train them: make repro, or snnseg train BENCHMARK/EXPERIMENT"), _tracking(data / "mlflow" / "mlflow.db"),
            *_cluster(address.checked(numbers.cluster.dashboard))]
