"""One training as a folder: `data/run/<benchmark>-<experiment>-<fingerprint>/`.

    about.json  metrics.jsonl  step-000123/ ...  and, once finished, model/

The fingerprint covers the numbers, the store and the code that shape the weights, so the same command finds its own
half-done run, and another setting never goes on from it. A lock keeps a second process out.
"""
from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from snnseg import lock, memory, provenance, seal, seeds
from snnseg.data import store
from snnseg.errors import SnnsegError, StoreAltered
from snnseg.models import saved, zoo
from snnseg.sections import Config, data_folder
from snnseg.training import loop
from snnseg.training.console import Console
from snnseg.training.report import Journal, Reporter, Reporters, curve_csv, read_journal
from snnseg.training.storage import Storage

PACKAGE = Path(seeds.__file__).parent
SHAPES_WEIGHTS = ("seeds.py", "ranks.py", "data/store.py", "data/windows.py", "data/loader.py", "data/augment.py", "spiking", "models/backbone.py",
                  "models/deeplab.py", "models/fcn.py", "models/feed.py", "models/inputs.py", "models/moves.py", "models/zoo.py",
                  "training/firing.py", "training/loop.py", "training/loss.py", "training/optim.py",
                  "training/step.py", "training/together.py")


@dataclass(frozen=True)
class Run:
    """What a tracker needs to know of a run. `about` has a uid that names it for good, also across restarts."""

    folder: Path
    config: Config
    about: dict[str, Any]


def code_digest() -> str:
    """sha256 of the sources that shape the weights, comments and layout left out."""
    places = [PACKAGE / name for name in SHAPES_WEIGHTS]
    return provenance.code_digest(path for place in places for path in (place.rglob("*.py") if place.is_dir() else [place]))


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


def _about(folder: Path, told: dict[str, Any]) -> dict[str, Any]:
    """What is known of the run, written when it begins; what a resume does elsewhere is added, as `a, then b`."""
    path = folder / "about.json"
    about = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {**told, "uid": uuid.uuid4().hex}
    for key in ("commit", "device", "torch"):
        if told[key] not in about[key].split(", then "):
            about[key] += f", then {told[key]}"
    seal.write_file(path, json.dumps(about, indent=1) + "\n")
    return about


def _copies(config: Config, folder: Path) -> list[Reporter]:
    """Where checkpoints are copied to, seen to be writable; a newer one that is there is brought here. Raises Unusable, NoSpace."""
    if config.cluster.storage is None:
        return []
    place = config.cluster.storage
    copies = Storage(place if "://" in place else str(config.root / place), folder, config.train.keep)
    copies.check()
    if (step := copies.fetch()) is not None:
        print(f"{config.name}: step {step} was brought from {place}", file=sys.stderr)
    return [copies]


def loaded(config: Config) -> loop.Loaded:
    """The splits of the config's store in memory, every byte verified. Raises StoreError and its kin."""
    digest = store.check(config.store, config.store_params)
    data = loop.Loaded(store.read(config.store, "train", config.timesteps), store.read(config.store, "test", config.timesteps), digest)
    if seal.read_seal(config.store, store.REMEDY)["digest"] != digest:
        raise StoreAltered(config.store, "made anew while it was read", "Run the same command again")
    return data


def train(config: Config, trackers: Callable[[Run], list[Reporter]] = lambda run: []) -> Path:
    """Train `config`, or go on with it, and return the run's folder, which then holds `model/`.

    A run that is finished is left as it is. Several workers, or those of a cluster, are Ray's affair; one in place knows nothing of it.
    Raises ConfigError where `train.kernels` cannot be had here, StoreError and its kin for the store, Busy, NotFinite, OutOfMemory,
    NoSpace, Interrupted, ClusterError.
    """
    memory.set_up(config.train)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    through_ray = config.cluster.address is not None or config.train.workers not in ("auto", 1)
    way = zoo.way(config, device) if config.spiking and not through_ray else None
    data = loaded(config)
    fingerprint = config.fingerprint(data.digest, code_digest())
    title = config.name
    folder = data_folder(config.root) / "run" / f"{config.benchmark}-{config.experiment}-{fingerprint[:12]}"
    with lock.held(folder, "training"):
        if seal.is_sealed(folder / "model"):
            print(f"{title}: finished before. To train it anew, remove {folder}", file=sys.stderr)
            return folder
        folder.mkdir(exist_ok=True)
        copies = _copies(config, folder)
        about = _about(folder, {
            **config.about, "fingerprint": fingerprint, "store": data.digest, "protocol": config.protocol, "classes": data.train.about["classes"],
            "palette": data.train.about["palette"],
            "partial": data.train.about["partial"], "left_out": data.train.about["left_out"], "train_samples": len(data.train), "test_samples": len(data.test),
            "device": provenance.device_name(device.type), "torch": torch.__version__, "commit": provenance.commit(config.root)})
        if way:
            print(f"{title}: norm and neuron are run the {way} way", file=sys.stderr)
        run = Run(folder, config, about)
        journal, tell = Journal(folder / "metrics.jsonl"), [Console(title, len(data.train)), *trackers(run)]
        report = Reporters(tell if through_ray else [journal, *copies, *tell])       # the first worker writes the journal
        status = "failed"
        try:
            with Stop().listening() as stop, memory.shortage_named(config, "train.batch", config.train.batch):
                if through_ray:
                    from snnseg.training import ray_train

                    went = ray_train.fit(config, loaded, len(data.train), data.digest, folder, report, stop, fingerprint, copies,
                                         lambda text: print(f"{title}: {text}", file=sys.stderr))
                    model, seconds, steps = ray_train.saved_net(config, folder, fingerprint), went["seconds"], went["step"]
                    about |= {"device": went["device"], "workers": went["workers"]}
                else:
                    model, state = loop.fit(config, data, folder, report, stop, device, fingerprint)
                    seconds, steps = state.seconds, state.step
            about |= {"seconds": round(seconds, 1), "steps": steps, "parameters": sum(p.numel() for p in model.parameters())}
            saved.save(folder / "model", model, about)
            status = "finished"
        except SnnsegError as e:
            status = "interrupted" if e.exit_code == 130 else "failed"
            raise
        finally:
            if report.begun:        # else there is nothing that could have ended
                report.end(status)
    return folder


def publish(run: Path, config: Config) -> None:
    """Copy a finished run's model and curve to where the next stages look for them. Raises Busy, NoSpace."""
    with lock.held(run, "training"), lock.held(config.model_folder, "publishing"), seal.publish(config.model_folder) as partial:
        for name in ("model.safetensors", "about.json"):
            shutil.copyfile(run / "model" / name, partial / name)
    with lock.held(config.result_folder, "publishing"):
        seal.write_file(config.result_folder / "curve.csv", curve_csv(read_journal(run / "metrics.jsonl")))
