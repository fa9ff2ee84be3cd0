"""The command line. One verb a capability; numbers are changed with `--set section.key=value`, not with flags.

Nothing heavy is imported before a verb runs and its numbers are checked. Results go to stdout, talk to stderr.
"""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class Verbs(TyperGroup):
    """Ends each verb at the one door (stage.run), inside typer, which would end an interrupt without a word."""

    def invoke(self, ctx: Any) -> None:
        from snnseg import stage

        def verb() -> None:
            super(Verbs, self).invoke(ctx)
            try:
                if sys.stdout:
                    sys.stdout.flush()      # a reader that left, or a full disk, is met here and not at the very end
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise

        stage.run(verb)


app = typer.Typer(cls=Verbs, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=True,
                  help="Directly trained spiking networks for semantic segmentation, from raw bytes to figures.",
                  epilog="All stages at once: dvc repro. Exit codes: 2 usage, 3 config, 4 data, 5 store, 6 no space, 7 not finite, "
                         "8 out of memory, 9 cluster, 10 tracking, 130 interrupted.")

Set = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a number of params.yaml for this command.")]
Params = Annotated[Path, typer.Option("--params", readable=False, help="The params file; its folder is the project.")]
Experiment = Annotated[str, typer.Argument(help="A name below `experiments` in params.yaml.")]
AnyExperiment = Annotated[str | None, typer.Argument(help="A name below `experiments` in params.yaml; none = the sections alone.")]
PARAMS = Path("params.yaml")


@app.command()
def config(experiment: AnyExperiment = None, set: Set = None, params: Params = PARAMS) -> None:
    """Show the numbers an experiment would run with, as JSON.

    \b
    Examples:
      snnseg config spiking_fcn
      snnseg config --set train.epochs=9
    """
    from snnseg import config as configs

    print(configs.load(params, experiment, set or []).model_dump_json(indent=1, exclude={"root"}))


@app.command()
def setting(name: Annotated[str | None, typer.Argument(help="The setting to show or take on; none = list them.")] = None,
            diff: Annotated[bool, typer.Option("--diff", help="Show what would change, change nothing.")] = False,
            set: Set = None, params: Params = PARAMS) -> None:
    """Switch params.yaml to the sample's or the paper's numbers.

    \b
    Examples:
      snnseg setting
      snnseg setting paper --diff
      snnseg setting paper
    """
    from snnseg import config as configs
    from snnseg import settings
    from snnseg.errors import UsageError

    if set:
        raise UsageError("setting writes params.yaml, it takes no --set. Edit params.yaml, or give --set to the verb that runs.")
    path = params.absolute()
    if name is None:
        configs.load(path)
        for known in settings.names(path.parent):
            changes = settings.differences(path, known)
            print(f"{known}: {'in use' if not changes else f'{len(changes)} numbers differ from params.yaml'}")
        return
    changes = settings.differences(path, name) if diff else settings.switch(path, name)
    for key, (now, then) in changes.items():
        print(f"{key}: {json.dumps(now)} -> {json.dumps(then)}")
    if not changes:
        print(f"{name}: in use, nothing differs")


@app.command()
def prepare(experiment: AnyExperiment = None, set: Set = None, params: Params = PARAMS) -> None:
    """Turn raw data into a sealed store.

    \b
    Examples:
      snnseg prepare
      snnseg prepare --set data.source=archives --set data.size=64
    """
    from snnseg import config as configs

    numbers = configs.load(params, experiment, set or [])
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from snnseg.data import prepare as preparing

    counts, done = numbers.data.mnist_cifar, 0
    with Progress("{task.description}", BarColumn(), MofNCompleteColumn(), "{task.fields[rate]:.0f} pictures/s",
                  TimeRemainingColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task(numbers.store.name, total=counts.train + counts.test, rate=0)
        for progress in preparing.prepare(numbers):
            done = progress.done
            bar.update(task, completed=done, rate=done / max(bar.tasks[0].elapsed or 0, 1e-9))
    print(f"{numbers.store}: {done} pictures ({counts.train} train, {counts.test} test)")


@app.command()
def train(experiment: Experiment, set: Set = None, params: Params = PARAMS) -> None:
    """Train one experiment, or go on with it where it stopped.

    With --set the result stays in its run folder; without, it also becomes data/model/EXPERIMENT.

    \b
    Examples:
      snnseg train spiking_fcn
      snnseg train ann_fcn --set train.epochs=9
    """
    from snnseg import config as configs

    numbers = configs.load(params, experiment, set or [])
    from snnseg import tracking
    from snnseg.training import run

    folder = run.train(numbers, tracking.trackers)
    if not set:
        run.publish(folder, numbers)
    print(folder)


@app.command()
def evaluate(experiment: Experiment, model: Annotated[Path | None, typer.Option("--model", help="A trained net elsewhere: data/run/NAME/model.")] = None,
             set: Set = None, params: Params = PARAMS) -> None:
    """Score a trained net on the whole test split, with pictures.

    All numbers are those it was trained with, but for the section evaluate. With --set or --model the scores are shown only;
    without, they also become data/result/EXPERIMENT.

    \b
    Examples:
      snnseg evaluate spiking_fcn
      snnseg evaluate spiking_fcn --set evaluate.timesteps=8
      snnseg evaluate ann_fcn --set evaluate.norm=batch
    """
    from snnseg import config as configs
    from snnseg.errors import UsageError

    numbers = configs.load(params, experiment, set or [])
    if others := [text for text in set or [] if not text.strip().startswith("evaluate.")]:
        raise UsageError(f"--set {others[0]}: a trained net keeps its own numbers. Only evaluate.* can be set here; train it anew for others.")
    from snnseg import tracking
    from snnseg.report import result

    if set or model:
        found = result.measure((model or numbers.model_folder).absolute(), numbers)
    else:
        found = result.write(numbers)
        tracking.log_result(numbers, found.metrics, found.about)
    print(json.dumps(found.metrics, indent=1))


@app.command()
def track(set: Set = None, params: Params = PARAMS) -> None:
    """Send to MLflow what it lacks of all runs and results.

    \b
    Examples:
      snnseg track
      snnseg track --set track.experiment=again
    """
    from snnseg import config as configs

    numbers = [configs.load(params, name, set or []) for name in configs.experiments(params)]
    from snnseg import tracking

    print("\n".join(tracking.replay(numbers)))


@app.command()
def report(set: Set = None, params: Params = PARAMS) -> None:
    """Put all experiments side by side, in data/report.

    \b
    Examples:
      snnseg report
      snnseg report --params params.yaml
    """
    from snnseg import config as configs

    numbers = configs.load(params, None, set or [])
    from snnseg.report import table

    print(table.lines(table.write(numbers.result_folder, numbers.report, configs.experiments(params))))
    print(numbers.report / "results.csv")


@app.command()
def ui(port: Annotated[int, typer.Option("--port", help="Where to listen.", min=1024, max=65535)] = 5000, set: Set = None, params: Params = PARAMS) -> None:
    """Show the project's runs in MLflow, on this machine only.

    \b
    Examples:
      snnseg ui
      snnseg ui --port 5055
    """
    import subprocess

    from snnseg import config as configs

    numbers = configs.load(params, None, set or [])
    from snnseg import tracking
    from snnseg.errors import TrackingError

    database = numbers.root / "data" / "mlflow" / "mlflow.db"
    if not database.is_file():
        raise TrackingError(f"{database}: not found, so nothing was tracked yet. Run snnseg track if trainings were made, or make repro")
    print(f"http://127.0.0.1:{port}  (Ctrl-C ends it)", file=sys.stderr)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", tracking.store_uri(numbers.root),
               "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    raise SystemExit(subprocess.call(command, env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}))


def main() -> None:
    """The `snnseg` command."""
    app()
