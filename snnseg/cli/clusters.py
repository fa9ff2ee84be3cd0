"""Verbs of a cluster: hand it a command, see what becomes of it."""
from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snnseg.cli.app import PARAMS, Params, Set, app, experiment_named

if TYPE_CHECKING:
    from snnseg.cluster.job import Told
    from snnseg.cluster.ray_jobs import Jobs

Address = Annotated[str | None, typer.Option("--address", metavar="URL", help="The cluster's dashboard; none = cluster.dashboard of params.yaml.")]
Job = Annotated[str, typer.Argument(metavar="JOB", help="A name that snnseg jobs lists.")]
HERE = {"submit", "jobs", "ui", "setting"}      # what makes no sense in a copy of the project on another machine


def _checked(arguments: list[str], params: Path) -> None:
    """See that this command line would take `arguments`, so that a slip shows now and not in the job. Raises UsageError, ConfigError."""
    from snnseg import config as configs
    from snnseg.errors import UsageError

    command: Any = typer.main.get_command(app)
    context, rest = command.context_class(command, info_name="snnseg"), arguments
    while hasattr(command, "commands"):
        if not rest:
            raise UsageError(f"{shlex.join(arguments)}: a command of it is expected behind it: {', '.join(command.commands)}.")
        name, command, rest = command.resolve_command(context, rest)
        if name in HERE:
            raise UsageError(f"{name} is for this machine, it cannot be submitted. Run it here: snnseg {shlex.join(arguments)}")
        context = command.context_class(command, info_name=name, parent=context)
    given = command.make_context(name, list(rest), parent=context.parent).params
    if given["params"] != PARAMS:
        raise UsageError("--params: a job has the params file of the project that travels. Give it to submit: snnseg submit --params FILE -- ...")
    named = given.get("experiment") or given.get("benchmark")
    if any(p.name == "experiment" and p.required for p in command.params):
        named = experiment_named(params, named)
    configs.load(params, named, given.get("set") or [])


def _jobs(address: str | None, params: Path, changes: list[str] | None) -> Jobs:
    """The jobs of the cluster that is meant. Raises ConfigError, UsageError, ClusterError."""
    from snnseg import config as configs
    from snnseg.cluster import address as addresses

    numbers = configs.load(params, None, changes or [])
    url = addresses.checked(address or numbers.cluster.dashboard)
    from snnseg.cluster.ray_jobs import Jobs

    return Jobs(url)


def _write(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def _followed(jobs: Jobs, job: str) -> None:
    """Show the job's log until it ends, and end as it does. Raises Interrupted, which leaves the job alone, JobFailed, ClusterError."""
    from snnseg.cluster.job import why_failed
    from snnseg.errors import Interrupted, JobFailed

    shown: list[str] = []

    def show(piece: str) -> None:
        shown.append(piece)
        _write(piece)

    try:
        told = jobs.follow(job, show)
    except KeyboardInterrupt:
        raise Interrupted(f"{job} goes on without this terminal. Come back: snnseg jobs logs {job} --follow. End it: snnseg jobs stop {job}") from None
    if not any(shown):
        print(f"warning: {job}: its machine does not give its log", file=sys.stderr)
    if told.exit_code:
        raise JobFailed(job, told.exit_code, *why_failed(told, "".join(shown)))
    print(f"{job}: succeeded after {_duration(told.seconds(time.time()))}", file=sys.stderr)


def _duration(seconds: float | None) -> str:
    return "-" if seconds is None else f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"


@app.command(context_settings={"allow_interspersed_args": False})
def submit(arguments: Annotated[list[str], typer.Argument(metavar="-- VERB ...", help="The command, as it would be typed behind snnseg.")],
           address: Address = None, no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's name and leave it to itself.")] = False,
           set: Set = None, params: Params = PARAMS) -> None:
    """Run a command on a Ray cluster, and follow it.

    The project's code and params.yaml travel, data/ does not: the job uses the project's data folder as its machine sees it
    (cluster.data; none = the path it has here). The first line is the job's name, the exit code is the job's. Ctrl-C leaves the
    job running. A cluster on another machine is entered with a token only; docs/cluster.md.

    \b
    Examples:
      snnseg submit -- train mnist_cifar/spiking_fcn --set train.epochs=9
      snnseg submit --no-wait -- prepare voc
      snnseg submit --set cluster.job_gpus=1 -- train voc/spiking_fcn
    """
    from snnseg import config as configs
    from snnseg import sections
    from snnseg.cluster import job
    from snnseg.errors import Interrupted

    numbers = configs.load(params, None, set or [])
    _checked(arguments, params)
    jobs = _jobs(address, params, set)
    if not numbers.cluster.data:
        sections.data_folder(numbers.root).mkdir(exist_ok=True)
    asked = job.order([*arguments, *(["--params", params.name] if params.name != PARAMS.name else [])], numbers)
    try:
        jobs.submit(asked)
    except KeyboardInterrupt:
        raise Interrupted(f"{asked.job}: interrupted while it was handed over, so it may run or not. See: snnseg jobs") from None
    print(asked.job, flush=True)
    if not no_wait:
        _followed(jobs, asked.job)


listing = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.add_typer(listing, name="jobs")


def _row(told: Told, now: float) -> dict[str, Any]:
    seconds = told.seconds(now)
    began = None if told.began is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(told.began))
    return {"job": told.job, "status": told.status, "command": told.command, "since": began, "seconds": None if seconds is None else round(seconds, 1)}


@listing.callback()
def jobs(context: typer.Context, address: Address = None,
         as_json: Annotated[bool, typer.Option("--json", help="As JSON; times in UTC, durations in seconds.")] = False,
         set: Set = None, params: Params = PARAMS) -> None:
    """List a cluster's jobs, show a log, stop one.

    \b
    Examples:
      snnseg jobs
      snnseg jobs --json
    """
    if context.invoked_subcommand:
        return
    found = _jobs(address, params, set).all()
    now = time.time()
    if as_json:
        print(json.dumps([_row(told, now) for told in found], indent=1))
        return
    rows = [("JOB", "STATUS", "SINCE", "DURATION", "COMMAND")]
    for told in found:
        since = "-" if told.began is None else time.strftime("%m-%d %H:%M", time.localtime(told.began))
        rows.append((told.job, told.status.lower(), since, _duration(told.seconds(now)), told.command))
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[4]]))


@listing.command()
def logs(job: Job, follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends, and end as it does.")] = False,
         address: Address = None, set: Set = None, params: Params = PARAMS) -> None:
    """Show a job's log.

    \b
    Examples:
      snnseg jobs logs train-0101-120000-ab12
      snnseg jobs logs train-0101-120000-ab12 --follow
    """
    cluster = _jobs(address, params, set)
    if follow:
        _followed(cluster, job)
    else:
        _write(cluster.log(job))


@listing.command()
def stop(job: Job, address: Address = None, set: Set = None, params: Params = PARAMS) -> None:
    """End a job; a training saves first.

    A job that still waits for a machine ends as soon as it has one.

    \b
    Examples:
      snnseg jobs stop train-0101-120000-ab12
      snnseg jobs stop train-0101-120000-ab12 --address http://127.0.0.1:8265
    """
    told = _jobs(address, params, set).stop(job)
    still = "" if told.over else ", asked to end"
    print(f"{job}: {told.status.lower()}{still} after {_duration(told.seconds(time.time()))}")
