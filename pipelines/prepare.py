"""DVC stage `prepare`: raw pictures in, a sealed store out."""
import typer

from snnseg import stage


def main(dataset: str) -> None:
    from snnseg.config import load

    config = load(overrides=[f"data.dataset={dataset}"])
    from snnseg.data import prepare

    for _ in prepare.prepare(config):
        pass


if __name__ == "__main__":
    typer.run(stage.guarded(main))
