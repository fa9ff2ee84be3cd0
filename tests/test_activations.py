"""What a net does step by step: maps, answers so far and potentials, held to the net's parts called in turn and to the plain neuron's loop."""
import numpy as np
import pytest
import torch
from test_activity import SIDE, T, built, coded, double, walked

from snnseg.errors import ConfigError
from snnseg.evaluation import activations, tally
from snnseg.evaluation.layers import layers
from snnseg.models.backbone import Analog, Spiking
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.spiking import neuron as lif
from snnseg.spiking import pooling
from snnseg.spiking.encode import Constant, whole
from snnseg.spiking.neuron import LIF

PIXELS = [[0, 0], [3, 5], [7, 7]]
NEURONS = {"bntt": Spiking(T, LIF(0.9, 0.6)), "hard": Spiking(T, LIF(1.0, 0.2, soft_reset=False), "none"), "learned": Spiking(
    T, LIF(0.8, 0.5), "tdbn", learn_leak="channel", learn_threshold="layer")}


def net(kind, neurons, pool="average"):
    model = built(kind, neurons, pool=pool)
    for name, tensor in model.state_dict().items():
        if name.endswith("cell.leak"):
            tensor.uniform_(0.5, 2)
    return model


def test_a_potential_by_hand():
    """leak 0.5, threshold 1, current 0.8: 0.8; 1.2, a spike, 0.2 left; 0.9; 1.25, a spike, 0.25 left."""
    before, after, spikes = activations.membranes(torch.full((4, 1, 1, 1), 0.8), LIF(leak=0.5))
    torch.testing.assert_close(before.flatten(), torch.tensor([0.8, 1.2, 0.9, 1.25]))
    torch.testing.assert_close(after.flatten(), torch.tensor([0.8, 0.2, 0.9, 0.25]))
    assert spikes.flatten().tolist() == [0, 1, 0, 1]


def given(model, name, reads):
    """The currents of a layer's neurons, by its own modules, and its neuron."""
    if name.startswith("ups."):
        k = int(name[-1])
        steps = zip(reads[name], reads[f"skips.{2 - k}"], strict=True)
        return torch.stack([model.ups[k](x, model.skips[2 - k](feature)) for x, feature in steps]), model.cells[k]()
    unit = model.get_submodule(name)
    x_NCHW = reads[name].expand(T, *reads[name].shape[1:]).flatten(0, 1)
    x_NCHW = pooling.largest(x_NCHW) if unit.maxed else x_NCHW
    return unit.norm(unit.conv(pooling.plain(x_NCHW) if unit.pooled else x_NCHW).unflatten(0, (T, -1))), unit.cell()


@torch.no_grad()
@pytest.mark.parametrize("kind", [DeepLab, FCN])
@pytest.mark.parametrize(("neurons", "coding", "pool"), [("bntt", "direct", "average"), ("hard", "poisson", "max"), ("learned", "frames", "average")])
def test_every_layer_s_potentials_are_the_plain_neuron_s_step_by_step(kind, neurons, coding, pool):
    model, x = net(kind, NEURONS[neurons], pool), double(coded(coding))
    reads, _, _ = walked(model, x)
    fire = [layer for layer in layers(model, SIDE, SIDE) if layer.ends == "fires"]
    assert len(fire) == (8 if kind is DeepLab else 11)
    fired = 0
    for layer in fire:
        C, h, w = layer.result_CHW
        found = activations.measure(model, x, None, layer.name, PIXELS, list(range(C)))
        t, (current, neuron) = found.traces, given(model, layer.name, reads)
        assert t.cells == tuple((r * h // SIDE, c * w // SIDE) for r, c in PIXELS) and t.channels == tuple(range(C))
        left = torch.zeros_like(current[0])
        for step in range(T):
            spikes, after = lif.run(current[:step + 1], neuron)
            before = neuron.leak * left + current[step]
            for n, (r, c) in enumerate(t.cells):
                for mine, theirs in ((t.before_TBKN, before), (t.after_TBKN, after), (t.spikes_TBKN, spikes[step])):
                    np.testing.assert_allclose(mine[step, :, :, n], theirs[:, :, r, c].numpy(), rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(found.maps[layer.name][step], spikes[step].mean(1).numpy(), atol=1e-6)
            left = after
        np.testing.assert_allclose(t.leak_K, torch.as_tensor(neuron.leak, dtype=torch.float64).expand(C, 1, 1).flatten())
        np.testing.assert_allclose(t.threshold_K, torch.as_tensor(neuron.threshold, dtype=torch.float64).expand(C, 1, 1).flatten())
        fired += t.spikes_TBKN.sum()
    assert fired and set(found.maps) == {layer.name for layer in fire}


@torch.no_grad()
@pytest.mark.parametrize("kind", [DeepLab, FCN])
@pytest.mark.parametrize(("neurons", "coding"), [(NEURONS["bntt"], "direct"), (NEURONS["bntt"], "signed_poisson"), (NEURONS["hard"], "frames"),
                                                 (Analog(T), "frames"), (Analog(), "direct")], ids=lambda v: v if isinstance(v, str) else type(v).__name__)
def test_an_answer_so_far_is_that_to_so_much_of_the_input(kind, neurons, coding):
    model, x = net(kind, neurons), double(coded(coding, steps=neurons.timesteps))
    if kind is DeepLab:         # classes that are as likely over all places and steps, so that the answer is not one everywhere
        mean_C, tilt_C = walked(model, x)[0]["classifier"].mean((0, 1, 3, 4)), torch.randn(model.classifier.in_channels, dtype=torch.float64)
        model.classifier.weight[1] = model.classifier.weight[0] + (tilt_C - mean_C * (tilt_C @ mean_C) / (mean_C @ mean_C))[:, None, None]
    found = activations.measure(model, x, ["block1.1"], "block1.0", PIXELS, 1)
    for step in range(neurons.timesteps):
        assert np.array_equal(found.answers_TBHW[step], tally.answers(model(whole(x)[:step + 1])).numpy())
    assert len(np.unique(found.answers_TBHW)) > 1 and list(found.maps) == ["block1.1"]


@torch.no_grad()
@pytest.mark.parametrize("kind", [DeepLab, FCN])
def test_an_ann_has_values_and_no_spikes(kind):
    model, x = net(kind, Analog()), coded("direct", steps=1)
    reads, _, _ = walked(model, x)
    found = activations.measure(model, x, None, "block2.0", PIXELS, 2)
    t = found.traces
    assert (t.after_TBKN, t.spikes_TBKN, t.leak_K, t.threshold_K) == (None,) * 4 and t.before_TBKN.shape == (1, 2, 2, 3)
    values = reads["block2.1"]
    order = values.sum((0, 1, 3, 4)).argsort(descending=True)
    assert t.channels == tuple(order[:2].tolist())
    for n, (r, c) in enumerate(t.cells):
        assert np.array_equal(t.before_TBKN[..., n], values[:, :, list(t.channels), r, c].numpy())
    assert "ups.0" not in found.maps and all(x_TBHW.shape[0] == 1 for x_TBHW in found.maps.values())


@pytest.mark.parametrize("kind", [DeepLab, FCN])
def test_the_compiled_neuron_fires_where_the_potential_says(kind):
    """In float32: maps are the compiled operator's, spikes of the traces the plain neuron's."""
    model, x = built(kind, NEURONS["bntt"], precise=False), Constant(coded("direct").x_BCHW.float(), T)
    for layer in (layer for layer in layers(model, SIDE, SIDE) if layer.ends == "fires"):
        C, h, w = layer.result_CHW
        everywhere = [[r * SIDE // h, c * SIDE // w] for r in range(h) for c in range(w)]
        found = activations.measure(model, x, [layer.name], layer.name, everywhere, list(range(C)))
        of_traces = found.traces.spikes_TBKN.mean(2).reshape(T, 2, h, w)
        assert (np.abs(of_traces - found.maps[layer.name]) < 1e-5).mean() > 0.99, layer.name


def test_a_net_is_left_as_it_was():
    model, x = net(FCN, NEURONS["bntt"]), coded("direct")
    before, logits = {k: v.clone() for k, v in model.state_dict().items()}, model(x).detach()
    model.train()
    activations.measure(model, x, None, "ups.1", PIXELS, 64)
    assert model.training and all(torch.equal(before[k], v) for k, v in model.state_dict().items()) and torch.equal(model.eval()(x), logits)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(("kind", "asked", "words"), [
    (DeepLab, {"shown": ["head.1"]}, "activations.layers: .* named 'head.1'. There are: block1.0, .*, head.$"),
    (FCN, {"traced": "score"}, "activations.traced: .* named 'score'. There are: .* head.1, ups.0, ups.1.$"),
    (FCN, {"pixels": [[0, 0], [3, 8]]}, r"activations.pixels: \[3, 8\] lies outside the pictures of 8 x 8 pixels. Rows are 0 to 7, columns 0 to 7."),
    (FCN, {"channels": [0, 3]}, "activations.channels: block1.0 has no channel 3. It has 3, 0 to 2."),
])
def test_what_there_is_not_is_named_with_what_there_is(kind, asked, words):
    usual = {"shown": None, "traced": "block1.0", "pixels": PIXELS, "channels": 1}
    with pytest.raises(ConfigError, match=words):
        activations.measure(net(kind, NEURONS["bntt"]), coded("direct"), **{**usual, **asked})
