"""DVC stage `prepare`: raw pictures in, a sealed store out."""
import typer

from snnseg import stage
from snnseg.config import load
from snnseg.data import prepare


def main(dataset: str) -> None:
    for _ in prepare.prepare(load(overrides=[f"data.dataset={dataset}"])):
        pass


if __name__ == "__main__":
    typer.run(stage.guarded(main))
