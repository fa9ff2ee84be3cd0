"""DVC stage `report`: all experiments' scores and pictures in, one page with its figures, tables, one sheet and the robustness curves out; MLflow is told."""
import typer

from snnseg import stage


def main() -> None:
    from snnseg.config import load, names

    config = load()
    from snnseg import tracking
    from snnseg.report import overview, table
    from snnseg.sections import data_folder

    print(table.lines(overview.write(data_folder(config.root) / "result", config.report, names())))
    tracking.results([load(name=name) for name in names()])
    tracking.log_report(config)


if __name__ == "__main__":
    typer.run(stage.guarded(main))
