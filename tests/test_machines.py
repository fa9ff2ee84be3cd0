"""Clusters whose machines are lost or come when they are needed, by hand (marker slow): several of Ray's machines on this one.

python -m pytest -m slow -s tests/test_machines.py
"""
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import TINY
from test_cluster_ray import free_ports

from snnseg import config, seal
from snnseg.data.prepare import prepare
from snnseg.training.report import read_journal

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="Ray puts several machines on one for Linux only")]
SETS = [*TINY, "data.mnist_cifar.train=96", "train.batch=4", "train.log_every=1", "optim.lr=0.001", "track.mlflow=false", "train.seed=1", "train.kernels=cpu"]
SWEEP = ["tune.epochs=40", "tune.grace=40", "tune.startup=3", "tune.holdout=0.25", "tune.energy_pictures=2", "tune.trials=4"]
TOKEN = secrets.token_hex(32)       # one for all: Ray reads it once in a process
MACHINE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)


@pytest.fixture
def two_machines(token, environment):
    """A cluster of two machines of one processor each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=MACHINE | {"include_dashboard": False})
    cluster.second = cluster.add_node(**MACHINE)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def growing(token, environment, tmp_path):
    """The address of a cluster whose head computes nothing and whose autoscaler brings up to two machines of one processor."""
    import ray

    port, = free_ports(1)
    kinds = {"head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
             "machine": {"resources": {"CPU": 1, "object_store_memory": 100 * 2**20}, "node_config": {}, "min_workers": 0, "max_workers": 2}}
    none = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands",
            "cluster_synced_files", "rsync_exclude", "rsync_filter")
    told = {"cluster_name": "growing", "max_workers": 2, "available_node_types": kinds, "head_node_type": "head", "auth": {}, "docker": {}, "file_mounts": {},
            "upscaling_speed": 1.0, "idle_timeout_minutes": 5, "file_mounts_sync_continuously": False, **{key: [] for key in none},
            "provider": {"type": "fake_multinode", "gcs_address": f"{ray.util.get_node_ip_address()}:{port}", "use_node_id_as_ip": True,
                         "disable_node_updaters": True, "disable_launch_config_check": True}}
    (tmp_path / "cluster.yaml").write_text(json.dumps(told))
    with open(tmp_path / "log", "w") as log:
        head = subprocess.Popen([str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--port", str(port), "--num-cpus", "0", "--object-store-memory",
                                 "100000000", "--include-dashboard", "false", "--disable-usage-stats", "--autoscaling-config", str(tmp_path / "cluster.yaml")],
                                env=os.environ | {"AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    deadline = time.monotonic() + 60
    while "--block" not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(5)       # its autoscaler
    yield f"127.0.0.1:{port}"
    head.send_signal(signal.SIGTERM)
    head.wait(60)
    while left := [p for p in psutil.process_iter(["cmdline"]) if any(f":{port}" in word for word in p.info["cmdline"] or ())]:     # machines that it brought
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.5)


def command(project: Path, verb: str, *sets: str) -> subprocess.Popen:
    words = [sys.executable, "-m", "snnseg", verb, "mnist_cifar" if verb == "prepare" else "mnist_cifar/spiking_deeplab", *(word for text in [*SETS, *sets] for word in ("--set", text))]
    environment = {key: os.environ[key] for key in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
    return subprocess.Popen(words, cwd=project, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(reached, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)


def ended(process: subprocess.Popen) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0 and "Traceback" not in err, err
    return out, err


@pytest.mark.parametrize("back", [False, True], ids=["gone for good", "back"])
def test_a_training_outlives_a_machine(two_machines, project, back):
    """One of two is cut off in the middle: with `cluster.wait_s` it is waited for, without the training goes on with one worker. Each step is told once."""
    c = config.load(project / "params.yaml", "mnist_cifar/spiking_deeplab", SETS)
    prepare(c)
    asked = [f"cluster.address={two_machines.address}", "train.workers=2", "cluster.gpus_per_worker=0", "train.epochs=10"]
    process = command(project, "train", *asked, f"cluster.wait_s={60 * back}")

    def steps() -> list[int]:
        return [line["step"] for journal in (project / "data" / "run").glob("mnist*/metrics.jsonl") for line in read_journal(journal)]

    until(lambda: len(steps()) >= 60, process)
    two_machines.remove_node(two_machines.second, allow_graceful=False)
    cut = time.monotonic()
    if back:
        until(lambda: time.monotonic() > cut + 10, process)
        two_machines.add_node(**MACHINE)
    _, err = ended(process)
    print(f"{time.monotonic() - cut:.0f} s from the cut to the end")
    assert "a worker was lost; the training goes on from step" in err and ("1 of 2 workers go on" in err) != back
    assert steps() == list(range(1, 241))
    about, = (project / "data" / "run").glob("mnist*/model/about.json")
    assert json.loads(about.read_text())["workers"] == 1 + back


def test_a_training_waits_for_places_that_are_taken_and_ctrl_c_ends_the_wait(two_machines, project):
    """Somebody else has both processors: one line says so; the interrupt is obeyed, and once they are free the same command ends."""
    import ray

    prepare(config.load(project / "params.yaml", "mnist_cifar/spiking_deeplab", SETS))
    asked = [f"cluster.address={two_machines.address}", "train.workers=2", "cluster.gpus_per_worker=0"]
    ray.init(two_machines.address, log_to_driver=False)
    try:
        taken = ray.util.placement_group([{"CPU": 1}, {"CPU": 1}])
        assert taken.wait(30)
        process = command(project, "train", *asked)
        time.sleep(45)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, err = process.communicate(timeout=60)
        print(f"{time.monotonic() - began:.0f} s from the interrupt to the end")
        assert process.returncode == 130 and err.count("waiting until 2 places are free on the cluster") == 1 and "Traceback" not in err, err
        assert err.splitlines()[-1].startswith("snnseg: interrupted before a worker began")
        process = command(project, "train", *asked)
        time.sleep(10)
        ray.util.remove_placement_group(taken)
        ended(process)
    finally:
        ray.shutdown()


def test_a_trial_outlives_its_machine(two_machines, project):
    """It goes on elsewhere from its checkpoint, and is no crash: all four finish, each step of each once."""
    prepare(config.load(project / "params.yaml", "mnist_cifar/spiking_deeplab", SETS))
    process = command(project, "tune", *SWEEP, f"cluster.address={two_machines.address}", "train.checkpoint_every=5")

    def running() -> int:
        return sum(len(read_journal(p)) > 20 and not (p.parent / "outcome.json").exists() for p in (project / "data" / "tune").glob("*/trials/*/metrics.jsonl"))

    until(lambda: running() == 2, process)
    two_machines.remove_node(two_machines.second, allow_graceful=False)
    out, err = ended(process)
    assert "its machine was lost; it goes on" in err and "trials: 4 finished" in out
    attempts = [p.read_text().splitlines() for p in (project / "data" / "tune").glob("*/trials/*/attempts.jsonl")]
    assert sorted(len(lines) for lines in attempts) == [2, 2, 2, 3]
    again, = (lines for lines in attempts if len(lines) == 3)
    assert json.loads(again[1])["from"] > 0
    for journal in (project / "data" / "tune").glob("*/trials/*/metrics.jsonl"):
        assert [line["step"] for line in read_journal(journal)] == list(range(1, 721))


def test_a_store_outlives_a_machine(two_machines, project):
    """The same bytes as in place."""
    pictures = ["data.mnist_cifar.train=8000", "data.mnist_cifar.test=100"]
    process = command(project, "prepare", *pictures, f"cluster.address={two_machines.address}")
    until(lambda: any((project / "data" / "store").glob(".work-*/**/c/*")), process)
    two_machines.remove_node(two_machines.second, allow_graceful=False)
    ended(process)
    c = config.load(project / "params.yaml", "mnist_cifar/spiking_deeplab", [*SETS, *pictures])
    digest = seal.verify(c.store, "")
    c.store.rename(c.store.with_name("of-the-cluster"))
    prepare(c)
    assert seal.verify(c.store, "") == digest


def test_a_cluster_grows_for_what_is_asked(growing, project):
    """From a head that computes nothing: a training of two workers, then a sweep."""
    prepare(config.load(project / "params.yaml", "mnist_cifar/spiking_deeplab", SETS))
    _, err = ended(command(project, "train", f"cluster.address={growing}", "cluster.wait_s=120", "train.workers=2"))
    assert "the cluster has 0 CPUs of 2; waiting 120 s at most for machines" in err
    about, = (project / "data" / "run").glob("mnist*/model/about.json")
    assert json.loads(about.read_text())["workers"] == 2
    out, _ = ended(command(project, "tune", *SWEEP, "tune.epochs=2", f"cluster.address={growing}", "cluster.wait_s=120", "tune.concurrency=2"))
    assert "trials: 4 finished" in out
