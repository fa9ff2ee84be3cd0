"""DVC stage `report`: the experiments' scores and pictures in, one table, one sheet and the robustness curves out; MLflow is told."""
import typer

from snnseg import stage


def main() -> None:
    from snnseg.config import load, reproduced

    config = load()
    from snnseg import tracking
    from snnseg.report import overview, table
    from snnseg.sections import data_folder

    print(table.lines(overview.write(data_folder(config.root) / "result", config.report, reproduced())))
    tracking.results([load(name=name) for name in reproduced()])


if __name__ == "__main__":
    typer.run(stage.guarded(main))
