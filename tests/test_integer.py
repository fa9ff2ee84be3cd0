"""Integer neurons: a naive loop, gradients, and sub-steps of 0 and 1 that give the same answer; every variant by name learns."""
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_fused import C, gradients, learned, normal_of, random
from torch import nn

from snnseg import config
from snnseg.models import zoo
from snnseg.models.backbone import Spiking, spike_driven
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.models.inputs import coded
from snnseg.spiking import fused_cpu, ways
from snnseg.spiking.encode import Constant
from snnseg.spiking.integer import Integer, expand
from snnseg.spiking.neuron import LIF, run
from snnseg.training.loss import cross_entropy

CPU = torch.device("cpu")
PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"


pytestmark = pytest.mark.usefixtures("one_thread")     # these nets are too small to share out


def test_by_hand():
    """leak 0.5, threshold 2, D = 3, currents 3, 9, 0.5, -4: u = 3 -> round(1.5) = 2, -1; 8.5 -> round(4.25) is cut to 3, 2.5; 1.75 -> 1, -0.25; none, -4.125."""
    k, left = run(torch.tensor([3.0, 9.0, 0.5, -4.0]).view(4, 1), LIF(0.5, 2.0, Integer(levels=3)))
    assert k.flatten().tolist() == [2, 3, 1, 0] and left.item() == -4.125


def test_a_hard_reset_forgets_whatever_was_fired():
    k, left = run(torch.tensor([3.0, 9.0, 0.5]).view(3, 1), LIF(0.5, 2.0, Integer(levels=3), soft_reset=False))
    assert k.flatten().tolist() == [2, 3, 0] and left.item() == 0.5


def naive(current_TN, leak, threshold, levels, soft, scale):
    """A neuron at a time in Python's numbers: spikes, what is left, and the gradients of sum(k * weight) by hand-written backpropagation."""
    T, N = current_TN.shape
    spikes, slopes, kept = np.zeros((T, N)), np.zeros((T, N)), np.zeros((T, N))
    for n in range(N):
        u = 0.0
        for t in range(T):
            u = leak * u + current_TN[t, n]
            k = round(min(max(u / threshold, 0), levels))
            spikes[t, n], slopes[t, n] = k, scale / threshold * (0 <= u / threshold <= levels)
            kept[t, n] = 1 if soft or k == 0 else 0
            u = u - threshold * k if soft else u * (k == 0)
    return spikes, slopes, kept


@pytest.mark.parametrize(("soft", "scale", "levels"), [(True, 1.0, 4), (False, 1.0, 2), (True, 0.3, 1)])
def test_spikes_and_gradients_equal_a_naive_loop(soft, scale, levels):
    g = torch.Generator().manual_seed(levels)
    current = (1.5 * torch.randn(6, 40, generator=g, dtype=torch.float64) + 0.8).requires_grad_()
    weight = torch.randn(6, 40, generator=g, dtype=torch.float64)
    k, _ = run(current, LIF(0.8, 0.7, Integer(scale, levels), soft))
    (k * weight).sum().backward()
    spikes, slopes, kept = naive(current.detach().numpy(), 0.8, 0.7, levels, soft, scale)
    assert k.tolist() == spikes.tolist() and set(k.unique().tolist()) == set(range(levels + 1))
    expected, of_u = np.zeros_like(spikes), np.zeros(40)
    for t in reversed(range(6)):        # no gradient through the reset: du(t + 1) / du(t) is the leak, or 0 where a hard one forgot
        of_u = weight[t].numpy() * slopes[t] + of_u * kept[t] * 0.8
        expected[t] = of_u
    np.testing.assert_allclose(current.grad.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert (expected == 0).any() and (expected != 0).any()


def test_learned_leak_and_threshold_have_gradients():
    leak, threshold = (torch.tensor(v).requires_grad_() for v in (0.9, 0.8))
    k, _ = run(torch.full((4, 3), 0.7), LIF(leak, threshold, Integer()))
    k.sum().backward()
    assert leak.grad != 0 and threshold.grad != 0


def test_expand_by_hand():
    """2, 0 then 3, 1 with D = 3: a step's sub-steps one after the other, spikes first."""
    k = torch.tensor([[2.0, 0.0], [3.0, 1.0]]).view(2, 1, 1, 1, 2)
    assert expand(k, 3).view(6, 2).tolist() == [[1, 0], [1, 0], [0, 0], [1, 1], [1, 0], [1, 0]]
    assert torch.equal(expand(k, 3).unflatten(0, (2, 3)).sum(1), k)


@pytest.mark.parametrize("net", [DeepLab, FCN])
@pytest.mark.parametrize("norm", ["bntt", "tdbn"])
def test_sub_steps_of_zeros_and_ones_give_the_same_logits(net, norm):
    """In float64, where no potential comes to lie on the other side of a half. Weights of units and reads see 0 and 1 alone."""
    torch.manual_seed(0)
    neurons = Spiking(3, LIF(0.9, 0.5, Integer(levels=4)), norm)
    model = net(3, neurons, 0.05).double()
    x = Constant(torch.randn(2, 3, 16, 16, dtype=torch.float64), 3)
    model.train()(x)        # statistics
    model.eval()
    driven, seen = spike_driven(model), []
    assert not model.neurons.substeps if net is FCN else not model.head.neurons.substeps

    def note(x_NCHW, weight, *args, **kwargs):
        seen.append(x_NCHW.detach())
        return conv2d(x_NCHW, weight, *args, **kwargs)

    conv2d = F.conv2d
    with torch.no_grad():
        whole = model(x)
        try:
            F.conv2d = note
            logits = driven(x)
        finally:
            F.conv2d = conv2d
        assert model.block1(x).max() == 4 and whole.any()
    torch.testing.assert_close(logits, whole, rtol=1e-9, atol=1e-9)
    binary = [bool(((s == 0) | (s == 1)).all()) for s in seen if len(s) == 3 * 4 * 2]
    assert len(binary) == len(seen) - 2     # the first layer reads the picture, the last a mean
    assert binary.count(False) == (2 if net is DeepLab else 3)      # pools give ninths


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("levels", "soft", "per_channel", "norm", "T"), [
    (4, True, False, "bntt", 1), (4, True, True, "bntt", 4), (3, False, True, "tdbn", 3), (1, False, False, "none", 5), (8, True, False, "given", 2)])
def test_compiled_loops_like_the_plain_form(levels, soft, per_channel, norm, T, dtype):
    """Spikes, and the gradients of y, gamma, beta, and of a learned leak and threshold; at most 1 in 100 000 rounds to the other side."""
    y = (random(T, 3, C, 9, 11, seed=1) * 1.5 + 0.6).to(dtype).requires_grad_()
    neuron = LIF(learned(0.9, per_channel), learned(0.6, per_channel), Integer(0.7, levels), soft)
    assert ways.choose(y, None, neuron) is fused_cpu
    (mine, found), (plain, expected) = (gradients(way, y, normal_of(norm, T), neuron) for way in ("cpu", "reference"))
    assert set(plain.spikes_TBCHW.unique().tolist()) == set(range(levels + 1)) and mine.spikes_TBCHW.dtype == dtype
    assert (mine.spikes_TBCHW != plain.spikes_TBCHW).sum() <= 1e-5 * y.numel()
    for name, b in expected.items():
        assert found[name].shape == b.shape and (b.any() or name == "leak" and T == 1), name
        error = (found[name] - b).float().norm() / b.float().norm().clamp(min=1e-30)
        assert error <= (1e-2 if name == "y" and dtype == torch.bfloat16 else 1e-4), f"{name}: {error:.1e}"


def test_compiled_loops_round_halves_as_the_plain_form():
    """Exactly between two numbers of spikes, at the ends, beyond them, and what is no number."""
    m = torch.tensor([-1.0, 0.0, 0.5, 1.0, 1.5, 2.5, 3.5, 4.0, 4.5, 9.0, torch.inf, torch.nan])
    found = [ways.run(m.view(1, 1, 1, 1, -1), None, LIF(1.0, 1.0, Integer(levels=4)), way).spikes_TBCHW.flatten() for way in ("cpu", "reference")]
    torch.testing.assert_close(*found, rtol=0, atol=0, equal_nan=True)
    assert found[0][:11].tolist() == [0, 0, 0, 1, 2, 2, 4, 4, 4, 4, 4] and found[0][11].isnan()


@pytest.mark.parametrize("net", [DeepLab, FCN])
@pytest.mark.parametrize("pool", ["average", "max"])
def test_nets_learn_the_same_either_way(net, pool):
    """Logits and gradients of a whole net, in float32, as the plain form has them."""
    found = []
    for way in ("reference", "auto"):
        torch.manual_seed(0)
        model = net(3, Spiking(2, LIF(0.9, 0.5, Integer(levels=4)), "bntt", way=way), 0.1, pool=pool).train()
        logits = model(Constant(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), 2))
        cross_entropy(logits, torch.zeros(2, 32, 32, dtype=torch.uint8)).backward()
        found.append((logits.detach(), [p.grad for p in model.parameters()]))
    (plain, expected), (fast, mine) = found
    torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-4)
    for a, b in zip(mine, expected, strict=True):
        assert (a - b).norm() <= 1e-2 * b.norm() + 1e-7


def test_sub_steps_go_the_fast_way_too():
    torch.manual_seed(0)
    model = FCN(3, Spiking(2, LIF(0.9, 0.5, Integer(levels=3)), "bntt"), 0.1).train()
    x = Constant(torch.randn(2, 3, 16, 16), 2)
    model(x)
    with torch.no_grad():
        torch.testing.assert_close(spike_driven(model.eval())(x), model(x), rtol=1e-3, atol=1e-4)


def test_one_level_fires_from_half_a_threshold_on():
    """D = 1 is no binary LIF: it rounds."""
    current = torch.tensor([[0.4, 0.6, 5.0]])
    assert run(current, LIF(1.0, 1.0, Integer(levels=1)))[0].tolist() == [[0, 1, 1]]


def test_names_and_what_they_are():
    def of(name):
        return zoo.neurons(config.load(PARAMS, name))

    assert of("spiking_fcn_if").neuron.leak == 1 and of("spiking_fcn").neuron.leak == 0.99
    assert (of("spiking_fcn_plif").learn_leak, of("spiking_fcn_threshold").learn_threshold) == ("layer", "channel")
    assert of("spiking_fcn_integer").neuron == LIF(0.99, 1.0, Integer(levels=4)) and of("spiking_fcn_integer").neuron.levels == 4


VARIANTS = [name for name in config.read(PARAMS).experiments if name.startswith("spiking_fcn_") and not name.endswith("_t8")]


@pytest.mark.parametrize("name", VARIANTS)
def test_each_variant_learns(name):
    """A bright square, looked for in eight steps of Adam; gradients reach what is learned."""
    numbers = config.load(PARAMS, name, ["model.width=0.0625", "data.size=32"])
    pictures = np.random.default_rng(0).integers(0, 90, (2, 16, 16, 3), dtype=np.uint8)
    mask = np.zeros((2, 16, 16), np.uint8)
    for k in range(2):
        pictures[k, 3 + k:9 + k, 2 * k:2 * k + 7] += 150
        mask[k, 3 + k:9 + k, 2 * k:2 * k + 7] = 1
    model = zoo.build(numbers).train()
    adam = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(8):
        loss = cross_entropy(model(coded(pictures, np.arange(2), numbers, CPU, ("train", 0))), torch.from_numpy(mask))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses
    learned = [cell.leak if cell.leak is not None else cell.threshold for cell in model.modules() if hasattr(cell, "neuron") and isinstance(cell, nn.Module)]
    assert all(p is None or p.grad is not None and p.grad.any() for p in learned[:4])
