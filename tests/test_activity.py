"""What a net's layers do, counted in a whole net: each layer held to a loop over every product of signals found without hooks."""
import dataclasses

import brute_force
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from snnseg.evaluation import activity
from snnseg.evaluation.layers import INPUT, convolution
from snnseg.models.backbone import Analog, Spiking, exact, mean_over_time
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.spiking import counter, pooling
from snnseg.spiking.encode import Constant, Frames, Rate, whole
from snnseg.spiking.integer import Integer
from snnseg.spiking.neuron import LIF
from snnseg.spiking.timed import CODES, Timed, phase_weight

NETS = pytest.mark.parametrize("net", [DeepLab, FCN])
T, CLASSES, SIDE = 3, 2, 8


def built(net, neurons, width=0.04, channels=3, precise=True, pool="average"):
    """A net whose every layer is active, some of whose weights are zero, in float64 so that no potential is on edge."""
    torch.manual_seed(7)
    if isinstance(neurons, Spiking) and precise:
        neurons = dataclasses.replace(neurons, way="reference")     # the compiled one takes what is coded as float32
    model = net(CLASSES, neurons, width, channels, pool).to(torch.float64 if precise else torch.float32)
    for name, tensor in model.state_dict().items():
        if name.endswith("weight") and tensor.dim() == 4:
            tensor.mul_(torch.rand_like(tensor) < 0.8)
        elif name.endswith(("gamma_TC", "var_TC", "running_var")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("mean_TC", "running_mean", "bias")):
            tensor.normal_(-0.3 if "mean" in name else 0, 0.3)
    return model.eval()


def coded(coding, pictures=2, steps=T, channels=3, side=SIDE):
    torch.manual_seed(3)
    x_BCHW = torch.randn(pictures, channels, side, side)
    if coding == "direct":
        return Constant(x_BCHW.double(), steps)
    if coding == "frames":
        return Frames(torch.randint(3, (pictures, steps, channels, side, side)).double() / 17)
    if coding in CODES:
        return Timed(x_BCHW.abs().clamp(max=1).double(), steps, coding)
    keys = counter.keys(list(range(pictures)))
    return Rate((x_BCHW if coding == "signed_poisson" else x_BCHW.abs()), keys, steps, coding == "signed_poisson")


def double(x):
    """Spikes are drawn in float32."""
    return whole(x).double() if isinstance(x, Rate) else x


def walked(model, x):
    """Each layer's input and what it resizes, by calling the net's parts in turn: two dictionaries of [R, B, C, H, W]; and the logits."""
    reads, grids, s = {}, {}, whole(x)
    once = isinstance(x, Constant) and x.timesteps > 1
    made = {}
    for name in [*(f"{block}.{k}" for block, n in (("block1", 2), ("block2", 2), ("block3", 3)) for k in range(n)),
                 *(["head"] if isinstance(model, DeepLab) else ["head.0", "head.1"])]:
        unit = model.get_submodule(name)
        reads[name] = s[:1] if name == "block1.0" and once else s
        s = made[name] = unit(s)
    spiking = isinstance(unit.neurons, Spiking)

    def end(x_TBCHW):       # spikes one by one, or the mean of values
        return x_TBCHW if spiking else mean_over_time(x_TBCHW)[None]

    size = x.shape[-2:]
    if isinstance(model, DeepLab):
        reads["classifier"] = end(s)
        voltage = grids["classifier"] = model.classifier(s.mean(0))[None]
        return reads, grids, F.interpolate(voltage[0], size, mode="bilinear", align_corners=True)

    def at_each(layer, x_TBCHW):
        return torch.stack([layer(x_BCHW) for x_BCHW in x_TBCHW])

    reads["score"], s = s, at_each(model.score, s)
    for k, feature in enumerate(("block3.2", "block2.1")):
        reads[f"ups.{k}"], reads[f"skips.{2 - k}"] = s, made[feature]
        grids[f"ups.{k}"] = at_each(model.ups[k].conv, s)
        current = torch.stack([model.ups[k](a, model.skips[2 - k](b)) for a, b in zip(s, made[feature], strict=True)])
        s = model.neurons.between_upsamplings(model.cells[k], exact(current))
    reads["ups.2"], reads["skips.0"] = end(s), end(made["block1.1"])
    grids["ups.2"] = model.ups[2].conv(s.mean(0))[None]
    return reads, grids, len(s) * model.ups[2](s.mean(0), model.skips[0](made["block1.1"].mean(0)))


def loop(layer, conv, x_CHW):
    """Inputs that are not zero, products and what the pool adds up or compares, of a picture at a step."""
    added = brute_force.pooled(x_CHW) if layer.pooled or layer.maxed else 0
    if layer.pooled:
        x_CHW = pooling.plain(torch.from_numpy(x_CHW)[None])[0].numpy()
    if layer.maxed:
        x_CHW = brute_force.largest(x_CHW)
    w = conv.weight.detach().numpy()
    options = {"stride": conv.stride[0], "padding": conv.padding[0], "dilation": conv.dilation[0]}
    return np.count_nonzero(x_CHW), (brute_force.transposed if layer.kind == "transposed" else brute_force.convolved)(x_CHW, w, **options), added


def loops(layer, conv, k_CHW):
    """Of all sub-steps of an integer neuron's step, which the pool adds up."""
    if layer.substeps == 1:
        return loop(layer, conv, k_CHW)
    parts = np.sum([loop(layer, conv, (k_CHW > d).astype(k_CHW.dtype)) for d in range(layer.substeps)], 0)
    return (*loop(layer, conv, k_CHW)[:2], parts[2]) if layer.pooled else parts


WHOLE = [(net, neurons, coding) for net in (DeepLab, FCN) for neurons, codings in (
    (Spiking(T, LIF(0.9, 0.6), "bntt"), ("direct", "signed_poisson")), (Spiking(T, LIF(1.0, 0.2, soft_reset=False), "none"), ("poisson",)),
    (Spiking(T, LIF(0.9, 0.4, Integer(levels=3)), "bntt"), ("phase",)),
    (Spiking(T, LIF(0.9, 0.6), "tdbn"), ("frames",)), (Analog(), ("direct",)), (Analog(T), ("frames",))) for coding in codings]
WHOLE = [(*case, "average") for case in WHOLE] + [(net, neurons, "direct", "max") for net in (DeepLab, FCN) for neurons in (
    Spiking(T, LIF(0.9, 0.6), "bntt"), Spiking(T, LIF(0.9, 0.4, Integer(levels=3)), "bntt"), Analog())]


@torch.no_grad()
@pytest.mark.parametrize(("net", "neurons", "coding", "pool"), WHOLE, ids=lambda v: v if isinstance(v, str) else type(v).__name__ if not isinstance(v, type) else v.__name__)
def test_every_layer_of_a_net_is_counted_as_a_loop_counts(net, neurons, coding, pool):
    model, x = built(net, neurons, pool=pool), double(coded(coding, steps=neurons.timesteps))
    reads, grids, logits = walked(model, x)
    torch.testing.assert_close(model(x), logits)
    activities = activity.measure(model, [x])
    assert {a.layer.name for a in activities} == set(reads)
    for a in activities:
        layer, conv = a.layer, convolution(model, a.layer.name)
        of_steps = [np.sum([loops(layer, conv, x_CHW) for x_CHW in x_BCHW.numpy()], 0).tolist() for x_BCHW in reads[layer.name]]
        assert list(zip(a.inputs_R, a.products_R, a.pooled_R, strict=True)) == list(map(tuple, of_steps)), layer.name
        size = layer.resized_HW
        expected = [sum(brute_force.resized(y_CHW, *size) for y_CHW in y_BCHW.numpy()) for y_BCHW in grids[layer.name]] if size else []
        assert list(a.resized_R) == expected, layer.name
        if layer.ends in ("fires", "rectifies"):
            made = [reads[b.layer.name] for b in activities if b.layer.reads == layer.name and not b.layer.averaged]
            assert not made or torch.equal(torch.tensor(a.fired_TC), (made[0] if layer.levels > 1 else made[0] != 0).long().sum((1, 3, 4)))
        else:
            assert a.fired_TC is None
        assert 0 < a.density <= 1 and layer.levels == (neurons.neuron.levels if layer.spiking else 1)
        values = reads[layer.name] / phase_weight(torch.arange(T)).view(-1, 1, 1, 1, 1) if a.weighted else reads[layer.name]
        if layer.substeps > 1:
            assert 1 < values.max() <= layer.substeps and torch.equal(values, values.round()), layer.name
            values = values.clamp(max=1)
        assert a.weighted == (coding == "phase" and layer.reads == INPUT)
        assert values.any() and a.of_spikes == bool(((values == 0) | (values.abs() == 1)).all()), layer.name
        assert a.signed == bool(a.of_spikes and (values < 0).any())
        assert a.accumulates == (a.of_spikes and not layer.pooled) and (a.pictures, a.steps) == (2, neurons.timesteps)
    poolers = ["block2.0", "block3.0", *["head.0"] * (net is FCN)]
    assert [[a.layer.name for a in activities if getattr(a.layer, kind)] for kind in ("pooled", "maxed")] == ([poolers, []] if pool == "average" else [[], poolers])
    assert {a.layer.name for a in activities if not sum(a.products_R)} == set()       # every layer takes part


def test_the_coded_first_layer_is_counted_once():
    """Direct coding gives it the same picture at each step, so it convolves once; drawn spikes and frames come T times."""
    model = built(DeepLab, Spiking(T))
    runs = {c: [a.runs for a in activity.measure(model, [double(coded(c))])] for c in ("direct", "poisson", "frames")}
    assert runs == {"direct": [1] + [T] * 8, "poisson": [T] * 9, "frames": [T] * 9}
    (once, *behind), (again, *alike) = (activity.measure(model, [x]) for x in (coded("direct"), whole(coded("direct")).clone()))
    assert again.products_R == once.products_R * T and behind == alike
    assert activity.measure(model, [whole(coded("direct"))])[0] == once        # the view that `encode.direct` gives


@NETS
@pytest.mark.parametrize("coding", ["direct", "poisson", "signed_poisson", "frames"])
@pytest.mark.parametrize("norm", ["bntt", "tdbn", "bn", "none"])
def test_all_nets_and_codings(net, coding, norm):
    """In float32 and the way that `auto` takes: no count is more than dense, no channel fires more than it can."""
    for neurons in (Spiking(T, norm=norm), Analog(T if coding == "frames" else 1)):
        channels = 2 if coding == "frames" else 3
        x = coded(coding, steps=neurons.timesteps, channels=channels)
        x = Constant(x.x_BCHW.float(), neurons.timesteps) if coding == "direct" else Frames(x.x_BTCHW.float()) if coding == "frames" else x
        for a in activity.measure(built(net, neurons, channels=channels, precise=False), [x]):
            assert len(a.inputs_R) == len(a.products_R) == len(a.pooled_R) == a.runs
            assert 0 <= max(a.products_R) <= a.pictures * a.layer.macs and 0 <= a.density <= 1
            assert a.of_spikes == (a.layer.spiking and (coding.endswith("poisson") if a.layer.reads == INPUT else a.layer.name != "ups.0")
                                   or a.layer.reads == INPUT and coding.endswith("poisson"))
            if a.fired_TC:
                C, H, W = a.layer.result_CHW
                assert np.shape(a.fired_TC) == (neurons.timesteps, C) and np.max(a.fired_TC) <= 2 * H * W


@NETS
@pytest.mark.parametrize("neurons", [Spiking(T), Analog()], ids=["spiking", "ann"])
def test_under_autocast(net, neurons):
    """In bf16 spikes are spikes; the first layer's products are those of float32."""
    model, x = built(net, neurons, precise=False), Constant(coded("direct").x_BCHW.float(), neurons.timesteps)
    with torch.autocast("cpu", torch.bfloat16):
        found = activity.measure(model, [x])
    exactly = activity.measure(model, [x])
    assert found[0].products_R == exactly[0].products_R
    assert all(a.of_spikes == b.of_spikes and sum(a.products_R) == pytest.approx(sum(b.products_R), rel=0.3, abs=50) for a, b in zip(found, exactly, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@NETS
@pytest.mark.parametrize("neurons", [Spiking(T), Analog()], ids=["spiking", "ann"])
def test_counts_on_a_gpu_are_the_same(net, neurons):
    model, x = built(net, neurons), coded("direct", steps=neurons.timesteps)
    here = activity.measure(model, [x])
    assert activity.measure(model.cuda(), [Constant(x.x_BCHW.cuda(), neurons.timesteps)]) == here


@NETS
@pytest.mark.parametrize("neurons", [Spiking(T), Analog()], ids=["spiking", "ann"])
def test_neither_the_order_of_pictures_nor_batches_matter(net, neurons):
    model = built(net, neurons)
    x_BCHW = torch.randn(6, 3, SIDE, SIDE, dtype=torch.float64)

    def measured(*batches):
        return activity.measure(model, [Constant(x_BCHW[list(b)], neurons.timesteps) for b in batches])

    assert measured(range(6)) == measured([5, 0], [3], [4, 1, 2])
    assert measured([0]) != measured([1])


@NETS
def test_drawn_spikes_are_those_of_the_sample(net):
    """By its key, whatever batch it is in."""
    model, x = built(net, Spiking(T)), coded("poisson", pictures=4)
    parts = [Rate(x.x_BCHW[a:b], x.key_B[a:b], T) for a, b in ((3, 4), (0, 3))]
    assert activity.measure(model, [double(x)]) == activity.measure(model, map(double, parts))


@NETS
@pytest.mark.parametrize("neurons", [Spiking(T), Analog()], ids=["spiking", "ann"])
def test_a_net_is_left_as_it_was(net, neurons):
    """Same answer, same weights and statistics, training or not, no hook, no gradient; also when a batch fails."""
    model, x = built(net, neurons), coded("direct", steps=neurons.timesteps)
    before, logits = {k: v.clone() for k, v in model.state_dict().items()}, model(x).detach()
    model.train()
    activity.measure(model, [x, x])
    with pytest.raises(RuntimeError):
        activity.measure(model, [Constant(torch.zeros(1, 5, SIDE, SIDE, dtype=torch.float64), neurons.timesteps)])
    assert model.training and all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters()) and torch.equal(model.eval()(x), logits)


def test_what_cannot_be_counted_together_is_refused():
    model = built(DeepLab, Spiking(T))
    with pytest.raises(ValueError, match="one batch or more"):
        activity.measure(model, [])
    for other in (coded("frames", side=SIDE + 1), coded("frames", steps=T + 1)):
        with pytest.raises(ValueError, match="pictures of one activity have one shape"):
            activity.measure(built(DeepLab, Spiking(T + 1)), [coded("frames"), other])
    with pytest.raises(ValueError, match="block1.0 reads: inputs that are the same at each step and others"):
        activity.measure(model, [coded("frames"), coded("direct")])
    with pytest.raises(TypeError, match="DeepLab and FCN"):
        activity.measure(torch.nn.Conv2d(3, 2, 1), [coded("frames")])


def test_a_row_is_plain():
    """Numbers, tuples and names alone, so that it can be compared and written."""
    (first, *_) = activity.measure(built(DeepLab, Spiking(T)), [coded("direct")])
    values = dataclasses.asdict(first)
    values.pop("layer")
    flat = [v for value in values.values() for v in (value if isinstance(value, tuple) else [value])]
    assert all(isinstance(v, int | bool) or isinstance(v, tuple) and all(type(n) is int for n in v) for v in flat)
