"""What measurements found, added to the MLflow runs of the nets they measured; the report's own run; and what MLflow lacks, sent again."""
from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from snnseg.sections import Config, data_folder
from snnseg.tracking.database import UID_TAG, find_or_create, opened, send, warn
from snnseg.tracking.trainings import send_again
from snnseg.training.report import Numbers


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
        numbers = {"conversion/ann_miou": summary["ann_miou"]} | {f"conversion/ann_{q['bits']}_bits_miou": q["miou"] for q in summary.get("quantised", [])}
        _log(config, numbers, about, ("conversion.json", "conversion.csv"), points)


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
        send(client, run, [{"step": about["steps"], **{k: v for k, v in numbers.items() if known.get(k) != v}}])
        for key, curve in (points or {}).items():
            had = {m.step: m.value for m in client.get_metric_history(run, key)}
            send(client, run, [{"step": step, key: value} for step, value in curve.items() if had.get(step) != value])
        for name in files:
            client.log_artifact(run, str(config.result_folder / name))
        client.set_terminated(run, "FINISHED")
    except Exception as e:      # as above: the scores are on the disk, and stay there
        warn(config.root, e, str(config.result_folder))


def log_report(config: Config) -> None:
    """Add the page with its figures, and the table, to the one MLflow run of the reports, in an experiment of its own; a failure is a warning."""
    if not config.track.mlflow:
        return
    try:
        client, experiment = opened(config.root, f"{config.track.experiment}-report")
        found = client.search_runs([experiment], max_results=1)
        run = (found[0] if found else client.create_run(experiment, run_name="report")).info.run_id
        for name in ("index.html", "results.csv"):
            client.log_artifact(run, str(config.report / name))
        client.log_artifacts(run, str(config.report / "figures"), "figures")
        client.set_terminated(run, "FINISHED")
    except Exception as e:      # as above: the page is on the disk
        warn(config.root, e, str(config.report), "Send it with snnseg report.")


def addresses(config: Config, names: list[str]) -> dict[str, str]:
    """Places below MLflow's UI by name: the list of runs, and for each benchmark those behind data/result side by side."""
    client, experiment = opened(config.root, config.track.experiment)
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
    root = configs[0].root
    done = [path.parent.name for path in sorted((data_folder(root) / "run").glob("*/about.json")) if send_again(path.parent, root, configs[0])]
    return done + tell(configs)


def tell(configs: list[Config]) -> list[str]:
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
