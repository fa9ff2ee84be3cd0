"""The MLflow run of a training: fed from metrics.jsonl, from the step it already has, so nothing is logged twice or lost when a training goes on.

A run folder that holds the file `untracked` is not, or not yet, in MLflow as a whole.
"""
from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from snnseg.sections import Config, data_folder
from snnseg.tracking.database import find_or_create, send, store_uri, warn
from snnseg.training.report import Numbers, read_journal

if TYPE_CHECKING:
    from snnseg.training.run import Run


UNTRACKED = "untracked"
SYNC_EVERY_S = 20.0
PATIENCE_S = 120.0


class Tracker:
    """A reporter that keeps the MLflow run of a training in step with its metrics.jsonl.

    One that may wait loads MLflow, which takes seconds, for a training of more than PATIENCE_S or one that fails; a shorter one is left to `send_waiting`.
    """

    def __init__(self, folder: Path, config: Config, about: dict[str, Any], may_wait: bool = False):
        self.folder, self.config, self.about = folder, config, about
        self.may_wait = may_wait and not config.track.system_metrics
        self.sent, self.synced = -1, time.monotonic()
        self.client: Any = None
        self.monitor: Any = None
        self.warned = False

    def _sync(self, status: str | None = None) -> None:
        try:
            if self.client is None:
                self.client, self.id = find_or_create(self.config, self.about)
                self.client.update_run(self.id, "RUNNING")
                history = self.client.get_metric_history(self.id, "train/loss")
                self.sent = max((m.step for m in history), default=-1)
            lines = [line for line in read_journal(self.folder / "metrics.jsonl") if line["step"] > self.sent]
            send(self.client, self.id, lines)
            self.sent = max([self.sent, *(line["step"] for line in lines)])
            if status:
                self.client.set_terminated(self.id, status)
                (self.folder / UNTRACKED).unlink(missing_ok=True)
        except Exception as e:      # MLflow and SQLAlchemy raise of many kinds; none of them may end a training
            if not self.warned:
                warn(self.config.root, e, str(self.folder / "metrics.jsonl"))
            self.client, self.warned = None, True

    def begin(self, step: int, steps: int, epochs: int) -> None:
        (self.folder / UNTRACKED).touch()
        if self.may_wait:
            return
        self._sync()
        if self.config.track.system_metrics and self.client:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self.monitor = SystemMetricsMonitor(self.id, resume_logging=True, tracking_uri=store_uri(self.config.root))
            self.monitor.start()

    def numbers(self, step: int, numbers: Numbers) -> None:
        if self.client is None and self.may_wait:
            self.saved(step, self.folder)

    def saved(self, step: int, checkpoint: Path) -> None:
        if time.monotonic() - self.synced >= (PATIENCE_S if self.may_wait and self.client is None else SYNC_EVERY_S):
            self._sync()
            self.synced = time.monotonic()

    def end(self, status: str) -> None:
        if self.monitor:
            self.monitor.finish()
        if self.client is None and self.may_wait and status == "finished":
            return
        self._sync({"finished": "FINISHED", "interrupted": "KILLED"}.get(status, "FAILED"))


def trackers(run: Run) -> list[Tracker]:
    """What `training.run.train` is given to report to: MLflow, unless the config says not to."""
    return [Tracker(run.folder, run.config, run.about)] if run.config.track.mlflow else []


def patient_trackers(run: Run) -> list[Tracker]:
    """Likewise for the stages of a pipeline that ends with `report`, which sends what short trainings have left waiting."""
    return [Tracker(run.folder, run.config, run.about, may_wait=True)] if run.config.track.mlflow else []


def send_again(folder: Path, root: Path, around: Config) -> bool:
    """Send what MLflow lacks of a run; False, with a warning, for one that another version of snnseg made."""
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    try:
        config = Config.of(about, root, around.around)
    except (ValidationError, KeyError):
        print(f"warning: {folder}: made by another version of snnseg, so not sent. Remove it if it is not needed.", file=sys.stderr)
        return False
    Tracker(folder, config, about).end("finished" if (folder / "model").is_dir() else "interrupted")
    return True


def send_waiting(config: Config) -> None:
    """Send the finished runs that wait for it: short trainings of a pipeline, and those that found MLflow not writable."""
    if config.track.mlflow:
        for path in sorted((data_folder(config.root) / "run").glob(f"*/{UNTRACKED}")):
            if (path.parent / "model").is_dir():
                send_again(path.parent, config.root, config)
