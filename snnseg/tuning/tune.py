"""A whole sweep: its trials, then what they tell, as files, in MLflow and for a person."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from snnseg import seal
from snnseg.sections import Config
from snnseg.tracking.sweeps import SweepTracker
from snnseg.tuning import ledger, space, sweep, verdict
from snnseg.tuning.ledger import Trial
from snnseg.tuning.space import Space
from snnseg.tuning.sweep import Place
from snnseg.tuning.verdict import Verdict

NAME_CHARS = 40


def run_name(trial: Trial, mark: str) -> str:
    """`007-leak0.9134-threshold0.9575-T2-7f3a`, at most 40 characters; the number and the mark of the sweep are always whole."""
    first, last = f"{trial.number:03}", f"-{mark}"
    middle = "".join(f"-{space.short(key)}{space.shown(value)}" for key, value in trial.params.items())
    return first + middle[: NAME_CHARS - len(first) - len(last)] + last


def _told(config: Config, at: Place, trial: Trial) -> dict[str, Any]:
    """A settled trial as MLflow is told of it."""
    numbers = {"val/miou_last": trial.miou if trial.counted else None, "energy/exact_mj": trial.energy_mj, "seconds": trial.seconds}
    return {"number": trial.number, "name": run_name(trial, at.mark), "config": sweep.trial_config(config, trial.params).about["config"],
            "folder": ledger.trial_folder(at.folder, trial.number), "epochs": trial.epochs, "state": trial.state, "failed": not trial.counted,
            "numbers": numbers}


def tune(config: Config, ranges: Space, at: Place, overrides: Sequence[str], params: Path, worker: type | None = None) -> Verdict:
    """Run what is missing of the sweep, write its files, tell MLflow. `overrides` and `params` are those that the command gave.

    Raises Busy, ClusterError, NoSpace, and where no trial was finished the error that most of them met.
    """
    known: list[Trial] = []
    tracker: SweepTracker | None = None

    def told(trials: list[Trial]) -> None:
        nonlocal tracker, known
        tracker, known = tracker or SweepTracker(config, at.folder, at.about), trials
        tracker.sync([_told(config, at, t) for t in trials])

    status = "KILLED"
    numbers, files = {}, ()
    try:
        trials = sweep.execute(config, ranges, at, told, worker)
        status = "FAILED"
        found = _conclude(config, ranges, at, trials, overrides, params)
        status, files = "FINISHED", tuple(sorted(p for p in at.folder.iterdir() if p.suffix in (".png", ".html", ".csv", ".json")))
        numbers = {"best/val_miou": found.best.miou, "best/test_miou": found.test_miou, "best/energy_mj": found.best.energy_mj} | {
            f"trials/{state.replace(' ', '_')}": float(count) for state, count in found.states.items()}
    finally:
        if tracker:
            tracker.sync([_told(config, at, t) for t in known], status, numbers, files)
    return found


def _conclude(config: Config, ranges: Space, at: Place, trials: list[Trial], overrides: Sequence[str], params: Path) -> Verdict:
    """Judge the trials, look at the test split once with the best one's net, write the files."""
    from snnseg.report import result
    from snnseg.tuning import page, pictures

    kept = [text for text in overrides if not text.strip().startswith(("tune.", "cluster.", "track."))]
    found = verdict.find(config, ranges, trials, kept, params)
    test_miou = verdict.tested(at.folder, found.best)
    if test_miou is None:
        test_miou = result.measure(ledger.trial_folder(at.folder, found.best.number) / "model", config).metrics["miou"]
    found = replace(found, test_miou=test_miou)
    verdict.write(config, ranges, at.folder, found)
    epoch = min(config.tune.grace, config.tune.epochs)
    for name, png in pictures.draw(ranges, trials, found.importance, epoch).items():
        seal.write_file(at.folder / name, png)
    title = f"{config.name}: {len(trials)} trials"
    seal.write_file(at.folder / "sweep.html", page.page(title, verdict.lines(config, found), ranges, trials, found.importance, epoch))
    return found
