"""A trained net on noisy inputs: the clean score, the same bytes for a net and its twin, files, MLflow."""
import csv
import json

import numpy as np
import pytest

from snnseg.data import prepare, store
from snnseg.errors import StoreMissing
from snnseg.evaluation import robustness as scored
from snnseg.report import result, robustness, side_by_side
from snnseg.tracking import database, measurements

FEW = "robustness.pictures=null", "robustness.gaussian=[30.0,90.0]", "robustness.salt_pepper=[0.3]", "robustness.draws=3"


@pytest.fixture
def noisy(trained):
    """A tiny trained net with few levels of noise."""
    return lambda experiment, *overrides: trained(experiment, *FEW, *overrides)


def rows(numbers):
    with open(numbers.result_folder / "robustness.csv", newline="") as f:
        return list(csv.DictReader(f))


@pytest.mark.parametrize("coding", ["direct", "signed_poisson"])
def test_a_net_and_its_twin_see_the_same_bytes(noisy, coding):
    spiking, twin = noisy("spiking_fcn", f"encode.coding={coding}"), noisy("ann_fcn")
    told = robustness.write(spiking).summary
    assert told == json.loads((spiking.result_folder / "robustness.json").read_text())
    robustness.write(twin)
    mine, theirs = rows(spiking), rows(twin)
    assert [(r["noise"], r["level"], r["draw"], r["sha256"]) for r in mine] == [(r["noise"], r["level"], r["draw"], r["sha256"]) for r in theirs]
    # the untouched picture and three draws of each level; a blur draws nothing
    assert len(mine) == (1 + 2 * 3) + (1 + 3) + (1 + 1) and len({r["sha256"] for r in mine}) == 2 * 3 + 3 + 1 + 1
    assert told["miou"] == result.measure(spiking.model_folder, spiking).metrics["miou"], "without noise it is the clean score"
    for kind, points in told["noise"].items():
        assert points[0]["level"] == 0 and points[0]["miou"] == told["miou"] and points[0]["drop"] == 0 and points[0]["spread"] == 0
        for p in points:
            scores = [float(r["miou"]) for r in mine if (r["noise"], float(r["level"])) == (kind, p["level"])]
            assert p["draws"] == len(scores) and p["miou"] == pytest.approx(np.mean(scores), abs=1e-3)
            assert p["drop"] == pytest.approx(100 * (told["miou"] - p["miou"]) / told["miou"])
            assert p["spread"] == pytest.approx(np.std(scores, ddof=1) if len(scores) > 1 else 0, abs=1e-3)
    assert "drop" in robustness.lines(told) and "salt pepper" in robustness.lines(told)


def test_events_have_kinds_of_their_own(noisy):
    numbers = noisy("ddd17/spiking_deeplab", "robustness.jittered=[]")
    told = robustness.measure(numbers.model_folder, numbers).summary
    assert list(told["noise"]) == ["gaussian", "dropped", "added"]
    all_lost = numbers.model_copy(update={"robustness": numbers.robustness.model_copy(update={"dropped": [1.0], "gaussian": [], "added": []})})
    (clean, lost), = robustness.measure(numbers.model_folder, all_lost).summary["noise"].values()
    assert clean["miou"] == told["miou"] and lost["spread"] == 0, "without events every draw is the same"


def test_only_the_frames_that_are_seen_are_disturbed(tiny):
    numbers = tiny("ddd17/spiking_deeplab", "data.ddd17.sample={train: 12, test: 8}")
    prepare.prepare(numbers)
    split = store.read(numbers.store, "test", numbers.timesteps)
    few = split.first(3)
    assert len(few) == 3 and len(few.input) < len(split.input)
    for mine, whole in zip(few.take(np.arange(3)), split.take(np.arange(3)), strict=True):
        assert np.array_equal(mine, whole)
    assert split.first(None) is split and split.first(10_000) is split


def test_a_score_of_nothing_has_no_drop():
    assert scored.drop(0.0, 0.0) is None and scored.drop(50.0, 40.0) == 20.0


def test_mlflow_gets_the_curves(noisy):
    import mlflow

    numbers = noisy("ann_deeplab", "track.mlflow=true")
    result.write(numbers)
    found = robustness.write(numbers)
    measurements.log_robustness(numbers, found.summary, found.about)
    client = mlflow.MlflowClient(database.store_uri(numbers.root))
    mine, = client.search_runs([client.get_experiment_by_name("snnseg").experiment_id])
    assert mine.data.metrics["robustness/gaussian/30"] == pytest.approx(found.summary["noise"]["gaussian"][1]["miou"])
    assert mine.data.metrics["robustness_drop/salt_pepper/0.3"] == pytest.approx(found.summary["noise"]["salt_pepper"][1]["drop"])
    assert {"robustness.json", "robustness.csv"} <= {a.path for a in client.list_artifacts(mine.info.run_id)}


def test_the_report_has_the_curves_of_what_was_run(noisy):
    """A net that was not measured has no row, not one of zeros."""
    numbers = noisy("ann_fcn")
    place = numbers.result_folder.parent.parent, numbers.report, ["mnist_cifar/ann_fcn"]
    result.write(numbers)
    side_by_side.write(*place)
    with open(numbers.report / "robustness.csv", newline="") as f:
        assert list(csv.DictReader(f)) == []
    told = robustness.write(numbers).summary
    side_by_side.write(*place)
    with open(numbers.report / "robustness.csv", newline="") as f:
        found = list(csv.DictReader(f))
    assert len(found) == sum(map(len, told["noise"].values())) == 3 + 2 + 2
    assert float(next(r for r in found if r["level"] == "90.0")["drop"]) == pytest.approx(told["noise"]["gaussian"][2]["drop"], abs=1e-3)


def test_a_net_that_is_not_there_is_named(tiny):
    with pytest.raises(StoreMissing, match="snnseg train"):
        robustness.write(tiny("spiking_fcn"))
