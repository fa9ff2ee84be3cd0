"""A spiking net at other numbers of time steps: one pass is all shorter runs, other trainings are runs of their own, files, MLflow, curves."""
import csv
import json
import sys

import numpy as np
import pytest
import torch
from conftest import SMALL, TINY

from snnseg import config
from snnseg.cli import main
from snnseg.data import store
from snnseg.errors import ConfigError, StoreError, StoreMissing
from snnseg.evaluation import evaluate, tally
from snnseg.evaluation import timesteps as scored
from snnseg.evaluation.confusion import Confusion
from snnseg.models import zoo
from snnseg.models.inputs import coded
from snnseg.report import result, side_by_side, timesteps, timesteps_table
from snnseg.tracking import database, measurements
from snnseg.training import loop, run

CPU = torch.device("cpu")
FIVE = [1, 2, 3, 5, 9]
ALL = "time_steps.pictures=null", "time_steps.inference=[1,3,5]", "time_steps.trained=[1]"


def made_up(numbers, frames=None):
    """A split of 20 pictures, or of windows of so many frames of events."""
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (20, 32, 32)).astype(np.uint8)
    masks[:, :3] = store.VOID
    if frames is None:
        return store.Split(rng.integers(0, 256, (20, 32, 32, 3)).astype(np.uint8), masks, {})
    window_MT = np.arange(20 - frames + 1)[:, None] + np.arange(frames)
    return store.Split(rng.integers(0, 40, (20, 2, 32, 32)).astype(np.uint16), masks, {"sensor": [64, 64], "gain": 1.0}, window_MT)


def of_some_statistics(numbers, split):
    """A net that is not trained, whose norms have seen the split."""
    model = zoo.build(numbers)
    with torch.no_grad():
        for _ in range(5):
            model.train()(coded(split.take(np.arange(8))[0], np.arange(8), numbers, CPU, ("train", 0)))
    return model.eval()


def alone(model, split, numbers, T):
    """The confusion of a run of T steps by itself."""
    total = tally.begun(Confusion.empty(numbers.classes), CPU)
    for batch, called in evaluate.predictions(model, split, numbers, CPU, timesteps=T):
        total += tally.counted(batch.mask_BHW, called, numbers.classes)
    return tally.read(total).matrix


@pytest.mark.parametrize("experiment", ["spiking_deeplab", "spiking_fcn"])
@pytest.mark.parametrize(("norm", "coding", "rule"), [("bntt", "direct", "hold"), ("bntt", "signed_poisson", "cycle"), ("bntt", "direct", "skip"),
                                                      ("tdbn", "poisson", "hold")])
def test_one_pass_is_all_shorter_runs(tiny, experiment, norm, coding, rule):
    """5 of 5 T, within the three trained time steps and beyond."""
    numbers = tiny(experiment, f"model.norm={norm}", f"encode.coding={coding}", "encode.timesteps=3")
    split = made_up(numbers)
    model = scored.by_rule(of_some_statistics(numbers, split), rule)
    found = scored.confusions(model, split, numbers, CPU, FIVE[::-1])
    same = [np.array_equal(found[T].matrix, alone(model, split, numbers, T)) for T in FIVE]
    assert list(found) == FIVE and sum(same) == 5
    assert len({found[T].matrix.tobytes() for T in FIVE}) > 1, "other T, other answers"
    x = coded(split.take(np.arange(2))[0], np.arange(2), numbers, CPU, ("evaluate", 0), 9)
    with torch.no_grad():
        after_five = scored.Prefixes(model, FIVE)(x).unflatten(0, (5, 2))[3]
        torch.testing.assert_close(after_five, model(coded(split.take(np.arange(2))[0], np.arange(2), numbers, CPU, ("evaluate", 0), 5)))


def test_the_rule_is_a_copy_s(tiny):
    numbers = tiny("spiking_fcn")
    split = made_up(numbers)
    model = of_some_statistics(numbers, split)
    found = {rule: alone(scored.by_rule(model, rule), split, numbers, 6).tobytes() for rule in ("hold", "cycle", "skip")}
    assert len(set(found.values())) == 3 and alone(model, split, numbers, 6).tobytes() == found["hold"]


def test_few_pictures_at_a_time_where_there_are_many_steps(tiny, monkeypatch):
    numbers, seen = tiny("spiking_deeplab"), []
    split = made_up(numbers)
    model, fire = of_some_statistics(numbers, split), zoo.NETS["spiking_deeplab"].fire
    monkeypatch.setattr(zoo.NETS["spiking_deeplab"], "fire", lambda self, x: seen.append(x.shape[:2]) or fire(self, x))
    scored.confusions(model, split, numbers, CPU, [8])
    assert seen == [(8, 2)] * 10, "8 pictures of 2 steps are as much as 2 of 8"


def test_of_events_other_steps_are_other_items(tiny):
    numbers = tiny("ddd17/spiking_deeplab", "encode.timesteps=3", "time_steps.inference=[1,3,5,19]")
    splits = {T: made_up(numbers, T) for T in (1, 3, 5)}
    model = of_some_statistics(numbers, splits[3])
    found = scored.curves(model, splits.get, numbers, CPU)
    assert list(found.anytime) == [1, 2, 3] and set(found.inference) == {"hold", "cycle", "skip"}
    for rule, curve in found.inference.items():
        expected = {T: 100 * Confusion(alone(scored.by_rule(model, rule), splits[T], numbers, T)).miou() for T in (1, 3, 5)}
        assert curve == expected | {19: None}, "no recording of 19 frames"
    assert found.anytime[3] == found.inference["hold"][3]
    assert found.anytime[1] != found.inference["hold"][1], "the first of three frames is not the last"
    with pytest.raises(ValueError, match="an item has 3"):
        scored.confusions(model, splits[3], numbers, CPU, [4])


def test_a_net_is_read_and_others_are_trained(trained, monkeypatch):
    numbers = trained("spiking_fcn", *ALL)
    began = []
    found = timesteps.write(numbers, lambda run: began.append(run.config.encode.timesteps) or [])
    told = json.loads((numbers.result_folder / "timesteps.json").read_text())
    assert told == found.summary and began == [1]
    usual = result.measure(numbers.model_folder, numbers).metrics["miou"]
    assert [p["timesteps"] for p in told["anytime"]] == [1, 2] and told["anytime"][1]["miou"] == usual
    for rule, points in told["inference"].items():
        for p in points:
            asked = numbers.model_copy(update={"evaluate": numbers.evaluate.model_copy(update={"timesteps": p["timesteps"], "past_trained": rule})})
            assert p["miou"] == result.measure(numbers.model_folder, asked).metrics["miou"]
    one, own = told["trained"]
    assert (one["timesteps"], own["timesteps"], own["miou"]) == (1, 2, usual)
    # the run that `snnseg train --set encode.timesteps=1` makes, found again
    other = config.load(numbers.root / "params.yaml", "spiking_fcn", [*TINY, *SMALL, "encode.timesteps=1"])
    monkeypatch.setattr(loop, "fit", None)
    folder = run.train(other)
    assert folder.name == one["run"] and result.measure(folder / "model", other).metrics["miou"] == one["miou"]
    assert timesteps.measure(numbers.model_folder, numbers).summary == told
    with open(numbers.result_folder / "timesteps.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(r["curve"], r["past_trained"], int(r["timesteps"])) for r in rows] == [
        ("anytime", "-", 1), ("anytime", "-", 2), ("inference", "-", 1), *[("inference", rule, T) for rule in ("hold", "cycle", "skip") for T in (3, 5)],
        ("trained", "-", 1), ("trained", "-", 2)]
    assert "trained with" in timesteps_table.lines(told) and "cycle" in timesteps_table.lines(told)


def test_mlflow_has_the_time_steps_as_steps(trained):
    import mlflow

    numbers = trained("spiking_fcn", "time_steps.trained=[]", "track.mlflow=true")
    result.write(numbers)
    found = timesteps.write(numbers)
    for _ in range(2):
        measurements.log_timesteps(numbers, found.summary, found.about)
    client = mlflow.MlflowClient(database.store_uri(numbers.root))
    mine, = client.search_runs([client.get_experiment_by_name("snnseg").experiment_id])
    for name, points in {"anytime": found.summary["anytime"], "trained": found.summary["trained"], "skip": found.summary["inference"]["skip"]}.items():
        history = client.get_metric_history(mine.info.run_id, f"timesteps/{name}_miou")
        assert [(m.step, m.value) for m in history] == [(p["timesteps"], p["miou"]) for p in points], "each once"
    assert {"timesteps.json", "timesteps.csv"} <= {a.path for a in client.list_artifacts(mine.info.run_id)}


def test_the_report_says_what_was_not_run(trained):
    numbers = trained("spiking_deeplab", "time_steps.trained=[]")
    place = numbers.result_folder.parent.parent, numbers.report, ["mnist_cifar/spiking_deeplab"]
    result.write(numbers)

    def rows():
        side_by_side.write(*place)
        with open(numbers.report / "timesteps.csv", newline="") as f:
            return list(csv.DictReader(f))

    row, = rows()
    assert (row["benchmark"], row["experiment"]) == ("mnist_cifar", "spiking_deeplab") and {*row.values()} == {"mnist_cifar", "spiking_deeplab", "not run"}
    told = timesteps.write(numbers).summary
    found = rows()
    assert [float(r["miou"]) for r in found if r["curve"] == "anytime"] == pytest.approx([p["miou"] for p in told["anytime"]], abs=1e-3)
    assert len(found) == 2 + (1 + 3) + 1


def test_an_ann_has_no_time_steps(tiny, trained, monkeypatch, capsys):
    with pytest.raises(ConfigError, match="mnist_cifar/ann_fcn: ann_fcn is no spiking net.* snnseg convert mnist_cifar/ann_fcn"):
        timesteps.write(tiny("ann_fcn"))
    with pytest.raises(StoreMissing, match="snnseg train"):
        timesteps.write(tiny("spiking_fcn"))
    twin = trained("ann_fcn")
    with pytest.raises(ConfigError, match="no spiking net"):        # named with --model
        timesteps.measure(twin.model_folder, tiny("spiking_fcn"))
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["snnseg", "timesteps", "ann_fcn", "--params", str(twin.root / "params.yaml")])
    with pytest.raises(SystemExit) as ended:
        main.main()
    told = capsys.readouterr()
    assert ended.value.code == 3 and told.err.count("\n") == 1 and told.err.startswith("snnseg: mnist_cifar/ann_fcn")


def test_the_store_still_has_to_be_the_net_s(trained):
    numbers = trained("spiking_fcn", "time_steps.trained=[]")
    (numbers.store / "test.zarr" / "mask" / "zarr.json").write_text("{}")
    with pytest.raises(StoreError):
        timesteps.write(numbers)
