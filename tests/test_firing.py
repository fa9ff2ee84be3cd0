"""The penalty on spikes: the rate is that of a plain loop, and so is its gradient; it bends a training as it should and no other."""
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_training import fit, loaded, stepped

from snnseg.data.loader import batches, epoch_order
from snnseg.models import zoo
from snnseg.models.backbone import Spiking
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.spiking import fused
from snnseg.spiking import neuron as lif
from snnseg.spiking.encode import Constant
from snnseg.spiking.integer import Integer
from snnseg.spiking.neuron import LIF
from snnseg.training.checkpoint import State
from snnseg.training.firing import counted

NETS = pytest.mark.parametrize("net", [DeepLab, FCN])
T, B = 3, 2


def built(net, neurons, pool="max"):
    torch.manual_seed(0)
    return net(2, neurons, 0.05, pool=pool)


def looped(model, x_TBCHW):
    """The spikes of every layer that fires, by the convolutions of its parts and the plain neuron."""
    made, s = {}, x_TBCHW
    for name in [*(f"{block}.{k}" for block, n in (("block1", 2), ("block2", 2), ("block3", 3)) for k in range(n)),
                 *(["head"] if isinstance(model, DeepLab) else ["head.0", "head.1"])]:
        unit = model.get_submodule(name)
        x_NCHW = F.avg_pool2d(s.flatten(0, 1), 3, 2, 1) if unit.pooled else F.max_pool2d(s.flatten(0, 1), 3, 2, 1) if unit.maxed else s.flatten(0, 1)
        y_TBCHW = fused.normalised(unit.conv(x_NCHW).unflatten(0, (T, B)), unit.norm.normal(T))[0]
        s = made[name] = lif.run(y_TBCHW, unit.cell())[0]
    if isinstance(model, FCN):
        s = model.score(s.flatten(0, 1))
        for k, feature in enumerate(("block3.2", "block2.1")):
            current = model.ups[k](s, model.skips[2 - k](made[feature].flatten(0, 1)))
            made[f"ups.{k}"] = lif.run(current.unflatten(0, (T, B)), model.cells[k]())[0]
            s = made[f"ups.{k}"].flatten(0, 1)
    return made


def rate_of(model, x, **how):
    with counted(model) as fired:
        logits = model(x)
    return fired.rate(**how), logits


@NETS
@pytest.mark.parametrize("pool", ["average", "max"])
@pytest.mark.parametrize("spike", [None, Integer(levels=3)], ids=["binary", "integer"])
def test_rate_and_gradient_are_a_plain_loop_s(net, pool, spike):
    """In float64: each neuron of each layer and step counts alike, and every layer is reached."""
    neurons = Spiking(T, LIF(0.9, 0.6, spike) if spike else LIF(0.9, 0.6), way="reference", learn_threshold="layer")
    model, x = built(net, neurons, pool).double(), torch.randn(T, B, 3, 8, 8, dtype=torch.float64)
    found, _ = rate_of(model, x)
    made = looped(model, x)
    assert len(made) == {DeepLab: 8, FCN: 11}[net]
    expected = torch.cat([s.flatten() for s in made.values()]).mean()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    wanted = [p for name, p in model.named_parameters() if not name.startswith(("classifier", "ups.2", "skips.0"))]       # nothing fires behind these
    mine, plain = (torch.autograd.grad(rate, wanted) for rate in (found, expected))
    for a, b in zip(mine, plain, strict=True):
        assert b.any()
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@NETS
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("recompute", [False, True])
def test_the_compiled_way_has_the_same_rate(net, precision, recompute):
    """And gradients but for the order of sums. The rate is no mean in bf16, which has three digits."""
    found, x = [], Constant(torch.randn(B, 3, 16, 16), T)
    for way in ("reference", "auto"):
        model = built(net, Spiking(T, LIF(0.9, 0.6), way=way, recompute=recompute))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            rate, logits = rate_of(model, x)
        assert rate.dtype == torch.float32 and torch.equal(logits, model(x) if precision == torch.float32 else logits)
        (logits.float().square().mean() + rate).backward()
        found.append((rate.item(), [p.grad for p in model.parameters()]))
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6 if precision == torch.float32 else 0.1) and 0.01 < found[0][0] < 0.9
    if precision == torch.float32:
        for a, b in zip(found[1][1], found[0][1], strict=True):
            assert (a - b).norm() <= 1e-3 * b.norm() + 1e-7


def test_rates_of_parts_add_up():
    """Of a batch that two ranks share unevenly, whose norms see the same statistics."""
    model = built(FCN, dataclasses.replace(Spiking(T, LIF(0.9, 0.3), "none"), way="reference"))
    x = torch.randn(T, 5, 3, 16, 16)
    parts = [rate_of(model, x[:, part], pictures=torch.tensor(5))[0] for part in (slice(0, 3), slice(3, 5))]
    torch.testing.assert_close(sum(parts), rate_of(model, x)[0])


# ------------------------------------------------------------------------------------------------ in training

def course(config, steps=6):
    """Loss, and rate, of each step."""
    split, model = loaded(config).train, zoo.build(config).train()
    update, told = stepped(model, config), []
    for k, batch in enumerate(batches(split, config.train.batch, epoch_order(len(split), 0, 0))):
        if k == steps:
            break
        taken = update(batch, State(step=k))
        told.append((taken.loss(), taken.rate))
    return zip(*told, strict=True)


@pytest.mark.parametrize("name", ["spiking_deeplab", "spiking_fcn"])
def test_a_penalty_lowers_the_rate(name, tiny):
    """A penalty of almost nothing tells the rate as it is; a large one brings it down. Without one nothing is told and the loss is the same."""
    fast = "model.width=0.03", "optim.lr=0.1"
    losses, none = course(tiny(name, *fast))
    alike, rates = course(tiny(name, *fast, "loss.spike_rate=1e-12"))
    _, lowered = course(tiny(name, *fast, "loss.spike_rate=30.0"))
    assert set(none) == {None} and losses[0] == alike[0] and rates[0] == lowered[0] > 0.02
    np.testing.assert_allclose(losses[:3], alike[:3], rtol=1e-3)
    assert lowered[-1] < 0.5 * rates[-1]


def test_the_loss_has_the_penalty_in_it(tiny):
    (plain, *_), _ = course(tiny("spiking_fcn"), 1)
    (loss, *_), (rate, *_) = course(tiny("spiking_fcn", "loss.spike_rate=2.0"), 1)
    assert loss == pytest.approx(plain + 2 * rate, rel=1e-6)


def test_a_twin_has_no_spikes(tiny):
    assert [list(told) for told in course(tiny("ann_fcn"), 3)] == [list(told) for told in course(tiny("ann_fcn", "loss.spike_rate=5.0"), 3)]


def test_the_rate_is_logged_beside_the_loss(tiny, tmp_path):
    seen = {penalty: fit(c := tiny("spiking_deeplab", f"loss.spike_rate={penalty}", "train.epochs=1"), loaded(c), tmp_path / penalty)[2] for penalty in ("0.0", "0.1")}
    told = {penalty: [numbers.get("train/spike_rate") for _, numbers in s.lines] for penalty, s in seen.items()}
    assert set(told["0.0"]) == {None} and all(0 < rate < 1 for rate in told["0.1"]) and len(told["0.1"]) == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_captured_step_tells_the_rate_of_a_plain_one(precision, tiny):
    from snnseg.training import optim
    from snnseg.training.step import Step

    found = []
    for graph in ("true", "false"):
        config = tiny("spiking_fcn", f"train.graph={graph}", f"train.precision={precision}", "loss.spike_rate=0.5", "model.pool=max")
        split, model = loaded(config).train, zoo.build(config).cuda().train()
        update, rates = Step(model, optim.build(config.optim, model), config, torch.device("cuda")), []
        for k, batch in enumerate(batches(split, 8, epoch_order(len(split), 0, 0))):
            taken = update(batch, State(step=k))
            rates.append((taken.loss(), taken.rate))
        assert bool(update.captured) == (graph == "true") and update.captures == (graph == "true")
        found.append(rates)
    np.testing.assert_allclose(*found, rtol=1e-2)
