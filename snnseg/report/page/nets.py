"""What lies below data/result of each experiment, read once, for all parts of the page. What was not run is None, never 0."""
from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from snnseg.errors import StoreAltered
from snnseg.report import style

SHOWN = 8           # nets of a benchmark in figures and pictures
BENCHMARKS = 12     # in figures and pictures


@dataclass(frozen=True)
class Net:
    """One experiment on one benchmark, and its files. Raises StoreAltered where one cannot be read."""

    name: str
    folder: Path

    @property
    def benchmark(self) -> str:
        return self.name.partition("/")[0]

    @property
    def experiment(self) -> str:
        return self.name.partition("/")[2]

    def told(self, file: str) -> Any:
        """A JSON file of its folder; None where there is none."""
        path = self.folder / file
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        except ValueError as e:
            raise StoreAltered(path, "not the JSON that was written", "Run dvc repro") from e

    def rows(self, file: str) -> list[dict[str, str]]:
        """The rows of a CSV file of its folder; none where there is none."""
        path = self.folder / file
        if not path.is_file():
            return []
        with open(path, encoding="utf-8", newline="") as f:
            return list(csv.DictReader(f))

    @cached_property
    def about(self) -> dict[str, Any] | None:
        return self.told("about.json")

    @cached_property
    def metrics(self) -> dict[str, Any] | None:
        return self.told("metrics.json") if self.about else None

    @cached_property
    def energy(self) -> dict[str, Any] | None:
        return self.told("energy.json")

    @cached_property
    def robustness(self) -> dict[str, Any] | None:
        return self.told("robustness.json")

    @property
    def model(self) -> str:
        """One of the paper's four, of which it may be a variant."""
        return self.about["config"]["model"]["name"] if self.about else self.experiment

    @property
    def dataset(self) -> str:
        return self.about["config"]["data"]["dataset"] if self.about else ""

    @property
    def spiking(self) -> bool:
        return self.model.startswith("spiking")

    @property
    def title(self) -> str:
        return style.named(self.experiment)


def read(results: Path, names: Sequence[str]) -> list[Net]:
    """A net for each of `names` (`voc/ann_fcn`), whether it was run or not."""
    return [Net(name, results / name) for name in names]


def benchmarks(nets: Sequence[Net]) -> list[str]:
    return list(dict.fromkeys(net.benchmark for net in nets))


def shown(nets: Sequence[Net], benchmark: str) -> list[Net]:
    """Those of a benchmark that figures have room for: the paper's four, then the most accurate, in the order of params.yaml."""
    mine = [net for net in nets if net.benchmark == benchmark and net.metrics]
    ranked = sorted(mine, key=lambda net: (net.experiment not in style.KNOWN, -net.metrics["miou"]))[:SHOWN]
    return [net for net in mine if net in ranked]


def drawn(nets: Sequence[Net]) -> dict[str, list[Net]]:
    """The nets of each benchmark that figures have room for; benchmarks of which none was run are left out."""
    found = {benchmark: shown(nets, benchmark) for benchmark in benchmarks(nets)}
    return dict([(benchmark, mine) for benchmark, mine in found.items() if mine][:BENCHMARKS])


def twin(net: Net, nets: Sequence[Net]) -> Net | None:
    """The ANN of the same benchmark and build: the one whose name differs in `ann` alone, else the first of that model that was run."""
    wanted = net.model.replace("spiking", "ann")
    able = [other for other in nets if other.benchmark == net.benchmark and other.metrics and other.model == wanted]
    return next((other for other in able if other.experiment == net.experiment.replace("spiking", "ann")), able[0] if able else None)


def drop(net: Net, kind: str, level: float) -> dict[str, Any] | None:
    """The point of a robustness curve: level, miou, spread, draws, drop."""
    points = ((net.robustness or {}).get("noise") or {}).get(kind, [])
    return next((p for p in points if p["level"] == level), None)


def usual_noise(nets: Sequence[Net], benchmark: str) -> tuple[str, float] | None:
    """The kind and level by which a benchmark's nets are compared in a word: Gaussian, as in figure 11, at the middle of its levels."""
    for net in nets:
        if net.benchmark == benchmark and net.robustness:
            levels = [p["level"] for p in net.robustness["noise"].get("gaussian", []) if p["level"]]
            if levels:
                return "gaussian", levels[len(levels) // 2]
    return None
