"""A trained ANN twin converted by command: files, spikes, MLflow, curves, and one line for what cannot be converted."""
import csv
import json
import re
import sys

import pytest
import torch
from test_conversion import pencil

from snnseg.cli import main
from snnseg.errors import ConfigError, DataError, StoreMissing
from snnseg.evaluation import converted
from snnseg.models import balancing, folding
from snnseg.models import conversion as nets
from snnseg.models.thresholds import Rule
from snnseg.report import conversion, result, side_by_side
from snnseg.report.opened import opened
from snnseg.tracking import database, measurements

CPU = torch.device("cpu")
ALL, NO_BITS = "conversion.pictures=null", "conversion.bits=[]"


def changed(numbers, **changes):
    return numbers.model_copy(update={"conversion": numbers.conversion.model_copy(update=changes)})


def test_spikes_by_hand():
    """Currents of 5 at a threshold of 10: a spike at the steps 3, 5, 7, 9 and 11 of 12, in all 64 places of each of two pictures."""
    x_NCHW, folded = torch.full((2, 1, 8, 8), 2.0), folding.fold(pencil())
    net = nets.convert(folded, balancing.of_activations(folded, x_NCHW, Rule(scale=2)))
    spikes = converted.Spikes(12, CPU)
    handle = folding.layers(net.net)["block1.0"].cell.register_forward_hook(spikes.see)
    for _ in range(2):
        net(x_NCHW, 12)
    handle.remove()
    assert spikes.neurons == 2 * 2 * 64 and [spikes.after(T) for T in range(1, 13)] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize("experiment", ["ann_deeplab", "ann_fcn"])
def test_a_twin_is_converted(trained, experiment):
    numbers = trained(experiment, ALL)
    found = conversion.write(numbers).summary
    assert found == json.loads((numbers.result_folder / "conversion.json").read_text())
    assert found["ann_miou"] == result.measure(numbers.model_folder, numbers).metrics["miou"] and found["pictures"] == 16
    assert [p["timesteps"] for p in found["curve"]] == [1, 4, 16] and found["thresholds"]["pictures"] == 6
    spikes = [p["spikes"] for p in found["curve"]]
    assert 0 < spikes[0] < spikes[1] < spikes[2] < 16 and all(0 < p["miou"] <= 100 for p in found["curve"])
    with open(numbers.result_folder / "conversion.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert [(int(r["timesteps"]), float(r["miou"])) for r in rows] == [(p["timesteps"], pytest.approx(p["miou"], abs=1e-4)) for p in found["curve"]]
    assert "16 time steps" in conversion.lines(found) and "the ANN itself" in conversion.lines(found)


def test_many_steps_come_near_to_the_twin(trained):
    numbers = trained("ann_fcn", ALL, NO_BITS, "train.epochs=8", "conversion.calibration=48", "conversion.timesteps=[2,256]")
    found = conversion.measure(numbers.model_folder, numbers).summary
    short, long = (abs(p["miou"] - found["ann_miou"]) for p in found["curve"])
    assert long < 2 and long <= short


def test_the_section_is_what_is_done(trained):
    """Thresholds of the named kind, of the named pictures, at the named percentile; leak, start and coding reach the neurons."""
    numbers = trained("ann_fcn", ALL, NO_BITS)
    net = opened(numbers.model_folder, numbers)
    split = net.split("train")
    asked = changed(numbers, per="layer", percentile=99.0, scale=0.7, leak=0.9, start=0.25, calibration=10)
    spiking, found = converted.balanced(net.model, split, asked, CPU)
    x_NCHW, folded = balancing.calibration_set(split, asked, 10, CPU), folding.fold(net.model)
    assert found == balancing.of_activations(folded, x_NCHW, Rule("layer", 99.0, 0.7))
    cell = folding.layers(spiking.net)["head.0"].cell
    assert (cell.leak, cell.start) == (0.9, 0.25) and cell.threshold.unique().tolist() == pytest.approx(found.by_layer["head.0"])
    currents = changed(numbers, thresholds="currents", balance_timesteps=5)
    assert converted.balanced(net.model, split, currents, CPU)[1] == balancing.of_currents(
        folded, balancing.calibration_set(split, currents, 6, CPU), Rule("channel"), 5, None, 1.0, 0.5)
    coded = conversion.measure(numbers.model_folder, changed(currents, coding="signed_poisson")).summary
    assert coded["coding"] == "signed_poisson" and coded["thresholds"]["of"] == "currents"
    assert coded["curve"] != conversion.measure(numbers.model_folder, currents).summary["curve"]


def test_frames_of_events_are_given_as_they_are(trained):
    numbers = trained("ddd17/ann_deeplab", "conversion.coding=signed_poisson", "conversion.pictures=3", NO_BITS)
    found = conversion.measure(numbers.model_folder, numbers).summary
    assert found["coding"] == "events" and found["pictures"] == 3 and len(found["curve"]) == 3


def test_a_set_that_is_too_small_says_how_many_are_needed(trained):
    numbers = trained("ann_fcn", ALL, NO_BITS)
    with pytest.raises(DataError, match="calibration set: 49 pictures of a split that has 48. Take 1 to 48") as caught:
        conversion.write(changed(numbers, calibration=49))
    assert caught.value.exit_code == 4
    with pytest.raises(DataError, match="percentile 99.0 needs 100. Give at least .* pictures") as caught:
        conversion.write(changed(numbers, percentile=99.0, calibration=1))
    enough = int(re.search(r"at least (\d+) pictures", str(caught.value))[1])
    assert caught.value.exit_code == 4 and 1 < enough <= 48
    assert conversion.measure(numbers.model_folder, changed(numbers, percentile=99.0, calibration=enough)).summary["curve"]


def test_only_twins_are_converted(tiny, trained, monkeypatch, capsys):
    spiking = trained("spiking_fcn")
    for numbers in (spiking, tiny("spiking_deeplab")):
        with pytest.raises(ConfigError, match="spiking net already.* ann_deeplab or ann_fcn. Take one of them, mnist_cifar/ann_fcn for example"):
            conversion.write(numbers)
    with pytest.raises(ConfigError, match="spiking net already"):       # named with --model
        conversion.measure(spiking.model_folder, tiny("ann_fcn"))
    with pytest.raises(StoreMissing, match="snnseg train"):
        conversion.write(tiny("ann_fcn"))
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["snnseg", "convert", "spiking_fcn", "--params", str(spiking.root / "params.yaml")])
    with pytest.raises(SystemExit) as ended:
        main.main()
    told = capsys.readouterr()
    assert ended.value.code == 3 and told.err.count("\n") == 1 and told.err.startswith("snnseg: mnist_cifar/spiking_fcn")


def test_mlflow_has_the_time_steps_as_steps(trained):
    import mlflow

    numbers = trained("ann_fcn", ALL, "conversion.bits=[2,3]", "track.mlflow=true")
    result.write(numbers)
    found = conversion.write(numbers)
    for _ in range(2):
        measurements.log_conversion(numbers, found.summary, found.about)
    client = mlflow.MlflowClient(database.store_uri(numbers.root))
    mine, = client.search_runs([client.get_experiment_by_name("snnseg").experiment_id])
    history = client.get_metric_history(mine.info.run_id, "conversion/miou")
    assert [(m.step, m.value) for m in history] == [(p["timesteps"], p["miou"]) for p in found.summary["curve"]], "each once"
    assert mine.data.metrics["conversion/ann_miou"] == found.summary["ann_miou"]
    assert {f"conversion/ann_{q['bits']}_bits_miou": q["miou"] for q in found.summary["quantised"]}.items() <= mine.data.metrics.items()
    measurements.log_conversion(numbers, {k: v for k, v in found.summary.items() if k != "quantised"}, found.about)     # from before there were any
    assert {"conversion.json", "conversion.csv"} <= {a.path for a in client.list_artifacts(mine.info.run_id)}


def test_the_report_says_what_was_not_run(trained):
    numbers = trained("ann_fcn", ALL, NO_BITS)
    place = numbers.result_folder.parent.parent, numbers.report, ["mnist_cifar/ann_fcn"]
    result.write(numbers)

    def rows():
        side_by_side.write(*place)
        with open(numbers.report / "conversion.csv", newline="") as f:
            return list(csv.DictReader(f))

    row, = rows()
    assert {*row.values()} == {"mnist_cifar", "ann_fcn", "not run"} and row["miou"] == "not run"
    told = conversion.write(numbers).summary
    found = rows()
    assert [float(r["miou"]) for r in found] == pytest.approx([p["miou"] for p in told["curve"]], abs=1e-3)
