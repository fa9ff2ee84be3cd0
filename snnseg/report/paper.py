"""The paper's own numbers (`paper.csv`: tables 1 to 6, section 5, figure 12), and how far a net of ours is from the setting they were had with.

Figures 3, 11, 13 and 14 come without numbers in the paper's text, so there is none of them here.
"""
from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("paper.csv")
RATE_CODING = "poisson", "signed_poisson"
TIMESTEPS = 20      # of tables 2 to 4


@dataclass(frozen=True)
class Figure:
    """One number of the paper. `value` as it is printed there; `dataset` and `net` are empty where it holds for all."""

    place: str
    dataset: str
    net: str
    quantity: str
    timesteps: str
    value: str
    unit: str

    @property
    def number(self) -> float:
        return float(self.value)


@cache
def figures() -> tuple[Figure, ...]:
    """All of them, in the paper's order."""
    with open(FILE, encoding="utf-8", newline="") as f:
        return tuple(Figure(**row) for row in csv.DictReader(f))


ANN = {(f.dataset, f.net): f.number for f in figures() if f.quantity == "miou" and not f.timesteps}
SPIKING: dict[tuple[str, str], dict[int, float]] = {}       # by number of time steps that the net was trained with
for _told in sorted((f for f in figures() if f.quantity in ("miou", "miou_trained_at") and f.timesteps), key=lambda f: int(f.timesteps)):
    SPIKING.setdefault((_told.dataset, _told.net), {})[int(_told.timesteps)] = _told.number


def of(quantity: str, dataset: str | None = None) -> tuple[Figure, ...]:
    return tuple(f for f in figures() if f.quantity == quantity and dataset in (None, f.dataset))


def _setting(dataset: str) -> dict[str, float]:
    """Section 5.1 as our keys and its numbers, for one data set."""
    return {f.quantity: f.number for f in figures() if f.place.startswith(("section 5.1", "table 1")) and f.dataset in ("", dataset)}


def deviations(about: dict[str, Any], metrics: dict[str, Any]) -> list[str]:
    """What a net's data and numbers have other than section 5.1, in words; none: it was trained and scored in the paper's setting.

    An ANN has no neurons; the window of frames that it sees is no deviation (section 5.4).
    """
    config, spiking = about["config"], about["config"]["model"]["name"].startswith("spiking")
    course = config["optim"]["schedule"], config["optim"]["milestones"], config["optim"]["gamma"]
    dataset, numbers = config["data"]["dataset"], _setting(config["data"]["dataset"])

    def differs(key: str) -> bool:
        section, name = key.split(".")
        return key in numbers and config[section][name] != numbers[key]

    told = [("sample data", config["data"]["source"] == "sample"), (f"partial data, {about['partial']}", about["partial"]),
            (f"{about['left_out']} files left out", about["left_out"])]
    told += [(f"{about[key]} {word} pictures", config["data"]["source"] != "sample" and not about["partial"] and key in numbers and about[key] != numbers[key])
             for key, word in (("train_samples", "training"), ("test_samples", "test"))]
    told += [(f"{config['data']['size']} pixels", differs("data.size")), (f"width {config['model']['width']:g}", differs("model.width")),
             (f"{config['train']['epochs']} epochs", differs("train.epochs")), (f"batch {config['train']['batch']}", differs("train.batch")),
             (f"learning rate {config['optim']['lr']:g}", differs("optim.lr")),
             ("max pools", config["model"].get("pool") == "max"),
             (f"{course[0]} learning rate", course != ("multistep", [0.5], 0.1))]
    if spiking:
        told += [(f"T = {config['encode']['timesteps']}", differs("encode.timesteps")),
                 (f"{config['encode']['coding']} coding", dataset != "ddd17" and config["encode"]["coding"] not in RATE_CODING),
                 (f"leak {config['neuron']['leak']:g}", differs("neuron.leak")), (f"threshold {config['neuron']['threshold']:g}", differs("neuron.threshold")),
                 (f"learned {' and '.join(k for k in ('leak', 'threshold') if config['neuron'][f'learn_{k}'] != 'none')}",
                  any(config["neuron"][f"learn_{k}"] != "none" for k in ("leak", "threshold"))),
                 (f"{config['neuron']['reset']} reset", config["neuron"]["reset"] != "soft"),
                 (f"{config['neuron']['surrogate']} surrogate", config["neuron"]["surrogate"] != "triangle"),
                 (f"norm {config['model']['norm']}", config["model"]["norm"] != "bntt"), ("a penalty on spikes", bool(config["loss"].get("spike_rate"))),
                 (f"read at T = {metrics['timesteps']}", metrics["timesteps"] != metrics["trained_timesteps"])]
    told += [("pictures mirrored", config["train"]["flip"]), (f"pictures moved by {config['train']['shift']}", config["train"]["shift"]),
             (f"{metrics['statistics']} statistics", metrics["statistics"] != "running")]
    return [words for words, holds in told if holds]
