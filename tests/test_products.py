"""The gradient of a convolution's weight by the loops of `cpu_products` against torch's own in float64, and which layers they take."""
import pytest
import torch

from snnseg.spiking import convolution, products_cpu

pytestmark = pytest.mark.skipif(products_cpu.widest() != 16, reason="the processor holds fewer sums than the loops are for")
# pictures, in- and out-channels, height, width, dilation, kernel
SHAPES = [(3, 16, 16, 8, 8, 1, 3), (5, 3, 16, 9, 7, 1, 3), (2, 1, 32, 5, 4, 2, 3), (9, 32, 16, 4, 4, 1, 3), (2, 64, 48, 8, 8, 12, 3), (1, 5, 16, 6, 5, 1, 3),
          (2, 40, 64, 7, 3, 2, 3), (2, 4, 16, 3, 20, 3, 3), (70, 32, 32, 2, 2, 1, 3), (1, 16, 16, 1, 1, 1, 3), (2, 48, 32, 6, 6, 1, 1), (1, 16, 32, 40, 33, 5, 3)]


def made(N, channels, out, height, width, kernel, layout=torch.channels_last):
    rng = torch.Generator().manual_seed(0)
    shapes = (N, out, height, width), (N, channels, height, width), (out, channels, kernel, kernel)
    return [torch.randn(shape, generator=rng).contiguous(memory_format=layout) for shape in shapes]


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize(("N", "channels", "out", "height", "width", "dilation", "kernel"), SHAPES)
def test_the_products_add_up_to_torchs_gradient(N, channels, out, height, width, dilation, kernel, layout):
    g, x, weight = made(N, channels, out, height, width, kernel, layout)
    w = weight.double().requires_grad_()
    y = torch.nn.functional.conv2d(x.double(), w, padding=dilation * (kernel // 2), dilation=dilation)
    expected = torch.autograd.grad(y, w, g.double())[0]
    assert products_cpu.fits(g, x)
    found = products_cpu.of_weight(g, x, weight, dilation)
    assert found.shape == weight.shape and found.dtype == torch.float32 and found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("of_x", [True, False])
def test_the_backward_pass_of_a_convolution_takes_them(of_x, monkeypatch):
    g, x, weight = made(2, 16, 32, 6, 5, 3)
    mine, calls, of_weight = convolution.backward(g, x, weight, 2, of_x), [], products_cpu.of_weight
    monkeypatch.setattr(products_cpu, "of_weight", lambda *how: calls.append(1) or of_weight(*how))
    assert torch.equal(convolution.backward(g, x, weight, 2, of_x)[1], mine[1]) and calls == [1]
    monkeypatch.setattr(products_cpu, "fits", lambda *tensors: False)
    for a, b in zip(mine, convolution.backward(g, x, weight, 2, of_x), strict=True):
        assert (a is None and b is None) or (a - b).norm() <= 1e-5 * b.norm()


def test_a_long_sum_keeps_its_digits():
    g, x, weight = made(16, 16, 16, 64, 64, 3)
    found = products_cpu.of_weight(torch.full_like(g, 0.1), torch.full_like(x, 0.1), weight, 1)[:, :, 1, 1]
    assert ((found.double() - 16 * 64 * 64 * 0.01).abs() / (16 * 64 * 64 * 0.01)).max() < 1e-5


def test_threads_change_no_bit():
    g, x, weight = made(19, 16, 32, 16, 16, 3)
    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            found.append(products_cpu.of_weight(g, x, weight, 1))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_which_layers_are_taken(monkeypatch):
    g, x, _ = made(1, 3, 16, 4, 4, 3)
    assert products_cpu.fits(g, x)
    for other in ((g[:, :8], x), (g, torch.zeros(1, 1024, 8, 16)), (torch.zeros(1, 16, 80, 80), x), (g.double(), x.double()), (g.bfloat16(), x.bfloat16()), (g.to("meta"), x.to("meta"))):
        assert not products_cpu.fits(*other)
    monkeypatch.setattr(products_cpu, "widest", lambda: 4)
    assert not products_cpu.fits(g, x)
