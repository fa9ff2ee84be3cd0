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
Experiment = Annotated[str, typer.Argument(help="BENCHMARK/EXPERIMENT of params.yaml, or an experiment on the first benchmark.")]
AnyExperiment = Annotated[str | None, typer.Argument(help="BENCHMARK, EXPERIMENT or BENCHMARK/EXPERIMENT of params.yaml; none = the first benchmark.")]
Benchmark = Annotated[str | None, typer.Argument(help="A name below `benchmarks` in params.yaml; none = the first.")]
PARAMS = Path("params.yaml")


def _experiment(params: Path, name: str) -> str:
    """`name` in full; a benchmark alone is no experiment. Raises ConfigError."""
    from snnseg import config as configs
    from snnseg.errors import ConfigError

    benchmark, experiment = configs.read(params).find(name)
    if not experiment:
        known = ", ".join(full for full in configs.names(params) if full.startswith(f"{name}/"))
        raise ConfigError(f"{params}: {name} is a benchmark, an experiment was expected. Known: {known}.")
    return f"{benchmark}/{experiment}"


@app.command()
def config(experiment: AnyExperiment = None, set: Set = None, params: Params = PARAMS) -> None:
    """Show the numbers an experiment would run with, as JSON.

    \b
    Examples:
      snnseg config voc/spiking_fcn
      snnseg config --set train.epochs=9
    """
    from snnseg import config as configs

    print(configs.load(params, experiment, set or []).model_dump_json(indent=1, exclude={"root", "store_name"}))


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
def prepare(benchmark: Benchmark = None,
            allow_partial: Annotated[bool, typer.Option("--allow-partial", help="Take an incomplete download (data.allow_partial).")] = False,
            skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out files that cannot be used (data.skip_bad).")] = False,
            set: Set = None, params: Params = PARAMS) -> None:
    """Turn raw data into a sealed store.

    Ended at any moment, the same command goes on with what is missing.

    \b
    Examples:
      snnseg prepare voc
      snnseg prepare voc --set data.source=archives --allow-partial --skip-bad
      snnseg prepare mnist_cifar --set data.size=64
    """
    from snnseg import config as configs
    from snnseg.errors import UsageError

    flags = ["data.allow_partial=true"] * allow_partial + ["data.skip_bad=true"] * skip_bad
    numbers = configs.load(params, benchmark, (set or []) + flags)
    if numbers.experiment:
        raise UsageError(f"{benchmark} is an experiment; a store is of a benchmark. Known: {', '.join(configs.read(params).benchmarks)}.")
    from snnseg.data import prepare as preparing
    from snnseg.data import progress

    with progress.shown(numbers.store_name) as tell:
        made = preparing.prepare(numbers, tell)
    for fact in made.bad.values():
        print(f"left out: {fact}", file=sys.stderr)
    print(f"{numbers.store}: {made.told}")


data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Fetch official files, look into a store.")
app.add_typer(data, name="data")


@data.command()
def fetch(name: Annotated[str, typer.Argument(help="voc, sbd, mnist, cifar10, or ddd17 (told what to get, then checked).")],
          set: Set = None, params: Params = PARAMS) -> None:
    """Download official files, verified and unpacked.

    They go to data/raw; a download that stopped goes on where it was.

    \b
    Examples:
      snnseg data fetch voc
      snnseg data fetch mnist
    """
    from snnseg import config as configs

    numbers = configs.load(params, None, set or [])
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from snnseg.data import sources
    from snnseg.data.fetch import fetch as fetch_files

    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
                  console=Console(stderr=True)) as bars:
        task = bars.add_task(name, total=None)
        found = fetch_files(name, numbers.raw, lambda done, total: bars.update(task, completed=done, total=total))
        bars.update(task, description=f"{name}: {'unpacking' if name in sources.TABLE else 'checked'}")
        found += sources.unpack(name, numbers.raw)
    print("\n".join(map(str, found)))


@data.command()
def check(place: Annotated[str | None, typer.Argument(metavar="[STORE]", help="A benchmark, or the folder of a store; none = the first benchmark.")] = None,
          set: Set = None, params: Params = PARAMS) -> None:
    """Look at all of a store, with a sheet of pictures.

    Shapes, labels, void, classes, empty masks, what is in training and test, seal. The sheet goes to data/report.

    \b
    Examples:
      snnseg data check
      snnseg data check voc
    """
    from snnseg import config as configs
    from snnseg.errors import StoreError

    named = place is None or not place or not Path(place).exists() or place in configs.read(params).benchmarks
    numbers = configs.load(params, place if named else None, set or [])
    store = numbers.store if named else Path(place or "").absolute()
    from snnseg import seal
    from snnseg.data import check as checking
    from snnseg.report import pictures, store_sheet

    findings = checking.check(store)
    print("\n".join(findings.lines))
    if findings.faults:
        print("\n".join(f"fault: {fault}" for fault in findings.faults))
        raise StoreError(store, f"{len(findings.faults)} faults, the first: {findings.faults[0]}", "Make the store again: snnseg prepare")
    page = numbers.report / f"store-{store.name}.png"
    seal.write_file(page, pictures.png(store_sheet.sheet(store)))
    print(page)


@app.command()
def train(experiment: Experiment, dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell how much memory a step would take, train nothing.")] = False,
          set: Set = None, params: Params = PARAMS) -> None:
    """Train one experiment, or go on with it where it stopped.

    With --set the result stays in its run folder; without, it also becomes data/model/BENCHMARK/EXPERIMENT.

    \b
    Examples:
      snnseg train voc/spiking_fcn
      snnseg train mnist_cifar/ann_fcn --set train.epochs=9
      snnseg train mnist_cifar/spiking_fcn --dry-run --set encode.timesteps=20
    """
    from snnseg import config as configs

    numbers = configs.load(params, _experiment(params, experiment), set or [])
    from snnseg import tracking
    from snnseg.training import forecast, run

    if dry_run:
        tracking.load(numbers)
        held = run.loaded(numbers) if numbers.store.exists() else None      # noqa: F841  (as in a training)
        print(f"{numbers.name}, batch {numbers.train.batch}, {numbers.timesteps} time steps, {numbers.data.size} x {numbers.data.size}: "
              f"{forecast.beforehand(numbers)}")
        return
    folder = run.train(numbers, tracking.trackers)
    if not set:
        run.publish(folder, numbers)
    print(folder)


@app.command()
def evaluate(experiment: Experiment, model: Annotated[Path | None, typer.Option("--model", help="A trained net elsewhere: data/run/NAME/model.")] = None,
             set: Set = None, params: Params = PARAMS) -> None:
    """Score a trained net on the whole test split, with pictures.

    All numbers are those it was trained with, but for the section evaluate. With --set or --model the scores are shown only;
    without, they also become data/result/BENCHMARK/EXPERIMENT.

    \b
    Examples:
      snnseg evaluate voc/spiking_fcn
      snnseg evaluate ddd17/spiking_fcn --set evaluate.timesteps=8
      snnseg evaluate mnist_cifar/ann_fcn --set evaluate.norm=batch
    """
    from snnseg import config as configs
    from snnseg.errors import UsageError

    numbers = configs.load(params, _experiment(params, experiment), set or [])
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
def energy(experiment: Experiment, model: Annotated[Path | None, typer.Option("--model", help="A trained net elsewhere: data/run/NAME/model.")] = None,
           set: Set = None, params: Params = PARAMS) -> None:
    """Count a trained net's spikes and energy on test pictures.

    Three ways side by side: the paper's proxy (eqs. 8 to 12), exact operations, and these with the bytes that move. All numbers are
    those it was trained with, but for the section energy. With --set or --model the counts are shown only; without, they also become
    energy.json, energy.csv and spikes.csv in data/result/BENCHMARK/EXPERIMENT.

    \b
    Examples:
      snnseg energy voc/spiking_fcn
      snnseg energy mnist_cifar/ann_fcn --set energy.rival_timesteps=20
    """
    from snnseg import config as configs
    from snnseg.errors import UsageError

    numbers = configs.load(params, _experiment(params, experiment), set or [])
    if others := [text for text in set or [] if not text.strip().startswith(("energy.", "evaluate.batch"))]:
        raise UsageError(f"--set {others[0]}: a trained net keeps its own numbers. Only energy.* can be set here; train it anew for others.")
    from snnseg import tracking
    from snnseg.report import energy as counting

    if set or model:
        found = counting.measure((model or numbers.model_folder).absolute(), numbers)
    else:
        found = counting.write(numbers)
        tracking.log_energy(numbers, found.summary, found.about)
    print(counting.lines(found.summary))


@app.command()
def track(set: Set = None, params: Params = PARAMS) -> None:
    """Send to MLflow what it lacks of all runs and results.

    \b
    Examples:
      snnseg track
      snnseg track --set track.experiment=again
    """
    from snnseg import config as configs

    numbers = [configs.load(params, name, set or []) for name in configs.names(params)]
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

    print(table.lines(table.write(numbers.root / "data" / "result", numbers.report, configs.names(params))))
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
