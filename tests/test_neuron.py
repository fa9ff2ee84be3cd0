"""Leaky integrate-and-fire: tables by hand, and gradients against a plain loop written anew here."""
import pytest
import torch

from snnseg.spiking.neuron import LIF, run, step
from snnseg.spiking.surrogate import Triangle

SOFT, HARD = True, False

# leak, threshold, soft reset, currents, spikes, potential left after each step
TABLE = {
    "soft, leak 1: 0.75; 1.5 fires; 1.25 fires; 1.0 is not above 1":
        (1.0, 1.0, SOFT, [.75, .75, .75, .75], [0, 1, 1, 0], [.75, .5, .25, 1.0]),
    "hard, leak 1: 0.75; 1.5 fires and is forgotten; the same again":
        (1.0, 1.0, HARD, [.75, .75, .75, .75], [0, 1, 0, 1], [.75, 0, .75, 0]),
    "soft, leak 0.5: 0.75; 1.125 fires; 0.8125; 1.15625 fires":
        (0.5, 1.0, SOFT, [.75, .75, .75, .75], [0, 1, 0, 1], [.75, .125, .8125, .15625]),
    "hard, leak 0.5: as soft, but nothing is left after a spike":
        (0.5, 1.0, HARD, [.75, .75, .75, .75], [0, 1, 0, 1], [.75, 0, .75, 0]),
    "soft, leak 0.99: 0.6; 1.194 fires; 0.79206; 1.3841394 fires":
        (0.99, 1.0, SOFT, [.6, .6, .6, .6], [0, 1, 0, 1], [.6, .194, .79206, .3841394]),
    "hard, leak 0.99: 0.6; 1.194 fires; 0.6; 1.194 fires":
        (0.99, 1.0, HARD, [.6, .6, .6, .6], [0, 1, 0, 1], [.6, 0, .6, 0]),
    "soft, threshold 2: 1.5; 3 fires; 2.5 fires; 2.0 is not above 2":
        (1.0, 2.0, SOFT, [1.5, 1.5, 1.5, 1.5], [0, 1, 1, 0], [1.5, 1.0, .5, 2.0]),
    "hard, threshold 2: 1.5; 3 fires; 1.5; 3 fires":
        (1.0, 2.0, HARD, [1.5, 1.5, 1.5, 1.5], [0, 1, 0, 1], [1.5, 0, 1.5, 0]),
    "soft takes one threshold a step, however far above: 1 - 0.5, 1.25 - 0.5, 1.375 - 0.5":
        (0.5, 0.5, SOFT, [1, 1, 1, 0], [1, 1, 1, 0], [.5, .75, .875, .4375]),
    "a negative potential stays and leaks: -1, -0.5 + 2.5 = 2 fires, 0.5 - 3":
        (0.5, 1.0, SOFT, [-1, 2.5, -3], [0, 1, 0], [-1, 1, -2.5]),
}


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_by_hand(row):
    leak, threshold, soft, currents, spikes, left = TABLE[row]
    neuron = LIF(leak, threshold, soft_reset=soft)
    u = torch.zeros(1)
    for current, expected_spike, expected_left in zip(currents, spikes, left, strict=True):
        s, u = step(torch.tensor([float(current)]), u, neuron)
        assert s.item() == expected_spike
        assert u.item() == pytest.approx(expected_left, abs=1e-6)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 1.0, 1.7, 3.0])
def test_a_potential_at_the_threshold_does_not_fire(threshold):
    at = torch.tensor([threshold, threshold + 1e-6, threshold - 1e-6])
    assert step(at, torch.zeros(3), LIF(1.0, threshold))[0].tolist() == [0, 1, 0]


def test_each_channel_has_its_leak_and_threshold():
    """Current 0.75 at both steps. Leaks 1, 0.5, 1 and thresholds 1, 1, 2 give u = 1.5 (fires), 1.125 (fires), 1.5 (not)."""
    neuron = LIF(torch.tensor([1.0, .5, 1.0]).view(3, 1, 1), torch.tensor([1.0, 1.0, 2.0]).view(3, 1, 1))
    spikes_TBCHW, u_BCHW = run(torch.full((2, 2, 3, 4, 5), 0.75), neuron)
    assert spikes_TBCHW.shape == (2, 2, 3, 4, 5)
    assert not spikes_TBCHW[0].any()
    for channel, (spike, left) in enumerate([(1, .5), (1, .125), (0, 1.5)]):
        assert (spikes_TBCHW[1, :, channel] == spike).all()
        assert (u_BCHW[:, channel] == left).all()


def test_first_potential_is_zero_or_the_given_one():
    current_TN = torch.full((1, 1), 0.5)
    assert run(current_TN, LIF(1.0))[0].item() == 0
    spike, left = run(current_TN, LIF(0.5), torch.tensor([2.0]))        # 0.5 * 2 + 0.5 = 1.5
    assert (spike.item(), left.item()) == (1, .5)


@pytest.mark.parametrize("soft", [SOFT, HARD])
def test_run_is_step_by_step_to_the_bit(soft):
    current_TBCHW = torch.randn(7, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) + 0.5
    neuron = LIF(0.99, 0.8, soft_reset=soft)
    whole, last = run(current_TBCHW, neuron)
    assert 0.1 < whole.mean() < 0.9

    u, steps = torch.zeros(2, 3, 4, 5), []
    for current_BCHW in current_TBCHW:
        s, u = step(current_BCHW, u, neuron)
        steps.append(s)
    assert torch.equal(torch.stack(steps), whole) and torch.equal(u, last)

    first, carried = run(current_TBCHW[:3], neuron)
    second, end = run(current_TBCHW[3:], neuron, carried)
    assert torch.equal(torch.cat([first, second]), whole) and torch.equal(end, last)


# ------------------------------------------------------------------------------------------------ gradients

def triangle_integral(m):
    """A function whose derivative is max(0, 1 - |m|): (1 + m)^2 / 2 up to 0, then 1 - (1 - m)^2 / 2."""
    m = m.clamp(-1, 1)
    return torch.where(m < 0, (1 + m) ** 2 / 2, 1 - (1 - m) ** 2 / 2)


def plain_loop(current_TBCHW, leak, threshold, soft):
    """The neuron with ordinary operations: the spike's value is a constant, its gradient comes from the integral."""
    u, spikes = 0.0, []
    for current_BCHW in current_TBCHW:
        u = u * leak + current_BCHW
        fired = (u > threshold).to(u.dtype)
        smooth = triangle_integral(u / threshold - 1)
        spikes.append(fired + smooth - smooth.detach())
        u = u - fired * threshold if soft else u.where(fired == 0, torch.zeros_like(u))
    return torch.stack(spikes), u


@pytest.mark.parametrize("soft", [SOFT, HARD])
@pytest.mark.parametrize("timesteps", [1, 2, 5, 12])
def test_gradients_equal_those_of_a_plain_loop(timesteps, soft):
    g = torch.Generator().manual_seed(timesteps)
    current = torch.randn(timesteps, 2, 3, 2, 2, generator=g, dtype=torch.float64) + 0.5
    leak = torch.tensor([1.0, .9, .5], dtype=torch.float64).view(3, 1, 1)
    threshold = torch.tensor([1.0, .7, 1.5], dtype=torch.float64).view(3, 1, 1)
    weight_of_spike = torch.randn(current.shape, generator=g, dtype=torch.float64)
    weight_of_rest = torch.randn(current.shape[1:], generator=g, dtype=torch.float64)

    def answer_and_gradients(function):
        leaves = [x.clone().requires_grad_() for x in (current, leak, threshold)]
        spikes, u = function(*leaves)
        loss = (spikes * weight_of_spike).sum() + (u * weight_of_rest).sum()
        return spikes.detach(), u.detach(), *torch.autograd.grad(loss, leaves, allow_unused=True)

    mine = answer_and_gradients(lambda x, lk, th: run(x, LIF(lk, th, Triangle(), soft)))
    plain = answer_and_gradients(lambda x, lk, th: plain_loop(x, lk, th, soft))
    assert mine[0].any() and not mine[0].all()
    for name, a, b in zip(("spikes", "potential", "current", "leak", "threshold"), mine, plain, strict=True):
        if name == "leak" and timesteps == 1:       # it has met nothing but the first potential, zero
            assert not a.any()
            continue
        assert b.any(), name
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize(("soft", "expected"), [(SOFT, [0.7, 0.7]), (HARD, [0.0, 0.2])])
def test_no_gradient_through_the_reset_by_hand(soft, expected):
    """leak 1, threshold 1, currents 1.5 and 0.2: u1 = 1.5 fires.

    soft: u2 = 0.5 + 0.2 = 0.7, slope 1 - |0.7 - 1| = 0.7; ds2/dI1 = 0.7 * (1 - 0) (through the reset it would be 0.35).
    hard: u2 = 0 + 0.2, slope 0.2; ds2/dI1 = 0.2 * (1 - s1) = 0 (through the reset it would be 0.2 * -0.75).
    """
    current = torch.tensor([[1.5], [0.2]], requires_grad=True)
    spikes, _ = run(current, LIF(1.0, 1.0, Triangle(), soft))
    assert spikes.flatten().tolist() == [1, 0]
    spikes[1].sum().backward()
    assert current.grad.flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_gradient_reaches_back_by_leak_to_the_power_of_the_distance():
    """Currents 0.5, 0, 0 with leak 0.5: u = 0.5, 0.25, 0.125, no spike. du3/dI1 = 0.25, the slope at 0.125 is 0.125."""
    current = torch.tensor([[.5], [0.], [0.]], requires_grad=True)
    spikes, _ = run(current, LIF(0.5))
    spikes[2].sum().backward()
    assert current.grad.flatten().tolist() == [.25 * .125, .5 * .125, .125]
