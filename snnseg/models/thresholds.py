"""A layer's thresholds from the values that were seen there, which come in parts.

One a layer or one a channel: a percentile of the positive values, times a factor. The percentile p is the smallest value that p per
cent of them do not exceed (nearest rank), so 100 is the largest. It is exact over any set, and only the values above it are
kept. Zeros do not count (as in Rueckauer's toolbox), else a channel that is seldom active would have no threshold.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from snnseg.errors import ConfigError, NotFinite

SET = "calibration set"


@dataclass(frozen=True)
class Rule:
    """How a threshold follows from the values at its layer. Raises ConfigError for a percentile or a factor that there is not."""

    per: Literal["layer", "channel"] = "layer"
    percentile: float = 100.0
    scale: float = 1.0          # times the percentile; the authors' code has 0.7

    def __post_init__(self):
        if not 0 < self.percentile <= 100:
            raise ConfigError(f"percentile is {self.percentile}, of which there is none. Take one above 0, up to 100, the largest value.")
        if not 0 < self.scale < math.inf:
            raise ConfigError(f"scale is {self.scale}, which makes no threshold of a value. Take a number above 0.")
        if self.per not in ("layer", "channel"):
            raise ConfigError(f"thresholds per {self.per!r}: there are those per layer and per channel. Take one of these.")

    @property
    def values(self) -> int:
        """How many values a percentile needs, so that it is not the largest of them."""
        return 1 if self.percentile == 100 else math.ceil(1 / (1 - self._share))

    @property
    def _share(self) -> Fraction:
        return Fraction(str(self.percentile)) / 100     # 99.9 as it is written, not its float64

    def place(self, values: int) -> int:
        """Which of so many values, the largest being 1, is the percentile."""
        return values - math.ceil(self._share * values) + 1


@dataclass(frozen=True)
class Thresholds:
    """What was found (`balancing`), in plain types, to be written as JSON."""

    of: Literal["activations", "currents"]
    rule: Rule
    coding: Literal["direct", "signed_poisson"] | None      # of the pictures, where currents were seen
    pictures: int                               # of the calibration set
    timesteps: int                              # that currents were seen for; 1 for activations
    amplitude: float                            # the largest value of a picture, either sign: what an input spike stands for
    by_layer: dict[str, tuple[float, ...]]      # one number, or one a channel
    silent: dict[str, int]                      # channels that were never active, where there are any; they have the layer's largest threshold

    @classmethod
    def found(cls, of: str, rule: Rule, coding: str | None, pictures: int, timesteps: int, amplitude: float, largest: dict[str, Largest]) -> Thresholds:
        """By what was seen at each layer. Raises NotFinite."""
        silent = {name: int((~seen.active_C).sum()) for name, seen in largest.items()}
        return cls(of, rule, coding, pictures, timesteps, amplitude, {name: tuple(seen.thresholds(name).tolist()) for name, seen in largest.items()},
                   {name: count for name, count in silent.items() if count})


class Largest:
    """The largest of `values` values of a layer or of each of its channels (rows R), which come in parts: as many as the percentile needs."""

    def __init__(self, rule: Rule, values: int):
        self.rule, self.keep, self.kept_RK, self.positive_R, self.active_C = rule, rule.place(values), None, 0, False

    def add(self, x_TBCHW: Tensor) -> None:
        """A part. torch.topk has no limit on how many values there are; torch.quantile has."""
        x_CV = x_TBCHW.movedim(2, 0).flatten(1)
        self.active_C = self.active_C | (x_CV > 0).any(1)
        x_RV = x_CV if self.rule.per == "channel" else x_CV.reshape(1, -1)
        self.positive_R = self.positive_R + (x_RV > 0).sum(1)
        both_RK = x_RV if self.kept_RK is None else torch.cat([self.kept_RK, x_RV], 1)
        self.kept_RK = both_RK.topk(min(self.keep, both_RK.shape[1]), 1).values

    def thresholds(self, name: str) -> Tensor:
        """[1] or [C], all above 0. Raises NotFinite."""
        place_R = torch.tensor([self.rule.place(n) - 1 if n else 0 for n in self.positive_R.tolist()], device=self.kept_RK.device)
        found_R = self.rule.scale * self.kept_RK.gather(1, place_R[:, None])[:, 0]
        if not (self.rule.scale * self.kept_RK[:, 0]).isfinite().all():      # nan is sorted above all
            raise NotFinite(f"layer {name}: its values over the {SET} are not finite. Look at the net's weights and at the pictures.")
        largest = found_R.max() if (found_R > 0).any() else torch.ones_like(found_R)
        return torch.where(found_R > 0, found_R, largest)
