"""DVC stage `timesteps`: a trained spiking net and its store in; its scores at other numbers of time steps, and those of nets trained with them, out."""
import typer

from snnseg import stage


def main(experiment: str) -> None:
    from snnseg.config import load

    config = load(name=experiment)
    from snnseg.report import timesteps
    from snnseg.tracking import trainings

    timesteps.write(config, trainings.patient_trackers)


if __name__ == "__main__":
    typer.run(stage.guarded(main))
