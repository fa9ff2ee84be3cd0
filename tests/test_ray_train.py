"""Training through Ray: the same numbers as in place, workers that are killed, errors that reach the terminal, clusters that are not there."""
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY

from snnseg import config as configs
from snnseg.data import prepare
from snnseg.errors import ClusterError, ConfigError, DataError, NotFinite, Unusable
from snnseg.evaluation import evaluate
from snnseg.models import saved, zoo
from snnseg.training import checkpoint, ray_train, run
from snnseg.training.attempt import Attempt
from snnseg.training.report import Reporters, read_journal

NUMBERS = [*TINY, "data.mnist_cifar.train=24", "train.batch=4", "train.log_every=1", "optim.lr=0.001", "track.mlflow=false", "train.seed=1"]    # 6 steps an epoch
THROUGH_RAY = ["cluster.address=local", "cluster.gpus_per_worker=0"]


@pytest.fixture
def stored(project):
    """A project with its store; `make(...)` is its config with some numbers changed."""
    def make(*changes: str, experiment: str = "spiking_deeplab") -> configs.Config:
        return configs.load(project / "params.yaml", experiment, [*NUMBERS, *changes])

    prepare.prepare(make())
    return make


def outcome(config) -> tuple[dict[int, dict], np.ndarray, dict]:
    """Lines of the journal by step, the confusion of the test split, and about.json; the run is put aside."""
    folder, = (config.root / "data" / "run").glob("mnist*")
    lines = read_journal(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == sorted({line["step"] for line in lines}), "a step twice"
    about = json.loads((folder / "model" / "about.json").read_text())
    model = zoo.build(config)
    saved.read_weights(folder / "model" / "model.safetensors", model)
    matrix = evaluate.confusion(model, run.loaded(config).test, config, torch.device("cpu")).matrix
    folder.rename(folder.with_name(f"aside-{time.monotonic_ns()}"))
    return {line.pop("step"): line for line in lines}, matrix, about


def assert_same(found, expected, within=1e-5):
    assert found[0].keys() == expected[0].keys()
    for step, line in expected[0].items():
        for name in ("train/loss", "train/epoch_loss", *(["test/miou"] if "test/miou" in line else [])):
            assert found[0][step][name] == pytest.approx(line[name], abs=within), (step, name)
    assert np.array_equal(found[1], expected[1])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, ray_cluster):
    """What comes of 24 steps through Ray, with so many workers; each is trained once."""
    @functools.cache
    def of(workers: int, seed: int) -> tuple[dict[int, dict], np.ndarray, dict]:
        root = tmp_path_factory.mktemp("undisturbed")
        shutil.copy(ROOT / "params.yaml", root)
        config = configs.load(root / "params.yaml", "spiking_deeplab", [*NUMBERS, *THROUGH_RAY, "train.epochs=4", f"train.workers={workers}", f"train.seed={seed}"])
        prepare.prepare(config)
        run.train(config)
        return outcome(config)

    return of


def test_one_worker_in_place_one_and_two_through_ray_are_the_same(stored, undisturbed, one_thread):
    """In place on one thread, as each of Ray's workers has here. Gradients of two are added in another order: of a spike nearer to the threshold than that, all later
    losses tell, on one processor with this seed, on another with that. So the first of six seeds that has none within 24 steps is looked for.
    """
    def in_place(seed: int) -> tuple[dict[int, dict], np.ndarray, dict]:
        config = stored("train.epochs=4", f"train.seed={seed}")
        run.train(config)
        return outcome(config)

    def parts(found, expected) -> bool:
        return any(abs(found[0][step]["train/loss"] - line["train/loss"]) > 1e-5 for step, line in expected[0].items())

    alone = in_place(1)
    assert len(alone[0]) == 24 and "workers" not in alone[2]
    assert_same(undisturbed(1, 1), alone)
    seed = 1
    while parts(undisturbed(2, seed), alone) and seed < 6:
        seed += 1
        alone = in_place(seed)
    for workers in (1, 2):
        found = undisturbed(workers, seed)
        assert_same(found, alone)
        assert found[2]["workers"] == workers and found[2]["fingerprint"] == alone[2]["fingerprint"]


def test_a_worker_killed_in_an_epoch(stored, undisturbed, capsys):
    """The second of two, once 8 of 24 steps are told: the run ends by itself with the numbers of one that nobody disturbed."""
    config, killed = stored(*THROUGH_RAY, "train.workers=2", "train.epochs=4"), []
    expected = undisturbed(2, 1)

    def kill():
        while not killed:
            time.sleep(0.05)
            for journal in (config.root / "data" / "run").glob("mnist*/metrics.jsonl"):
                if len(read_journal(journal)) >= 8 and (told := Attempt(journal.parent).read("rank-1.json")):
                    os.kill(told["pid"], signal.SIGKILL)
                    killed.append(told["pid"])

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    run.train(config)
    thread.join(1)
    assert killed
    told = capsys.readouterr()
    assert "a worker was lost; the training goes on from step" in told.err and told.out == ""
    assert_same(outcome(config), expected, within=0)


def failing(config):
    """A worker's part of the data that only the second cannot read; the first waits for it."""
    if torch.distributed.get_rank() == 1:
        raise DataError("pictures/7.png", "cannot be decoded", "Replace it")
    return run.loaded(config)


def test_the_first_real_error_of_a_worker_is_what_is_raised(stored, ray_cluster):
    ray_cluster.cloudpickle.register_pickle_by_value(sys.modules[__name__])         # workers do not know the tests
    config = stored(*THROUGH_RAY, "train.workers=2")
    data = run.loaded(config)
    folder = config.root / "data" / "run" / "failing"
    folder.mkdir(parents=True)
    with pytest.raises(DataError, match=r"pictures/7.png: cannot be decoded. Replace it") as error:
        ray_train.fit(config, failing, len(data.train), data.digest, folder, Reporters([]), lambda: False, "f", [], print)
    assert error.value.exit_code == 4


@pytest.mark.slow
def test_a_loss_that_is_not_finite_names_the_samples(stored, ray_cluster):
    """On its way here it is an error as the one above; that two ranks find and name it alike is in test_ranks."""
    config = stored(*THROUGH_RAY, "train.workers=2", "optim.lr=1000", experiment="ann_deeplab")
    config = config.model_copy(update={"optim": config.optim.model_copy(update={"lr": 1e37})})
    with pytest.raises(NotFinite, match="on training samples") as error:
        run.train(config)
    assert error.value.exit_code == 7 and str(error.value).split("samples ")[1].partition(".")[0].count(",") == config.train.batch - 1


def test_more_workers_than_there_is_room_for_is_said_at_once(stored, ray_cluster):
    began = time.monotonic()
    with pytest.raises(ClusterError, match="it has 4 processors, train.workers asks for 5. Set train.workers to 4 or less") as error:
        run.train(stored(*THROUGH_RAY, "train.workers=5", "train.batch=8"))
    assert error.value.exit_code == 9
    with pytest.raises(ClusterError, match="it has 0 GPUs, train.workers asks for 2. Set cluster.gpus_per_worker=0"):
        run.train(stored("cluster.address=local", "train.workers=2", "cluster.gpus_per_worker=1"))
    with pytest.raises(ConfigError, match="a batch has 3"):
        run.train(stored(*THROUGH_RAY, "train.workers=4", "train.batch=3"))
    assert time.monotonic() - began < 20


def command(project, *changes):
    return [sys.executable, "-m", "snnseg", "train", "spiking_deeplab", "--params", str(project / "params.yaml"),
            *(word for number in [*NUMBERS, *changes] for word in ("--set", number))]


@pytest.mark.parametrize("listens", [False, True])
def test_a_cluster_that_is_not_there(stored, project, environment, listens):
    """Nobody at the port, or somebody who is no Ray: one line with the address and what to start, within 20 s."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        if listens:
            door.listen()
        address = f"127.0.0.1:{door.getsockname()[1]}"
        began = time.monotonic()
        done = subprocess.run(command(project, f"cluster.address={address}"), env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 9 and time.monotonic() - began < 25
    told = done.stderr.strip().splitlines()
    assert len(told) == 1 and told[0].startswith(f"snnseg: {address}: no Ray cluster answers") and "ray start --head" in told[0]


def test_a_place_for_copies_that_cannot_be_written_is_said_before_training(stored, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for place in (str(tmp_path / "file"), "nosuch://bucket/x"):
        with pytest.raises(Unusable, match="cluster.storage"):
            run.train(stored(f"cluster.storage={place}"))


@pytest.mark.parametrize("place", ["copies", "memory://copies"])
def test_a_training_goes_on_from_its_copies(stored, place, capsys):
    """The run's folder is lost after 7 of 12 steps; the same numbers all the same, and the same run."""
    run.train(stored())
    expected = outcome(stored())
    config = stored(f"cluster.storage={place}", "train.checkpoint_every=1")
    calls, asked = iter(range(100)), run.Stop.__call__
    run.Stop.__call__ = lambda self: next(calls) == 8      # of 6 steps, 2 batches of validation and a step
    try:
        with pytest.raises(KeyboardInterrupt):
            run.train(config)
    finally:
        run.Stop.__call__ = asked
    folder, = (config.root / "data" / "run").glob("mnist*")
    steps, uid = checkpoint.all_steps(folder), json.loads((folder / "about.json").read_text())["uid"]
    folder.rename(folder.with_name("lost"))
    run.train(config)
    assert f"step {steps[-1]} was brought from {place}" in capsys.readouterr().err
    found = outcome(config)
    assert found[2]["uid"] == uid
    assert_same(found, expected, within=0)


def test_one_worker_in_place_knows_nothing_of_ray(stored, project, environment):
    text = ("import sys; from snnseg import config; from snnseg.training import run; "
            f"run.train(config.load(sys.argv[1], 'ann_fcn', {NUMBERS!r})); assert not 'ray' in sys.modules")
    done = subprocess.run([sys.executable, "-c", text, str(project / "params.yaml")], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def journal_steps(project):
    found = list((project / "data" / "run").glob("mnist*/metrics.jsonl"))
    return [line["step"] for line in read_journal(found[0])] if found else []


@pytest.mark.slow
def test_three_workers_and_three_drivers_killed(stored, project, environment):
    """kill -9 of a worker three times, then of the command three times: the same command ends it, one MLflow run, no step twice."""
    import mlflow

    from snnseg.tracking import database

    asked = command(project, "track.mlflow=true", "train.epochs=40", "cluster.gpus_per_worker=0", "train.workers=2", "train.kernels=cpu")

    def reached(count, process):
        deadline = time.monotonic() + 300
        while len(journal_steps(project)) < count and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)

    def begun():
        return subprocess.Popen(asked, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    process = begun()
    for k in range(3):
        reached(20 * (k + 1), process)
        folder, = (project / "data" / "run").glob("mnist*/workers")
        os.kill(Attempt(folder.parent).read(f"rank-{k % 2}.json")["pid"], signal.SIGKILL)
        while Attempt(folder.parent).read("begun.json"):        # until the attempt is cleared away
            time.sleep(0.01)
        while not Attempt(folder.parent).read("begun.json"):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
    for k in range(3):
        reached(100 + 40 * k, process)
        process.kill()
        process.communicate()           # also closes its pipes
        process = begun()
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0 and "goes on from step" in err, err
    assert out.count("\n") == 1
    assert journal_steps(project) == list(range(1, 241))
    client = mlflow.MlflowClient(database.store_uri(project))
    runs = client.search_runs([client.get_experiment_by_name("snnseg").experiment_id])
    assert len(runs) == 1 and runs[0].info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(runs[0].info.run_id, "train/loss")] == list(range(1, 241))
