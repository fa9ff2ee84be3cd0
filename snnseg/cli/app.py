"""The command line. One verb a capability; numbers are changed with `--set section.key=value`, not with flags.

Nothing heavy is imported before a verb runs and its numbers are checked. Results go to stdout, talk to stderr.
"""
from __future__ import annotations

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


def experiment_named(params: Path, name: str) -> str:
    """`name` in full; a benchmark alone is no experiment. Raises ConfigError."""
    from snnseg import config as configs
    from snnseg.errors import ConfigError

    benchmark, experiment = configs.read(params).find(name)
    if not experiment:
        known = ", ".join(full for full in configs.names(params) if full.startswith(f"{name}/"))
        raise ConfigError(f"{params}: {name} is a benchmark, an experiment was expected. Known: {known}.")
    return f"{benchmark}/{experiment}"
