"""Sweeps on Ray: faults in the trials, a driver that is killed, and at full length by hand (marker slow)."""
import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from conftest import ROOT, TINY

from snnseg import config, ray_cluster
from snnseg.data.prepare import prepare
from snnseg.errors import Busy, ClusterError, SnnsegError
from snnseg.tracking import database
from snnseg.tuning import ledger, ray_sweep, space, sweep, tune

NAME = "mnist_cifar/spiking_deeplab"
SHORT = ["tune.epochs=2", "tune.startup=3", "tune.holdout=0.25", "tune.energy_pictures=2", "tune.concurrency=2"]
pytestmark = pytest.mark.filterwarnings("default")      # ray's own, of many kinds


def planted(poisoned: set[int], killed: set[int]) -> type:
    """A worker that gives some trials a net that overflows, and kills itself in others after an epoch; made here, so that it travels by value."""
    from snnseg.tuning.ray_trial import Worker

    class Planted(Worker):
        def execute(self, config, folder, tell, stop):
            import os
            import signal

            def last_words(epoch, miou):
                tell(epoch, miou)
                if int(folder.name) in killed:
                    os.kill(os.getpid(), signal.SIGKILL)

            if int(folder.name) in poisoned:
                config = config.model_copy(update={"encode": config.encode.model_copy(update={"std": 1e-38})})
            return super().execute(config, folder, last_words, stop)

    return Planted


def attempts(folder: Path) -> dict[int, list[dict]]:
    """What each trial's process wrote: where it began, how it ended."""
    return {int(p.parent.name): [json.loads(line) for line in p.read_text().splitlines()] for p in sorted(folder.glob("trials/*/attempts.jsonl"))}


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


def accounted(folder: Path, count: int) -> None:
    """Each of so many trials has begun once and was settled once, none came to its end twice, and no step is told twice."""
    told = lines(folder)
    assert sorted(line["trial"] for line in told if "params" in line) == list(range(count))
    assert sorted(line["trial"] for line in told if "state" in line) == list(range(count))
    for number, tried in attempts(folder).items():
        assert sum(line.get("end") == "finished" for line in tried) <= 1, (number, tried)
        steps = [json.loads(line)["step"] for line in (ledger.trial_folder(folder, number) / "metrics.jsonl").read_text().splitlines()]
        assert steps == sorted(set(steps)), number


def test_a_sweep_goes_on_past_a_trial_that_diverges_and_one_that_is_killed(tiny, ray_cluster, capfd):
    c = tiny("spiking_deeplab", *SHORT, "tune.trials=6")
    prepare(c)
    at = sweep.place(c)
    found = tune.tune(c, space.read(c), at, [], Path("params.yaml"), planted({1}, {3}))
    accounted(at.folder, 6)
    states = [t.state for t in found.trials]
    assert states[1] == "not finite" and states[3] == "crashed" and set(states[:1] + states[2:3] + states[4:]) <= {"finished", "stopped"}
    assert found.best.number not in (1, 3) and found.best.state == "finished" and found.test_miou is not None
    assert "gradient norm nan" in found.trials[1].why and "process" in found.trials[3].why
    with open(at.folder / "trials.csv", newline="") as f:
        assert [row["state"] for row in csv.DictReader(f)] == states
    assert {"trials.csv", "best.json", "history.png", "sweep.html"} <= {p.name for p in at.folder.iterdir()} and not (at.folder / ".ray").exists()
    assert not list(at.folder.glob("trials/*/step-*")), "checkpoints of trials that will not go on"
    assert all(t.energy_mj and t.epochs == 2 for t in found.trials if t.state == "finished")
    out, err = capfd.readouterr()
    assert out == "" and err.count("\ntrial ") == 6 and "Traceback" not in err and "Trial " not in err

    before = lines(at.folder)
    again = tune.tune(c, space.read(c), at, [], Path("params.yaml"), planted(set(), set()))
    assert again.best == found.best and lines(at.folder) == before, "a finished sweep executes nothing"


def test_two_sweeps_in_one_folder_are_one_too_many(tiny, ray_cluster):
    from snnseg import lock

    c = tiny("spiking_deeplab", *SHORT)
    prepare(c)
    at = sweep.place(c)
    with lock.held(at.folder, "sweeping"), pytest.raises(Busy, match="is sweeping here"):
        sweep.execute(c, space.read(c), at)


def test_what_is_no_fault_of_a_trial_ends_the_sweep_and_leaves_it_open(tiny, ray_cluster):
    """A full disk in the first trials: exit code 6, nothing settled; once there is room the same trials are run."""
    from snnseg.tuning.ray_trial import Worker

    class Full(Worker):
        def execute(self, config, folder, tell, stop):
            from snnseg.errors import NoSpace

            raise NoSpace(folder, 0)

    c = tiny("spiking_deeplab", *SHORT, "tune.trials=2", "tune.grace=2")
    prepare(c)
    at = sweep.place(c)
    with pytest.raises(SnnsegError, match="no space left") as caught:
        sweep.execute(c, space.read(c), at, worker=Full)
    assert caught.value.exit_code == 6
    book = ledger.Ledger(at.folder)
    begun = [t.params for t in book.open]
    assert begun and not book.settled
    settled = sweep.execute(c, space.read(c), at)
    assert [t.params for t in settled][:len(begun)] == begun and {t.state for t in settled} == {"finished"}
    accounted(at.folder, 2)


def test_concurrency_follows_from_the_resources(monkeypatch):
    def share(*sets: str, **has: float):
        monkeypatch.setattr(ray_cluster, "has", lambda: has)
        return ray_sweep.share(config.load(ROOT / "params.yaml", NAME, sets), print)

    assert share(CPU=2.0) == ({"CPU": 1}, 2) and share(CPU=16.0, GPU=2.0) == ({"CPU": 1, "GPU": 1.0}, 2)
    assert share("tune.gpus_per_trial=0.5", CPU=16.0, GPU=2.0) == ({"CPU": 1, "GPU": 0.5}, 4)
    assert share("tune.cpus_per_trial=4", CPU=16.0)[1] == 4 and share("tune.concurrency=3", CPU=16.0)[1] == 3
    assert share("tune.concurrency=3", "cluster.wait_s=9", CPU=1.0)[1] == 3, "those that wait for a place bring machines"
    assert share("train.workers=2", CPU=5.0)[1] == 2 and share("train.workers=2", CPU=16.0, GPU=4.0)[1] == 2
    with pytest.raises(ClusterError, match="needs 8 GPU, there are 16 CPU and 4 GPU. Lower train.workers"):
        share("train.workers=8", CPU=16.0, GPU=4.0)
    with pytest.raises(ClusterError, match="needs 4 CPU, there are 2 CPU"):
        share("tune.cpus_per_trial=4", CPU=2.0)


def test_a_trial_that_lost_its_machine_is_the_next_again_but_not_for_ever(tiny, tmp_path, capsys):
    """Ray's own words, as it wrote them where a machine and where a process had ended."""
    c = tiny("spiking_deeplab", *SHORT, "tune.trials=2", "cluster.max_failures=2")
    trials = sweep.Sweep(c, space.read(c), tmp_path, ledger.Ledger(tmp_path), lambda found: None)
    first, second = trials.next(), trials.next()
    assert trials.next() is None
    for _ in range(2):
        assert trials.again(first.number) and trials.next() is first
    assert not trials.again(first.number) and trials.next() is None
    assert trials.again(second.number), "each has its own count"
    assert capsys.readouterr().err.count("trial 0: its machine was lost; it goes on from its last checkpoint\n") == 2
    told = tmp_path / "error.txt"
    for words, lost in (("The actor 47bb is unavailable: The actor is temporarily unavailable: RpcError: RPC error: Socket closed rpc_code: 14", True),
                        ("The actor died unexpectedly before finishing this task.\n\tactor_id: 47bb\nThe actor died because its node has died. Node Id: 5c", True),
                        ("The actor died unexpectedly before finishing this task.\nThe actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR", False)):
        told.write_text(words)
        assert ray_sweep._lost_machine(str(told)) == lost
    assert not ray_sweep._lost_machine(None)


@pytest.fixture
def place(project: Path) -> Path:
    """A project whose sample is made."""
    prepare(config.load(project / "params.yaml", NAME, TINY))
    return project


def command(*more: str, sets: tuple[str, ...] = (*TINY, *SHORT)) -> list[str]:
    return [sys.executable, "-m", "snnseg", "tune", NAME, *(word for text in sets for word in ("--set", text)), *more]


def killed_when(settled: int, project: Path, environment: dict[str, str], words: list[str], limit_s: float) -> Path:
    """Start a sweep in a process group of its own, end it with SIGKILL once so many trials are settled and others run; its folder."""
    process = subprocess.Popen(words, cwd=project, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and process.poll() is None:
            folders = list((project / "data" / "tune").glob("*/ledger.jsonl"))
            if folders and sum('"state"' in line for line in folders[0].read_text().splitlines()) >= settled:
                break
            time.sleep(0.05)
        assert process.poll() is None, "the sweep was over before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return folders[0].parent


def interrupted(project: Path, environment: dict[str, str], words: list[str], limit_s: float) -> None:
    """Ctrl-C once the first trial has told something: one closing line, exit code 130."""
    process = subprocess.Popen(words, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    try:
        deadline = time.monotonic() + limit_s
        while not list((project / "data" / "tune").glob("*/trials/*/metrics.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and out == "" and "Traceback" not in err and err.splitlines()[-1].startswith("snnseg: interrupted"), err


@pytest.mark.slow
def test_the_driver_is_ended_twice_and_the_same_command_goes_on(place, environment, tmp_path):
    """Ctrl-C in the first trial, kill -9 with two of six settled: six are executed in all, none twice; MLflow has a parent and six children.

    Nothing is written to the home directory: Ray's token for its local cluster would go there.
    """
    home = tmp_path / "home"
    home.mkdir()
    environment, words = environment | {"HOME": str(home)}, command("--trials", "6")
    interrupted(place, environment, words, 120)
    folder = killed_when(2, place, environment, words, 120)
    before = {t.number for t in ledger.Ledger(folder).settled}
    untouched = {n: told for n, told in attempts(folder).items() if n in before}
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    accounted(folder, 6)
    after = attempts(folder)
    assert len(before) >= 2 and {n: after[n] for n in untouched} == untouched, "a settled trial was run again"
    assert "train it: snnseg train" in done.stdout and "Traceback" not in done.stderr and "Trial " not in done.stderr
    client = mlflow.MlflowClient(database.store_uri(place))
    runs = client.search_runs([client.get_experiment_by_name("snnseg").experiment_id])
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    assert len(parents) == 1 and parents[0].info.status == "FINISHED" and sorted(r.data.tags["trial"] for r in runs if r is not parents[0]) == list("012345")
    strays = [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(folder).encode() in _read(p)] if Path("/proc").exists() else []
    assert not strays
    assert not [p for p in home.rglob("*") if p.is_file() and "matplotlib" not in str(p)]

    applied = subprocess.run([*words, "--apply", "best"], cwd=place, env=environment, capture_output=True, text=True, timeout=60)
    assert applied.returncode == 0 and "train it" not in applied.stdout and applied.stderr == "", applied.stderr
    best = json.loads((folder / "best.json").read_text())["best"]["params"]
    assert config.load(place / "params.yaml", NAME).neuron.leak == best["neuron.leak"]
    shown = subprocess.run([*words, "--trials", "6"], cwd=place, env=environment, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0 and shown.stdout == done.stdout, "after --apply best the same command finds the same sweep"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
def test_trials_that_two_workers_train_are_those_of_one(tiny, ray_cluster):
    """The same sweep twice, of trials by the plain loop and by Ray Train: the same numbers are drawn, the same curves come of them, in the same files."""
    def swept(workers: str) -> list[ledger.Trial]:
        c = tiny("spiking_deeplab", *SHORT, "tune.trials=4", "tune.concurrency=1", "optim.lr=0.0001", f"tune.name=of-{workers}", f"train.workers={workers}", "train.kernels=cpu",
                 "cluster.gpus_per_worker=0")
        prepare(c)
        at = sweep.place(c)
        found = tune.tune(c, space.read(c), at, [], Path("params.yaml")).trials
        accounted(at.folder, 4)
        assert not list(at.folder.glob("trials/*/step-*"))
        return found

    alone, together = swept("auto"), swept("2")
    assert [t.params for t in together] == [t.params for t in alone] and [t.state for t in together] == [t.state for t in alone]
    for one, two in zip(alone, together, strict=True):
        assert [epoch for epoch, _ in two.curve] == [epoch for epoch, _ in one.curve]
        assert [miou for _, miou in two.curve] == pytest.approx([miou for _, miou in one.curve], abs=0.5)
        assert two.energy_mj == (one.energy_mj and pytest.approx(one.energy_mj, rel=0.02)), "none for a trial that was stopped"
    assert any(t.energy_mj for t in together)


# at full length, by hand: python -m pytest -m slow -s tests/test_tune.py


@pytest.mark.slow
def test_fifty_trials_of_the_sample(project, environment):
    """Acceptance figure: 15 minutes on two cores with the numbers as delivered."""
    prepare(config.load(project / "params.yaml", NAME))
    start = time.perf_counter()
    done = subprocess.run(command("--trials", "50", sets=()), cwd=project, env=environment, capture_output=True, text=True)
    print(f"{shlex.join(command('--trials', '50', sets=())[1:])}: {time.perf_counter() - start:.0f} s on {os.cpu_count()} cores\n{done.stdout}")
    assert done.returncode == 0, done.stderr
    accounted(next((project / "data" / "tune").glob("*/ledger.jsonl")).parent, 50)


@pytest.mark.slow
def test_fifty_trials_with_a_driver_that_is_killed_at_the_twentieth(place, environment):
    words = command("--trials", "50")
    folder = killed_when(20, place, environment, words, 1200)
    before = {n: told for n, told in attempts(folder).items() if n in {t.number for t in ledger.Ledger(folder).settled}}
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    accounted(folder, 50)
    assert {n: attempts(folder)[n] for n in before} == before
    print(f"settled when killed: {len(before)}; executed in all: 50; twice: 0")


@pytest.mark.slow
def test_fifty_trials_of_which_five_diverge(tiny, ray_cluster):
    c = tiny("spiking_deeplab", *SHORT, "tune.trials=50")
    prepare(c)
    at, bad = sweep.place(c), {4, 11, 23, 37, 49}
    found = tune.tune(c, space.read(c), at, [], Path("params.yaml"), planted(bad, set()))
    accounted(at.folder, 50)
    assert {t.number for t in found.trials if t.state == "not finite"} == bad and found.best.number not in bad
    print(f"{found.states}, best: trial {found.best.number}")
