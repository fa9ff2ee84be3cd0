"""DVC stage `robustness`: a trained net and its store in; its scores on noisy inputs out."""
import typer

from snnseg import stage


def main(experiment: str) -> None:
    from snnseg.config import load

    config = load(name=experiment)
    from snnseg import tracking
    from snnseg.report import robustness

    found = robustness.write(config)
    tracking.log_robustness(config, found.summary, found.about)


if __name__ == "__main__":
    typer.run(stage.guarded(main))
