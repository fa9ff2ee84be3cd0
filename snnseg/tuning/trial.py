"""One trial of a sweep, in one process: the plain loop on a part of the training split, validated on the rest of it.

    trials/0007/   metrics.jsonl  step-000123/ ...  and, once it ended by itself, outcome.json, and model/ if it is finished

It goes on from its own checkpoint. Knows no Optuna, and Ray only where several workers train one net; `tell` hears of each epoch, and `stop` may end it.
"""
from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from snnseg import lock, memory, provenance, seal
from snnseg.data import holdout, store
from snnseg.errors import Busy, NotFinite, OutOfMemory
from snnseg.evaluation import activity, energy
from snnseg.models import saved
from snnseg.report import energy as counting
from snnseg.sections import Config
from snnseg.training import loop, run
from snnseg.training.report import Journal, Numbers, Reporters, read_journal
from snnseg.tuning.ledger import FINISHED, NOT_FINITE, OUT_OF_MEMORY, OUTCOME

WAIT_S = 60.0       # for the process of a driver that was killed a moment ago to end
CURVE = "val/miou"


class Validated:
    """A reporter in front of others: what the loop calls test is the part held out, so it is named `val`."""

    def __init__(self, inner: Reporters, tell: Callable[[int, float], None]):
        self.inner, self.tell = inner, tell
        self.begin, self.saved, self.end = inner.begin, inner.saved, inner.end

    def numbers(self, step: int, numbers: Numbers) -> None:
        named = {key.replace("test/", "val/", 1) if key.startswith("test/") else key: value for key, value in numbers.items()}
        self.inner.numbers(step, named)
        if named.get(CURVE) is not None:
            self.tell(int(named["epoch"]) + 1, named[CURVE])


def _journal(path: Path) -> Validated:
    """metrics.jsonl of a trial, where another process follows it."""
    return Validated(Reporters([Journal(path)]), lambda epoch, miou: None)


class Attempts:
    """A reporter that keeps `attempts.jsonl`: where each attempt at the trial began and how it ended."""

    def __init__(self, path: Path):
        self.path = path

    def begin(self, step: int, steps: int, epochs: int) -> None:
        self._write({"from": step, "steps": steps})

    def numbers(self, step: int, numbers: Numbers) -> None:
        pass

    def saved(self, step: int, checkpoint: Path) -> None:
        pass

    def end(self, status: str) -> None:
        self._write({"end": status})

    def _write(self, line: dict[str, Any]) -> None:
        with seal.no_space_named(self.path), open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps(line) + "\n")


def curve(folder: Path) -> list[list[float]]:
    """[epoch, mIoU] of each validation so far."""
    return [[int(line["epoch"]) + 1, line[CURVE]] for line in read_journal(folder / "metrics.jsonl") if line.get(CURVE) is not None]


@functools.lru_cache(1)     # trials of one process share it
def _loaded(place: Path, params: str, steps: int, share: float, seed: int) -> loop.Loaded:
    digest = store.check(place, json.loads(params))
    rest, back = holdout.held_out(store.read(place, "train", steps), share, seed)
    return loop.Loaded(rest, back, digest)


def loaded(config: Config) -> loop.Loaded:
    """The training split without the part held out, that part, and the store's seal. Raises StoreError and its kin."""
    steps = config.timesteps if config.data.events else 1
    return _loaded(config.store, json.dumps(config.store_params), steps, config.tune.holdout, config.tune.seed)


@functools.cache
def code_digest() -> str:
    """sha256 of the sources that shape a trial's weights, comments and layout left out."""
    return hashlib.sha256(f"{run.code_digest()} {provenance.code_digest([Path(holdout.__file__)])}".encode()).hexdigest()


def execute(config: Config, folder: Path, tell: Callable[[int, float], None], stop: Callable[[], bool]) -> dict[str, Any]:
    """Train `config` in `folder`, or go on with it; return what became of it, which is on the disk then.

    A trial that ended before is not run again. Raises Interrupted once `stop()` is true and the step is saved, StoreError and its
    kin, Busy, NoSpace, and whatever else a training raises but NotFinite and OutOfMemory, which are outcomes.
    """
    began = time.monotonic()
    with _held(folder):
        if (folder / OUTCOME).exists():
            return json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
        folder.mkdir(parents=True, exist_ok=True)
        memory.set_up(config.train)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        data = loaded(config)
        fingerprint = config.fingerprint(f"{data.digest} less {config.tune.holdout} of {config.tune.seed}", code_digest())
        journal = [] if several(config) else [Journal(folder / "metrics.jsonl")]       # else the first worker writes it
        report = Validated(Reporters([*journal, Attempts(folder / "attempts.jsonl")]), tell)
        status = "interrupted"
        try:
            model, seconds, steps, on = _fit(config, data, folder, report, stop, device, fingerprint)
            mj = _energy(model, config, data, device)
            about = {**config.about, "fingerprint": fingerprint, "store": data.digest, "protocol": config.protocol, "classes": data.train.about["classes"],
                     "palette": data.train.about["palette"], "partial": data.train.about["partial"], "left_out": data.train.about["left_out"],
                     "train_samples": len(data.train), "test_samples": len(data.test), "device": on,
                     "torch": torch.__version__, "commit": "-", "seconds": round(seconds, 1), "steps": steps}
            saved.save(folder / "model", model, about)
            status = FINISHED
            told = {"state": FINISHED, "energy_mj": mj, "seconds": round(seconds, 1)}
        except (NotFinite, OutOfMemory) as e:
            status = "failed"
            told = {"state": NOT_FINITE if isinstance(e, NotFinite) else OUT_OF_MEMORY, "why": str(e), "seconds": round(time.monotonic() - began, 1)}
        finally:
            report.end(status)
        points = curve(folder)
        told |= {"curve": points, "epochs": int(points[-1][0]) if points else 0, "miou": points[-1][1] if points else None}
        seal.write_file(folder / OUTCOME, json.dumps(told) + "\n")
        forget(folder)
    return told


def several(config: Config) -> bool:
    """Whether several workers train each net; `auto` is one, as trials run side by side."""
    return config.train.workers not in ("auto", 1)


def _fit(config: Config, data: loop.Loaded, folder: Path, report: Validated, stop: Callable[[], bool], device: torch.device,
         fingerprint: str) -> tuple[torch.nn.Module, float, int, str]:
    """The net on `device`, seconds, steps, and the name of the device that it was trained on."""
    if not several(config):
        model, state = loop.fit(config, data, folder, report, stop, device, fingerprint)
        return model, state.seconds, state.step, provenance.device_name(device.type)
    from snnseg.training import ray_train

    went = ray_train.fit(config, loaded, len(data.train), data.digest, folder, report, stop, fingerprint, [], lambda text: None, _journal)
    return ray_train.saved_net(config, folder, fingerprint).to(device), went["seconds"], went["step"], went["device"]


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder's lock; the process of a killed driver may need a moment to let go of it. Raises Busy."""
    deadline = time.monotonic() + WAIT_S
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock.held(folder, "training a trial"))
                break
            except Busy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield


def _energy(model: torch.nn.Module, config: Config, data: loop.Loaded, device: torch.device) -> float:
    """mJ a picture, exact operations, over the first pictures of the part held out."""
    few = config.model_copy(update={"energy": config.energy.model_copy(update={"pictures": config.tune.energy_pictures})})
    counts = activity.measure(model, counting.inputs(few, data.test, device))
    return energy.exact(counts, counting.constants(config)[0]).mj


def forget(folder: Path) -> None:
    """Remove the checkpoints of a trial that is not to go on."""
    for step in folder.glob("step-*"):
        shutil.rmtree(step)
