"""DVC stage `activations`: a trained net and its store in; its maps, answers and potentials step by step out, as numbers and figures."""
import typer

from snnseg import stage


def main(experiment: str) -> None:
    from snnseg.config import load

    config = load(name=experiment)
    from snnseg.report import activations

    activations.write(config)


if __name__ == "__main__":
    typer.run(stage.guarded(main))
