"""A convolution that goes from spike to spike against torch's own; the pool's loops against torch's; which layers they take."""
import pytest
import torch
import torch.nn.functional as F

from snnseg.spiking import bits, convolution, gathered_cpu, pooling, pooling_cpu, unit
from snnseg.spiking.fused import in_rows
from snnseg.spiking.unit import Wiring

DTYPES = [torch.float32, torch.bfloat16]


def made(T, B, C, out, H, W, rate, dtype, kernel=3, seed=0):
    """Spikes, a weight (bfloat16 values, so that both precisions have the same), and a gradient."""
    rng = torch.Generator().manual_seed(seed)
    x = in_rows((torch.rand(T, B, C, H, W, generator=rng) < rate).to(dtype))
    weight = torch.randn(out, C, kernel, kernel, generator=rng).bfloat16().float()
    return x, weight, torch.randn(T * B, out, H, W, generator=rng).to(dtype)


def exact(x, weight, g, dilation):
    """y and the weight's gradient in float64."""
    w = weight.double().requires_grad_()
    y = F.conv2d(x.flatten(0, 1).double(), w, padding=dilation * (weight.shape[-1] // 2), dilation=dilation)
    return y.detach(), torch.autograd.grad(y, w, g.double())[0]


SHAPES = [(2, 1, 16, 32, 9, 7, 1), (1, 3, 32, 64, 16, 16, 2), (1, 2, 48, 96, 5, 11, 3), (2, 2, 16, 128, 16, 16, 12), (1, 1, 64, 256, 8, 8, 12),
          (1, 5, 272, 32, 3, 2, 1), (3, 1, 16, 32, 40, 33, 1), (1, 1, 16, 32, 1, 300, 1), (1, 40, 32, 32, 4, 4, 1), (1, 1, 16, 512, 2, 2, 1)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("T", "B", "C", "out", "H", "W", "dilation"), SHAPES)
def test_the_sums_are_the_convolution_and_the_gradient_of_its_weight(T, B, C, out, H, W, dilation, dtype):
    for rate in (0.0, 0.25, 1.0):
        x, weight, g = made(T, B, C, out, H, W, rate, dtype)
        packed = bits.pack(x)
        assert gathered_cpu.fits(packed, weight)
        y, gw = exact(x, weight, g, dilation)
        found, of_weight = gathered_cpu.forward(packed, weight, dilation), gathered_cpu.of_weight(packed, g, weight, dilation)
        assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last) and of_weight.dtype == torch.float32
        torch.testing.assert_close(found.double(), y, rtol=1e-5 if dtype == torch.float32 else 2**-8, atol=1e-4 * max(1.0, y.abs().max().item() / 10))
        torch.testing.assert_close(of_weight.double(), gw, rtol=1e-5, atol=1e-5 * max(1.0, gw.abs().max().item()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_tap(dtype):
    x, weight, g = made(2, 2, 32, 64, 6, 5, 0.3, dtype, kernel=1)
    y, gw = exact(x, weight, g, 1)
    torch.testing.assert_close(gathered_cpu.forward(bits.pack(x), weight, 1).double(), y, rtol=2**-8, atol=1e-4)
    torch.testing.assert_close(gathered_cpu.of_weight(bits.pack(x), g, weight, 1).double(), gw, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("vectors", [4, 16])
def test_with_few_and_with_many_registers(vectors, monkeypatch):
    monkeypatch.setattr(gathered_cpu, "widest", lambda: vectors)
    x, weight, g = made(1, 2, 16, 256, 6, 6, 0.3, torch.float32)
    y, gw = exact(x, weight, g, 1)
    assert gathered_cpu._lanes(16, 256, torch.float32) == 16 * vectors
    torch.testing.assert_close(gathered_cpu.forward(bits.pack(x), weight, 1).double(), y, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(gathered_cpu.of_weight(bits.pack(x), g, weight, 1).double(), gw, rtol=1e-5, atol=1e-4)


def test_a_long_sum_keeps_its_digits():
    """A gradient that is the same everywhere: each weight's sum is as long as spikes are many."""
    x, weight, g = made(1, 24, 16, 32, 64, 64, 0.25, torch.float32)
    g = torch.full_like(g, 0.1)
    exact_gw = exact(x, weight, g, 1)[1]
    assert ((gathered_cpu.of_weight(bits.pack(x), g, weight, 1).double() - exact_gw).abs() / exact_gw).max() < 2e-5


def test_nothing_at_all_is_refused():
    from snnseg.spiking.neuron import LIF
    with pytest.raises(ValueError, match="none of them 0"):
        unit.run(torch.zeros(2, 0, 16, 4, 4), torch.zeros(32, 16, 3, 3), Wiring(), None, LIF(), "cpu")


def test_threads_change_no_bit():
    x, weight, g = made(2, 3, 64, 64, 20, 20, 0.25, torch.float32)
    packed, threads, found = bits.pack(x), torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append((gathered_cpu.forward(packed, weight, 1), gathered_cpu.of_weight(packed, g, weight, 1)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_which_layers_are_taken():
    def packed(C, rate, dtype=torch.float32):
        return bits.pack(made(1, 2, C, 1, 8, 8, rate, dtype)[0])

    weight = torch.zeros(32, 16, 3, 3)
    assert gathered_cpu.wins(packed(16, 0.2), weight) and not gathered_cpu.wins(packed(16, 0.7), weight)
    wide = torch.zeros(64, 16, 3, 3)
    assert gathered_cpu.wins(packed(16, 0.35), wide) and not gathered_cpu.wins(packed(16, 0.35, torch.bfloat16), wide)
    assert gathered_cpu.wins(packed(16, 0.2, torch.bfloat16), wide) and not gathered_cpu.wins(packed(16, 0.2, torch.bfloat16), weight)
    assert not gathered_cpu.fits(bits.pack(in_rows(torch.zeros(1, 1, 16, 1, 2**16))), weight)       # a place would not fit into 16 bits
    for other in (weight[:, :8], weight[:16], weight.double(), weight.bfloat16()):      # channels, out-channels, dtypes
        assert not gathered_cpu.wins(packed(other.shape[1], 0.2), other)
    assert gathered_cpu.rate(packed(16, 0.0)) == 0 and gathered_cpu.rate(packed(16, 1.0)) == 1
    x = made(3, 1, 5, 1, 7, 3, 0.3, torch.float32)[0]
    assert gathered_cpu.rate(bits.pack(x)) == pytest.approx(x.mean().item())


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_operator_that_gathers_is_the_plain_one(dtype, recompute):
    from snnseg.spiking.neuron import LIF
    x, weight, g = made(3, 2, 16, 64, 9, 8, 0.2, dtype)
    wiring, out = Wiring(1, recompute=recompute), []
    for way in ("reference", "cpu"):
        leaf_x, leaf_w = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            s = unit.run(leaf_x, leaf_w, wiring, None, LIF(threshold=8.0), way).spikes_TBCHW
        out.append((s, torch.autograd.grad(s, (leaf_x, leaf_w), g.unflatten(0, x.shape[:2]))))
    assert 0.02 < out[0][0].float().mean() < 0.98
    assert (out[0][0] != out[1][0]).float().mean() <= (1e-5 if dtype == torch.float32 else 2e-3)
    for a, b in zip(out[0][1], out[1][1], strict=True):
        assert (a.float() - b.float()).norm() <= (1e-4 if dtype == torch.float32 else 2e-2) * a.float().norm()


# ------------------------------------------------------------------------------------------------ pool, and analog units

@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("C", "H", "W"), [(64, 16, 16), (8, 7, 9), (5, 7, 9), (8, 1, 1), (16, 2, 1), (24, 1, 6), (128, 33, 40)])
def test_the_pools_loops(C, H, W, dtype):
    x, _, _ = made(2, 2, C, 1, H, W, 0.3, dtype)
    plain = pooling.plain(x.flatten(0, 1))
    assert torch.equal(pooling_cpu.of_bits(bits.pack(x).bits, (4, C, H, W), dtype), plain)
    assert torch.equal(pooling.of_bits(bits.pack(x)), plain)
    g = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    exact = pooling.plain_backward(g.double(), H, W)
    torch.testing.assert_close(pooling.backward(g, H, W).double(), exact, rtol=1e-6 if dtype == torch.float32 else 2**-8, atol=1e-6)


@pytest.mark.parametrize(("pooled", "dilation"), [(False, 1), (True, 1), (False, 12), (True, 2)])
def test_an_analog_unit_is_the_plain_one(pooled, dilation):
    rng = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 3, 4, 16, 14, generator=rng), torch.randn(5, 4, 3, 3, generator=rng)
    out = []
    for function, dtype in ((unit.plain, torch.float64), (unit.analog, torch.float32)):
        leaves = x.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_()
        y = function(*leaves, Wiring(dilation, pooled))
        out.append((y, *torch.autograd.grad(y, leaves, torch.ones_like(y).cumsum(-1))))
    for a, b in zip(*out, strict=True):
        torch.testing.assert_close(b.double(), a.detach(), rtol=1e-5, atol=1e-3)
    for dtype in DTYPES:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            assert unit.analog(x, weight, Wiring(dilation, pooled)).dtype == dtype


def test_the_gradient_of_x_alone():
    _, weight, g = made(1, 2, 16, 32, 9, 9, 0.2, torch.float32)
    x = torch.randn(2, 16, 9, 9)
    assert torch.allclose(convolution.backward_to_x(g, weight, 2), convolution.backward(g, x, weight, 2, True)[0], atol=1e-4)
