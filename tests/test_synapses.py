"""Effective operations of a layer: equal to loops over every product, with padding, dilation, stride, transposition, zeros."""
import brute_force
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snnseg.evaluation import synapses

# kind, in, out, height, width, kernel, stride, padding, dilation, output padding
CONVOLUTIONS = [
    ("conv", 2, 3, 6, 5, 3, 1, 1, 1, 0), ("conv", 2, 3, 6, 5, 3, 1, 2, 2, 0), ("conv", 2, 2, 5, 5, 3, 1, 12, 12, 0), ("conv", 1, 2, 13, 14, 3, 1, 12, 12, 0),
    ("conv", 3, 2, 7, 6, 3, 2, 1, 1, 0), ("conv", 2, 2, 8, 7, 3, 2, 0, 1, 0), ("conv", 2, 2, 9, 8, 3, 3, 2, 2, 0), ("conv", 3, 4, 4, 5, 1, 1, 0, 1, 0),
    ("conv", 2, 2, 6, 6, 5, 1, 0, 1, 0), ("conv", 2, 2, 6, 7, 2, 2, 1, 1, 0), ("conv", 2, 3, 1, 1, 3, 1, 1, 1, 0), ("conv", 2, 3, 2, 2, 3, 1, 4, 4, 0),
    ("up", 2, 3, 4, 5, 3, 2, 0, 1, 0), ("up", 3, 3, 1, 1, 3, 2, 0, 1, 0), ("up", 2, 2, 3, 4, 3, 1, 1, 1, 0), ("up", 2, 2, 3, 3, 3, 2, 1, 1, 1),
    ("up", 2, 1, 4, 3, 3, 3, 2, 2, 0), ("up", 2, 2, 3, 3, 2, 2, 0, 1, 0),
]


def made(kind, inputs, outputs, kernel, stride, padding, dilation, output_padding):
    if kind == "conv":
        return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation)
    return nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, output_padding, dilation=dilation)


def sparse(*shape, share=0.5, values=(-1.0, 1.0)):
    """Numbers of which about `share` are not zero."""
    return (torch.rand(shape) < share) * torch.tensor(values)[torch.randint(len(values), shape)]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("kind", "inputs", "outputs", "height", "width", "kernel", "stride", "padding", "dilation", "output_padding"), CONVOLUTIONS)
def test_products_of_a_convolution_are_those_of_a_loop_over_all(kind, inputs, outputs, height, width, kernel, stride, padding, dilation, output_padding, share):
    torch.manual_seed(height * width + kernel)
    conv = made(kind, inputs, outputs, kernel, stride, padding, dilation, output_padding)
    with torch.no_grad():
        conv.weight *= torch.rand_like(conv.weight) < 0.7       # some are pruned
    x_BCHW = sparse(2, inputs, height, width, share=share, values=(-1.5, 0.25, 1.0))
    w, options = conv.weight.detach().numpy(), {"stride": stride, "padding": padding, "dilation": dilation}
    expected = sum(brute_force.convolved(x, w, **options) if kind == "conv" else brute_force.transposed(x, w, output_padding=output_padding, **options)
                   for x in x_BCHW.numpy())
    fan_out_CHW = synapses.of_convolution(conv, height, width)
    assert synapses.products(synapses.active(x_BCHW), fan_out_CHW).item() == expected
    assert (expected > 0) == (share > 0)

    ones, there = (x_BCHW != 0).double(), (conv.weight != 0).double()        # as NeuroBench counts
    run = F.conv2d(ones, there, None, stride, padding, dilation) if kind == "conv" else F.conv_transpose2d(
        ones, there, None, stride, padding, output_padding, 1, dilation)
    assert run.sum().item() == expected


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (4, 4), (5, 6), (7, 3)])
def test_what_a_pool_adds_up_is_that_of_a_loop(size, share):
    torch.manual_seed(size[0])
    x_BCHW = sparse(2, 3, *size, share=share)
    assert synapses.products(synapses.active(x_BCHW), synapses.of_pool(*size)).item() == sum(map(brute_force.pooled, x_BCHW.numpy()))


def test_windows_by_hand():
    """4x4 pixels, windows centred on 0 and 2 of each side: rows 0, 1, 2, 3 lie in 1, 2, 1, 1 windows."""
    once = torch.tensor([1.0, 2, 1, 1], dtype=torch.float64)
    assert torch.equal(synapses.of_pool(4, 4)[0], torch.outer(once, once))


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize(("size", "to"), [((1, 1), (1, 1)), ((1, 1), (4, 4)), ((3, 3), (2, 2)), ((3, 5), (2, 4)), ((5, 5), (4, 4)), ((9, 9), (8, 8)),
                                          ((2, 2), (8, 8)), ((4, 4), (16, 16)), ((4, 6), (4, 6)), ((3, 4), (5, 7)), ((5, 3), (1, 1)), ((17, 4), (16, 6))])
def test_products_of_a_bilinear_resizing_are_those_of_a_loop(size, to, share):
    torch.manual_seed(size[0] + to[1])
    x_BCHW = sparse(1, 2, *size, share=share, values=(0.5, 2.0))
    assert synapses.products(synapses.active(x_BCHW), synapses.of_resizing(*size, *to)).item() == sum(brute_force.resized(x, *to) for x in x_BCHW.numpy())


def test_taps_by_hand():
    """3 to 5: outputs at 0, 0.5, 1, 1.5, 2, so the middle is in three of them. 5 to 3: at 0, 2, 4. 17 to 16: only the corners lie on an input."""
    assert synapses.taps(3, 5).tolist() == [2, 3, 2]
    assert synapses.taps(5, 3).tolist() == [1, 0, 1, 0, 1]
    assert synapses.taps(17, 16).sum() == 2 + 2 * 14
    assert synapses.taps(6, 6).tolist() == [1] * 6


def test_counts_are_whole_beyond_what_float32_holds():
    """(3 x 127 - 2)^2 x 16 x 64 = 1.5e8 products a picture and all of 99 pictures, to the last one."""
    fan_out_CHW = synapses.of_convolution(nn.Conv2d(16, 64, 3, padding=1), 127, 127)
    assert synapses.products(torch.full((16, 127, 127), 99), fan_out_CHW).item() == 99 * (3 * 127 - 2) ** 2 * 16 * 64


def test_no_gradient_is_asked_of_the_weights():
    conv = nn.Conv2d(2, 2, 3)
    with torch.no_grad():
        assert not synapses.of_convolution(conv, 5, 5).requires_grad
    assert conv.weight.grad is None


def test_groups_are_refused():
    with pytest.raises(ValueError, match="one group is counted, not of 2"):
        synapses.of_convolution(nn.Conv2d(2, 2, 3, groups=2), 5, 5)
