"""DVC stage `convert`: a trained ANN twin and its store in; the spiking net's scores by number of time steps out."""
import typer

from snnseg import stage


def main(experiment: str) -> None:
    from snnseg.config import load

    config = load(name=experiment)
    from snnseg.report import conversion

    conversion.write(config)


if __name__ == "__main__":
    typer.run(stage.guarded(main))
