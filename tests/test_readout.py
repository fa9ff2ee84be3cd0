"""The read-out's convolutions, whose gradients are matrix products, against torch's own."""
import pytest
import torch
from torch import nn

from snnseg.models.backbone import Analog, Spiking
from snnseg.spiking import readout


def convolutions(classes, channels):
    return {"pointwise": nn.Conv2d(channels, classes, 1), "without bias": nn.Conv2d(channels, classes, 1, bias=False),
            "transposed": nn.ConvTranspose2d(channels, classes, 3, stride=2, bias=False)}


@pytest.mark.parametrize("kind", ["pointwise", "without bias", "transposed"])
@pytest.mark.parametrize(("classes", "channels", "height", "width"), [(2, 16, 8, 8), (21, 5, 7, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize("last", [True, False])
def test_scores_and_gradients_are_torchs(kind, classes, channels, height, width, last):
    torch.manual_seed(0)
    layout = torch.channels_last if last else torch.contiguous_format
    conv = convolutions(classes, channels)[kind].to(memory_format=layout)
    x, found = torch.randn(3, channels, height, width).contiguous(memory_format=layout), []
    g = torch.randn_like(conv(x))
    for of in (lambda x: readout.linear(conv, x), conv):
        leaves = [x.clone().requires_grad_(), *conv.parameters()]
        y = of(leaves[0])
        found.append([y, *torch.autograd.grad(y, leaves, g)])
    assert torch.equal(found[0][0], found[1][0])
    for mine, torchs in zip(*found, strict=True):
        assert mine.shape == torchs.shape
        torch.testing.assert_close(mine, torchs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["pointwise", "transposed"])
def test_under_autocast_and_without_gradients_torchs_own_is_called(kind):
    conv, x, called = convolutions(2, 4)[kind], torch.randn(1, 4, 3, 3), []
    conv.register_forward_hook(lambda *_: called.append(1))
    with torch.autocast("cpu", torch.bfloat16):
        assert readout.linear(conv, x).dtype == torch.bfloat16
    with torch.no_grad():
        assert not readout.linear(conv, x).requires_grad
    assert len(called) == 2 and readout.linear(conv, x).requires_grad and len(called) == 2


def test_the_plain_form_takes_torchs_gradient():
    conv, x = convolutions(2, 4)["pointwise"], torch.randn(1, 4, 3, 3)
    for neurons, own in ((Spiking(2, way="reference"), False), (Spiking(2), True), (Analog(), True)):
        assert (neurons.score(conv, x).grad_fn.name() == "PointwiseBackward") == own


def test_what_is_frozen_or_needs_no_gradient_gets_none():
    conv = convolutions(2, 4)["transposed"]
    y = readout.linear(conv, torch.randn(1, 4, 3, 3))
    y.sum().backward()
    assert conv.weight.grad.any()
    x = torch.randn(1, 4, 3, 3, requires_grad=True)
    conv.requires_grad_(False)
    readout.linear(conv, x).sum().backward()
    assert x.grad.any()
