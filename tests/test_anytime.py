"""A converted net over a split: its accuracy at each number of time steps, its calibration set, its file."""
import dataclasses
import json

import numpy as np
import pytest
import torch

from snnseg.data import store
from snnseg.data.loader import Batch
from snnseg.errors import ConfigError, DataError
from snnseg.evaluation import anytime, evaluate
from snnseg.evaluation.confusion import Confusion
from snnseg.models import balancing, conversion, folding, saved, zoo
from snnseg.models.conversion import Converted
from snnseg.models.thresholds import Rule
from snnseg.spiking import counter

CPU = torch.device("cpu")


def normalised(pictures):
    return (torch.from_numpy(pictures.input).permute(0, 3, 1, 2).float() - 130) / 70


@pytest.fixture
def split(tiny):
    """A split of 20 made-up pictures for a tiny config of an ANN, whose net has statistics of its own."""
    def make(experiment="ann_fcn", frames=None):
        config, rng = tiny(experiment), np.random.default_rng(0)
        masks = rng.integers(0, 2, (20, 32, 32)).astype(np.uint8)
        masks[:, :3] = store.VOID
        model = zoo.build(config)
        if frames:
            events = rng.integers(0, 40, (30, 2, 32, 32)).astype(np.uint16)
            window_MT = np.arange(20)[:, None] + np.arange(frames)
            pictures = store.Split(events, np.concatenate([masks, masks[:10]]), {"sensor": [64, 64], "gain": 1.0}, window_MT)
        else:
            pictures = store.Split(rng.integers(0, 256, (20, 32, 32, 3)).astype(np.uint8), masks, {})
        model.train()(balancing.calibration_set(pictures, config, 10, CPU)[None])
        return config, pictures, model.eval()
    return make


@pytest.mark.parametrize("coding", ["direct", "signed_poisson"])
def test_confusions_of_a_split_at_each_t(split, coding):
    config, pictures, model = split()
    folded = folding.fold(model)
    net = conversion.convert(folded, balancing.of_activations(folded, balancing.calibration_set(pictures, config, 20, CPU), Rule("channel")))
    found = anytime.confusions(net, pictures, config, CPU, [64, 2, 8], coding)
    assert list(found) == [2, 8, 64]
    x_NCHW = normalised(pictures)
    for k in (0, 7, 13):        # a picture's answer and its spikes depend on none beside it
        one = store.Split(pictures.input[k:k + 1], pictures.mask_NHW[k:k + 1], {})
        key_B = None if coding == "direct" else anytime.keys(np.array([0]), config)
        for T, confusion in anytime.confusions(net, one, config, CPU, [2, 8], coding).items():
            called = net(x_NCHW[k:k + 1], T, key_B).argmax(1)
            assert np.array_equal(confusion.matrix, Confusion.of(one.mask_NHW, called.numpy(), 2).matrix)
    ann = evaluate.confusion(model, pictures, config, CPU).matrix
    apart = [np.abs(confusion.matrix - ann).sum() for confusion in found.values()]
    assert apart[2] < apart[0] and apart[2] < 0.1 * ann.sum() and found[64].pixels == evaluate.confusion(model, pictures, config, CPU).pixels
    assert anytime.confusions(net, pictures, config, CPU, [2], coding, stop=lambda: True) is None


def test_frames_of_events_are_shown_one_after_the_other_and_averaged(split):
    """As the ANN averages its features over them: near to its answer, which a net that sees a frame a step is not."""
    config, pictures, model = split("ddd17/ann_deeplab", frames=2)
    x_NCHW = balancing.calibration_set(pictures, config, 6, CPU)
    assert x_NCHW.shape == (12, 2, 32, 32)
    folded = folding.fold(model)
    net = conversion.convert(folded, balancing.of_activations(folded, x_NCHW, Rule("channel")), start=0.5)
    frames_BTCHW, mask = (torch.from_numpy(x) for x in pictures.take(np.arange(4)))
    batch = Batch(np.arange(4), frames_BTCHW, mask)
    with torch.no_grad():
        expected = model(frames_BTCHW.transpose(0, 1))
    (_, short), (_, long) = anytime.answers(net, batch, config, [16, 128])
    errors = [((logits - expected).square().mean().sqrt() / expected.std()).item() for logits in (short, long)]
    assert errors[1] < 0.1 and errors[1] < 0.5 * errors[0]
    with pytest.raises(ConfigError, match="ddd17 is not given signed_poisson coding"):
        list(anytime.answers(net, batch, config, [2], "signed_poisson"))


def test_the_calibration_set_is_drawn_from_the_seed(split):
    config, pictures, _ = split()
    first, again, more = (balancing.calibration_set(pictures, config, n, CPU) for n in (8, 8, 12))
    other = balancing.calibration_set(pictures, config.model_copy(update={"train": config.train.model_copy(update={"seed": 1})}), 8, CPU)
    assert first.shape == (8, 3, 32, 32) and torch.equal(first, again) and torch.equal(more[:8], first) and not torch.equal(first, other)
    x_NCHW = normalised(pictures)
    assert all((x == x_NCHW).flatten(1).all(1).any() for x in first)
    for count in (0, 21):
        with pytest.raises(DataError, match=f"calibration set: {count} pictures of a split that has 20. Take 1 to 20"):
            balancing.calibration_set(pictures, config, count, CPU)


@pytest.mark.parametrize("experiment", ["ann_deeplab", "ann_fcn"])
def test_a_saved_net_is_made_anew_from_the_twins_config(split, tmp_path, experiment):
    config, pictures, model = split(experiment)
    folded, x_NCHW = folding.fold(model), balancing.calibration_set(pictures, config, 10, CPU)
    found = balancing.of_activations(folded, x_NCHW, Rule("channel", 99, 0.9))
    net = conversion.convert(folded, found, 0.99, 0.5)
    saved.write_weights(tmp_path / "model.safetensors", net.state_dict())
    again = Converted(folding.fold(zoo.build(config)), 0.99, 0.5)
    saved.read_weights(tmp_path / "model.safetensors", again)
    keys = counter.keys(range(10))
    assert torch.equal(again(x_NCHW, 12, keys), net(x_NCHW, 12, keys)) and found.amplitude > 1
    told = json.loads(json.dumps(dataclasses.asdict(found)))
    assert told["rule"] == {"per": "channel", "percentile": 99, "scale": 0.9} and told["pictures"] == 10
    assert [len(told["by_layer"][name]) for name in told["by_layer"]] == [layer.conv.out_channels for layer in folding.layers(net.net).values()]
