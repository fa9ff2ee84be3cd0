"""What a sweep draws from: numbers of params.yaml with their ranges, checked before anything heavy is imported.

Only numbers that shape the weights can be swept, and only within the bounds that their section has. The data cannot: all
trials share one store.
"""
from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import ValidationError

from snnseg import config as configs
from snnseg.errors import ConfigError
from snnseg.section import flat
from snnseg.sections import Config, Sections

SWEPT = ("encode", "neuron", "model", "loss", "optim", "train")
SHORT = {"encode.timesteps": "T"}
NO_USE = {"train.epochs": "tune.epochs says how long a trial trains", "train.validate_every": "trials are validated after each epoch",
          "train.log_every": "it changes no net", "train.checkpoint_every": "it changes no net", "train.keep": "it changes no net",
          "train.graph": "it changes no net", "train.give_back": "it changes no net"}

Value = bool | int | float | str | None
Params = dict[str, Value]


class Drawer(Protocol):
    """What an Optuna trial can do."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int) -> int: ...

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value: ...


@dataclass(frozen=True)
class Range:
    """One number: float, log or int between two values, or choice among several."""

    key: str
    kind: str
    values: tuple[Value, ...]

    @property
    def numeric(self) -> bool:
        return self.kind != "choice"

    def draw(self, drawer: Drawer) -> Value:
        if self.kind == "choice":
            return drawer.suggest_categorical(self.key, self.values)
        if self.kind == "int":
            return drawer.suggest_int(self.key, *self.values)
        return drawer.suggest_float(self.key, *map(float, self.values), log=self.kind == "log")


Space = tuple[Range, ...]


def changed(config: Config, params: Params) -> Config:
    """The config with these numbers in the place of its own. Raises pydantic's ValidationError."""
    numbers = config.about["config"]
    for key, value in params.items():
        section, name = key.split(".", 1)
        numbers = configs.merge(numbers, {section: {name: value}})
    return Config.of(config.about | {"config": numbers}, config.root)


def read(config: Config) -> Space:
    """The ranges of `tune.space`, each known, possible and of use. Raises ConfigError."""
    space = tuple(Range(key, kind, tuple(values)) for key, told in config.tune.space.items() for kind, values in told.items())
    if not space:
        raise ConfigError("params.yaml: tune.space: holds no number to sweep. Give one, for example neuron.leak: {float: [0.5, 1.0]}")
    known = [key for key in flat(config.model_dump(include=set(SWEPT))) if key not in NO_USE]
    for one in space:
        _check(config, one, known)
    return space


def _check(config: Config, one: Range, known: list[str]) -> None:
    place, section = f"params.yaml: tune.space.{one.key}", one.key.partition(".")[0]
    if why := NO_USE.get(one.key):
        raise ConfigError(f"{place}: cannot be swept, as {why}. Take it out.")
    if one.key not in known:
        if section in Sections.model_fields and section not in SWEPT:
            raise ConfigError(f"{place}: {section} cannot be swept: all trials share one store, and only {', '.join(SWEPT)} shape a net. Take it out.")
        near = difflib.get_close_matches(one.key[:80], known, 1, 0.6)
        raise ConfigError(f"{place}: unknown key. " + (f"Did you mean {near[0]}?" if near else f"Sections here: {', '.join(SWEPT)}."))
    tried: list[Value] = list(one.values)
    if one.kind in ("float", "log"):
        tried = [float(v) for v in one.values]
        tried.append(tried[0] + (tried[1] - tried[0]) * 0.377)      # drawn values are no whole numbers
    nets = set()
    for value in tried:
        try:
            nets.add(changed(config, {one.key: value}).fingerprint("", ""))
        except ValidationError as e:
            message = e.errors()[0]["msg"].removeprefix("Value error, ")
            raise ConfigError(f"{place}: {message[0].lower()}{message[1:]}, found {json.dumps(value)}. Change its {one.kind}.") from e
    if len(nets) == 1:
        raise ConfigError(f"{place}: changes nothing in {config.experiment}. Take it out: --set tune.space.{one.key}=null")


def shown(value: Value) -> str:
    """A value as params.yaml would have it, floats in four digits."""
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def told(params: Params) -> str:
    """`T 4, leak 0.97, threshold 1.2`: for a person."""
    return ", ".join(f"{short(key)} {shown(value)}" for key, value in params.items())


def short(key: str) -> str:
    """The name of a number where its section goes without saying."""
    return SHORT.get(key, key.rpartition(".")[2])


def arguments(params: Params, overrides: Sequence[str] = ()) -> list[str]:
    """`--set` and its values, exactly."""
    return [word for text in (*overrides, *(f"{key}={json.dumps(value)}" for key, value in params.items())) for word in ("--set", text)]
