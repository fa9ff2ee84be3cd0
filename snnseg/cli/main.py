"""The `snnseg` command: `app` with the verbs by what they are about, in the order of their use."""
# ruff: noqa: I001
from snnseg.cli import stores, nets, sweeps, clusters, project  # noqa: F401  (each adds its verbs)
from snnseg.cli.app import app


def main() -> None:
    """The `snnseg` command."""
    app()
