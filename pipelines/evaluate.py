"""DVC stage `evaluate`: a trained net and its store in, scores and pictures out."""
import typer

from snnseg import stage


def main(experiment: str) -> None:
    from snnseg.config import load

    config = load(name=experiment)
    from snnseg.report import result

    result.write(config)


if __name__ == "__main__":
    typer.run(stage.guarded(main))
