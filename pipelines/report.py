"""DVC stage `report`: the experiments' results in; one page with its figures, one table, one sheet and curves out; MLflow is told."""
import typer

from snnseg import stage


def main() -> None:
    from snnseg.config import load, reproduced

    config, names = load(), reproduced()
    from snnseg.report import overview, table
    from snnseg.sections import data_folder
    from snnseg.tracking import measurements, trainings

    print(table.lines(overview.write(data_folder(config.root) / "result", config.report, names)))
    trainings.send_waiting(config)
    measurements.tell([load(name=name) for name in names])
    measurements.log_report(config)


if __name__ == "__main__":
    typer.run(stage.guarded(main))
