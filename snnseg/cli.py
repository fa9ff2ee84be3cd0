"""The command line. One verb a capability; numbers are changed with `--set section.key=value`, not with flags.

Nothing heavy is imported before a verb runs. Results go to stdout, talk to stderr.
"""
from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=True,
                  help="Directly trained spiking networks for semantic segmentation, from raw bytes to figures.",
                  epilog="All stages at once: dvc repro. Exit codes: 2 usage, 3 config, 4 data, 5 store, 6 no space, 7 not finite, "
                         "8 out of memory, 9 cluster, 10 tracking, 130 interrupted.")

Set = Annotated[list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a number of params.yaml for this command.")]
Params = Annotated[Path, typer.Option("--params", help="The params file; its folder is the project.")]
Experiment = Annotated[str, typer.Argument(help="A name below `experiments` in params.yaml.")]
AnyExperiment = Annotated[str | None, typer.Argument(help="A name below `experiments` in params.yaml; none = the sections alone.")]
PARAMS = Path("params.yaml")


@app.command()
def config(experiment: AnyExperiment = None, set: Set = None, params: Params = PARAMS) -> None:
    """Show the numbers an experiment would run with, as JSON.

    Examples: snnseg config spiking_fcn;  snnseg config --set train.epochs=9
    """
    from snnseg import config as configs

    print(configs.load(params, experiment, set or []).model_dump_json(indent=1, exclude={"root"}))


@app.command()
def setting(name: Annotated[str | None, typer.Argument(help="The setting to show or take on; none = list them.")] = None,
            diff: Annotated[bool, typer.Option("--diff", help="Show what would change, change nothing.")] = False,
            set: Set = None, params: Params = PARAMS) -> None:
    """Switch params.yaml between the embedded sample and the paper's full setting.

    Examples: snnseg setting;  snnseg setting paper --diff;  snnseg setting paper
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

    Examples: snnseg prepare;  snnseg prepare --set data.source=archives --set data.size=64
    """
    from rich.console import Console
    from rich.progress import track

    from snnseg import config as configs
    from snnseg.data import prepare as preparing

    numbers = configs.load(params, experiment, set or [])
    counts = numbers.data.mnist_cifar
    done = 0
    with contextlib.ExitStack() as stack:
        steps = preparing.prepare(numbers)
        stack.callback(steps.close)
        for progress in track(steps, f"{numbers.store.name}", console=Console(stderr=True), total=None):
            done = progress.done
    print(f"{numbers.store}: {done} pictures ({counts.train} train, {counts.test} test)")


@app.command()
def train(experiment: Experiment, set: Set = None, params: Params = PARAMS) -> None:
    """Train one experiment, or go on with it where it stopped.

    With --set the result stays in its run folder; without, it also becomes data/model/EXPERIMENT.
    Examples: snnseg train spiking_fcn;  snnseg train ann_fcn --set train.epochs=9
    """
    from snnseg import config as configs
    from snnseg import tracking
    from snnseg.training import run

    numbers = configs.load(params, experiment, set or [])
    folder = run.train(numbers, tracking.trackers)
    if not set:
        run.publish(folder, numbers)
    print(folder)


@app.command()
def evaluate(experiment: Experiment, set: Set = None, params: Params = PARAMS) -> None:
    """Score a trained net on the whole test split, with pictures.

    Examples: snnseg evaluate spiking_fcn;  snnseg evaluate ann_fcn --set evaluate.norm=batch
    """
    from snnseg import config as configs
    from snnseg import tracking
    from snnseg.report import result

    numbers = configs.load(params, experiment, set or [])
    metrics, about, files = result.write(numbers)
    tracking.log_result(numbers, about, result.named(metrics), files)
    print(json.dumps({k: metrics[k] for k in ("experiment", "protocol", "miou", "background_miou", "iou", "norm_statistics")}, indent=1))


@app.command()
def report(set: Set = None, params: Params = PARAMS) -> None:
    """Put all experiments side by side: data/report/results.csv and pictures.png.

    Examples: snnseg report;  snnseg report --params params.yaml
    """
    from snnseg import config as configs
    from snnseg.report import table

    numbers = configs.load(params, None, set or [])
    print(table.lines(table.write(numbers.result_folder, numbers.report, configs.experiments(params))))
    print(numbers.report / "results.csv")


@app.command()
def ui(port: Annotated[int, typer.Option(min=1024, max=65535)] = 5000, set: Set = None, params: Params = PARAMS) -> None:
    """Open the MLflow UI on this machine (loopback only) with the project's runs.

    Examples: snnseg ui;  snnseg ui --port 5055
    """
    import os
    import subprocess

    from snnseg import config as configs
    from snnseg import tracking
    from snnseg.errors import TrackingError

    numbers = configs.load(params, None, set or [])
    database = numbers.root / "data" / "mlflow" / "mlflow.db"
    if not database.is_file():
        raise TrackingError(f"{database}: not found, so nothing was tracked yet. Run dvc repro, or snnseg train EXPERIMENT")
    print(f"http://127.0.0.1:{port}  (Ctrl-C ends it)", file=sys.stderr)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", tracking.store_uri(numbers.root),
               "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    raise SystemExit(subprocess.call(command, env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}))


def main() -> None:
    """The `snnseg` command."""
    from snnseg import stage

    stage.run(app)
