"""A trained spiking net at other numbers of time steps than its own (section 5.3): mIoU after each of them, from one pass over a split.

No step hangs on a later one, BNTT's tables included, and what is read out is a sum over steps, so the first T steps of a longer run
are the run of T. Of event frames, whose label is that of the last, the first T are another item than the T last: there the one pass
tells what a net would answer before it has seen all frames, and windows of T frames are a pass of their own.
"""
from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from snnseg.data.store import Split
from snnseg.evaluation import evaluate, tally
from snnseg.evaluation.confusion import Confusion
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.sections import Config
from snnseg.spiking.encode import Coded
from snnseg.spiking.norm import BNTT, PastTrained


class Prefixes(nn.Module):
    """A net's answers after each of `at` steps, one after the other: x_TBCHW -> logits [len(at) * B, classes, H, W]."""

    def __init__(self, model: DeepLab | FCN, at: Sequence[int]):
        super().__init__()
        self.model, self.at = model, at
        self.train(model.training)

    def forward(self, x: Tensor | Coded) -> Tensor:
        fired = self.model.fire(x)
        return torch.cat([self.model.read(x.shape[-2:], *(s_TBCHW[:T] for s_TBCHW in fired)) for T in self.at])


def by_rule(model: nn.Module, rule: PastTrained) -> nn.Module:
    """A copy of the net whose BNTT follows `rule` beyond the trained time steps."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, BNTT):
            module.past_trained = rule
    return model


def confusions(model: nn.Module, split: Split, config: Config, device: torch.device, at: Sequence[int]) -> dict[int, Confusion]:
    """The confusion of a whole split after each T of `at`, in rising order; costs what the longest T would alone.

    So many pictures are evaluated together that as much is held as by `evaluate.batch` of them at the trained time steps. Raises
    ValueError for a T below 1, or beyond the frames of an item of events; OutOfMemory.
    """
    at = sorted(set(at))
    longest = at[-1] if split.window_MT is None else split.window_MT.shape[1]
    if at[0] < 1 or at[-1] > longest:
        raise ValueError(f"time steps {at}: an item has {longest}")
    pictures = max(1, min(config.evaluate.batch, config.evaluate.batch * config.timesteps // longest))
    fitting = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"batch": pictures})})
    totals = {T: tally.begun(Confusion.empty(config.classes), device) for T in at}
    for batch, called_NHW in evaluate.predictions(Prefixes(model, at), split, fitting, device, timesteps=longest):
        for T, called_BHW in zip(at, called_NHW.unflatten(0, (len(at), -1)), strict=True):
            totals[T] += tally.counted(batch.mask_BHW, called_BHW, config.classes)
    return {T: tally.read(total) for T, total in totals.items()}


def mious(model: nn.Module, split: Split, config: Config, device: torch.device, at: Sequence[int]) -> dict[int, float]:
    """`confusions` as mIoU in per cent."""
    return {T: 100 * found.miou() for T, found in confusions(model, split, config, device, at).items()}


def rules(config: Config) -> list[str]:
    """Of `time_steps.past_trained`, those that make a difference; `-` alone for a norm that is the same at each step."""
    return list(dict.fromkeys(config.time_steps.past_trained)) if config.model.norm == "bntt" else ["-"]


@dataclass(frozen=True)
class Curves:
    """mIoU in per cent by T: after each step of a run at the net's own T, and by BNTT's rule at each T asked for, None where no recording is so long."""

    anytime: dict[int, float]
    inference: dict[str, dict[int, float | None]]


def curves(model: nn.Module, split_of: Callable[[int], Split | None], config: Config, device: torch.device) -> Curves:
    """The net's scores over `config.time_steps`. `split_of(T)` are the items to score at T steps: of pictures always the same. Raises OutOfMemory."""
    own, asked = config.timesteps, sorted(set(config.time_steps.inference))
    early, later = [T for T in asked if T <= own], [T for T in asked if T > own]
    every, found = range(1, own + 1), {}
    if not config.data.events:
        for rule in rules(config):
            at = [*([] if found else every), *later]
            found[rule] = mious(by_rule(model, rule), split_of(own), config, device, at) if at else {}
        anytime = {T: next(iter(found.values()))[T] for T in every}
        return Curves(anytime, {rule: {T: anytime[T] if T <= own else of_rule[T] for T in asked} for rule, of_rule in found.items()})
    anytime = mious(model, split_of(own), config, device, every)

    def alone(net: nn.Module, T: int) -> float | None:
        items = split_of(T)
        return None if items is None else mious(net, items, config, device, [T])[T]

    before = {T: anytime[own] if T == own else alone(model, T) for T in early}
    return Curves(anytime, {rule: before | {T: alone(by_rule(model, rule), T) for T in later} for rule in rules(config)})
