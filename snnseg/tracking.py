"""MLflow: one run an experiment, one a sweep with its trials below it, in sqlite below data/mlflow. The only importer of mlflow.

Curves are sent from metrics.jsonl, from the step that MLflow already has: nothing is logged twice or lost when a
training is killed and goes on, and a training does not stop because MLflow cannot be written.
"""
from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import filelock
from pydantic import ValidationError

from snnseg.section import flat
from snnseg.sections import Config, data_folder
from snnseg.training.report import Numbers, read_journal

if TYPE_CHECKING:
    from snnseg.training.run import Run

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
UID_TAG = "snnseg.uid"
SYNC_EVERY_S = 20.0
BATCH = 900         # metrics a call; MLflow takes at most 1 000


def store_uri(root: Path) -> str:
    return f"sqlite:///{data_folder(root)}/mlflow/mlflow.db"


def load(config: Config) -> None:
    """Import what a training that is tracked does, to see how much memory that takes."""
    if config.track.mlflow:
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401


def _client(root: Path, experiment: str) -> tuple[Any, str]:
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

    client, experiment = _client(config.root, config.track.experiment)
    if found := client.search_runs([experiment], f"tags.`{UID_TAG}` = '{about['uid']}'"):
        return client, found[0].info.run_id
    name = run_name(config, about["fingerprint"])
    tags = {UID_TAG: about["uid"], "commit": about["commit"], "store": about["store"], "protocol": config.protocol,
            "benchmark": config.benchmark, "source": config.data.source, "experiment": config.experiment, "fingerprint": about["fingerprint"]}
    run = client.create_run(experiment, tags=tags, run_name=name).info.run_id
    _params(client, run, about["config"])
    client.log_batch(run, tags=[RunTag("device", about["device"])])
    client.log_dict(run, about["config"], "config.json")
    return client, run


def run_name(config: Config, fingerprint: str) -> str:
    """Benchmark, net, coding where there is room, time steps and the beginning of the fingerprint, in 40 characters: `voc/spiking_fcn·direct·T4·d80a`."""
    rest = f"·T{config.timesteps}·{fingerprint[:4]}"
    coding = f"·{config.encode.coding}" if config.spiking and not config.data.events else ""
    return f"{config.name}{coding}{rest}" if len(config.name + coding + rest) <= 40 else config.name[: 40 - len(rest)] + rest


def _params(client: Any, run: str, numbers: dict[str, Any]) -> None:
    """Log the sections that a run depends on, as many a call as MLflow takes."""
    from mlflow.entities import Param

    told = [Param(k, str(v)) for k, v in flat({section: below for section, below in numbers.items() if section != "tune"}).items()]
    for first in range(0, len(told), 100):
        client.log_batch(run, params=told[first:first + 100])


def _send(client: Any, run: str, lines: list[dict[str, Any]]) -> None:
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


def _warn(root: Path, error: Exception, where: str, remedy: str = "Send them with snnseg track.") -> None:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    print(f"warning: MLflow at {store_uri(root)} cannot be written ({first}). The numbers are in {where}. {remedy}",
          file=sys.stderr)


class Tracker:
    """A reporter that keeps the MLflow run of a training in step with its metrics.jsonl."""

    def __init__(self, folder: Path, config: Config, about: dict[str, Any]):
        self.folder, self.config, self.about = folder, config, about
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
            _send(self.client, self.id, lines)
            self.sent = max([self.sent, *(line["step"] for line in lines)])
            if status:
                self.client.set_terminated(self.id, status)
        except Exception as e:      # MLflow and SQLAlchemy raise of many kinds; none of them may end a training
            if not self.warned:
                _warn(self.config.root, e, str(self.folder / "metrics.jsonl"))
            self.client, self.warned = None, True

    def begin(self, step: int, steps: int, epochs: int) -> None:
        self._sync()
        if self.config.track.system_metrics and self.client:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self.monitor = SystemMetricsMonitor(self.id, resume_logging=True, tracking_uri=store_uri(self.config.root))
            self.monitor.start()

    def numbers(self, step: int, numbers: Numbers) -> None:
        pass

    def saved(self, step: int, checkpoint: Path) -> None:
        if time.monotonic() - self.synced >= SYNC_EVERY_S:
            self._sync()
            self.synced = time.monotonic()

    def end(self, status: str) -> None:
        if self.monitor:
            self.monitor.finish()
        self._sync({"finished": "FINISHED", "interrupted": "KILLED"}.get(status, "FAILED"))


def trackers(run: Run) -> list[Tracker]:
    """What `training.run.train` is given to report to: MLflow, unless the config says not to."""
    return [Tracker(run.folder, run.config, run.about)] if run.config.track.mlflow else []


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
                _send(self.client, self.parent, [{"step": len(trials), **{k: v for k, v in numbers.items() if known.get(k) != v}}])
            for path in files:
                self.client.log_artifact(self.parent, str(path))
            if status != "RUNNING":
                self.client.set_terminated(self.parent, status)
        except Exception as e:      # as above: what was found is on the disk
            if not self.warned:
                _warn(self.config.root, e, str(self.folder), "The same command sends them.")
            self.client, self.warned = None, True

    def _open(self) -> None:
        """Find or make the parent run, and see which trials it has whole."""
        client, self.experiment = _client(self.config.root, self.config.track.experiment)
        found = client.search_runs([self.experiment], f"tags.`{UID_TAG}` = '{self.about['uid']}'")
        if found:
            self.parent = found[0].info.run_id
        else:
            rest = f" {self.about['identity']['tune.name']} {self.about['fingerprint'][:4]}"
            tags = {UID_TAG: self.about["uid"], "benchmark": self.config.benchmark, "experiment": self.config.experiment, "protocol": self.config.protocol,
                    "fingerprint": self.about["fingerprint"], "store": self.about["identity"]["store"]}
            self.parent = client.create_run(self.experiment, tags=tags, run_name=self.config.name[: 40 - len(rest)] + rest[-40:]).info.run_id
            _params(client, self.parent, self.about["identity"] | {f"space.{key}": told for key, told in self.about["space"].items()})
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
            _params(self.client, child.run_id, trial["config"])
        lines = [line for line in read_journal(trial["folder"] / "metrics.jsonl") if line["step"] > sent and line["epoch"] < trial["epochs"]]
        last = max([sent, 0, *(line["step"] for line in lines)])
        _send(self.client, child.run_id, lines)
        known = self.client.get_run(child.run_id).data.metrics
        _send(self.client, child.run_id, [{"step": last, **{k: v for k, v in trial["numbers"].items() if k not in known}}])
        self.client.set_terminated(child.run_id, "FAILED" if trial["failed"] else "FINISHED")


def _named(metrics: dict[str, Any]) -> Numbers:
    """The scores of a metrics.json under their names in MLflow; other than the usual reading out is named as such."""
    usual = metrics["statistics"] == "running" and metrics["timesteps"] == metrics["trained_timesteps"]
    where = "test" if usual else f"test_T{metrics['timesteps']}_{metrics['statistics']}"
    return {f"{where}/miou": metrics["miou"], f"{where}/background_miou": metrics["background_miou"],
            **{f"{where}/iou/{c}": s for c, s in metrics["iou"].items()}}


def log_result(config: Config, metrics: dict[str, Any], about: dict[str, Any]) -> None:
    """Add an evaluation's numbers and files to the MLflow run of its training; a failure is a warning."""
    if config.track.mlflow:
        _log(config, _named(metrics), about, ("pictures.png", "metrics.json", "classes.csv"))


def log_energy(config: Config, summary: dict[str, Any], about: dict[str, Any]) -> None:
    """Add spike rates and energy, likewise."""
    if not config.track.mlflow:
        return
    fired = summary["spikes"] or {"of_layers": {}}
    rates = {f"spikes/rate/{layer}": rate for layer, rate in fired["of_layers"].items()}
    if rates:
        rates["spikes/rate"] = fired["a_neuron_and_step"]
    _log(config, {f"energy/{way}_mj": mj for way, mj in summary["energy_mj"].items()} | rates, about, ("energy.json", "energy.csv", "spikes.csv"))


def log_robustness(config: Config, summary: dict[str, Any], about: dict[str, Any]) -> None:
    """Add the scores on noisy inputs, likewise: `robustness/gaussian/20` is a mean mIoU, `robustness_drop/gaussian/20` the paper's drop in per cent."""
    if config.track.mlflow:
        points = {f"{kind}/{p['level']:g}": p for kind, found in summary["noise"].items() for p in found}
        numbers = {f"robustness/{name}": p["miou"] for name, p in points.items()}
        numbers |= {f"robustness_drop/{name}": p["drop"] for name, p in points.items() if p["level"] and p["drop"] is not None}
        _log(config, numbers, about, ("robustness.json", "robustness.csv"))


def log_activations(config: Config, summary: dict[str, Any], about: dict[str, Any]) -> None:
    """Add the maps, potentials and their figures, likewise; of a few pictures, they are files and no metrics."""
    if config.track.mlflow:
        _log(config, {}, about, ("activations.png", "membrane.png", "activations.gif", "activations.json", "activations.npz"))


def log_conversion(config: Config, summary: dict[str, Any], about: dict[str, Any]) -> None:
    """Add the scores of the converted net, likewise: the step of `conversion/miou` is the number of time steps."""
    if config.track.mlflow:
        points = {f"conversion/{key}": {p["timesteps"]: p[key] for p in summary["curve"]} for key in ("miou", "spikes")}
        _log(config, {"conversion/ann_miou": summary["ann_miou"]}, about, ("conversion.json", "conversion.csv"), points)


def log_timesteps(config: Config, summary: dict[str, Any], about: dict[str, Any]) -> None:
    """Add the scores at other numbers of time steps, which are the steps of `timesteps/anytime_miou`, `trained_miou` and one for each rule, `hold_miou`."""
    if config.track.mlflow:
        curves = {"anytime": summary["anytime"], "trained": summary["trained"]}
        curves |= {"inference" if rule == "-" else rule: points for rule, points in summary["inference"].items()}
        points = {f"timesteps/{name}_miou": {p["timesteps"]: p["miou"] for p in found} for name, found in curves.items()}
        _log(config, {}, about, ("timesteps.json", "timesteps.csv"), points)


MEASURED = {"metrics.json": log_result, "energy.json": log_energy, "activations.json": log_activations,
            "robustness.json": log_robustness, "conversion.json": log_conversion, "timesteps.json": log_timesteps}


def _log(config: Config, numbers: Numbers, about: dict[str, Any], files: tuple[str, ...], points: dict[str, dict[int, float | None]] | None = None) -> None:
    """Add what the run does not have: numbers at the step its training ended with, points at steps of their own, and files."""
    try:
        client, run = find_or_create(config, about)
        known = client.get_run(run).data.metrics
        _send(client, run, [{"step": about["steps"], **{k: v for k, v in numbers.items() if known.get(k) != v}}])
        for key, curve in (points or {}).items():
            had = {m.step: m.value for m in client.get_metric_history(run, key)}
            _send(client, run, [{"step": step, key: value} for step, value in curve.items() if had.get(step) != value])
        for name in files:
            client.log_artifact(run, str(config.result_folder / name))
        client.set_terminated(run, "FINISHED")
    except Exception as e:      # as above: the scores are on the disk, and stay there
        _warn(config.root, e, str(config.result_folder))


def log_report(config: Config) -> None:
    """Add the page with its figures, and the table, to the one MLflow run of the reports, in an experiment of its own; a failure is a warning."""
    if not config.track.mlflow:
        return
    try:
        client, experiment = _client(config.root, f"{config.track.experiment}-report")
        found = client.search_runs([experiment], max_results=1)
        run = (found[0] if found else client.create_run(experiment, run_name="report")).info.run_id
        for name in ("index.html", "results.csv"):
            client.log_artifact(run, str(config.report / name))
        client.log_artifacts(run, str(config.report / "figures"), "figures")
        client.set_terminated(run, "FINISHED")
    except Exception as e:      # as above: the page is on the disk
        _warn(config.root, e, str(config.report), "Send it with snnseg report.")


def addresses(config: Config, names: list[str]) -> dict[str, str]:
    """Places below MLflow's UI by name: the list of runs, and for each benchmark those behind data/result side by side."""
    client, experiment = _client(config.root, config.track.experiment)
    found: dict[str, list[str]] = {}
    for name in names:
        if (about := data_folder(config.root) / "result" / name / "about.json").is_file():
            uid = json.loads(about.read_text(encoding="utf-8"))["uid"]
            runs = client.search_runs([experiment], f"tags.`{UID_TAG}` = '{uid}'")
            found.setdefault(name.split("/")[0], []).extend(run.info.run_id for run in runs)
    side_by_side = {f"compare {benchmark}": f"#/compare-runs?runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([experiment]))}"
                    for benchmark, runs in found.items() if len(runs) > 1}
    return {"runs": f"#/experiments/{experiment}/runs", **side_by_side}


def replay(configs: list[Config]) -> list[str]:
    """Send what MLflow lacks of all runs below data/run and of the experiments' results; return what was looked at."""
    root, done = configs[0].root, []
    for path in sorted((data_folder(root) / "run").glob("*/about.json")):
        about = json.loads(path.read_text(encoding="utf-8"))
        try:
            config = Config.of(about, root, configs[0].around)
        except (ValidationError, KeyError):
            print(f"warning: {path.parent}: made by another version of snnseg, so not sent. Remove it if it is not needed.", file=sys.stderr)
            continue
        Tracker(path.parent, config, about).end("finished" if (path.parent / "model").is_dir() else "interrupted")
        done.append(path.parent.name)
    return done + results(configs)


def results(configs: list[Config]) -> list[str]:
    """Send what the measurements of these experiments left in their result folders; return the names of those that have been evaluated."""
    done = []
    for config in configs:
        folder = config.result_folder
        if not (folder / "about.json").is_file():
            continue
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        for name, log in MEASURED.items():
            if (folder / name).is_file():
                log(config, json.loads((folder / name).read_text(encoding="utf-8")), about)
        done.append(config.name)
    return done
