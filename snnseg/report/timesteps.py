"""One spiking net at other numbers of time steps (section 5.3), as files below data/result/<benchmark>/<experiment>/.

    timesteps.json   mIoU after each step of one pass; of the trained net at other T by BNTT's rules; of nets trained at other T
    timesteps.csv    the same, a line a score

A training at another T is a run of its own below data/run, the one that `snnseg train --set encode.timesteps=T` makes: an interrupted
one goes on, a finished one is found again.
"""
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnseg import lock, seal
from snnseg.data.store import Split
from snnseg.errors import ConfigError, StoreError
from snnseg.evaluation import timesteps
from snnseg.report import timesteps_table
from snnseg.report.opened import Opened, opened
from snnseg.report.table import csv_text
from snnseg.sections import Config
from snnseg.training import run
from snnseg.training.report import Reporter

FILES = "timesteps.json", "timesteps.csv"
Trackers = Callable[[run.Run], list[Reporter]]


@dataclass(frozen=True)
class Scores:
    """A net's scores by number of time steps, and what is known of it."""

    summary: dict[str, Any]
    about: dict[str, Any]


def check(config: Config) -> None:
    """Raises ConfigError for a net that has no time steps of its own."""
    if not config.spiking:
        raise ConfigError(f"{config.name}: {config.model.name} is no spiking net, so time steps mean nothing to it. Take a spiking one, or convert it: "
                          f"snnseg convert {config.name}")


def items_at(net: Opened, T: int) -> Split | None:
    """The test items of a net at T steps; None of events where no recording is so long."""
    try:
        return net.split("test", net.config.time_steps.pictures, T)
    except StoreError:
        if not net.config.data.events or T == net.config.timesteps:
            raise
        return None


def trained_at(net: Opened, T: int, trackers: Trackers) -> dict[str, Any]:
    """The score of a net of the same numbers, but for T, that is trained now or was before. Raises as `run.train`."""
    config = net.config.model_copy(update={"encode": net.config.encode.model_copy(update={"timesteps": T})})
    folder = run.train(config, trackers)
    other = opened(folder / "model", config)
    scored = timesteps.mious(other.model, other.split("test", config.time_steps.pictures), config, other.device, [T])
    return {"timesteps": T, "miou": scored[T], "run": folder.name}


def measure(model_folder: Path, config: Config, trackers: Trackers = lambda run: []) -> Scores:
    """Score a saved spiking net at other numbers of time steps, and train and score nets at those of `time_steps.trained`.

    `config` gives the section time_steps, all else is the net's own. Raises ConfigError for an ANN, StoreError and its kin, OutOfMemory, and
    as `run.train`.
    """
    check(config)
    net = opened(model_folder, config)
    check(net.config)
    own, about, items = net.config.timesteps, net.about, items_at(net, net.config.timesteps)
    found = timesteps.curves(net.model, lambda T: items if T == own else items_at(net, T), net.config, net.device)
    trained = {T: trained_at(net, T, trackers) for T in sorted(set(net.config.time_steps.trained) - {own})}
    trained[own] = {"timesteps": own, "miou": found.anytime[own], "run": None}
    summary = {
        "benchmark": about["benchmark"], "experiment": about["experiment"], "protocol": net.config.protocol, "norm": net.config.model.norm,
        "trained_timesteps": own, "pictures": len(items),
        "anytime": _points(found.anytime), "inference": {rule: _points(of_rule) for rule, of_rule in found.inference.items()},
        "trained": [trained[T] for T in sorted(trained)]}
    return Scores(summary, about)


def _points(scores: dict[int, float | None]) -> list[dict[str, Any]]:
    return [{"timesteps": T, "miou": miou} for T, miou in scores.items()]


def write(config: Config, trackers: Trackers = lambda run: []) -> Scores:
    """Score the experiment's net and write its files. Raises as `measure`, and Busy, NoSpace."""
    found, folder = measure(config.model_folder, config, trackers), config.result_folder
    with lock.held(folder, "measuring time steps"):
        seal.write_file(folder / FILES[0], json.dumps(found.summary, indent=1) + "\n")
        seal.write_file(folder / FILES[1], csv_text(timesteps_table.rows(found.summary), timesteps_table.COLUMNS))
    return found
