"""Verbs of the data: official files, sealed stores."""
from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from snnseg.cli.app import PARAMS, Benchmark, Params, Set, app


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
