"""DVC stage `energy`: a trained net and its store in; its spikes, operations and energy a picture out."""
import typer

from snnseg import stage


def main(experiment: str) -> None:
    from snnseg.config import load

    config = load(name=experiment)
    from snnseg.report import energy

    energy.write(config)


if __name__ == "__main__":
    typer.run(stage.guarded(main))
