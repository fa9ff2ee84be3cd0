"""Nets that see frames of events: T inputs as they are, the twin averages its features, a whole training and evaluation."""
import json

import numpy as np
import pytest
import torch

from snnseg import config
from snnseg.data import prepare, store
from snnseg.data.augment import Augment
from snnseg.data.loader import Batch, batches
from snnseg.models import zoo
from snnseg.models.inputs import coded
from snnseg.report import result, table
from snnseg.spiking.encode import whole
from snnseg.training import run

EVENTS = ["data.ddd17.sample.train=14", "data.ddd17.sample.test=8", "data.workers=1", "train.epochs=2", "track.mlflow=false", "evaluate.pictures=3"]


@pytest.fixture
def tiny_events(project):
    def make(experiment: str, *overrides: str) -> config.Config:
        from conftest import TINY

        return config.load(project / "params.yaml", f"ddd17/{experiment}", [*TINY, *EVENTS, *overrides])
    return make


@pytest.mark.parametrize("experiment", ["spiking_deeplab", "ann_deeplab"])
def test_frames_are_the_inputs_of_the_time_steps(tiny_events, experiment):
    """Without Poisson coding and without normalisation, for both kinds of nets."""
    items = np.random.default_rng(0).random((5, 3, 2, 8, 8), np.float32)
    x_TBCHW = whole(coded(items, np.arange(5), tiny_events(experiment, "encode.coding=poisson"), torch.device("cpu"), ("poisson", 0)))
    assert x_TBCHW.shape == (3, 5, 2, 8, 8) and torch.equal(x_TBCHW, torch.from_numpy(items).transpose(0, 1))


def test_the_twin_averages_its_features_over_the_frames(tiny_events):
    """Section 5.1.1: each frame through the feature extractor, the mean of the features to the classifier."""
    net = zoo.build(tiny_events("ann_deeplab")).eval()
    assert net.block1[0].conv.in_channels == 2 and net.classifier.out_channels == 6
    x_TBCHW = torch.rand(2, 3, 2, 32, 32)
    with torch.no_grad():
        single = [net(x[None]) for x in x_TBCHW]
        assert torch.allclose(net(x_TBCHW), (single[0] + single[1]) / 2, atol=1e-5)     # the classifier is linear


def test_more_frames_train_the_twin_anew(tiny_events):
    two, three = (tiny_events("ann_fcn", f"encode.timesteps={t}") for t in (2, 3))
    assert two.fingerprint("s", "c") != three.fingerprint("s", "c") and (two.timesteps, three.timesteps) == (2, 3)
    assert tiny_events("ann_fcn", "encode.coding=poisson").fingerprint("s", "c") == two.fingerprint("s", "c")


def test_frames_and_mask_are_mirrored_and_moved_alike():
    rng = np.random.default_rng(0)
    mask = rng.integers(1, 5, (3, 8, 8)).astype(np.uint8)
    frames = np.repeat(np.repeat(mask[:, None, None], 4, 1), 2, 2).astype(np.float32)
    before = frames.copy()
    out = Augment(flip=True, shift=3)(Batch(np.arange(3), frames, mask), 1, 0)
    assert np.array_equal(frames, before) and not np.array_equal(out.input, frames)
    kept = out.mask_BHW != store.VOID
    for t in range(4):
        for channel in range(2):
            assert np.array_equal(out.input[:, t, channel][kept], out.mask_BHW[kept]) and not out.input[:, t, channel][~kept].any()


@pytest.mark.parametrize("experiment", ["spiking_fcn", "ann_deeplab"])
def test_from_recordings_to_a_row_of_results(tiny_events, experiment):
    numbers = tiny_events(experiment)
    prepare.prepare(numbers)
    run.publish(run.train(numbers), numbers)
    found = result.write(numbers)
    assert (found.metrics["timesteps"], found.metrics["trained_timesteps"]) == (2, 2) and list(found.metrics["iou"])[0] == "flat"
    assert found.images.shape == (3, 32, 32, 3) and found.images.dtype == np.uint8
    row, = table.write(numbers.root / "data" / "result", numbers.report, [numbers.name])
    assert (row["dataset"], row["coding"], row["timesteps"]) == ("ddd17", "events", 2)
    split = store.read(numbers.store, "test", 2)
    assert len(split) == row["test_samples"] == 8 - 2 and sum(len(b.index_B) for b in batches(split, 4)) == len(split)
    if experiment.startswith("spiking"):
        longer = numbers.model_copy(update={"evaluate": numbers.evaluate.model_copy(update={"timesteps": 3})})
        assert result.measure(numbers.model_folder, longer).metrics["timesteps"] == 3
    assert json.loads((numbers.model_folder / "about.json").read_text())["benchmark"] == "ddd17"


def test_partial_and_left_out_are_in_the_results(project):
    """`voc (partial, 12/4)`: said by the store, kept with the net, shown in its row."""
    from conftest import TINY

    from snnseg.data import voc_sample

    numbers = config.load(project / "params.yaml", "voc/ann_deeplab", [*TINY, "data.source=archives", "data.allow_partial=true", "data.skip_bad=true",
                                                                      "train.epochs=1", "track.mlflow=false"])
    voc_sample.write(numbers.raw, 12, 5, 0)
    (numbers.raw / "VOCdevkit" / "VOC2012" / "JPEGImages" / "test_00003.jpg").write_bytes(b"")
    prepare.prepare(numbers)
    run.publish(run.train(numbers), numbers)
    result.write(numbers)
    row, = table.write(numbers.root / "data" / "result", numbers.report, [numbers.name])
    assert row["dataset"] == "voc (partial, 12/5, 1 files left out)" and (row["train_samples"], row["test_samples"]) == (12, 4)
