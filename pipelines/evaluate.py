"""DVC stage `evaluate`: a trained net and its store in, scores and pictures out."""
import typer

from snnseg import stage, tracking
from snnseg.config import load
from snnseg.report import result


def main(experiment: str) -> None:
    config = load(experiment=experiment)
    metrics, about, files = result.write(config)
    tracking.log_result(config, about, result.named(metrics), files)


if __name__ == "__main__":
    typer.run(stage.guarded(main))
