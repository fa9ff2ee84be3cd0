"""The DVC pipeline: stages are sentences, depend on the code they use and no other, and run from a fresh checkout."""
import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import torch
from conftest import ROOT, TINY
from PIL import Image
from ruamel.yaml import YAML

from snnseg import config, sources
from snnseg.data import store
from snnseg.models.backbone import Spiking
from snnseg.models.deeplab import DeepLab
from snnseg.report.table import COLUMNS
from snnseg.tracking import database

DVC = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
STAGES = sorted(p.stem for p in (ROOT / "pipelines").glob("*.py"))


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_its_own_code(stage):
    code = [d for d in DVC["stages"][stage]["deps"] if not d.startswith(("data/store", "data/model", "data/raw", "data/result"))]
    assert code == (["pipelines", "snnseg"] if stage == "code" else [f"data/code/{stage}.txt"])
    assert stage == "code" or f"data/code/{stage}.txt" in DVC["stages"]["code"]["outs"]


@pytest.mark.parametrize(("stage", "loaded"), [(stage, loaded) for stage, loaded in {
    "prepare": "from snnseg.data import prepare", "train": "from snnseg.training import run; from snnseg.tracking import trainings",
    "report": "from snnseg.report import overview, table; from snnseg.tracking import measurements"}.items()])
def test_what_a_stage_loads_is_among_what_it_needs(stage, loaded):
    """The import graph is read from the text; here it is Python that says what was imported."""
    told = subprocess.run([sys.executable, "-c", f"{loaded}; import sys; print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'snnseg'))"],
                          cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True).stdout.split()
    needed = {str(p) for p in sources.needed(ROOT / "pipelines" / f"{stage}.py", ROOT)}
    assert len(told) > 10 and set(told) <= needed


@pytest.mark.parametrize("stage", STAGES)
def test_stage_is_a_sentence(stage):
    assert stage in DVC["stages"] and len((ROOT / "pipelines" / f"{stage}.py").read_text().splitlines()) <= 60


def test_results_do_not_depend_on_tracking_or_workers():
    for name, stage in DVC["stages"].items():
        assert not {"track", "data", "data.workers"} & set(stage.get("params", [])), name


def test_every_stage_is_made_for_what_repro_names():
    for name, stage in DVC["stages"].items():
        for kind, names in stage.get("matrix", {}).items():
            assert names == f"${{repro.{name if name in config.PART and kind == 'experiment' else f'{kind}s'}}}", name


def test_paths_are_the_config_s():
    path = DVC["stages"]["prepare"]["outs"][0]
    assert path in DVC["stages"]["train"]["deps"] and path in DVC["stages"]["evaluate"]["deps"]
    model, = DVC["stages"]["train"]["outs"]
    for name in config.names(ROOT / "params.yaml"):
        numbers = config.load(ROOT / "params.yaml", name)
        for written, used in ((path, numbers.store), (model, numbers.model_folder)):
            assert ROOT / written.replace("${item.benchmark}", numbers.benchmark).replace("${item.experiment}", numbers.experiment) == used


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The files that git knows of or would add, in a repository of their own, with a tiny setting."""
    root = tmp_path_factory.mktemp("clone")
    names = subprocess.run(["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
                           capture_output=True, check=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    DeepLab(2, Spiking(2, way="cpu"), 0.0625)(torch.rand(2, 2, 3, 32, 32)).mean().backward()
    spiking = Path("snnseg", "spiking", "__pycache__")
    (root / spiking).mkdir()
    for loop in (ROOT / spiking).glob("*.nb[ic]"):      # compiled of the same files, just now if not before; what is missing or older is compiled there
        shutil.copy2(loop, root / spiking)
    yaml = YAML()
    params = yaml.load((root / "params.yaml").read_text())
    for text in TINY:
        change = config.parse_set(text)
        for section, values in change.items():
            params[section] = config.merge(params[section], values)
    params["repro"] = {"benchmarks": ["mnist_cifar"], "experiments": ["spiking_deeplab", "ann_fcn"], "convert": ["ann_fcn"],
                       "timesteps": ["spiking_deeplab"], "activations": ["spiking_deeplab"]}
    with open(root / "params.yaml", "w") as f:
        yaml.dump(params, f)
    for args in (["init", "-q"], ["add", "-A"], ["-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "tiny"]):
        subprocess.run(["git", "-C", str(root), *args], check=True)
    return root


def dvc(root: Path, *args: str) -> str:
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):      # this checkout's package; fifteen processes would compile the copy's modules anew
        env.pop(name, None)
    done = subprocess.run(["dvc", *args], cwd=root, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_repro_end_to_end(clone):
    first = dvc(clone, "repro")
    assert "Running stage 'report'" in first
    numbers = config.load(clone / "params.yaml")
    assert len(store.read(numbers.store, "train")) == 48

    with open(clone / "data" / "report" / "results.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(r["benchmark"], r["experiment"]) for r in rows] == [("mnist_cifar", e) for e in ("spiking_deeplab", "ann_fcn")]
    assert list(rows[0]) == COLUMNS and all(0 <= float(r["miou"]) <= 100 for r in rows)
    for r in rows:
        assert 40 < float(r["background_miou"]) < 50
        assert (r["dataset"], r["protocol"], r["source"]) == ("mnist_cifar", "binary@32", "sample")
        assert r["train_samples"] == "48" and r["test_samples"] == "16"
        head = subprocess.run(["git", "-C", str(clone), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True).stdout.strip()
        assert r["commit"] == head
        metrics = json.loads((clone / "data" / "result" / r["benchmark"] / r["experiment"] / "metrics.json").read_text())
        scores = [s for s in metrics["iou"].values() if s is not None]
        assert metrics["miou"] == pytest.approx(sum(scores) / len(scores)) and sum(metrics["pixels"].values()) == 16 * 32 * 32
    assert (rows[0]["coding"], rows[0]["timesteps"]) == ("direct", "2") and (rows[1]["coding"], rows[1]["timesteps"]) == ("-", "1")
    with Image.open(clone / "data" / "report" / "pictures.png") as sheet:
        assert sheet.width > sheet.height * 0.3
    for file, curve, points in (("conversion", "ann_fcn", 3), ("timesteps", "spiking_deeplab", 2 + (1 + 3) + 1)):     # after each step; read at 1, at 3 by each rule; trained
        with open(clone / "data" / "report" / f"{file}.csv", newline="") as f:
            found = list(csv.DictReader(f))
        assert [(r["benchmark"], r["experiment"]) for r in found] == [("mnist_cifar", curve)] * points
        assert all(0 < float(r["miou"]) <= 100 for r in found)

    client = mlflow.MlflowClient(database.store_uri(clone))
    runs = client.search_runs([client.get_experiment_by_name("snnseg").experiment_id])
    assert sorted(r.data.tags["experiment"] for r in runs) == ["ann_fcn", "spiking_deeplab"]
    for r in runs:
        assert r.info.status == "FINISHED" and len(r.info.run_name) <= 40 and r.data.params["neuron.leak"] == "0.99"
        assert r.data.metrics["test/miou"] == pytest.approx(float(next(x["miou"] for x in rows if all(x[k] == r.data.tags[k] for k in ("benchmark", "experiment")))), abs=0.01)
        assert {"pictures.png", "metrics.json", "config.json"} <= {a.path for a in client.list_artifacts(r.info.run_id)}
        assert len(client.get_metric_history(r.info.run_id, "test/miou")) == 2      # two epochs, the last not twice
    artifacts = Path(client.get_run(runs[0].info.run_id).info.artifact_uri.removeprefix("file://"))
    assert artifacts.is_relative_to(clone / "data" / "mlflow")

    assert "Running stage" not in dvc(clone, "repro")
    loop, unrelated = clone / "snnseg" / "training" / "loop.py", clone / "snnseg" / "cli" / "nets.py"
    loop.write_text(loop.read_text() + "\n# changed\n")
    unrelated.write_text(unrelated.read_text() + "\nCHANGED = True\n")
    again = dvc(clone, "repro")
    assert [line for line in again.splitlines() if "Running stage" in line] == ["Running stage 'code':"], "a comment, or a module that no stage needs"
    loop.write_text(loop.read_text() + "CHANGED = True\n")
    dvc(clone, "repro", "code")
    stale = dvc(clone, "status")
    assert "train@mnist_cifar-spiking_deeplab" in stale and "train@mnist_cifar-ann_fcn" in stale and "prepare" not in stale
    assert not (clone / "mlruns").exists()
    strange = subprocess.run(["git", "-C", str(clone), "status", "--porcelain"], capture_output=True, text=True).stdout.split("\n")
    assert {line[3:] for line in strange if line} <= {"dvc.lock", "snnseg/cli/nets.py", "snnseg/training/loop.py"}
