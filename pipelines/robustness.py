"""DVC stage `robustness`: a trained net and its store in; its scores on noisy inputs out."""
import typer

from snnseg import stage


def main(experiment: str) -> None:
    from snnseg.config import load

    config = load(name=experiment)
    from snnseg.report import robustness

    robustness.write(config)


if __name__ == "__main__":
    typer.run(stage.guarded(main))
