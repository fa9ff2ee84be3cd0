"""All experiments side by side: results.csv and one sheet of pictures."""
from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from snnseg import seal
from snnseg.report import pictures

COLUMNS = ("benchmark experiment dataset protocol source model coding timesteps neuron leak threshold reset norm width epochs seed train_samples test_samples "
           "miou background_miou iou_per_class spike_rate proxy_mj exact_mj memory_mj seconds device commit").split()
SHOWN = 5       # samples of each benchmark on the sheet
NETS = 12       # and nets, the first of params.yaml
NOT_RUN = "not run"


def csv_text(rows: list[dict[str, Any]], columns: list[str]) -> str:
    """Rows as the text of a CSV file with a header."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def spent(energy: dict[str, Any] | None) -> dict[str, str]:
    """Spikes a neuron and step, and mJ a picture by the three ways of counting; `not run` where they were not counted."""
    if energy is None:
        return dict.fromkeys(("spike_rate", "proxy_mj", "exact_mj", "memory_mj"), NOT_RUN)
    rate, mj = energy["spikes"], energy["energy_mj"]
    return {"spike_rate": "-" if rate is None else f"{rate['a_neuron_and_step']:.4f}", "proxy_mj": f"{mj['proxy']:.5f}", "exact_mj": f"{mj['exact']:.5f}",
            "memory_mj": f"{mj['with_memory']:.5f}"}


def kind(neuron: dict[str, Any]) -> str:
    """What a config's neurons are called: lif, if, plif, `integer lif, 4 a step`; with a learned threshold `lif, threshold learned`."""
    name = "plif" if neuron["learn_leak"] != "none" else "if" if neuron["leak"] == 1 else "lif"
    name = f"integer {name}, {neuron['levels']} a step" if neuron["levels"] else name
    return name + ", threshold learned" * (neuron["learn_threshold"] != "none")


def row(metrics: dict[str, Any], about: dict[str, Any], energy: dict[str, Any] | None = None) -> dict[str, Any]:
    """One line of results.csv from an experiment's files. mIoU in per cent; what an ANN does not have is `-`."""
    config = about["config"]
    trained, norm = config["encode"]["timesteps"], config["model"]["norm"]
    events = config["data"]["dataset"] == "ddd17"
    neuron = {"coding": "events" if events else config["encode"]["coding"],
              "timesteps": trained if metrics["timesteps"] == trained else f"{trained}, read at {metrics['timesteps']}",
              "norm": norm, "neuron": kind(config["neuron"]), **{k: config["neuron"][k] for k in ("leak", "threshold", "reset")}}
    if not config["model"]["name"].startswith("spiking"):
        neuron = dict.fromkeys(neuron, "-") | {"timesteps": neuron["timesteps"] if events else 1, "norm": "bn"} | ({"coding": "events"} if events else {})
    if metrics["statistics"] != "running":
        neuron["norm"] += f", {metrics['statistics']} statistics"
    iou = ";".join(f"{c}={'-' if s is None else f'{s:.2f}'}" for c, s in metrics["iou"].items())
    return {
        "benchmark": metrics["benchmark"], "experiment": metrics["experiment"], "dataset": dataset(about), "protocol": metrics["protocol"],
        "source": config["data"]["source"], "model": config["model"]["name"], **neuron, "width": config["model"]["width"],
        "epochs": config["train"]["epochs"], "seed": config["train"]["seed"],
        "miou": f"{metrics['miou']:.2f}", "background_miou": f"{metrics['background_miou']:.2f}", "iou_per_class": iou, **spent(energy),
        **{k: about[k] for k in ("train_samples", "test_samples", "seconds", "device", "commit")},
    }


def dataset(about: dict[str, Any]) -> str:
    """`voc`, `voc (partial, 3 138/450)` where the download was not complete, `voc (2 files left out)` where some were bad."""
    marks = [f"partial, {about['partial']}"] * bool(about["partial"]) + [f"{about['left_out']} files left out"] * bool(about["left_out"])
    return about["config"]["data"]["dataset"] + (f" ({', '.join(marks)})" if marks else "")


def lines(rows: list[dict[str, Any]]) -> str:
    """The rows for a person."""
    return "\n".join(f"{r['experiment']:16} {r['dataset']:32} {r['protocol']:14} mIoU {r['miou']:>6}  (all background {r['background_miou']})"
                     f"  mJ: {r['exact_mj']} exact, {r['proxy_mj']} by the paper's proxy" for r in rows)


def write(results: Path, report: Path, names: list[str]) -> list[dict[str, Any]]:
    """Write `results.csv` and `pictures.png` below `report` from the files of `names` (`voc/ann_fcn`) below `results`; return
    the rows. An experiment that was not evaluated yet is a row of `not run`; without any there is no sheet.
    """
    rows: list[dict[str, Any]] = []
    sheets: dict[str, dict[str, list[np.ndarray]]] = {}
    truths: dict[str, np.ndarray] = {}
    for name in names:
        folder = results / name
        if not all((folder / file).is_file() for file in ("metrics.json", "about.json", "pictures.npz")):
            rows.append(dict.fromkeys(COLUMNS, NOT_RUN) | dict(zip(("benchmark", "experiment"), name.split("/"), strict=True)))
            continue
        metrics, about = (json.loads((folder / file).read_text(encoding="utf-8")) for file in ("metrics.json", "about.json"))
        counted = folder / "energy.json"
        rows.append(row(metrics, about, json.loads(counted.read_text(encoding="utf-8")) if counted.is_file() else None))
        palette = about["palette"]
        if sum(r["benchmark"] == metrics["benchmark"] and r["miou"] != NOT_RUN for r in rows) > NETS:
            continue
        with np.load(folder / "pictures.npz", allow_pickle=False) as shown:
            # other time steps of events end with other frames: these have their own input and truth
            title = next((t for t, truth in truths.items() if t.split(",")[0] == metrics["benchmark"] and np.array_equal(truth, shown["truth"])),
                         f"{metrics['benchmark']}, T = {metrics['timesteps']}" if metrics["benchmark"] in sheets else metrics["benchmark"])
            truths.setdefault(title, shown["truth"])
            columns = sheets.setdefault(title, {
                "input": list(shown["image"][:SHOWN]), "truth": [pictures.coloured(t, palette) for t in shown["truth"][:SHOWN]]})
            columns[metrics["experiment"]] = [pictures.coloured(p, palette) for p in shown["prediction"][:SHOWN]]
    seal.write_file(report / "results.csv", csv_text(rows, COLUMNS))
    if sheets:
        seal.write_file(report / "pictures.png", pictures.png(pictures.stacked({name: pictures.sheet(columns) for name, columns in sheets.items()})))
    return rows
