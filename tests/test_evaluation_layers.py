"""The layers of the nets as they are counted: eq. 9 at the paper's size, shapes as the nets make them, who reads whom."""
import pytest
import torch
from torch import nn

from snnseg.evaluation.layers import INPUT, convolution, layers
from snnseg.models.backbone import Analog, Spiking
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.spiking.neuron import LIF

NETS = pytest.mark.parametrize("net", [DeepLab, FCN])
NEURONS = pytest.mark.parametrize("neurons", [Spiking(2), Analog()], ids=["spiking", "ann"])


# MMAC at 64 x 64, 21 classes; the transposed convolutions on grids of 17, 33 and 65
FEATURES = [7.08, 150.99, 75.50, 150.99, 75.50, 150.99, 150.99]
MMACS = {DeepLab: [*FEATURES, 603.98, 5.51], FCN: [*FEATURES, 150.99, 603.98, 1.38, 5.51, 2.75, 1.38, 1.15, 4.32, 16.77]}


@NETS
@NEURONS
def test_multiply_accumulates_of_the_paper(net, neurons):
    """1 371.5 MMAC of a DeepLab and 1 550.3 of an FCN, the spiking one like its twin."""
    with torch.device("meta"):
        of = layers(net(21, neurons), 64, 64)
    assert [round(layer.macs / 1e6, 2) for layer in of] == MMACS[net]
    assert round(sum(layer.macs for layer in of) / 1e6, 1) == {DeepLab: 1371.5, FCN: 1550.3}[net]
    assert sum(layer.weights + layer.biases for layer in of) == {DeepLab: 4_115_136, FCN: 13_573_719}[net]


@NETS
@NEURONS
@pytest.mark.parametrize("size", [(32, 32), (23, 37), (8, 8)])
def test_shapes_are_those_that_the_net_makes(net, neurons, size):
    """Watched at the convolutions themselves, which the plain form runs as modules or hands to conv2d by name."""
    model = net(3, neurons, 0.05)
    of = {layer.name: layer for layer in layers(model, *size)}
    assert all(convolution(model, name).weight.numel() == layer.weights for name, layer in of.items())
    seen = {}
    for name, layer in of.items():
        module = model.get_submodule(name)
        if not isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, args, y, name=name: seen.update({name: (args[0].shape[-3:], y.shape[-3:])}))
        if layer.kind == "transposed":
            module.conv.register_forward_hook(lambda m, args, y, name=name: seen.update({f"{name} grid": y.shape[-3:]}))
    with torch.no_grad():       # where gradients are asked for, the read-out's convolutions are no modules' calls
        model.eval()(torch.zeros(neurons.timesteps, 1, 3, *size))
    assert len(seen) == {DeepLab: 8, FCN: 9 + 6}[net]
    for name, layer in of.items():
        if name in seen:
            assert seen[name] == (layer.read_CHW, layer.result_CHW)
        if layer.kind == "transposed":
            assert seen[f"{name} grid"] == layer.out_CHW
    for layer in of.values():       # a layer reads what another made, and joins what fits
        before = (3, *size) if layer.reads == INPUT else of[layer.reads].result_CHW
        assert layer.read_CHW == before
        assert layer.joins is None or of[layer.joins].result_CHW == layer.result_CHW


CHAIN = [INPUT, "block1.0", "block1.1", "block2.0", "block2.1", "block3.0", "block3.1", "block3.2"]
READS = {DeepLab: [*CHAIN, "head"], FCN: [*CHAIN, "head.0", "head.1", "block1.1", "block2.1", "block3.2", "score", "ups.0", "ups.1"]}


@NETS
@NEURONS
def test_who_reads_whom(net, neurons):
    assert [layer.reads for layer in layers(net(2, neurons, 0.02), 16, 16)] == READS[net]


def ends(of):
    return {name: [layer.name for layer in of if layer.ends == name] for name in ("fires", "rectifies", "passes", "accumulates")}


UNITS = {DeepLab: [*CHAIN[1:], "head"], FCN: [*CHAIN[1:], "head.0", "head.1"]}


@NETS
def test_how_layers_end(net):
    """Figure 14 has 8 layers that fire in a DeepLab, 11 in an FCN. Where a net is linear to its end, a spiking one accumulates, its twin averages."""
    spiking, twin = layers(net(2, Spiking(3), 0.02), 16, 16), layers(net(2, Analog(), 0.02), 16, 16)
    last, passing = {DeepLab: (["classifier"], []), FCN: (["skips.0", "ups.2"], ["score", "skips.1", "skips.2"])}[net]
    fire = UNITS[net] + (["ups.0", "ups.1"] if net is FCN else [])
    assert len(fire) == {DeepLab: 8, FCN: 11}[net]
    assert ends(spiking) == {"fires": fire, "rectifies": [], "passes": passing, "accumulates": last}
    assert ends(twin)["rectifies"] == UNITS[net] and not ends(twin)["fires"] and not ends(twin)["accumulates"]
    assert [layer.name for layer in twin if layer.averaged] == last and not any(layer.averaged for layer in spiking)
    assert [layer.name for layer in spiking if layer.finished_once] == [layer.name for layer in twin if layer.finished_once] == last
    assert [layer.name for layer in spiking if layer.pooled] == ["block2.0", "block3.0"] + (["head.0"] if net is FCN else [])
    assert [layer.name for layer in spiking if not layer.of_spikes] == ["block1.0"] + (["ups.0"] if net is FCN else [])
    assert not any(layer.of_spikes for layer in twin)


@pytest.mark.parametrize(("norm", "expected"), [("bntt", "step"), ("tdbn", "static"), ("bn", "static"), ("none", "none")])
def test_norm_and_neuron_of_a_layer(norm, expected):
    of = layers(FCN(2, Spiking(3, LIF(leak=1.0, soft_reset=False), norm), 0.02), 16, 16)
    assert {layer.norm for layer in of if layer.name in UNITS[FCN]} == {expected}
    assert {layer.norm for layer in of if layer.name not in UNITS[FCN]} == {"none"}
    assert not any(layer.leaky or layer.soft_reset for layer in of)
    learned = layers(FCN(2, Spiking(3, LIF(leak=1.0), norm, learn_leak="channel"), 0.02), 16, 16)
    assert all(layer.leaky and layer.soft_reset for layer in learned if layer.ends == "fires")
    assert {layer.norm for layer in layers(FCN(2, Analog(), 0.02), 16, 16) if layer.ends == "rectifies"} == {"static"}


def test_other_nets_are_refused():
    with pytest.raises(TypeError, match="DeepLab and FCN, not of Linear"):
        layers(nn.Linear(1, 1), 8, 8)
