"""The verb of a sweep: which numbers give the best net."""
from __future__ import annotations

import json
from typing import Annotated

import typer

from snnseg.cli.app import PARAMS, Params, Set, app, experiment_named

Swept = Annotated[str | None, typer.Argument(metavar="[BENCHMARK/EXPERIMENT]", help="What to sweep; none = the first experiment on the first benchmark.")]
Trials = Annotated[int | None, typer.Option("--trials", min=1, max=100_000, help="How many in all (tune.trials).")]
Apply = Annotated[str | None, typer.Option("--apply", metavar="best", help="Write the best trial's numbers into params.yaml.")]


@app.command()
def tune(experiment: Swept = None, trials: Trials = None, apply: Apply = None, set: Set = None, params: Params = PARAMS) -> None:
    """Sweep leak, threshold, time steps, or any numbers.

    Trials train side by side on a part of the training split and are validated on the rest of it. Ended at any moment, the same
    command goes on; asked for more trials, too. --apply best on a finished sweep does only that.

    \b
    Examples:
      snnseg tune mnist_cifar/spiking_deeplab --trials 50
      snnseg tune spiking_fcn --trials 20 --set tune.space.optim.lr.log=[0.0003,0.03]
      snnseg tune mnist_cifar/spiking_deeplab --apply best
    """
    from snnseg import config as configs
    from snnseg.errors import UsageError
    from snnseg.tuning import space

    if apply not in (None, "best"):
        raise UsageError(f"--apply {apply[:40]}: only the best trial can be applied: --apply best")
    name = experiment_named(params, experiment) if experiment else configs.names(params)[0]
    numbers = configs.load(params, name, [*(set or []), *([f"tune.trials={trials}"] if trials else [])])
    ranges = space.read(numbers)
    from snnseg.tuning import ledger, sweep, verdict

    at = sweep.place(numbers)
    settled = ledger.Ledger(at.folder).settled
    if apply and len(settled) >= numbers.tune.trials:
        best = verdict.best(settled)
    else:
        from snnseg.tuning import tune as whole

        found = whole.tune(numbers, ranges, at, set or [], params)
        print(verdict.table(ranges, found))
        print(verdict.lines(numbers, found))
        print(at.folder)
        best = found.best
    if apply:
        changes = verdict.apply(params, numbers, best)
        for key, (now, then) in changes.items():
            print(f"experiments.{numbers.experiment}.{key}: {json.dumps(now)} -> {json.dumps(then)}")
        print(f"{params}: {numbers.experiment} has the numbers of trial {best.number}, on every benchmark. Train it: dvc repro")
