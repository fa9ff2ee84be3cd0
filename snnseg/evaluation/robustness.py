"""How a net's mIoU falls with noise (section 5.4, figure 11): every kind and level, several draws, on the very same bytes for each net.

Adversarial pictures are beside it: each net's are its own (`attack`).
"""
from __future__ import annotations

import statistics
from dataclasses import dataclass

import torch
from torch import nn

from snnseg.data.store import Split
from snnseg.evaluation import attack, evaluate, noise
from snnseg.sections import Config


@dataclass(frozen=True)
class Point:
    """The scores of a net on one kind of noise at one level, in per cent, one for each draw, and sha256 of the inputs of each."""

    kind: str
    level: float
    mious: tuple[float, ...]
    digests: tuple[str, ...]

    @property
    def miou(self) -> float:
        return statistics.fmean(self.mious)

    @property
    def spread(self) -> float:
        """Standard deviation over the draws; 0 of one alone."""
        return statistics.stdev(self.mious) if len(self.mious) > 1 else 0.0


def drop(clean: float, noisy: float) -> float | None:
    """The paper's relative drop in per cent, (clean - noisy) / clean x 100; None where clean is 0."""
    return 100 * (clean - noisy) / clean if clean else None


def kinds(config: Config) -> dict[str, tuple[float, ...]]:
    """The kinds of noise and attack that the config's data can have, with their levels, the untouched input first."""
    known = noise.OF_EVENTS if config.data.events else (*noise.OF_PICTURES, *attack.KINDS)
    return {kind: (0.0, *sorted(set(map(float, getattr(config.robustness, kind))) - {0.0})) for kind in known if getattr(config.robustness, kind)}


def curves(model: nn.Module, split: Split, config: Config, device: torch.device) -> list[Point]:
    """The net's scores over `config.robustness`. Raises OutOfMemory."""
    split = split.first(config.robustness.pictures)
    clean, points = _miou(model, split, config, device), []
    for kind, levels in kinds(config).items():
        for level in levels:
            draws = 1 if level == 0 or kind in noise.DRAWS_NOTHING | attack.DRAWS_NOTHING else config.robustness.draws
            disturbed = [attack.attacked(model, split, kind, level, config, draw, device) if kind in attack.KINDS
                         else noise.noisy(split, kind, level, config.robustness.seed, draw) for draw in range(draws)]
            mious = [clean if level == 0 else _miou(model, each, config, device) for each in disturbed]
            points.append(Point(kind, level, tuple(mious), tuple(noise.digest(each) for each in disturbed)))
    return points


def _miou(model: nn.Module, split: Split, config: Config, device: torch.device) -> float:
    found = evaluate.confusion(model, split, config, device)
    assert found is not None, "nothing asks this evaluation to stop"
    return 100 * found.miou()
