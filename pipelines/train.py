"""DVC stage `train`: one sealed store and one experiment in, one trained net and its curve out."""
import typer

from snnseg import stage


def main(experiment: str) -> None:
    from snnseg.config import load

    config = load(name=experiment)
    from snnseg.tracking import trainings
    from snnseg.training import run

    run.publish(run.train(config, trainings.patient_trackers), config)


if __name__ == "__main__":
    typer.run(stage.guarded(main))
