"""MLflow: each point once, whatever happened, and never the reason that a training ends."""

import json
import time
from urllib.parse import unquote

import mlflow
import pytest

from snnseg import sections
from snnseg.tracking import database, measurements, trainings
from snnseg.training.report import Journal
from snnseg.training.run import Run

ABOUT = {"uid": "uid-1", "fingerprint": "abcdef", "commit": "c", "store": "s", "device": "cpu", "steps": 9}


@pytest.fixture
def run(tiny) -> Run:
    numbers = tiny("spiking_fcn", "track.mlflow=true")
    folder = numbers.root / "data" / "run" / "x"
    folder.mkdir(parents=True)
    return Run(folder, numbers, {**ABOUT, **numbers.about})


def tracker_of(run: Run) -> trainings.Tracker:
    return trainings.Tracker(run.folder, run.config, run.about)


def history(run: Run, key: str) -> list[tuple[int, float]]:
    client = mlflow.MlflowClient(database.store_uri(run.config.root))
    runs = client.search_runs([client.get_experiment_by_name("snnseg").experiment_id])
    assert len(runs) == 1
    return [(m.step, m.value) for m in client.get_metric_history(runs[0].info.run_id, key)]


def test_points_once_over_restarts(run):
    """Three processes, each seeing more of the journal, the second one killed before it sent its last lines."""
    journal = Journal(run.folder / "metrics.jsonl")
    first = tracker_of(run)
    first.begin(0, 9, 1)
    for step in (1, 2, 3):
        journal.numbers(step, {"epoch": 0, "train/loss": 1 / step, "test/iou/x": None})
    first.end("interrupted")
    assert history(run, "train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    second = tracker_of(run)
    second.begin(2, 9, 1)                       # went on from step 2: step 3 is computed again
    journal.begin(2, 9, 1)
    for step in (3, 4):
        journal.numbers(step, {"epoch": 0, "train/loss": 1 / step})
    third = tracker_of(run)
    third.begin(4, 9, 1)
    third.end("finished")
    assert [s for s, _ in history(run, "train/loss")] == [1, 2, 3, 4]


def scores(**changes):
    return {"miou": 50.0, "background_miou": 48.0, "iou": {"a": None}, "statistics": "running", "timesteps": 2, "trained_timesteps": 2, **changes}


def with_files(run: Run) -> dict:
    run.config.result_folder.mkdir(parents=True, exist_ok=True)
    for name in ("pictures.png", "metrics.json", "classes.csv"):
        (run.config.result_folder / name).write_text(json.dumps(scores()))
    (run.config.result_folder / "about.json").write_text(json.dumps(run.about))
    return run.about


def test_result_joins_the_run(run):
    tracker_of(run).end("finished")
    for _ in range(2):
        measurements.log_result(run.config, scores(), with_files(run))
    assert history(run, "test/miou") == [(9, 50.0)]
    measurements.log_result(run.config, scores(statistics="batch", miou=40.0), with_files(run))
    assert history(run, "test/miou") == [(9, 50.0)] and history(run, "test_T2_batch/miou") == [(9, 40.0)]


def test_replay_rebuilds_what_is_lost(run):
    """The database is removed; runs and results on the disk bring it back."""
    (run.folder / "about.json").write_text(json.dumps(with_files(run)))
    (run.folder / "model").mkdir()
    Journal(run.folder / "metrics.jsonl").numbers(1, {"epoch": 0, "train/loss": 1.0})
    for _ in range(2):
        assert measurements.replay([run.config]) == ["x", "mnist_cifar/spiking_fcn"]
    assert history(run, "train/loss") == [(1, 1.0)] and history(run, "test/miou") == [(9, 50.0)]


def test_a_short_training_of_a_pipeline_waits_for_the_report(run, monkeypatch):
    """Nothing is sent by it, all of it by `report`, once; what is not finished goes on waiting; a longer one, or one that fails, is sent as it goes."""
    def trained(steps: int, status: str) -> None:
        (run.folder / "about.json").write_text(json.dumps(run.about))
        journal, tracker = Journal(run.folder / "metrics.jsonl"), trainings.patient_trackers(run)[0]
        tracker.begin(0, steps, 1)
        journal.begin(0, steps, 1)
        for step in range(1, steps + 1):
            journal.numbers(step, {"epoch": 0, "train/loss": 1 / step})
            tracker.numbers(step, {})
        tracker.end(status)

    mark = run.folder / trainings.UNTRACKED
    trained(2, "finished")
    trainings.send_waiting(run.config)              # no net is there: it may be in progress
    assert mark.exists() and not (run.config.root / "data" / "mlflow").exists()
    (run.folder / "model").mkdir()
    trainings.send_waiting(run.config)
    assert history(run, "train/loss") == [(1, 1.0), (2, 0.5)] and not mark.exists()
    trained(3, "failed")
    assert [s for s, _ in history(run, "train/loss")] == [1, 2, 3] and not mark.exists()
    monkeypatch.setattr(trainings, "PATIENCE_S", 0.0)
    trained(4, "finished")
    assert [s for s, _ in history(run, "train/loss")] == [1, 2, 3, 4] and not mark.exists()


def test_unwritable_mlflow_is_a_warning(run, capsys):
    (run.config.root / "data" / "mlflow").write_text("a file where the folder should be")
    tracker = tracker_of(run)
    tracker.begin(0, 9, 1)
    tracker.end("finished")
    measurements.log_result(run.config, scores(), run.about)
    told = capsys.readouterr().err
    assert told.count("warning: MLflow") == 2 and "metrics.jsonl" in told and "Traceback" not in told


def test_tracking_can_be_off(run):
    off = run.config.model_copy(update={"track": sections.Track(mlflow=False, system_metrics=False, experiment="snnseg")})
    assert trainings.trackers(Run(run.folder, off, run.about)) == []
    measurements.log_result(off, {}, {})
    assert not (run.config.root / "data" / "mlflow").exists()


def test_the_runs_behind_the_results_are_put_side_by_side(tiny):
    """Those alone, by their uid: neither an older run of an experiment nor one without a result."""
    names = ["mnist_cifar/spiking_fcn", "mnist_cifar/ann_fcn", "mnist_cifar/ann_deeplab"]
    assert measurements.addresses(tiny("spiking_fcn", "track.mlflow=true"), names).keys() == {"runs"}
    ids = {}
    for name, uid in [(names[0], "older"), *((name, name[-3:] + name[:2] + str(len(name))) for name in names[:2])]:
        numbers = tiny(name.split("/")[1], "track.mlflow=true")
        _, ids[name] = database.find_or_create(numbers, {**ABOUT, **numbers.about, "uid": uid})
        numbers.result_folder.mkdir(parents=True, exist_ok=True)
        (numbers.result_folder / "about.json").write_text(json.dumps({"uid": uid}))
    _, (benchmark, path) = measurements.addresses(numbers, names).items()
    assert benchmark == "compare mnist_cifar" and json.loads(unquote(path.split("runs=")[1].split("&")[0])) == [ids[name] for name in names[:2]]


def test_what_the_machine_does_is_an_option(tiny, monkeypatch):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    found = {}
    for asked in (True, False):
        numbers = tiny("spiking_fcn", "track.mlflow=true", f"track.system_metrics={asked}".lower())
        run = Run(numbers.root / "data" / "run" / f"{asked}", numbers, {**ABOUT, **numbers.about, "uid": f"{asked}"})
        run.folder.mkdir(parents=True)
        tracker = tracker_of(run)
        tracker.begin(0, 9, 1)
        time.sleep(1)
        tracker.end("finished")
        found[asked] = tracker.client.get_run(tracker.id).data.metrics
    assert "system/cpu_utilization_percentage" in found[True] and not found[False]


def test_a_run_is_named_for_people(tiny):
    """The net is whole in it, whatever has to go."""
    told = [database.run_name(tiny(*how), "d80a77") for how in (("spiking_fcn",), ("spiking_deeplab",), ("spiking_fcn", "encode.coding=signed_poisson"), ("ann_deeplab",))]
    assert told == ["mnist_cifar/spiking_fcn·direct·T2·d80a", "mnist_cifar/spiking_deeplab·T2·d80a", "mnist_cifar/spiking_fcn·T2·d80a", "mnist_cifar/ann_deeplab·T1·d80a"]
    assert all(len(name) <= 40 for name in told)
