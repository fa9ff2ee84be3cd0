"""A convolution of sixteen channels of spikes by table against torch's own, and which layers it takes."""
import pytest
import torch
import torch.nn.functional as F

from snnseg.spiking import bits, gathered_cpu, looked_up_cpu, unit
from snnseg.spiking.fused import in_rows
from snnseg.spiking.neuron import LIF
from snnseg.spiking.unit import Wiring

SHAPES = [(2, 1, 16, 9, 7, 1), (1, 3, 32, 16, 16, 2), (1, 11, 16, 5, 11, 12), (1, 1, 32, 1, 1, 1), (3, 6, 16, 1, 40, 1), (2, 2, 32, 6, 5, 1), (1, 9, 16, 3, 4, 1)]


def made(T, B, out, H, W, rate):
    """Spikes, a weight, and a gradient."""
    rng = torch.Generator().manual_seed(0)
    x = in_rows((torch.rand(T, B, 16, H, W, generator=rng) < rate).float())
    return x, torch.randn(out, 16, 3, 3, generator=rng), torch.randn(T * B, out, H, W, generator=rng)


def exact(x, weight, g, dilation):
    """y and the weight's gradient in float64."""
    w = weight.double().requires_grad_()
    y = F.conv2d(x.flatten(0, 1).double(), w, padding=dilation, dilation=dilation)
    return y.detach(), torch.autograd.grad(y, w, g.double())[0]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize(("T", "B", "out", "H", "W", "dilation"), SHAPES)
def test_the_rows_add_up_to_the_convolution_and_the_gradient_of_its_weight(T, B, out, H, W, dilation, layout):
    for rate in (0.0, 0.25, 1.0):
        x, weight, g = made(T, B, out, H, W, rate)
        weight, packed = weight.contiguous(memory_format=layout), bits.pack(x)
        assert looked_up_cpu.wins(packed, weight)
        y, gw = exact(x, weight, g, dilation)
        found, of_weight = looked_up_cpu.forward(packed, weight, dilation), looked_up_cpu.of_weight(packed, g, weight, dilation)
        assert found.is_contiguous(memory_format=torch.channels_last) and of_weight.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(found.double(), y, rtol=1e-5, atol=1e-5 * max(1.0, y.abs().max().item()))
        torch.testing.assert_close(of_weight.double(), gw, rtol=1e-5, atol=1e-5 * max(1.0, gw.abs().max().item()))


def test_every_byte_has_its_row():
    """All 256 bytes of either half, alone on the map, and a weight whose sums are whole numbers."""
    words = torch.arange(512)
    x = torch.zeros(1, 512, 16, 1, 1)
    for k in range(8):
        x[0, :256, k, 0, 0], x[0, 256:, 8 + k, 0, 0] = (words[:256] >> k & 1).float(), (words[:256] >> k & 1).float()
    weight = torch.zeros(16, 16, 3, 3)
    weight[:, :, 1, 1] = 2.0 ** torch.arange(16)
    found = looked_up_cpu.forward(bits.pack(in_rows(x)), weight, 1)
    assert found[:256, 0, 0, 0].tolist() == list(range(256)) and found[256:, 15, 0, 0].tolist() == list(range(0, 2**16, 256))
    assert looked_up_cpu.of_weight(bits.pack(in_rows(x)), torch.ones_like(found), weight, 1)[:, :, 1, 1].eq(128).all()


def test_threads_change_no_bit():
    x, weight, g = made(2, 19, 16, 16, 16, 0.25)
    packed, threads, found = bits.pack(x), torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append((looked_up_cpu.forward(packed, weight, 1), looked_up_cpu.of_weight(packed, g, weight, 1)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_which_layers_are_taken():
    packed = bits.pack(made(1, 2, 16, 8, 8, 0.9)[0])
    weight = torch.zeros(16, 16, 3, 3)
    assert looked_up_cpu.wins(packed, weight) and looked_up_cpu.wins(packed, torch.zeros(32, 16, 3, 3))
    for other in (torch.zeros(16, 8, 3, 3), torch.zeros(8, 16, 3, 3), torch.zeros(64, 16, 3, 3), torch.zeros(16, 16, 1, 1), weight.double(), weight.bfloat16()):
        assert not looked_up_cpu.wins(packed, other)
    assert not looked_up_cpu.wins(packed._replace(dtype=torch.bfloat16), weight)
    assert unit._gathering(packed, weight, Wiring()) is looked_up_cpu and unit._gathering(packed, weight, Wiring(pooled=True)) is None
    few = bits.pack(made(1, 2, 16, 8, 8, 0.1)[0])
    assert unit._gathering(few, torch.zeros(64, 16, 3, 3), Wiring()) is gathered_cpu


@pytest.mark.parametrize("recompute", [False, True])
def test_an_operator_that_looks_up_is_the_plain_one(recompute):
    x, weight, g = made(3, 2, 16, 9, 8, 0.4)
    wiring, out = Wiring(1, recompute=recompute), []
    for way in ("reference", "cpu"):
        leaf_x, leaf_w = x.clone().requires_grad_(), weight.clone().requires_grad_()
        s = unit.run(leaf_x, leaf_w, wiring, None, LIF(threshold=8.0), way).spikes_TBCHW
        out.append((s, torch.autograd.grad(s, (leaf_x, leaf_w), g.unflatten(0, x.shape[:2]))))
    assert 0.02 < out[0][0].mean() < 0.98
    assert (out[0][0] != out[1][0]).float().mean() <= 1e-5
    for a, b in zip(out[0][1], out[1][1], strict=True):
        assert (a - b).norm() <= 1e-4 * a.norm()
