"""Max pools: the largest of spikes is a spike, so the layer behind one adds; held to torch's own pool and to the average's net."""
import pytest
import torch

from snnseg import sections
from snnseg.errors import ConfigError
from snnseg.models import zoo
from snnseg.models.backbone import Analog, ConvUnit, Spiking, spike_driven
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.spiking import bits, pooling, unit
from snnseg.spiking.encode import Constant
from snnseg.spiking.integer import Integer
from snnseg.spiking.neuron import LIF

NETS = pytest.mark.parametrize("net", [DeepLab, FCN])
T, B = 3, 2


def spikes(*shape, dtype=torch.float32, share=0.2):
    torch.manual_seed(1)
    return (torch.rand(shape) < share).to(dtype)


def built(net, neurons, pool="max"):
    torch.manual_seed(0)
    return net(2, neurons, 0.06, pool=pool)


def test_by_hand():
    """4 x 4 to 2 x 2: windows begin one pixel outside. The gradient of a window goes to its first spike, or without one to its first pixel."""
    x = torch.tensor([[0.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1]]).view(1, 1, 1, 4, 4).requires_grad_()
    y = pooling.Largest.apply(x)
    assert y.flatten().tolist() == [0, 0, 0, 1]
    y.backward(torch.tensor([[1.0, 2], [3, 4]]).view(1, 1, 1, 2, 2))
    assert x.grad.view(4, 4).tolist() == [[1, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0], [0, 0, 4, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 2)], ids=str)
def test_like_torch(size, dtype):
    """Forward and backward to the bit; what is kept is an eighth of a byte an input."""
    x, g = spikes(T, B, 5, *size, dtype=dtype), torch.randn(T, B, 5, *((n + 1) // 2 for n in size)).to(dtype)
    kept, found = [], []
    for pool in (lambda x: torch.nn.functional.max_pool2d(x.flatten(0, 1), 3, 2, 1).unflatten(0, x.shape[:2]), pooling.Largest.apply):
        kept.clear()
        leaf = x.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda z: kept.append(z.nbytes) or z, lambda z: z):
            y = pool(leaf)
        found.append((y, *torch.autograd.grad(y, leaf, g)))
    (y, gx), (mine, mine_gx) = found
    assert torch.equal(mine, y) and torch.equal(mine_gx, gx) and mine.dtype == mine_gx.dtype == dtype
    assert kept == [bits.pack(x).bits.nbytes] and kept[0] <= x.numel() / 8 + 1


@NETS
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
def test_the_compiled_way_is_the_plain_one(net, precision, recompute):
    """The same answer and, but for the order of sums, the same gradients; the layers behind a pool are given spikes."""
    made = {way: built(net, Spiking(T, LIF(0.9, 0.6), way=way, recompute=recompute)).train() for way in ("reference", "auto")}
    made["auto"].load_state_dict(made["reference"].state_dict())
    x, found = Constant(torch.randn(B, 3, 16, 16), T), []
    for model in made.values():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            logits = model(x)
        logits.float().square().mean().backward()
        found.append((logits.detach().float(), [p.grad for p in model.parameters()]))
    (plain, expected), (mine, gradients) = found
    torch.testing.assert_close(mine, plain, rtol=0, atol=1e-4 if precision == torch.float32 else 0.3 * plain.std().item())
    if precision == torch.float32:
        for a, b in zip(gradients, expected, strict=True):
            assert (a - b).norm() <= 1e-3 * b.norm() + 1e-7


@NETS
def test_the_layer_behind_a_max_pool_takes_spikes(net, monkeypatch):
    """No unit pools within, and each is given 0 and 1: so the loops from spike to spike may take it."""
    model, seen, run = built(net, Spiking(T, LIF(0.9, 0.6))), [], unit.run

    def watched(x, weight, wiring, *how):
        seen.append((wiring.pooled, wiring.of_spikes, None if isinstance(x, Constant) else tuple(x.shape[-2:]), isinstance(x, Constant) or set(x.unique().tolist()) <= {0, 1}))
        return run(x, weight, wiring, *how)

    monkeypatch.setattr(unit, "run", watched)
    model(Constant(torch.randn(B, 3, 16, 16), T))
    sides = [None, 16, 8, 8, 4, 4, 4, *([4] if net is DeepLab else [2, 2])]
    assert seen == [(False, k > 0, side and (side, side), True) for k, side in enumerate(sides)]


@NETS
def test_integer_neurons_sub_step_by_sub_step(net):
    """The largest number of spikes is what the largest of each sub-step adds up to."""
    model = built(net, Spiking(T, LIF(0.9, 0.4, Integer(levels=3)))).double().eval()
    x = torch.randn(T, B, 3, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        assert {k for unit in model.modules() if isinstance(unit, ConvUnit) and unit.maxed for k in unit.behind_max(model.block1(x)).unique().tolist()} > {0, 1}
        torch.testing.assert_close(spike_driven(model)(x), model(x))


@NETS
@pytest.mark.parametrize("neurons", [Spiking(T), Analog(T)], ids=["spiking", "ann"])
def test_a_max_pool_is_another_answer_of_the_same_weights(net, neurons):
    average, largest = built(net, neurons, "average"), built(net, neurons)
    assert all(torch.equal(a, b) for a, b in zip(average.state_dict().values(), largest.state_dict().values(), strict=True))
    x = torch.randn(T, B, 3, 16, 16)
    assert average(x).shape == largest(x).shape == (B, 2, 16, 16) and not torch.allclose(average(x), largest(x))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_on_a_gpu(dtype):
    """Channels innermost, as the nets have them: torch's padded average is wrong there (pytorch issue 188344), its largest is not.

    Gradients are whole numbers, so that bfloat16 has the sums of up to four windows exactly, in any order.
    """
    x, g = spikes(T, B, 24, 17, 16, dtype=dtype), torch.randint(-8, 9, (T, B, 24, 9, 8)).to(dtype)
    found = []
    for device in ("cpu", "cuda"):
        leaf = x.to(device).flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (T, B)).requires_grad_()
        y = pooling.Largest.apply(leaf)
        found.append((y.detach().cpu(), torch.autograd.grad(y, leaf, g.to(device))[0].cpu()))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


# ------------------------------------------------------------------------------------------------ the number

def test_the_config_has_the_pool(tiny):
    for name in ("spiking_fcn", "ann_deeplab"):
        units = {pool: [m for m in zoo.build(tiny(name, f"model.pool={pool}")).modules() if isinstance(m, ConvUnit)] for pool in ("average", "max")}
        assert [[sum(u.pooled for u in of), sum(u.maxed for u in of)] for of in units.values()] == ([[3, 0], [0, 3]] if name == "spiking_fcn" else [[2, 0], [0, 2]])
    with pytest.raises(ConfigError, match="model.pool"):
        tiny("spiking_fcn", "model.pool=min")


def test_a_net_from_before_these_numbers_is_read_as_it_was(tiny):
    """And its run's fingerprint is the one that it had."""
    now = tiny()
    about = now.about
    del about["config"]["model"]["pool"], about["config"]["loss"]["spike_rate"], about["config"]["loss"]["background"]
    assert sections.Config.of(about, now.root) == now
    assert sections.since(about["config"])["model"]["pool"] == "average"
    prints = [tiny(name, *how).fingerprint("seal", "code") for name, *how in (
        ["spiking_fcn"], ["spiking_fcn", "model.pool=max"], ["spiking_fcn", "loss.spike_rate=1.0"], ["ann_fcn"], ["ann_fcn", "model.pool=max"], ["ann_fcn", "loss.background=0.5"])]
    assert len(set(prints)) == 6 and prints[3] == tiny("ann_fcn", "loss.spike_rate=1.0").fingerprint("seal", "code"), "an ANN has no spikes"
