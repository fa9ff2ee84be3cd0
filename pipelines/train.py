"""DVC stage `train`: one sealed store and one experiment in, one trained net and its curve out."""
import typer

from snnseg import stage, tracking
from snnseg.config import load
from snnseg.training import run


def main(experiment: str) -> None:
    config = load(experiment=experiment)
    run.publish(run.train(config, tracking.trackers), config)


if __name__ == "__main__":
    typer.run(stage.guarded(main))
