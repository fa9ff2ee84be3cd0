"""What a trained net does step by step, as files, figures and in MLflow."""
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageSequence

from snnseg.data import store
from snnseg.errors import ConfigError, StoreMissing
from snnseg.evaluation.activations import Activations, Traces
from snnseg.report import activations, activations_figure, result
from snnseg.tracking import database, measurements


@pytest.fixture
def net(trained):
    """A tiny trained net, to be seen at two pictures."""
    return lambda experiment, *overrides: trained(experiment, "activations.pictures=[3,11]", *overrides)


def set_(numbers, **changes):
    return numbers.model_copy(update={"activations": numbers.activations.model_copy(update=changes)})


@pytest.mark.parametrize("coding", ["direct", "signed_poisson"])
def test_a_spiking_net_s_files(net, coding):
    numbers = net("spiking_fcn", f"encode.coding={coding}")
    seen = activations.write(numbers)
    folder = numbers.result_folder
    told = json.loads((folder / "activations.json").read_text())
    assert told == seen.summary and told["pictures"] == [3, 11] and len(told["layers"]) == 11 and len(told["right"]) == told["timesteps"] == 2
    split = store.read(numbers.store, "test", 2)
    with np.load(folder / "activations.npz") as arrays:
        assert np.array_equal(arrays["image"], split.input[[3, 11]]) and np.array_equal(arrays["truth"], split.mask_NHW[[3, 11]])
        assert told["right"] == pytest.approx([float((answer == arrays["truth"]).mean()) for answer in arrays["answer_TPHW"]])
        assert arrays["map_block1.0"].shape == (2, 2, 32, 32) and arrays["map_head.1"].shape == (2, 2, 4, 4)
        for layer, means in told["layers"].items():
            assert means == pytest.approx([float(m.mean()) for m in arrays[f"map_{layer}"]], rel=1e-4) and 0 <= min(means) <= max(means) <= 1
        neurons = told["traced"]["neurons"]
        assert len(neurons) == 2 * 2 * 4 and told["traced"]["layer"] == "block1.1"
        for k, neuron in enumerate(neurons):
            p, n, c = k // 8, k // 4 % 2, k % 4
            assert (neuron["picture"], neuron["pixel"], neuron["channel"]) == ([3, 11][p], numbers.activations.pixels[n], arrays["channel"][c])
            assert neuron["potential"] == pytest.approx(arrays["potential_TPKN"][:, p, c, n].tolist())
            assert neuron["spikes"] == [int(u > neuron["threshold"]) for u in neuron["potential"]]
            assert neuron["left"] == pytest.approx([u - neuron["threshold"] * s for u, s in zip(neuron["potential"], neuron["spikes"], strict=True)])
    # the answer after the last step is the one that is scored
    shown = result.measure(numbers.model_folder, numbers.model_copy(update={"evaluate": numbers.evaluate.model_copy(update={"pictures": 16})}))
    assert np.array_equal(seen.found.answers_TBHW[-1], shown.answers[[3, 11]])
    for name in ("activations.png", "membrane.png"):
        with Image.open(folder / name) as page:
            assert page.format == "PNG" and page.width > 300 and page.height > 200
    with Image.open(folder / "activations.gif") as moving:
        assert moving.n_frames == 2
    if coding == "signed_poisson":      # whose spikes are drawn
        before = {path.name: path.read_bytes() for path in folder.iterdir() if path.name in activations.FILES}
        activations.write(numbers)
        assert len(before) == 5 and before == {name: (folder / name).read_bytes() for name in before}, "the same bytes each time"
    assert "picture 3, pixel [16, 16]" in activations.lines(told) and len(activations.lines(told).splitlines()) == 2 + 11 + 16


def test_an_ann_has_maps_of_one_step_and_no_raster(net):
    numbers = net("ann_deeplab", "activations.channels=[0,2]", "activations.layers=[head, block1.0]", "activations.pictures=1")
    told = activations.write(numbers).summary
    assert told["pictures"] == [0] and list(told["layers"]) == ["head", "block1.0"] and all(len(means) == 1 for means in told["layers"].values())
    assert all(set(n) == {"picture", "pixel", "cell", "channel", "values"} for n in told["traced"]["neurons"])
    assert all((numbers.result_folder / name).stat().st_size for name in activations.FILES) and "right" in activations.lines(told)


def test_events_are_shown_as_what_is_seen_last(net):
    numbers = net("ddd17/spiking_deeplab", "activations.traced=head", "activations.pictures=[2]")
    seen = activations.measure(numbers.model_folder, numbers)
    assert seen.images.shape == (1, 32, 32, 3) and seen.summary["traced"]["layer"] == "head"
    assert seen.summary["traced"]["neurons"][0]["cell"] == [4, 4], "row 16 of 32 is in row 4 of 8"


def test_what_there_is_not_is_refused_before_anything_is_written(net):
    numbers = net("spiking_deeplab")
    for changes, words in (({"pictures": [3, 16]}, "no picture 16. The test split of mnist_cifar has 16, 0 to 15"), ({"layers": ["ups.0"]}, "'ups.0'. There are"),
                           ({"pixels": [[32, 0]]}, r"\[32, 0\] lies outside"), ({"channels": [4]}, "has no channel 4. It has 4, 0 to 3")):
        with pytest.raises(ConfigError, match=words) as error:
            activations.write(set_(numbers, **changes))
        assert error.value.exit_code == 3 and "\n" not in str(error.value)
    assert not (numbers.result_folder / "activations.json").exists()
    with pytest.raises(StoreMissing, match="snnseg train"):
        activations.write(numbers.model_copy(update={"experiment": "ann_fcn"}))


def test_mlflow_gets_the_files(net):
    import mlflow

    numbers = net("ann_deeplab", "track.mlflow=true", "activations.pictures=1", "activations.layers=[head]")
    seen = activations.write(numbers)
    measurements.log_activations(numbers, seen.summary, seen.about)
    client = mlflow.MlflowClient(database.store_uri(numbers.root))
    mine, = client.search_runs([client.get_experiment_by_name("snnseg").experiment_id])
    assert set(activations.FILES) <= {a.path for a in client.list_artifacts(mine.info.run_id)}


@pytest.mark.parametrize(("steps", "side"), [(1, 32), (5, 32), (60, 64)])
def test_the_moving_maps_stay_small(steps, side):
    """Of noise, which no format makes smaller: every step until there are too many, and below the limit."""
    rng = np.random.default_rng(0)
    maps = {f"block{k}": rng.random((steps, 1, side >> k // 4, side >> k // 4), dtype=np.float32) for k in range(11)}
    answers = rng.integers(0, 3, (steps, 1, side, side), dtype=np.uint8)
    traces = Traces("block0", ((0, 0),), (0,), np.zeros((steps, 1, 1, 1)), None, None, None, None)
    shown = activations_figure.Shown("x/y", ["#000000", "#ff0000", "#00ff00"], (0,), ((0, 0),), rng.integers(0, 255, (1, side, side, 3), dtype=np.uint8),
                                     answers[0], Activations(maps, answers, traces))
    data = activations_figure.moving(shown)
    assert len(data) < 200_000
    with Image.open(io.BytesIO(data)) as moving:
        frames = [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(moving)]
        assert len(frames) == min(steps, activations_figure.FRAMES) and (steps == 1 or moving.info["loop"] == 0)
    assert steps == 1 or not np.array_equal(frames[0], frames[-1])
