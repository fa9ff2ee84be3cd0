"""Spike rates by hand: eq. 8, time step by time step, channels that never fire or always do."""
import pytest
import torch

from snnseg.evaluation import activity, spikes
from snnseg.evaluation.activity import Meter
from snnseg.evaluation.layers import INPUT, Layer
from snnseg.models.backbone import Analog, ConvUnit, Spiking
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.spiking.encode import Constant
from snnseg.spiking.neuron import LIF


def one_layer(weights, x_BCHW, neuron, steps):
    """Activity of a unit of one input channel whose kernels have a middle alone."""
    channels, (H, W) = len(weights), x_BCHW.shape[2:]
    unit = ConvUnit(1, channels, Spiking(steps, neuron, "none", way="reference"), of_spikes=False).eval()
    with torch.no_grad():
        unit.conv.weight.zero_()[:, 0, 1, 1] = torch.tensor(weights)
    layer = Layer("unit", "convolution", INPUT, (1, H, W), (1, H, W), (channels, H, W), 3, 0, "fires", True, None, leaky=True, soft_reset=True)
    meter, x = Meter([layer], {"unit": unit.conv}), Constant(x_BCHW, steps)
    with torch.no_grad():
        meter.see(INPUT, x)
        meter.see("unit", unit(x))
    return meter.activities()


def test_rates_by_hand():
    """Leak 0.5, threshold 1, one channel, two pictures of 1 x 2 pixels, four steps.

        I = 0.8: u = 0.8, 1.2 -> spike, 0.9, 1.25 -> spike      0 1 0 1
        I = 0.4: u = 0.4, 0.6, 0.7, 0.75                        0 0 0 0
        I = 1.5: u = 1.5 -> spike, 1.75, 1.875, 1.9375          1 1 1 1
        I = 0:                                                  0 0 0 0
    """
    (rate,) = spikes.rates(one_layer([1.0], torch.tensor([[[[0.8, 0.4]]], [[[1.5, 0.0]]]]), LIF(0.5, 1.0), 4))
    assert (rate.layer, rate.channels, rate.neurons) == ("unit", 1, 2)
    assert rate.spikes == 6 / 2 and rate.rate == 6 / 4
    assert rate.per_step == (1 / 4, 2 / 4, 1 / 4, 2 / 4)
    assert rate.dead == rate.saturated == ()


def test_dead_and_saturated_channels_are_found():
    """Currents of 3, -1, 0.6 and 0 at every pixel, one step after the other: channel 0 always fires, 1 and 3 never, 2 at every other step."""
    (rate,) = spikes.rates(one_layer([3.0, -1.0, 0.6, 0.0], torch.ones(2, 1, 2, 3), LIF(1.0, 1.0), 4))
    assert rate.saturated == (0,) and rate.dead == (1, 3)
    assert rate.per_step == (6 / 24, 12 / 24, 6 / 24, 12 / 24)
    (half,) = spikes.rates(one_layer([3.0, -1.0, 0.6, 0.0], torch.ones(2, 1, 2, 3), LIF(1.0, 1.0), 4), saturated=0.5)
    assert half.saturated == (0, 2) and half.dead == (1, 3)


def test_one_silent_place_or_picture_makes_no_saturated_channel():
    x_BCHW = torch.ones(3, 1, 2, 2)
    x_BCHW[1, 0, 1, 1] = 0
    (rate,) = spikes.rates(one_layer([3.0, -3.0], x_BCHW, LIF(), 2))
    assert rate.saturated == () and rate.dead == (1,)


@pytest.mark.parametrize(("net", "layers"), [(DeepLab, 8), (FCN, 11)])
def test_dead_and_saturated_channels_of_a_net(net, layers):
    """The layers of figure 14; a channel whose weights are all 0 or all large, in a net that sees light alone."""
    torch.manual_seed(0)
    model = net(2, Spiking(3, LIF(0.9, 0.5), "none", way="reference"), 0.06)
    with torch.no_grad():
        for name in ("block1.0", "block2.1"):
            weight = model.get_submodule(name).conv.weight
            weight.abs_()
            weight[0], weight[1] = 0, 100
        model.block1[1].conv.weight.abs_()
        model.block2[0].conv.weight.abs_()
    rates = {r.layer: r for r in spikes.rates(activity.measure(model, [Constant(torch.ones(2, 3, 8, 8), 3)]))}
    assert len(rates) == layers
    for name in ("block1.0", "block2.1"):
        assert 0 in rates[name].dead and 1 in rates[name].saturated
        assert not set(rates[name].dead) & set(rates[name].saturated)


@pytest.mark.parametrize("net", [DeepLab, FCN])
def test_rates_are_means_of_the_spikes(net):
    """Against the spikes themselves: all of a unit's, and of the FCN's between its upsamplings, whose mean its last stage is given."""
    torch.manual_seed(1)
    model = net(2, Spiking(4, LIF(0.9, 0.3), "none", way="reference", learn_threshold="channel"), 0.1).eval()
    if net is FCN:
        model.cells[1].threshold.data += 0.5        # no layer's neurons are another's
    x, means, seen = torch.rand(4, 3, 3, 8, 8), {}, []
    for name in ("block1.0", "block3.2"):
        model.get_submodule(name).register_forward_hook(lambda m, a, s, name=name: means.update({name: s.mean((1, 2, 3, 4))}))
    if net is FCN:
        model.ups[2].register_forward_pre_hook(lambda m, args: seen.append(args[0].mean()))
    rates = {r.layer: r for r in spikes.rates(activity.measure(model, [x]))}
    for name, mean_T in means.items():
        assert rates[name].per_step == pytest.approx(mean_T.tolist(), rel=1e-6) and rates[name].rate > 0
        assert rates[name].rate == pytest.approx(sum(rates[name].per_step))
    if net is FCN:
        assert 0 < rates["ups.1"].rate / 4 == pytest.approx(seen[0].item(), rel=1e-6)


def test_a_layer_that_does_not_fire_has_the_rate_of_what_it_reads():
    torch.manual_seed(2)
    activities = activity.measure(FCN(2, Spiking(3, LIF(0.9, 0.3), "none", way="reference"), 0.1), [torch.rand(3, 2, 3, 8, 8)])
    own, of = {r.layer: r.rate for r in spikes.rates(activities)}, spikes.of_each_layer(activities)
    assert len(of) == 16 and all(of[name] == rate for name, rate in own.items())
    assert (of["score"], of["ups.2"], of["skips.2"]) == (own["head.1"], own["ups.1"], own["block3.2"])


def test_an_ann_has_no_spikes():
    activities = activity.measure(DeepLab(2, Analog(), 0.05), [torch.rand(1, 2, 3, 8, 8)])
    assert spikes.rates(activities) == () and spikes.of_each_layer(activities) == {} and not any(a.spikes for a in activities)
    assert activities[0].fired_TC and activities[0].layer.ends == "rectifies"
