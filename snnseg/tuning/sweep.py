"""A sweep as a folder: `data/tune/<benchmark>-<experiment>-<fingerprint>/`.

    sweep.json  ledger.jsonl  trials/0007/ ...  and, at its end, trials.csv  best.json  *.png  sweep.html

The fingerprint covers the store, the code, how long trials train and on what they are validated, and all numbers that shape
the nets but those that are swept: the same command goes on, also with more trials, and after `--apply best`. Trials are
validated on a part of the training split; the test split is looked at once, with the best trial's net.
"""
from __future__ import annotations

import hashlib
import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnseg import lock, seal
from snnseg.data import store
from snnseg.errors import ConfigError
from snnseg.section import flat
from snnseg.sections import Config, data_folder
from snnseg.training.console import duration
from snnseg.tuning import ledger, space, trial
from snnseg.tuning.ledger import Ledger, Trial
from snnseg.tuning.space import Space
from snnseg.tuning.study import Study

SHAPES_TRIALS = ("name", "epochs", "holdout", "seed", "grace", "reduction", "objectives")       # of the section tune


def identity(config: Config, swept: Sequence[str], store_digest: str, code_digest: str) -> dict[str, Any]:
    """All that trials depend on beside the numbers that are swept, by key."""
    told = flat(config.model_dump(mode="json", include=set(space.SWEPT)))
    told = {key: value for key, value in told.items() if key not in swept and key not in space.NO_USE}
    return told | {f"tune.{key}": getattr(config.tune, key) for key in SHAPES_TRIALS} | {"experiment": config.name, "store": store_digest, "code": code_digest}


@dataclass(frozen=True)
class Place:
    """A sweep's folder, and what sweep.json tells of it. Its uid names it for good."""

    folder: Path
    about: dict[str, Any]

    @property
    def mark(self) -> str:
        return self.about["fingerprint"][:4]


def _refuse_another_space(folder: Path, about: dict[str, Any]) -> None:
    """Raise ConfigError where a sweep was begun that differs in its space alone."""
    family = folder.name.rpartition("-")[0]
    for path in sorted(folder.parent.glob(f"{family}-*/sweep.json")):
        other = json.loads(path.read_text(encoding="utf-8"))
        if other["space"] == about["space"]:
            continue
        either = other["space"].keys() | about["space"].keys()
        mine, theirs = ({k: v for k, v in told["identity"].items() if k not in either} for told in (about, other))
        if mine == theirs:
            raise ConfigError(f"{path.parent}: begun with another tune.space, {_spelled(other['space'])}. Give that one, or begin another sweep: "
                              f"--set tune.name=NAME, or remove {path.parent}")


def _spelled(ranges: dict[str, Any]) -> str:
    return ", ".join(f"{key}: {json.dumps(told)}" for key, told in ranges.items())


def place(config: Config) -> Place:
    """Where this sweep lives, begun or not. Raises StoreError and its kin, and ConfigError where it was begun with another space."""
    swept = config.model_dump(mode="json")["tune"]["space"]
    about = {"schema": 1, "identity": identity(config, list(swept), store.check(config.store, config.store_params), trial.code_digest()), "space": swept}
    about["fingerprint"] = hashlib.sha256(json.dumps(about["identity"], sort_keys=True).encode()).hexdigest()
    folder = data_folder(config.root) / "tune" / f"{config.benchmark}-{config.experiment}-{about['fingerprint'][:12]}"
    _refuse_another_space(folder, about)
    if (folder / "sweep.json").exists():
        about = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    return Place(folder, about)


def trial_config(config: Config, params: space.Params) -> Config:
    """The config that a trial trains with."""
    few = {"train.epochs": config.tune.epochs, "train.validate_every": 1, "train.keep": 1}
    return space.changed(config, few | params)


class Sweep:
    """The trials of a sweep while it runs: hands out the next one, hears of each, keeps the book. Knows no Ray."""

    def __init__(self, config: Config, ranges: Space, folder: Path, book: Ledger, told: Callable[[Trial], None]):
        self.config, self.ranges, self.folder, self.book, self.told = config, ranges, folder, book, told
        t = config.tune
        self.waiting = list(book.open)
        self.study = Study(ranges, t.objectives, t.seed, t.startup, book.trials.values())
        self.curves: dict[int, list[list[float]]] = {}
        self.started: dict[int, float] = {}
        self.lost: Counter[int] = Counter()
        self.threads = t.cpus_per_trial

    def next(self) -> Trial | None:
        """A trial that was begun before, else a new one, written down; None if there are as many as were asked for. Raises NoSpace."""
        if self.waiting:
            found = self.waiting.pop(0)
        elif len(self.book.trials) >= self.config.tune.trials:
            return None
        else:
            params, asked = self.study.ask()
            found = self.book.begin(params)
            self.study.begun(found.number, asked)
        self.curves[found.number] = trial.curve(ledger.trial_folder(self.folder, found.number))
        self.started[found.number] = time.monotonic()
        return found

    def job(self, found: Trial) -> dict[str, Any]:
        """What the process that trains it is given."""
        about = trial_config(self.config, found.params).about
        return {"number": found.number, "about": json.dumps(about), "root": str(self.config.root), "threads": self.threads,
                "folder": str(ledger.trial_folder(self.folder, found.number))}

    def heard(self, number: int, epoch: int, miou: float) -> None:
        """A trial was validated."""
        curve = self.curves[number]
        if not curve or epoch > curve[-1][0]:
            curve.append([epoch, miou])

    def again(self, number: int) -> bool:
        """Whether a trial that lost its machine is to go on elsewhere: `cluster.max_failures` times, each. It is then the next to be handed out."""
        self.lost[number] += 1
        if self.lost[number] > self.config.cluster.max_failures:
            return False
        print(f"trial {number}: its machine was lost; it goes on from its last checkpoint", file=sys.stderr)
        self.waiting.append(self.book.trials[number])
        return True

    def settle(self, number: int, outcome: dict[str, Any]) -> None:
        """A trial ended: write it down, tell the sampler and whoever wants to know. Raises NoSpace."""
        curve = self.curves[number]
        usual = {"curve": curve, "epochs": int(curve[-1][0]) if curve else 0, "miou": curve[-1][1] if curve else None,
                 "seconds": round(time.monotonic() - self.started[number], 1)}
        settled = self.book.settle(number, **(usual | outcome))
        self.study.tell(settled)
        self.told(settled)


class Progress:
    """One line a settled trial, on stderr. The time left is reckoned from the first, before which processes have to start."""

    def __init__(self, wanted: int, settled: int):
        self.wanted, self.before, self.now, self.first = wanted, settled, 0, 0.0

    def __call__(self, found: Trial) -> None:
        now, self.now = time.monotonic(), self.now + 1
        self.first = self.first or now
        done, left = self.before + self.now, self.wanted - self.before - self.now
        score = found.why.partition(". ")[0][:160] or "no score"
        if found.counted:
            score = f"mIoU {found.miou:.2f} after {found.epochs} epoch{'s' * (found.epochs > 1)}"
        state = "" if found.state == ledger.FINISHED else f"{found.state}, " if found.counted else f"{found.state}: "
        rest = f"; {duration((now - self.first) / (self.now - 1) * left)} left" if left > 0 and self.now > 1 else ""
        print(f"trial {found.number} ({done} of {self.wanted}): {space.told(found.params)}: {state}{score}, {found.seconds:.0f} s{rest}", file=sys.stderr)


def begin(at: Place) -> None:
    """Write sweep.json where there is none. Raises NoSpace."""
    if "uid" not in at.about:
        at.about["uid"] = uuid.uuid4().hex
        seal.write_file(at.folder / "sweep.json", json.dumps(at.about, indent=1) + "\n")


def execute(config: Config, ranges: Space, at: Place, told: Callable[[list[Trial]], None] = lambda trials: None,
            worker: type | None = None) -> list[Trial]:
    """Run what is missing of the sweep and return its settled trials; `told` hears of all of them whenever one is added.

    Raises Busy, ClusterError, NoSpace.
    """
    with lock.held(at.folder, "sweeping"):
        begin(at)
        book = Ledger(at.folder)
        book.mend()
        for one in book.open:
            _recover(book, at.folder, one)
        told(book.settled)
        wanted = config.tune.trials
        if len(book.settled) < wanted:
            print(f"{config.name}: {len(book.settled)} of {wanted} trials are settled, {len(book.open)} go on; validated on {config.tune.holdout:g} of the "
                  f"training split; {at.folder}", file=sys.stderr)
            line = Progress(wanted, len(book.settled))
            sweep = Sweep(config, ranges, at.folder, book, lambda found: (line(found), told(book.settled)))
            from snnseg.tuning import ray_sweep

            ray_sweep.run(sweep, book.settled, worker)
        for one in book.settled:
            trial.forget(ledger.trial_folder(at.folder, one.number))
        return sorted(book.settled, key=lambda t: t.number)


def _recover(book: Ledger, folder: Path, one: Trial) -> None:
    """Settle a trial that ended by itself while nobody was there to write it down."""
    path = ledger.outcome_file(folder, one.number)
    if path.exists():
        book.settle(one.number, **json.loads(path.read_text(encoding="utf-8")))
