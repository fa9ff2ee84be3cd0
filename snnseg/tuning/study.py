"""What to try next: Optuna's TPE, built anew from the ledger whenever a sweep goes on.

A trial that was stopped early counts as pruned, with its curve: TPE then sets it behind those that trained longer, and does not
take a first epoch's mIoU for a last one's. Startup draws follow from (seed, trials before), so a sweep that goes on does not
draw the first points again.
"""
from __future__ import annotations

import warnings
from collections.abc import Iterable

import optuna
from optuna.trial import TrialState

from snnseg import seeds
from snnseg.tuning.ledger import FINISHED, STOPPED, Trial
from snnseg.tuning.space import Params, Range, Space

optuna.logging.set_verbosity(optuna.logging.WARNING)


def distribution(one: Range) -> optuna.distributions.BaseDistribution:
    """What Optuna calls the range."""
    if one.kind == "choice":
        return optuna.distributions.CategoricalDistribution(one.values)
    if one.kind == "int":
        return optuna.distributions.IntDistribution(*one.values)
    return optuna.distributions.FloatDistribution(*map(float, one.values), log=one.kind == "log")


def frozen(space: Space, trial: Trial, objectives: list[str]) -> optuna.trial.FrozenTrial:
    """A settled trial as Optuna keeps one: complete, pruned with its curve, or failed."""
    values = [trial.miou, trial.energy_mj][: len(objectives)]
    complete = trial.state == FINISHED and None not in values
    pruned = trial.state == STOPPED and len(objectives) == 1 and bool(trial.curve)
    return optuna.trial.create_trial(
        params=trial.params, distributions={one.key: distribution(one) for one in space}, values=values if complete else None,
        intermediate_values={int(epoch): miou for epoch, miou in trial.curve} if pruned else None,
        state=TrialState.COMPLETE if complete else TrialState.PRUNED if pruned else TrialState.FAIL)


class Study:
    """Asks for the next numbers; is told of each trial that is settled. Trials that are under way count as poor ones until then."""

    def __init__(self, space: Space, objectives: list[str], seed: int, startup: int, trials: Iterable[Trial]):
        self.space, self.objectives = space, objectives
        trials = list(trials)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(n_startup_trials=startup, constant_liar=True,
                                                 seed=seeds.seed_of("tune", seed, len(trials)) % 2**32)
        self.study = optuna.create_study(directions=["maximize", "minimize"][: len(objectives)], sampler=sampler)
        self.under_way: dict[int, optuna.Trial] = {}
        for trial in trials:
            if trial.state:
                self.study.add_trial(frozen(space, trial, objectives))
            else:
                self.study.enqueue_trial(trial.params)
                asked = self.study.ask()
                for one in space:
                    one.draw(asked)
                self.under_way[trial.number] = asked

    def ask(self) -> tuple[Params, optuna.Trial]:
        """Numbers to try, and what `begun` is to be given once they have their own number."""
        asked = self.study.ask()
        return {one.key: one.draw(asked) for one in self.space}, asked

    def begun(self, number: int, asked: optuna.Trial) -> None:
        self.under_way[number] = asked

    def tell(self, trial: Trial) -> None:
        """A trial of those under way is settled."""
        asked, told = self.under_way.pop(trial.number), frozen(self.space, trial, self.objectives)
        for epoch, miou in told.intermediate_values.items():
            asked.report(miou, epoch)
        self.study.tell(asked, told.values if told.state == TrialState.COMPLETE else None, state=told.state)


def front(trials: Iterable[Trial]) -> list[Trial]:
    """The finished trials that no other beats in mIoU without spending more, by rising energy: the Pareto front."""
    able = sorted((t for t in trials if t.state == FINISHED and t.miou is not None and t.energy_mj is not None), key=lambda t: (t.energy_mj, -t.miou))
    out: list[Trial] = []
    for trial in able:
        if not out or trial.miou > out[-1].miou:
            out.append(trial)
    return out


def importance(space: Space, trials: Iterable[Trial], epoch: int, seed: int) -> dict[str, float]:
    """How much of the variance of mIoU after `epoch` each number explains (fANOVA), largest first; empty where too little is known.

    After that many epochs all trials can be compared, those that were stopped later as well.
    """
    scored = [(t, miou) for t in trials if (miou := t.after(epoch)) is not None]
    if len(scored) < 4 or len({miou for _, miou in scored}) < 2:
        return {}
    study = optuna.create_study(direction="maximize")
    for trial, miou in scored:
        study.add_trial(optuna.trial.create_trial(params=trial.params, distributions={one.key: distribution(one) for one in space}, value=miou))
    found = optuna.importance.get_param_importances(study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=seed))
    return {key: float(share) for key, share in found.items()}
