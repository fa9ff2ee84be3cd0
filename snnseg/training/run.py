"""One training as a folder: `data/run/<experiment>-<fingerprint>/`.

    run.json  config.json  metrics.jsonl  step-000123/ ...

The fingerprint covers the numbers, the store and the code that shape the weights, so the same command finds its own
half-done run, and another setting never goes on from it. A lock keeps a second process out.
"""
from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from snnseg import lock, provenance, seal, seeds
from snnseg.data import store
from snnseg.errors import OutOfMemory, SnnsegError
from snnseg.models import saved
from snnseg.sections import Config
from snnseg.training import loop
from snnseg.training.console import Console
from snnseg.training.report import Journal, Reporter, Reporters, curve_csv, read_journal

PACKAGE = Path(seeds.__file__).parent
SHAPES_WEIGHTS = ("seeds.py", "data/loader.py", "data/augment.py", "spiking", "models", "training/loop.py", "training/loss.py", "training/optim.py")


@dataclass(frozen=True)
class Run:
    """What a tracker needs to know of a run. `uid` names it for good, also across restarts."""

    folder: Path
    uid: str
    config: Config
    about: dict[str, Any]


def code_digest() -> str:
    """sha256 of the sources that shape the weights."""
    told = hashlib.sha256()
    for name in SHAPES_WEIGHTS:
        place = PACKAGE / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            told.update(path.relative_to(PACKAGE).as_posix().encode() + path.read_bytes())
    return told.hexdigest()


class Stop:
    """SIGINT and SIGTERM ask the loop to finish its step and save; a second one ends the process at once."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked

    def _ask(self, signum: int, frame: object) -> None:
        self.asked = True
        signal.signal(signum, signal.SIG_DFL)

    @contextlib.contextmanager
    def listening(self) -> Iterator[Stop]:
        before = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for s, handler in before.items():
                signal.signal(s, handler)


def _identity(folder: Path, fingerprint: str) -> str:
    """The run's uid, made once and kept."""
    path = folder / "run.json"
    if not path.exists():
        seal.write_file(path, json.dumps({"uid": uuid.uuid4().hex, "fingerprint": fingerprint}) + "\n")
    return json.loads(path.read_text(encoding="utf-8"))["uid"]


@contextlib.contextmanager
def _memory_named(config: Config) -> Iterator[None]:
    """Turn an allocation that failed into one line that names what to lower."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError, OSError) as e:
        told = str(e)
        if not (isinstance(e, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in told
                or getattr(e, "errno", None) == errno.ENOMEM) or isinstance(e, SnnsegError):
            raise
        raise OutOfMemory(f"out of memory with train.batch {config.train.batch}, {config.timesteps} time steps, data.size "
                          f"{config.data.size}, model.width {config.model.width}. Lower train.batch first.") from e


def train(config: Config, trackers: Callable[[Run], list[Reporter]] = lambda run: []) -> Path:
    """Train `config`, or go on with it, and return the run's folder, which then holds `model/`.

    Raises StoreError and its kin for the store, Busy, NotFinite, OutOfMemory, NoSpace, Interrupted.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    digest = store.check(config.store, config.store_params)
    data = loop.Loaded(store.read(config.store, "train"), store.read(config.store, "test"), digest)
    fingerprint = config.fingerprint(digest + code_digest())
    folder = config.root / "data" / "run" / f"{config.experiment or config.model.name}-{fingerprint[:12]}"
    with lock.held(folder, "training"):
        folder.mkdir(exist_ok=True)
        numbers = config.model_dump(mode="json", exclude={"root", "experiment"})
        about = {"experiment": config.experiment, "config": numbers, "fingerprint": fingerprint, "store": digest,
                 "protocol": config.protocol, "uid": _identity(folder, fingerprint), "classes": data.train.about["classes"],
                 "palette": data.train.about["palette"], "train_samples": len(data.train), "test_samples": len(data.test),
                 "device": provenance.device_name(device.type), "commit": provenance.commit(config.root)}
        seal.write_file(folder / "config.json", json.dumps(numbers, indent=1) + "\n")
        run = Run(folder, about["uid"], config, about)
        report = Reporters([Journal(folder / "metrics.jsonl"), Console(config.experiment or config.model.name, len(data.train)), *trackers(run)])
        status = "failed"
        try:
            with Stop().listening() as stop, _memory_named(config):
                model, state = loop.fit(config, data, folder, report, stop, device, fingerprint)
            about |= {"seconds": round(state.seconds, 1), "steps": state.step,
                      "parameters": sum(p.numel() for p in model.parameters())}
            saved.save(folder / "model", model, about)
            status = "finished"
        except SnnsegError as e:
            status = "interrupted" if e.exit_code == 130 else "failed"
            raise
        finally:
            report.end(status)
    return folder


def publish(run: Path, config: Config) -> None:
    """Copy a finished run's model and curve to where the next stages look for them. Raises NoSpace."""
    with seal.publish(config.model_folder) as partial:
        for name in ("model.safetensors", "about.json"):
            shutil.copyfile(run / "model" / name, partial / name)
    seal.write_file(config.result_folder / "curve.csv", curve_csv(read_journal(run / "metrics.jsonl")))
