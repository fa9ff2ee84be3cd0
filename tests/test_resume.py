"""kill -9 at any moment, the same command again: the same weights, one MLflow run, no step twice."""
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import mlflow
import pytest
from conftest import TINY

from snnseg import config
from snnseg.data import prepare
from snnseg.seal import file_sha256
from snnseg.tracking import database
from snnseg.training import checkpoint
from snnseg.training.report import read_journal

NUMBERS = [*TINY, "train.epochs=6", "train.log_every=1", "train.checkpoint_every=5", "train.validate_every=1"]
STEPS = 36      # of six an epoch


def command(root: Path, *changes: str) -> list[str]:
    return [sys.executable, "-m", "snnseg", "train", "spiking_fcn", "--params", str(root / "params.yaml"), *(w for n in [*NUMBERS, *changes] for w in ("--set", n))]


def journal(root: Path) -> Path | None:
    return next(iter((root / "data" / "run").glob("*/metrics.jsonl")), None)


def outcome(root: Path) -> tuple[str, str, list[int]]:
    """Hashes of the final weights and optimiser, and the steps in metrics.jsonl."""
    folder = journal(root).parent
    return (file_sha256(folder / "model" / "model.safetensors"), file_sha256(checkpoint.folder_of(folder, checkpoint.all_steps(folder)[-1]) / "optim.pt"),
            [line["step"] for line in read_journal(folder / "metrics.jsonl")])


@pytest.fixture
def twins(project, tmp_path):
    """Two projects with the same store."""
    prepare.prepare(config.load(project / "params.yaml", None, NUMBERS))
    other = tmp_path / "other"
    shutil.copytree(project, other)
    return project, other


@pytest.mark.parametrize(("steps", "kills"), [(STEPS, 3), pytest.param(60, 5, marks=pytest.mark.slow)])
def test_kill_at_random_moments(steps, kills, twins, environment):
    (whole, broken), length = twins, f"train.epochs={steps // 6}"
    forked.run(command(whole, length), env=environment, check=True, capture_output=True, timeout=300)
    rng, killed_at = random.Random(0), []
    for _ in range(kills):
        process = forked.Popen(command(broken, length), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        target, deadline = (killed_at[-1] if killed_at else 0) + rng.randint(3, 10), time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:      # wait until it got further, then some more
            lines = read_journal(journal(broken)) if journal(broken) else []
            if lines and lines[-1]["step"] >= target:
                break
            time.sleep(0.005)
        time.sleep(rng.random() * 0.05)
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        killed_at.append(read_journal(journal(broken))[-1]["step"])
    done = forked.run(command(broken, length), env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "goes on from step" in done.stderr, done.stderr
    assert outcome(broken) == outcome(whole) and outcome(broken)[2] == list(range(1, steps + 1))
    assert not list((broken / "data").rglob(".partial*"))

    client = mlflow.MlflowClient(database.store_uri(broken))
    runs = client.search_runs([client.get_experiment_by_name("snnseg").experiment_id])
    assert len(runs) == 1 and runs[0].info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(runs[0].info.run_id, "train/loss")] == list(range(1, steps + 1))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_and_exits_130(twins, environment, number):
    root = twins[0]
    process = forked.Popen(command(root, "track.mlflow=false"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (journal(root) and read_journal(journal(root))):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(number)
    talk = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "The same command goes on from there" in talk and "Traceback" not in talk
    last = read_journal(journal(root))[-1]["step"]
    assert (journal(root).parent / f"step-{last:06d}" / "seal.json").exists()
