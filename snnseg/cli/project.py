"""Verbs of the project as a whole: its numbers, its tables, what MLflow has of it."""
from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer

from snnseg.cli.app import PARAMS, AnyExperiment, Params, Set, app


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
    """Switch params.yaml to a named setting's numbers.

    \b
    Examples:
      snnseg setting
      snnseg setting paper --diff
      snnseg setting paper
      snnseg setting integer
      snnseg setting variants
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
def doctor(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False, set: Set = None, params: Params = PARAMS) -> None:
    """See whether this machine has what a training needs.

    Versions, device, disk, seals of stores and models, MLflow's database, a cluster; a line each, with what to do. Exit code 1 if one fails.

    \b
    Examples:
      snnseg doctor
      snnseg doctor --json
    """
    from dataclasses import asdict

    from snnseg import config as configs

    numbers = configs.load(params, None, set or [])
    from snnseg import doctor as doctors

    found = doctors.examine(numbers)
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    for finding in [] if as_json else found:
        print(f"{finding.state:4}  {finding.what}: {finding.fact}{f'. {finding.remedy}' if finding.remedy and finding.state != 'ok' else ''}")
    if any(finding.state == "fail" for finding in found):
        raise SystemExit(1)


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
    from snnseg.tracking import measurements

    print("\n".join(measurements.replay(numbers)))


@app.command()
def report(set: Set = None, params: Params = PARAMS) -> None:
    """Put the experiments of `repro` on one page, in data/report.

    \b
    Examples:
      snnseg report
      snnseg report --params params.yaml
    """
    from snnseg import config as configs

    numbers = configs.load(params, None, set or [])
    from snnseg.report import overview, table
    from snnseg.sections import data_folder
    from snnseg.tracking import measurements

    print(table.lines(overview.write(data_folder(numbers.root) / "result", numbers.report, configs.reproduced(params))))
    measurements.log_report(numbers)
    print(numbers.report / "index.html")


@app.command()
def models(write: Annotated[bool, typer.Option("--write", help="Put them into models/README.md, and the checksums into models/SHA256SUMS.")] = False,
           set: Set = None, params: Params = PARAMS) -> None:
    """Show the cards of the published nets in models/.

    A table and, for each net, the commands that train and evaluate it, as Markdown, from what the files say of themselves.

    \b
    Examples:
      snnseg models
      snnseg models --write
    """
    from snnseg import config as configs

    numbers = configs.load(params, None, set or [])
    from snnseg.report import cards

    folder = numbers.root / "models"
    text = cards.markdown(cards.read(folder), params)
    if write:
        cards.write(folder, text)
    print(text)


@app.command()
def ui(port: Annotated[int, typer.Option("--port", help="Where to listen.", min=1024, max=65535)] = 5000, set: Set = None, params: Params = PARAMS) -> None:
    """Show the project's runs in MLflow, on this machine only.

    Where the port is taken, at the next free one.

    \b
    Examples:
      snnseg ui
      snnseg ui --port 5055
    """
    import subprocess

    from snnseg import config as configs

    numbers = configs.load(params, None, set or [])
    from snnseg.errors import TrackingError
    from snnseg.sections import data_folder
    from snnseg.tracking import database, measurements

    there = data_folder(numbers.root) / "mlflow" / "mlflow.db"
    if not there.is_file():
        raise TrackingError(f"{there}: not found, so nothing was tracked yet. Run snnseg track if trainings were made, or make repro")
    free = _free_from(port)
    taken = f"port {port} is taken, so: " if free != port else ""
    print(f"{taken}http://127.0.0.1:{free}  (Ctrl-C ends it)", file=sys.stderr)
    for name, path in measurements.addresses(numbers, configs.names(params)).items():
        print(f"{name}: http://127.0.0.1:{free}/{path}", file=sys.stderr)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", database.store_uri(numbers.root),
               "--host", "127.0.0.1", "--port", str(free), "--workers", "1"]
    raise SystemExit(subprocess.call(command, env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}))


def _free_from(port: int) -> int:
    """The first port from `port` on at which nobody listens on this machine. Raises TrackingError where twenty are taken."""
    import socket

    from snnseg.errors import TrackingError

    for candidate in range(port, min(port + 20, 65536)):
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)      # one that has just ended is free
            try:
                listening.bind(("127.0.0.1", candidate))
                return candidate
            except OSError:
                continue
    raise TrackingError(f"port {port} and those up to {candidate} are taken. Name another: snnseg ui --port {min(candidate + 1000, 60000)}")
