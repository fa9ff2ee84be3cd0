"""Energy three ways: the paper's figures, a net of two layers with a pencil, and what each rule adds or leaves out."""
import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from snnseg.evaluation import activity, energy, operations, spikes, traffic
from snnseg.evaluation.activity import Meter
from snnseg.evaluation.energy import Arithmetic, Memory
from snnseg.evaluation.layers import INPUT, Layer, layers
from snnseg.models.backbone import Analog, ConvUnit, Spiking, mean_over_time
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.spiking.encode import Constant
from snnseg.spiking.integer import Integer
from snnseg.spiking.neuron import LIF
from snnseg.spiking.timed import Timed

NETS = pytest.mark.parametrize("net", [DeepLab, FCN])


# --------------------------------------------------------------------------------------------------- the paper's proxy

@pytest.mark.parametrize(("net", "mj"), [(DeepLab, 6.31), (FCN, 7.13)])
def test_energy_of_the_twins_in_the_paper(net, mj):
    """Eq. 11 at 64 x 64 and 21 classes: 1 371.5 and 1 550.3 MMAC of 4.6 pJ."""
    with torch.device("meta"):
        ann = energy.proxy(layers(net(21, Analog()), 64, 64))
    assert round(ann.mj, 2) == mj
    assert ann.totals["macs"] == ann.totals["dense_macs"] and ann.totals["acs"] == 0


@pytest.mark.parametrize(("net", "ratio", "rate"), [(DeepLab, 2.75, 1.86), (DeepLab, 1.15, 4.44), (FCN, 2.37, 2.16), (FCN, 1.04, 4.91)])
def test_ratios_of_table_6_are_mean_spike_rates(net, ratio, rate):
    """E_ANN / E_SNN = 4.6 / (0.9 x mean rate), weighted by operations: 5.11 / ratio spikes a neuron, whatever the single layers' rates."""
    with torch.device("meta"):
        of = layers(net(21, Spiking(20)), 64, 64)
    assert round(4.6 / 0.9 / ratio, 2) == pytest.approx(rate, abs=0.01)
    uneven = {layer.name: 1 + math.sin(k) for k, layer in enumerate(of)}
    mean = sum(layer.macs * uneven[layer.name] for layer in of) / sum(layer.macs for layer in of)
    snn = energy.proxy(of, {name: r * (4.6 / 0.9 / ratio) / mean for name, r in uneven.items()})
    assert energy.proxy(of).pj / snn.pj == pytest.approx(ratio, rel=1e-9)


def test_constants_are_those_of_table_5():
    a = Arithmetic()
    assert (a.mac(), a.ac()) == (pytest.approx(4.6), 0.9)
    assert energy.proxy([UNIT], {}, Arithmetic(multiply_pj=1.0, add_pj=0.5)).pj == 36 * 1.5


# -------------------------------------------------------------------------------------------- two layers with a pencil

UNIT = Layer("unit", "convolution", INPUT, (1, 2, 2), (1, 2, 2), (1, 2, 2), 3, 0, "fires", True, None, leaky=True, soft_reset=True)
END = Layer("end", "convolution", "unit", (1, 2, 2), (1, 2, 2), (2, 2, 2), 1, 0, "accumulates", True, True)
PICTURE = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]]]])


def two_layers(unit_layer=UNIT, end_layer=END, neurons=None, x=None):
    """A 3x3 kernel of 0.5 in the middle and 0.25 to the right of it, leak 0.5, threshold 0.7; then 1x1 to two channels. T = 3.

    PICTURE    currents     steps 1 2 3
    1  0       0.5  0       0 1 0   0 0 0      u = 0.5, 0.75 -> spike, 0.525
    0  2       0.5  1       0 1 0   1 1 1      u = 1 -> spike, 1.15 -> spike, 1.225 -> spike
    """
    neurons = neurons or Spiking(3, LIF(0.5, 0.7), "none", way="reference")
    unit, end = ConvUnit(1, 1, neurons, of_spikes=False).eval(), nn.Conv2d(1, 2, 1, bias=False)
    with torch.no_grad():
        unit.conv.weight.zero_()[0, 0, 1, 1:] = torch.tensor([0.5, 0.25])
        end.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        meter = Meter([unit_layer, end_layer], {"unit": unit.conv, "end": end})
        x = Constant(PICTURE, neurons.timesteps) if x is None else x
        s = unit(x)
        meter.see(INPUT, x)
        meter.see("unit", s)
        if end_layer.resized_HW:
            meter.see_grid("end", end(mean_over_time(s))[None])
    return meter.activities()


def test_activity_with_a_pencil():
    """The 1 meets the middle alone, the 2 the middle and the tap beside it. Spikes: 1, 3, 1; each is sent to two channels."""
    unit, end = two_layers()
    assert (unit.inputs_R, unit.products_R, unit.fired_TC) == ((2,), (3,), ((1,), (3,), (1,)))
    assert (end.inputs_R, end.products_R, end.fired_TC) == ((1, 3, 1), (2, 6, 2), None)
    assert (unit.accumulates, end.accumulates, unit.density, end.density) == (False, True, 0.5, 5 / 12)


def test_proxy_with_a_pencil():
    """Eq. 9: 9 x 4 and 1 x 4 x 2; R_s = 5 spikes / 4 neurons of the first, and of what the second reads."""
    activities = two_layers()
    found = energy.proxy([a.layer for a in activities], spikes.of_each_layer(activities))
    assert [(row.dense_macs, row.acs, row.rate) for row in found.layers] == [(36, 45.0, 1.25), (8, 10.0, None)]
    assert found.pj == pytest.approx(55 * 0.9)
    assert energy.proxy([a.layer for a in activities]).pj == pytest.approx(44 * 4.6)


def test_exact_with_a_pencil():
    """3 products of the picture, once: MAC. 4 neurons, 3 steps: 12 leaks and 12 comparisons, 5 resets. 10 accumulates of the second layer."""
    found = energy.exact(two_layers())
    unit, end = found.layers
    assert (unit.macs, unit.acs, unit.products_per_step, unit.reads) == (3 + 12, 12 + 5, (3.0,), "values")
    assert (end.macs, end.acs, end.products_per_step, end.reads) == (0, 10, (2.0, 6.0, 2.0), "spikes")
    assert unit.pj == pytest.approx({"synapses": 13.8, "pooling": 0, "norm": 0, "neuron": 12 * 4.6 + 17 * 0.9, "adds": 0, "resizing": 0})
    assert end.pj["synapses"] == pytest.approx(9.0) and found.pj == pytest.approx(13.8 + 70.5 + 9.0)
    assert found.mj == found.pj / 1e9


@pytest.mark.parametrize(("leaky", "soft_reset", "macs", "acs"), [(True, True, 12, 17), (True, False, 12, 12), (False, True, 0, 29), (False, False, 0, 24)])
def test_neuron_with_a_pencil(leaky, soft_reset, macs, acs):
    """Without leak the current is added; a hard reset writes zero."""
    unit, _ = two_layers(replace(UNIT, leaky=leaky, soft_reset=soft_reset))
    assert operations.of_layer(unit)["neuron"] == (macs, acs)


@pytest.mark.parametrize(("norm", "fold", "expected"), [
    ("none", True, (0, 0)), ("step", True, (12, 0)), ("step", False, (12, 0)),      # BNTT: 4 neurons, 3 steps
    ("static", True, (0, 4)), ("static", False, (4, 0))])                           # the same at each step, of a current that is, too
def test_norm_with_a_pencil(norm, fold, expected):
    unit, _ = two_layers(replace(UNIT, norm=norm))
    assert operations.of_layer(unit, fold)["norm"] == expected
    moving, _ = two_layers(replace(UNIT, norm=norm), x=PICTURE[None].repeat(3, 1, 1, 1, 1))
    assert operations.of_layer(moving, fold)["norm"] == tuple(n * (3 if norm == "static" else 1) for n in expected)


def test_integer_neurons_with_a_pencil():
    """D = 2, threshold 0.5: currents 0.5, 0.5 and 1 give 1, 1 and 2 spikes at each of 3 steps and leave nothing.

    4 neurons: 12 leaks, 24 comparisons, 12 resets; 12 spikes, each sent to two channels. Bytes: 2 sub-steps a step.
    """
    neurons = Spiking(3, LIF(0.5, 0.5, Integer(levels=2)), "none", way="reference")
    unit, end = two_layers(replace(UNIT, levels=2), replace(END, levels=2), neurons)
    assert (unit.fired_TC, end.inputs_R, end.products_R, end.density) == (((4,),) * 3, (4,) * 3, (8,) * 3, 12 / (3 * 2 * 4))
    assert operations.of_layer(unit)["neuron"] == (12, 24 + 12) and operations.of_layer(end)["synapses"] == (0, 24)
    rate, = spikes.rates([unit, end], saturated=0.5)
    assert (rate.rate, rate.per_step, rate.saturated) == (3.0, (1.0, 1.0, 1.0), (0,))       # 12 of 3 x 2 x 4
    assert traffic.of_layer(unit) == {"weights": 9 * 4, "states": (2 * 3 * 2 * 4 + 4 * 4) * 4, "activations": 4 * 4 + 24 / 8}
    assert traffic.of_layer(end) == {"weights": 2 * 4 * 3 * 2, "states": 2 * 3 * 2 * 8 * 4, "activations": 24 / 8}
    found = energy.proxy([a.layer for a in (unit, end)], spikes.of_each_layer([unit, end]))
    assert [row.acs for row in found.layers] == [36 * 3.0, 8 * 3.0]


def test_weighted_phase_accumulates_and_shifts():
    """Bytes 128 and 64 in two steps: a spike of 1/2, then one of 1/4. Each is an accumulate for each tap that it meets; a shift a neuron and step."""
    x = Timed(torch.tensor([[[[128.0, 0.0], [0.0, 64.0]]]]) / 255, 2, "phase")
    unit, _ = two_layers(neurons=Spiking(2, LIF(0.5, 0.7), "none", way="reference"), x=x)
    assert (unit.of_spikes, unit.weighted, unit.signed, unit.inputs_R, unit.products_R) == (True, True, False, (1, 1), (1, 2))
    assert operations.of_layer(unit)["synapses"] == (0, 3 + 2 * 4) and traffic.input_bits(unit, 32) == 1
    plain, _ = two_layers(neurons=Spiking(2, LIF(0.5, 0.7), "none", way="reference"), x=replace(x, timing="latency"))
    assert (plain.of_spikes, plain.weighted) == (True, False) and operations.of_layer(plain)["synapses"] == (0, sum(plain.products_R))


def test_end_with_a_pencil():
    """2 x 2 to 3 x 3: 16 taps a channel (1 + 2 + 1 a side, squared), of mean voltages of 0.33 0 / 0.33 1 and their negatives.

    The middle inputs' zero has 4 of 16 taps. Bias and skip once: 8 and 18 additions.
    """
    end = two_layers(end_layer=replace(END, biases=2, joins="skip", resized_HW=(3, 3)))[1]
    found = operations.of_layer(end)
    assert found["resizing"] == (2 * 12, 0) and found["adds"] == (0, 8 + 18) and found["synapses"] == (0, 10)


def test_bytes_with_a_pencil():
    """32 bits a number, 1 bit a spike.

    unit: 9 weights once; 4 membranes read and written 3 times, currents written once, read 3 times; 4 pixels read, 12 spikes written.
    end:  2 weights 3 times; 8 accumulators read and written 3 times; 12 spikes read.
    """
    unit, end = two_layers()
    assert traffic.of_layer(unit) == {"weights": 36, "states": 4 * (24 + 4 + 12), "activations": 16 + 12 / 8}
    assert traffic.of_layer(end) == {"weights": 24, "states": 4 * 48, "activations": 12 / 8}
    assert traffic.of_layer(end, weights_held=True)["weights"] == 8 and traffic.of_layer(end, weight_bits=8)["weights"] == 6
    norms = [traffic.of_layer(replace(unit, layer=replace(UNIT, norm=norm)), fold_norm=fold, weights_held=held)["weights"] - 36
             for norm, fold, held in (("step", True, True), ("static", True, False), ("static", False, False), ("static", False, True))]
    assert norms == [2 * 3 * 4, 4, 8, 8]
    found, plain = energy.with_memory((unit, end), memory=Memory(1.0, 10.0, 100.0)), energy.exact((unit, end))
    assert found.pj - plain.pj == pytest.approx(60 + 10 * (160 + 192) + 100 * 19)
    assert found.totals["bytes"] == 60 + 352 + 19 and found.by_part["states"] == 3520


def test_resized_and_joined_maps_are_moved():
    """Accumulated: 8 voltages read, 18 joined, 18 logits written. Passed on at each of 3 steps: read and written, and the result written."""
    resized = replace(END, joins="skip", resized_HW=(3, 3))
    end = two_layers(end_layer=resized)[1]
    assert traffic.of_layer(end)["activations"] == 1.5 + 4 * (8 + 18 + 18)
    passing = replace(end, layer=replace(resized, ends="passes"))
    assert traffic.of_layer(passing)["activations"] == 1.5 + 3 * 4 * (16 + 18 + 18) and traffic.of_layer(passing)["states"] == 0


def test_signed_spikes_take_two_bits_and_accumulate():
    (unit, _), (signed, _) = (two_layers(x=x) for x in (torch.ones(3, 1, 1, 2, 2), torch.tensor([1.0, -1, 0, 1]).view(1, 1, 1, 2, 2).repeat(3, 1, 1, 1, 1)))
    assert unit.accumulates and signed.accumulates and (unit.signed, signed.signed) == (False, True)
    assert operations.of_layer(signed)["synapses"] == (0, 3 * (1 + 2 + 2))
    assert [traffic.input_bits(a, 32) for a in (unit, signed)] == [1, 2]


# ------------------------------------------------------------------------------------------------ twins and rivals

TWIN_UNIT = replace(UNIT, ends="rectifies", spiking=False, leaky=False, soft_reset=False, norm="static")
TWIN_END = replace(END, ends="passes", spiking=False, of_spikes=False, averaged=True)


def test_a_twin_with_a_pencil():
    """PICTURE gives currents 0.5 0 / 0.5 1: three products, 4 folded shifts, 4 comparisons, and 3 of 4 units are not zero: 6 products, all MAC."""
    found = energy.exact(two_layers(TWIN_UNIT, TWIN_END, Analog()))
    assert [(row.macs, row.acs) for row in found.layers] == [(3, 8), (6, 0)]
    assert found.pj == pytest.approx(9 * 4.6 + 8 * 0.9)
    assert energy.exact(two_layers(TWIN_UNIT, TWIN_END, Analog()), Arithmetic(fold_norm=False)).totals["macs"] == 13


def test_a_twin_of_three_frames_averages_before_its_end():
    """The unit works three times; two additions for each of 4 values, and the end is that of one mean picture."""
    frames = torch.stack([PICTURE, 0 * PICTURE, 2 * PICTURE])
    unit, end = two_layers(TWIN_UNIT, TWIN_END, Analog(3), frames)
    assert (unit.products_R, end.products_R) == ((3, 0, 3), (6,))
    assert operations.of_layer(unit)["neuron"] == (0, 12) and operations.of_layer(end)["adds"] == (0, 8)
    assert traffic.of_layer(end) == {"weights": 8, "states": 4 * 2 * 3 * 4, "activations": 4 * (3 * 4 + 8)}


@NETS
def test_zeros_of_an_ann_are_skipped(net):
    """A channel that is never positive costs the layer behind it what pruning its weights would spare; 3 x 8 - 2 taps a side lie on the map."""
    torch.manual_seed(0)
    model, x = net(2, Analog(), 0.06), torch.rand(1, 2, 3, 8, 8)
    with torch.no_grad():
        model.block1[0].conv.weight.abs_()
        before = activity.measure(model, [x])[1]
        model.block1[0].conv.weight[0].neg_()
        after = activity.measure(model, [x])[1]
        model.block1[1].conv.weight[:, 0] = 0
        pruned = activity.measure(model, [x])[1]
    channels = after.layer.in_CHW[0]
    assert (before.products_R[0], after.products_R[0]) == (2 * 22**2 * channels * channels, 2 * 22**2 * channels * (channels - 1))
    assert pruned.products_R == after.products_R


@pytest.mark.parametrize(("timesteps", "bits"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4), (16, 5), (20, 5), (500, 9)])
def test_bits_that_match_time_steps(timesteps, bits):
    assert energy.matched_bits(timesteps) == bits == math.ceil(math.log2(timesteps + 1))


def test_the_cost_of_fewer_bits():
    """Equal widths: 3.7 (b / 32)^2 + 0.9 b / 32. One activation bit costs little more than an accumulate."""
    a = Arithmetic()
    assert [a.mac(b, b) for b in (8, 3)] == pytest.approx([3.7 / 16 + 0.9 / 4, 3.7 * 9 / 1024 + 0.9 * 3 / 32])
    assert a.mac(1) == pytest.approx(3.7 / 32 + 0.9) and a.mac(32, 32) == a.mac() and a.ac(8) == pytest.approx(0.225)


def test_the_quantised_twin_with_a_pencil():
    """T = 7: 3 bits. The picture's three products keep 32 bits; the six behind cost 3.7 x 3 / 32 + 0.9; four values of 3 bits are written and read."""
    twin = two_layers(TWIN_UNIT, TWIN_END, Analog())
    found = energy.quantised(twin, 7)
    assert found.way == "exact, 3 bits" and found.totals["macs"] == energy.exact(twin).totals["macs"]
    assert found.pj == pytest.approx(3 * 4.6 + 8 * 0.9 + 6 * (3.7 * 3 / 32 + 0.9))
    moved = energy.quantised(twin, 7, memory=Memory(0.0, 0.0, 1.0))
    assert moved.way == "with memory, 3 bits" and moved.pj - found.pj == pytest.approx(4 * 4 + 4 * 3 / 8 + (4 + 8) * 3 / 8)
    eight = energy.quantised(twin, 200, Arithmetic(weight_bits=8))
    assert eight.pj == pytest.approx(3 * (3.7 / 4 + 0.9 / 4) + 8 * 0.9 + 6 * (3.7 / 16 + 0.9 / 4))


def test_who_is_no_rival_is_refused():
    with pytest.raises(ValueError, match="the quantised rival is an ANN"):
        energy.quantised(two_layers(), 3)
    with pytest.raises(ValueError, match="a time step or more: 0"):
        energy.quantised(two_layers(TWIN_UNIT, TWIN_END, Analog()), 0)


def test_pooled_spikes_as_numbers_of_four_bits():
    """Behind a pool the products of spikes are MAC; of 4-bit counts if one wants it so."""
    activities = activity.measure(DeepLab(2, Spiking(3, LIF(0.9, 0.3), "none"), 0.06), [torch.rand(3, 2, 3, 8, 8)])
    plain, counts = energy.exact(activities), energy.exact(activities, Arithmetic(pooled_bits=4))
    cheaper = {a.layer: b.total_pj < a.total_pj for a, b in zip(plain.layers, counts.layers, strict=True)}
    assert [name for name, yes in cheaper.items() if yes] == ["block2.0", "block3.0"]
    assert [row.layer for row in plain.layers if row.reads == "values"] == ["block1.0", "block2.0", "block3.0"]


def test_behind_a_max_pool_spikes_are_added():
    """What is multiplied are the picture's products alone. The pool compares as often as the average adds, and the layer behind makes as many products."""
    torch.manual_seed(0)
    x = torch.rand(3, 2, 3, 8, 8)
    nets = {pool: DeepLab(2, Spiking(3, LIF(0.9, 0.3), "none"), 0.06, pool=pool) for pool in ("average", "max")}
    nets["max"].load_state_dict(nets["average"].state_dict())
    average, largest = (energy.exact(activity.measure(model, [x])) for model in nets.values())
    assert [row.layer for row in largest.layers if row.reads == "values"] == ["block1.0"]
    assert {row.layer for row in largest.layers if row.pj["pooling"]} == {"block2.0", "block3.0"}
    at = next(k for k, row in enumerate(average.layers) if row.layer == "block2.0")     # what it reads is the same in both
    assert largest.layers[at].pj["pooling"] == average.layers[at].pj["pooling"] > 0
    products = sum(largest.layers[at].products_per_step)
    assert largest.layers[at].pj["synapses"] == pytest.approx(0.9 * products) and products == sum(average.layers[at].products_per_step)   # a window of spikes is zero in both


# ----------------------------------------------------------------------------------------------------- side by side

@NETS
@pytest.mark.parametrize("neurons", [Spiking(3), Spiking(3, LIF(1.0), "tdbn"), Analog(), Analog(3)], ids=["bntt", "tdbn", "ann", "ann of frames"])
def test_ways_side_by_side(net, neurons):
    """Sums are sums, memory adds and nothing else changes, rows are JSON, and a picture's mean does not depend on how often it is seen."""
    torch.manual_seed(0)
    model, x, rival = net(2, neurons, 0.05), torch.rand(neurons.timesteps, 2, 3, 8, 8), None if isinstance(neurons, Spiking) else 3
    activities = activity.measure(model, [x])
    found = energy.side_by_side(activities, rival_of=rival)
    ways = ["proxy", "exact", "with memory"] + (["exact, 2 bits", "with memory, 2 bits"] if rival else [])
    assert [e.way for e in found] == ways and len({len(e.layers) for e in found}) == 1
    for e in found:
        assert e.pj == pytest.approx(sum(e.by_part.values())) == pytest.approx(sum(row["pj"] for row in e.rows())) and e.pj > 0
        rows = json.loads(json.dumps(e.rows()))
        assert rows == e.rows() and len({tuple(row) for row in rows}) == 1
        assert sum(row["macs"] + row["acs"] for row in rows) == pytest.approx(e.totals["macs"] + e.totals["acs"])
    _, exact, moved, *quantised = found
    assert {k: v for k, v in moved.by_part.items() if k in operations.PARTS} == exact.by_part and set(moved.by_part) == {*operations.PARTS, *traffic.PARTS}
    assert all(moved.by_part[part] > 0 for part in ("weights", "activations"))
    assert (moved.by_part["states"] > 0) == (isinstance(neurons, Spiking) or neurons.timesteps > 1)
    assert [q.pj < e.pj for q, e in zip(quantised, (exact, moved), strict=False)] == [True] * len(quantised)
    again = energy.side_by_side(activity.measure(model, [x, x]), rival_of=rival)
    assert [e.pj for e in again] == pytest.approx([e.pj for e in found])
