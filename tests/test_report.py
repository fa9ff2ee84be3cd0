"""What people see: pictures with the right colours, a table with the right columns."""
import csv
import json

import numpy as np
import pytest
from PIL import Image

from snnseg.errors import StoreAltered, StoreError, StoreMissing
from snnseg.report import pictures, result, table


def test_coloured_by_hand():
    mask = np.array([[0, 1, 255]], np.uint8)
    assert pictures.coloured(mask, ["#000000", "#E69F00"]).tolist() == [[[0, 0, 0], [230, 159, 0], [255, 255, 255]]]


def test_errors_by_hand():
    """right, missed, called wrongly, called another class, void"""
    truth, answer = np.array([[0, 1, 0, 1, 255]], np.uint8), np.array([[0, 0, 1, 2, 1]], np.uint8)
    expected = [pictures.HIT, pictures.MISSED, pictures.WRONG, pictures.WRONG, (255, 255, 255)]
    assert [tuple(c) for c in pictures.errors(truth, answer)[0].tolist()] == expected


def test_sheet_places_tiles():
    tile = np.full((4, 4, 3), 200, np.uint8)
    page = pictures.sheet({"a": [tile], "b": [tile, tile]})
    step = pictures.PIXELS + pictures.GAP
    assert page.size == (2 * step + pictures.GAP, 2 * step + pictures.GAP + pictures.TITLE)
    assert page.getpixel((pictures.GAP + 5, pictures.TITLE + pictures.GAP + 5)) == (200, 200, 200)
    assert page.getpixel((pictures.GAP + 5, pictures.TITLE + pictures.GAP + step + 5)) == (255, 255, 255)


@pytest.fixture
def net(trained):
    """The config of a tiny trained net."""
    return trained("ann_fcn")


def test_evaluation_to_table(net):
    metrics = result.write(net).metrics
    assert metrics["statistics"] == "running" and metrics["timesteps"] == 1
    with open(net.result_folder / "classes.csv", newline="") as f:
        classes = list(csv.DictReader(f))
    assert [c["class"] for c in classes] == ["background", "digit"] and sum(int(c["pixels"]) for c in classes) == 16 * 32 * 32
    with np.load(net.result_folder / "pictures.npz", allow_pickle=False) as shown:
        assert shown["image"].shape == (4, 32, 32, 3) and shown["prediction"].shape == (4, 32, 32)
    rows = table.write(net.result_folder.parent.parent, net.report, ["mnist_cifar/ann_fcn"])
    assert list(rows[0]) and set(rows[0]) == set(table.COLUMNS)
    assert rows[0]["coding"] == "-" and rows[0]["iou_per_class"].startswith("background=")
    with Image.open(net.report / "pictures.png") as page:
        assert page.width == 3 * (pictures.PIXELS + pictures.GAP) + pictures.GAP
    assert json.loads((net.result_folder / "metrics.json").read_text()) == metrics
    assert {p.name for p in net.result_folder.iterdir()} == {"about.json", "classes.csv", "curve.csv", "metrics.json", "pictures.npz", "pictures.png"}


def test_batch_statistics_are_named_and_leave_the_net_alone(net):
    batch = net.model_copy(update={"evaluate": net.evaluate.model_copy(update={"norm": "batch"})})
    running = result.write(net).metrics["miou"]
    other = result.measure(net.model_folder, batch).metrics
    assert other["statistics"] == "batch" and other["miou"] != running
    assert json.loads((net.result_folder / "metrics.json").read_text())["miou"] == running
    result.write(batch)
    assert table.write(net.result_folder.parent.parent, net.report, ["mnist_cifar/ann_fcn"])[0]["norm"] == "bn, batch statistics"


def test_more_time_steps_than_trained(trained):
    numbers = trained("spiking_fcn")
    scores = {}
    for steps, rule in ((None, "hold"), (2, "hold"), (6, "hold"), (6, "cycle"), (6, "skip")):
        asked = numbers.model_copy(update={"evaluate": numbers.evaluate.model_copy(update={"timesteps": steps, "past_trained": rule})})
        found = result.measure(numbers.model_folder, asked).metrics
        scores[steps, rule] = found["miou"]
        assert (found["timesteps"], found["trained_timesteps"]) == (steps or 2, 2)
    assert scores[None, "hold"] == scores[2, "hold"] and len({scores[6, r] for r in ("hold", "cycle", "skip")}) > 1


def test_a_net_of_another_version_is_named(net):
    from snnseg import seal

    about = json.loads((net.model_folder / "about.json").read_text())
    del about["config"]["neuron"]["leak"]
    (net.model_folder / "about.json").write_text(json.dumps(about))
    (net.model_folder / "seal.json").unlink()
    seal.seal(net.model_folder)
    with pytest.raises(StoreError, match="another version of snnseg, whose numbers differ at neuron.leak"):
        result.write(net)


def test_a_net_from_before_a_section_that_shapes_no_weights_is_measured(net):
    from snnseg import seal

    before = result.measure(net.model_folder, net).metrics
    about = json.loads((net.model_folder / "about.json").read_text())
    for name in ("robustness", "energy", "tune"):
        del about["config"][name]
    (net.model_folder / "about.json").write_text(json.dumps(about))
    (net.model_folder / "seal.json").unlink()
    seal.seal(net.model_folder)
    assert result.measure(net.model_folder, net).metrics == before


def test_what_is_missing_or_altered_is_named(net):
    row, = table.write(net.result_folder.parent.parent, net.report, ["mnist_cifar/spiking_fcn"])
    assert (row.pop("benchmark"), row.pop("experiment")) == ("mnist_cifar", "spiking_fcn") and set(row.values()) == {"not run"}
    with pytest.raises(StoreMissing, match="snnseg train"):
        result.write(net.model_copy(update={"experiment": "other"}))
    about = net.model_folder / "about.json"
    about.write_text(about.read_text().replace('"steps"', '"stepz"'))
    with pytest.raises(StoreAltered, match="about.json is not the file that was sealed"):
        result.write(net)


def test_a_net_is_scored_on_the_store_it_was_trained_with(net):
    from snnseg import seal
    from snnseg.data import prepare

    other = net.model_copy(update={"data": net.data.model_copy(update={"seed": 5})})
    prepare.prepare(other)
    with pytest.raises(StoreError, match="made with seed 5 instead of 0"):
        result.write(net)
    assert seal.is_sealed(net.store)


@pytest.mark.parametrize(("changes", "told"), [
    ({}, "lif"), ({"leak": 1.0}, "if"), ({"learn_leak": "layer"}, "plif"), ({"learn_threshold": "channel"}, "lif, threshold learned"),
    ({"levels": 4}, "integer lif, 4 a step"), ({"levels": 2, "leak": 1.0}, "integer if, 2 a step")])
def test_neurons_by_name(changes, told):
    assert table.kind({"leak": 0.99, "learn_leak": "none", "learn_threshold": "none", "levels": 0} | changes) == told
