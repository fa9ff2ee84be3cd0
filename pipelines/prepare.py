"""DVC stage `prepare`: raw files in, a sealed store out."""
import typer

from snnseg import stage


def main(benchmark: str) -> None:
    from snnseg.config import load

    config = load(name=benchmark)
    from snnseg.data import prepare, progress

    with progress.shown(config.store_name) as tell:
        print(prepare.prepare(config, tell).told)


if __name__ == "__main__":
    typer.run(stage.guarded(main))
