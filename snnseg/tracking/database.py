"""MLflow's database below data/mlflow: where it is, its runs by the uid of a training, and numbers sent to it, each call a transaction."""
from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import filelock

from snnseg.section import flat
from snnseg.sections import Config, data_folder

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
UID_TAG = "snnseg.uid"
BATCH = 900         # metrics a call; MLflow takes at most 1 000


def store_uri(root: Path) -> str:
    return f"sqlite:///{data_folder(root)}/mlflow/mlflow.db"


def load(config: Config) -> None:
    """Import what a training that is tracked does, to see how much memory that takes."""
    if config.track.mlflow:
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def opened(root: Path, experiment: str) -> tuple[Any, str]:
    """An MLflow client and the id of the experiment, both made where missing."""
    import mlflow

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)     # the making of tables is no news
    folder = data_folder(root) / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / "lock", timeout=60):        # two processes must not create the tables at once
        client = mlflow.MlflowClient(store_uri(root))
        found = client.get_experiment_by_name(experiment)
        return client, found.experiment_id if found else client.create_experiment(experiment, (folder / "artifacts").as_uri())


def find_or_create(config: Config, about: dict[str, Any]) -> tuple[Any, str]:
    """The client and the id of the MLflow run of the training that `about` tells of; its uid names it for good."""
    from mlflow.entities import RunTag

    client, experiment = opened(config.root, config.track.experiment)
    if found := client.search_runs([experiment], f"tags.`{UID_TAG}` = '{about['uid']}'"):
        return client, found[0].info.run_id
    name = run_name(config, about["fingerprint"])
    tags = {UID_TAG: about["uid"], "commit": about["commit"], "store": about["store"], "protocol": config.protocol,
            "benchmark": config.benchmark, "source": config.data.source, "experiment": config.experiment, "fingerprint": about["fingerprint"]}
    run = client.create_run(experiment, tags=tags, run_name=name).info.run_id
    log_params(client, run, about["config"])
    client.log_batch(run, tags=[RunTag("device", about["device"])])
    client.log_dict(run, about["config"], "config.json")
    return client, run


def run_name(config: Config, fingerprint: str) -> str:
    """Benchmark, net, coding where there is room, time steps and the beginning of the fingerprint, in 40 characters: `voc/spiking_fcn·direct·T4·d80a`."""
    rest = f"·T{config.timesteps}·{fingerprint[:4]}"
    coding = f"·{config.encode.coding}" if config.spiking and not config.data.events else ""
    return f"{config.name}{coding}{rest}" if len(config.name + coding + rest) <= 40 else config.name[: 40 - len(rest)] + rest


def log_params(client: Any, run: str, numbers: dict[str, Any]) -> None:
    """Log the sections that a run depends on, as many a call as MLflow takes."""
    from mlflow.entities import Param

    told = [Param(k, str(v)) for k, v in flat({section: below for section, below in numbers.items() if section != "tune"}).items()]
    for first in range(0, len(told), 100):
        client.log_batch(run, params=told[first:first + 100])


def send(client: Any, run: str, lines: list[dict[str, Any]]) -> None:
    """Log whole lines, each call a transaction, so that a line is there completely or not at all."""
    from mlflow.entities import Metric

    now, waiting = int(time.time() * 1000), []
    for line in lines:
        mine = [Metric(k, v, now, line["step"]) for k, v in line.items() if k not in ("step", "epoch") and v is not None]
        if len(waiting) + len(mine) > BATCH:
            client.log_batch(run, metrics=waiting)
            waiting = []
        waiting += mine
    if waiting:
        client.log_batch(run, metrics=waiting)


def warn(root: Path, error: Exception, where: str, remedy: str = "Send them with snnseg track.") -> None:
    """Say that MLflow could not be written, and where the numbers are all the same."""
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    print(f"warning: MLflow at {store_uri(root)} cannot be written ({first}). The numbers are in {where}. {remedy}",
          file=sys.stderr)
