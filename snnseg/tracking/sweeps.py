"""The MLflow run of a sweep, with its trials below it."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from snnseg.sections import Config
from snnseg.tracking.database import UID_TAG, log_params, opened, send, warn
from snnseg.training.report import Numbers, read_journal


class SweepTracker:
    """Keeps the MLflow run of a sweep, and one below it for each settled trial, in step with the sweep's folder.

    `about` names the sweep: uid, fingerprint, identity (its numbers), space. A trial is told as plain values: number, name, config,
    folder, epochs, failed, and numbers. What MLflow has is left alone, what it lacks is sent, whenever `sync` is called.
    """

    def __init__(self, config: Config, folder: Path, about: dict[str, Any]):
        self.config, self.folder, self.about = config, folder, about
        self.client: Any = None
        self.warned, self.sent = False, set[int]()

    def sync(self, trials: list[dict[str, Any]], status: str = "RUNNING", numbers: Numbers | None = None, files: tuple[Path, ...] = ()) -> None:
        """Send what is missing of the trials, the sweep's own numbers, and its files; a failure is a warning."""
        if not self.config.track.mlflow:
            return
        try:
            if self.client is None:
                self._open()
            for trial in trials:
                if trial["number"] not in self.sent:
                    self._trial(trial)
                    self.sent.add(trial["number"])
            if numbers:
                known = self.client.get_run(self.parent).data.metrics
                send(self.client, self.parent, [{"step": len(trials), **{k: v for k, v in numbers.items() if known.get(k) != v}}])
            for path in files:
                self.client.log_artifact(self.parent, str(path))
            if status != "RUNNING":
                self.client.set_terminated(self.parent, status)
        except Exception as e:      # as above: what was found is on the disk
            if not self.warned:
                warn(self.config.root, e, str(self.folder), "The same command sends them.")
            self.client, self.warned = None, True

    def _open(self) -> None:
        """Find or make the parent run, and see which trials it has whole."""
        client, self.experiment = opened(self.config.root, self.config.track.experiment)
        found = client.search_runs([self.experiment], f"tags.`{UID_TAG}` = '{self.about['uid']}'")
        if found:
            self.parent = found[0].info.run_id
        else:
            rest = f" {self.about['identity']['tune.name']} {self.about['fingerprint'][:4]}"
            tags = {UID_TAG: self.about["uid"], "benchmark": self.config.benchmark, "experiment": self.config.experiment, "protocol": self.config.protocol,
                    "fingerprint": self.about["fingerprint"], "store": self.about["identity"]["store"]}
            self.parent = client.create_run(self.experiment, tags=tags, run_name=self.config.name[: 40 - len(rest)] + rest[-40:]).info.run_id
            log_params(client, self.parent, self.about["identity"] | {f"space.{key}": told for key, told in self.about["space"].items()})
            client.log_dict(self.parent, self.about, "sweep.json")
        self.children, token = {}, None
        while token is None or token:
            page = client.search_runs([self.experiment], f"tags.`mlflow.parentRunId` = '{self.parent}'", page_token=token)
            self.children |= {run.data.tags[UID_TAG]: run.info for run in page}
            token = page.token or ""
        client.update_run(self.parent, "RUNNING")
        self.client = client

    def _trial(self, trial: dict[str, Any]) -> None:
        """Send a settled trial; one that was being sent when the process was killed is completed."""
        uid = f"{self.about['uid']}/{trial['number']}"
        child, sent = self.children.get(uid), -1
        if child and child.status != "RUNNING":
            return
        if child:
            sent = max((m.step for m in self.client.get_metric_history(child.run_id, "train/loss")), default=-1)
        else:
            tags = {UID_TAG: uid, "mlflow.parentRunId": self.parent, "trial": str(trial["number"]), "state": trial["state"]}
            child = self.client.create_run(self.experiment, tags=tags, run_name=trial["name"]).info
            log_params(self.client, child.run_id, trial["config"])
        lines = [line for line in read_journal(trial["folder"] / "metrics.jsonl") if line["step"] > sent and line["epoch"] < trial["epochs"]]
        last = max([sent, 0, *(line["step"] for line in lines)])
        send(self.client, child.run_id, lines)
        known = self.client.get_run(child.run_id).data.metrics
        send(self.client, child.run_id, [{"step": last, **{k: v for k, v in trial["numbers"].items() if k not in known}}])
        self.client.set_terminated(child.run_id, "FAILED" if trial["failed"] else "FINISHED")
