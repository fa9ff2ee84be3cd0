"""Normalisation through time against torch's own batch norm, one a time step, and by hand."""
import pytest
import torch
from torch import nn

from snnseg.models.backbone import Analog, Spiking
from snnseg.spiking.neuron import LIF
from snnseg.spiking.norm import BNTT, BatchNorm

T, B, C, H, W = 3, 4, 5, 6, 7


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def steps_of_torch():
    """T independent batch norms without bias, as the authors build them, with gammas that differ."""
    norms = [nn.BatchNorm2d(C, eps=1e-4, momentum=0.1) for _ in range(T)]
    for t, norm in enumerate(norms):
        norm.bias = None
        norm.weight.data = random(C, seed=100 + t)
    return norms


def bntt_like(norms, **how):
    bntt = BNTT(C, T, **how)
    bntt.gamma_TC.data = torch.stack([n.weight.data for n in norms])
    return bntt


def test_bntt_begins_as_torch_does_and_has_no_beta():
    bntt = BNTT(C, T)
    assert {k: (tuple(v.shape), set(v.flatten().tolist())) for k, v in bntt.state_dict().items()} == {
        "gamma_TC": ((T, C), {1.0}), "mean_TC": ((T, C), {0.0}), "var_TC": ((T, C), {1.0})}
    assert [name for name, _ in bntt.named_parameters()] == ["gamma_TC"]


def test_bntt_is_one_batch_norm_a_step():
    """Three updates, then evaluation: outputs, gradients of input and gamma, and running statistics."""
    norms = steps_of_torch()
    bntt = bntt_like(norms)
    scale_TC = torch.tensor([1.0, 5.0, 0.2]).view(T, 1, 1, 1, 1)
    for update in range(3):
        x = (random(T, B, C, H, W, seed=update) * scale_TC + 1).requires_grad_()
        y = x.detach().clone().requires_grad_()
        weight = random(T, B, C, H, W, seed=50 + update)
        mine, theirs = bntt(x), torch.stack([norm(y[t]) for t, norm in enumerate(norms)])
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
        gradients = torch.autograd.grad((mine * weight).sum(), [x, bntt.gamma_TC])
        expected = torch.autograd.grad((theirs * weight).sum(), [y, *(n.weight for n in norms)])
        torch.testing.assert_close(gradients[0], expected[0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradients[1], torch.stack(expected[1:]), rtol=1e-6, atol=1e-6)
        assert gradients[0].any() and gradients[1].any()
        torch.testing.assert_close(bntt.mean_TC, torch.stack([n.running_mean for n in norms]), rtol=0, atol=0)
        torch.testing.assert_close(bntt.var_TC, torch.stack([n.running_var for n in norms]), rtol=0, atol=0)

    before = {k: v.clone() for k, v in bntt.state_dict().items()}
    x = random(T, B, C, H, W, seed=9)
    mine, theirs = bntt.eval()(x), torch.stack([norm.eval()(x[t]) for t, norm in enumerate(norms)])
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    assert all(torch.equal(before[k], v) for k, v in bntt.state_dict().items())


def test_bntt_update_by_hand():
    """Pixels 1 and 5: mean 3, variance 4 (of all), 8 (unbiased). Running: 0.9 * 0 + 0.1 * 3, 0.9 * 1 + 0.1 * 8.

    The second step has pixels 2 and 2. Training answers (x - 3) / sqrt(4 + 1e-4), evaluation (x - 0.3) / sqrt(1.7001).
    """
    bntt = BNTT(1, 2)
    x = torch.tensor([[1.0, 5.0], [2.0, 2.0]]).view(2, 1, 1, 1, 2)
    assert bntt(x).flatten().tolist() == pytest.approx([-2 / 4.0001**.5, 2 / 4.0001**.5, 0, 0])
    assert bntt.mean_TC.flatten().tolist() == pytest.approx([0.3, 0.2])
    assert bntt.var_TC.flatten().tolist() == pytest.approx([1.7, 0.9])
    assert bntt.eval()(x).flatten().tolist() == pytest.approx(
        [0.7 / 1.7001**.5, 4.7 / 1.7001**.5, 1.8 / 0.9001**.5, 1.8 / 0.9001**.5])


@pytest.mark.parametrize(("past_trained", "expected"), [
    ("hold", [10, 200, 200, 200, 200]), ("cycle", [10, 200, 10, 200, 10]), ("skip", [10, 200, 1, 1, 1])])
def test_bntt_beyond_the_trained_steps(past_trained, expected):
    """Two trained steps that multiply 1 by 10 and by 200 (mean 0, variance 1 - eps), asked for five."""
    bntt = BNTT(1, 2, past_trained).eval()
    bntt.gamma_TC.data = torch.tensor([[10.0], [200.0]])
    bntt.var_TC.fill_(1 - 1e-4)
    assert bntt(torch.ones(5, 1, 1, 1, 1)).flatten().tolist() == pytest.approx(expected)
    assert bntt(torch.ones(1, 1, 1, 1, 1)).flatten().tolist() == pytest.approx(expected[:1])     # fewer is fine


@pytest.mark.parametrize("past_trained", ["hold", "cycle", "skip"])
def test_bntt_is_not_trained_beyond_its_steps(past_trained):
    bntt = BNTT(C, T, past_trained)
    with pytest.raises(ValueError, match=r"3 time steps.* 4"):
        bntt(random(T + 1, B, C, H, W))
    assert not bntt.mean_TC.any()
    bntt(random(T - 1, B, C, H, W))     # fewer steps train those


@pytest.mark.parametrize("gamma", [None, 1.0, 0.5])
def test_batch_norm_is_torchs_on_time_and_batch_together(gamma):
    norm, reference = BatchNorm(C, gamma), nn.BatchNorm2d(C, eps=1e-4, momentum=0.1, affine=gamma is not None)
    if gamma is not None:
        reference.weight.data.fill_(gamma)
    for update in range(2):
        x = (random(T, B, C, H, W, seed=update) * 3 + 1).requires_grad_()
        y = x.detach().clone().requires_grad_()
        mine, theirs = norm(x), reference(y.reshape(T * B, C, H, W)).reshape(T, B, C, H, W)
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
        weight = random(T, B, C, H, W, seed=7)
        gradients = [torch.autograd.grad((out * weight).sum(), leaf)[0] for out, leaf in ((mine, x), (theirs, y))]
        torch.testing.assert_close(*gradients)
    state, expected = norm.state_dict(), reference.state_dict()
    assert len(state) == len(expected)
    assert all(torch.equal(state[f"norm.{k}"], v) for k, v in expected.items())
    assert state["norm.running_mean"].any()
    x = random(T, B, C, H, W, seed=5)
    assert torch.equal(norm.eval()(x), reference.eval()(x.flatten(0, 1)).view_as(x))


def test_batch_norm_by_hand_counts_all_steps_together():
    """Step 1 is all 0, step 2 all 4: mean 2, variance 4. Apart from each other both would be 0."""
    x = torch.tensor([0.0, 4.0]).view(2, 1, 1, 1, 1).expand(2, 1, 1, 2, 2)
    out = BatchNorm(1, 0.5)(x)
    assert out[0].unique().item() == pytest.approx(-0.5 * 2 / 4.0001**.5)
    assert out[1].unique().item() == pytest.approx(0.5 * 2 / 4.0001**.5)


def test_which_norm_a_net_gets():
    """tdBN's gamma begins at the threshold, BN's at 1; the twins have none at all."""
    def parameters(neurons):
        return {k: set(v.flatten().tolist()) for k, v in neurons.make_norm(C).named_parameters()}

    lif = LIF(threshold=0.5)
    assert parameters(Spiking(T, lif, "tdbn")) == {"norm.weight": {0.5}, "norm.bias": {0.0}}
    assert parameters(Spiking(T, lif, "bn")) == {"norm.weight": {1.0}, "norm.bias": {0.0}}
    assert parameters(Spiking(T, lif, "bntt")) == {"gamma_TC": {1.0}}
    assert parameters(Spiking(T, lif, "none")) == parameters(Analog()) == {}
    x = random(T, B, C, H, W) + 3
    assert torch.equal(Spiking(T, lif, "none").make_norm(C)(x), x)
    assert Analog().make_norm(C)(x).mean().abs() < 1e-5
    assert Spiking(T, lif, "bntt", "cycle").make_norm(C).past_trained == "cycle"
