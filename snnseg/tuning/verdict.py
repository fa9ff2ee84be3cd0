"""What a sweep found: its best trial, what mattered, the command that trains it, and all of it as files.

    trials.csv   a row a trial
    best.json    the best, its score on the test split, importance of each number, the Pareto front, the command
"""
from __future__ import annotations

import collections
import csv
import io
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from snnseg import seal
from snnseg.errors import ClusterError, NotFinite, OutOfMemory, SnnsegError
from snnseg.sections import Config
from snnseg.tuning import ledger, space
from snnseg.tuning.ledger import Trial
from snnseg.tuning.space import Space

FILES = "trials.csv", "best.json"


@dataclass(frozen=True)
class Verdict:
    """A sweep's answer. mIoU in per cent; `test_miou` is that of the best trial's own net, the only one that saw the test split."""

    trials: tuple[Trial, ...]
    best: Trial
    front: tuple[Trial, ...]            # of mIoU and energy, rising; empty where energy is no objective
    importance: dict[str, float]
    command: str                        # trains the best with all training pictures and epochs
    test_miou: float | None = None

    @property
    def states(self) -> dict[str, int]:
        return dict(collections.Counter(t.state or "" for t in self.trials))


def best(trials: Sequence[Trial]) -> Trial:
    """The finished trial of the highest mIoU; of equals the one that spends less, then the first. Raises SnnsegError where none is finished."""
    able = [t for t in trials if t.state == ledger.FINISHED and t.miou is not None]
    if not able:
        raise _nothing(trials)
    return min(able, key=lambda t: (-t.miou, t.energy_mj if t.energy_mj is not None else 0.0, t.number))


def _nothing(trials: Sequence[Trial]) -> SnnsegError:
    state, count = collections.Counter(t.state for t in trials).most_common(1)[0]
    first = next(t for t in trials if t.state == state)
    told = f"none of {len(trials)} trials was finished; {count} are {state}, the first: {first.why.rstrip('.') or space.told(first.params)}"
    if state == ledger.NOT_FINITE:
        return NotFinite(f"{told}. Narrow tune.space, or lower optim.lr")
    if state == ledger.OUT_OF_MEMORY:
        return OutOfMemory(f"{told}. Lower train.batch, the highest encode.timesteps, or tune.concurrency")
    return ClusterError("trials", told, "Remove the cause, then begin another sweep: --set tune.name=NAME")


def find(config: Config, ranges: Space, trials: Sequence[Trial], overrides: Sequence[str], params: Path) -> Verdict:
    """The answer of these trials; `overrides` and `params` as the sweep was given them. Raises as `best`."""
    from snnseg.tuning import study

    t, found = config.tune, best(trials)
    words = ["snnseg", "train", config.name, *space.arguments(found.params, overrides), *([] if params == Path("params.yaml") else ["--params", str(params)])]
    front = study.front(trials) if len(t.objectives) > 1 else []
    return Verdict(tuple(trials), found, tuple(front), study.importance(ranges, trials, min(t.grace, t.epochs), t.seed), shlex.join(words))


def trials_csv(ranges: Space, trials: Sequence[Trial]) -> str:
    """A row a trial; empty where it has no score."""
    columns = ["trial", *(one.key for one in ranges), "state", "miou", "energy_mj", "epochs", "seconds", "why"]
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for trial in trials:
        writer.writerow({c: "" if v is None else json.dumps(v) if isinstance(v, bool) else v for c, v in trial.row.items()})
    return out.getvalue()


def best_json(config: Config, verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain values."""
    told = {key: value for key, value in asdict(verdict.best).items() if key not in ("curve", "why")}
    return {"experiment": config.name, "best": told, "val_miou": verdict.best.miou, "test_miou": verdict.test_miou,
            "validated_on": f"{config.tune.holdout:g} of the training split", "epochs": config.tune.epochs, "trials": verdict.states,
            "importance": verdict.importance, "front": [{"trial": t.number, "miou": t.miou, "energy_mj": t.energy_mj} for t in verdict.front],
            "command": verdict.command}


def tested(folder: Path, found: Trial) -> float | None:
    """The best trial's score on the test split, if it was taken before."""
    path = folder / "best.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return told.get("test_miou") if told.get("best", {}).get("number") == found.number else None


def write(config: Config, ranges: Space, folder: Path, verdict: Verdict) -> None:
    """Write the files. Raises NoSpace."""
    seal.write_file(folder / "trials.csv", trials_csv(ranges, verdict.trials))
    seal.write_file(folder / "best.json", json.dumps(best_json(config, verdict), indent=1) + "\n")


def table(ranges: Space, verdict: Verdict) -> str:
    """All trials for a person, the best first, those without a score last."""
    from rich.console import Console
    from rich.table import Table

    front = {t.number for t in verdict.front}
    rows = sorted(verdict.trials, key=lambda t: (t.number != verdict.best.number, t.state != ledger.FINISHED, not t.counted, -(t.miou or 0.0), t.number))
    shown = Table(box=None, pad_edge=False)
    for name in ("trial", *(space.short(one.key) for one in ranges), "mIoU", "mJ", "epochs", "s", "state"):
        shown.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
    for t in rows:
        mark = "best" if t.number == verdict.best.number else "front" if t.number in front else ""
        state = " ".join(filter(None, [t.state, f"({mark})" if mark else ""]))
        shown.add_row(str(t.number), *(space.shown(t.params[one.key]) for one in ranges), f"{t.miou:.2f}" if t.counted else "-",
                      "-" if t.energy_mj is None else f"{t.energy_mj:.4g}", str(t.epochs), f"{t.seconds:.0f}", state)
    out = io.StringIO()
    Console(file=out, width=200, color_system=None).print(shown)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def lines(config: Config, verdict: Verdict) -> str:
    """The answer for a person."""
    b, t = verdict.best, config.tune
    out = [f"best: trial {b.number}, {space.told(b.params)}: mIoU {b.miou:.2f} on the {t.holdout:g} of the training split held out"
           + (f", {verdict.test_miou:.2f} on the test split ({t.epochs} epochs on the rest)" if verdict.test_miou is not None else "")]
    if verdict.importance:
        told = ", ".join(f"{space.short(key)} {share:.2f}" for key, share in verdict.importance.items())
        out.append(f"importance for mIoU after {t.grace} epoch{'s' * (t.grace > 1)}: {told}")
    for trial in verdict.front:
        out.append(f"front: trial {trial.number}, {space.told(trial.params)}: mIoU {trial.miou:.2f}, {trial.energy_mj:.4g} mJ")
    out.append("trials: " + ", ".join(f"{count} {state}" for state, count in verdict.states.items()))
    out.append(f"train it: {verdict.command}")
    return "\n".join(out)


def apply(params: Path, config: Config, found: Trial) -> dict[str, tuple[Any, Any]]:
    """Write a trial's numbers into the experiment in params.yaml; what it had and has. Raises ConfigError."""
    from snnseg import settings

    return settings.give(params, config.name, found.params)
