"""Pools, the dilated convolution and spikes as bits in Triton against torch's own: on a GPU where there is one, else interpreted in a process of its own."""
import importlib.util
import os

import pytest
import torch
import torch.nn.functional as F
from interpreter import interpreted, quicken

from snnseg.spiking import bits, convolution, pooling, unit, ways
from snnseg.spiking.fused import in_rows
from snnseg.spiking.neuron import LIF
from snnseg.spiking.unit import Wiring

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed", allow_module_level=True)
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HERE = INTERPRETED or torch.cuda.is_available()
DEVICE = "cpu" if INTERPRETED else "cuda"
if INTERPRETED:
    quicken()
if HERE:
    from snnseg.spiking import bits_triton, dilated_triton, fused_triton, pooling_triton

here = pytest.mark.skipif(not HERE, reason="neither a GPU nor Triton's interpreter")


def test_interpreted():
    if HERE:
        pytest.skip("the kernels run in this process")
    interpreted(__file__)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def spikes(*shape: int) -> torch.Tensor:
    return (torch.rand(*shape) < 0.4).float().to(DEVICE).contiguous(memory_format=torch.channels_last)


@here
@pytest.mark.parametrize("shape", [(2, 8, 7, 6), (1, 24, 4, 5), (3, 3, 5, 5), (1, 72, 2, 1)])
def test_pools(shape, monkeypatch):
    """The bits of N * C pixels are those of their values; counts are exact, and their ninths rounded alike."""
    monkeypatch.setattr(pooling_triton, "PLACES", 4)
    x_NCHW = spikes(*shape)
    wanted = F.avg_pool2d(x_NCHW, 3, 2, 1)
    assert (pooling_triton.forward(x_NCHW) - wanted).abs().max() < 1e-6
    packed = bits.pack(x_NCHW[None])
    assert torch.equal(pooling_triton.of_bits(packed.bits, shape, torch.float32), pooling_triton.forward(x_NCHW))
    g_NCHW = torch.randn_like(wanted, memory_format=torch.channels_last)
    assert (pooling_triton.backward(g_NCHW, *shape[-2:]) - pooling.plain_backward(g_NCHW, *shape[-2:])).abs().max() < 1e-6


@here
@pytest.mark.parametrize(("shape", "outs", "dilation"), [((3, 32, 6, 5), 48, 4), ((2, 16, 8, 8), 16, 4), ((5, 64, 7, 7), 32, 5)])
def test_dilated(shape, outs, dilation, monkeypatch):
    """Several tiles and stretches, the last ones cut; maps that have nine parts, four, and unlike sides."""
    for name, value in {"PLACES": 16, "ACROSS": 16, "DEEP": 64, "STRETCH": 32, "SIDE": 16}.items():
        monkeypatch.setattr(dilated_triton, name, value)
    for made in (dilated_triton._tiles, dilated_triton._stretches):
        made.cache_clear()
    x_NCHW, weight = spikes(*shape), torch.randn(outs, shape[1], 3, 3, device=DEVICE)
    g_NOHW = torch.randn(shape[0], outs, *shape[2:], device=DEVICE)
    assert dilated_triton.takes(x_NCHW, weight, dilation)
    gx, gw = dilated_triton.backward(g_NOHW, x_NCHW, weight, dilation, True)
    wanted = convolution.backward_inside(g_NOHW.double(), x_NCHW.double(), weight.double(), dilation, True)
    for mine, exact in zip((dilated_triton.forward(x_NCHW, weight, dilation), gx, gw),
                           (F.conv2d(x_NCHW.double(), weight.double(), padding=dilation, dilation=dilation), *wanted), strict=True):
        assert mine.shape == exact.shape
        assert (mine - exact).abs().max() < (1e-6 if INTERPRETED else 2e-3) * exact.abs().max()      # on a GPU products are TF32
    assert dilated_triton.backward(g_NOHW, x_NCHW, weight, dilation, False)[0] is None


@here
@pytest.mark.parametrize(("shape", "outs", "dilation"), [((1, 16, 8, 8), 16, 8), ((1, 16, 8, 8), 16, 3), ((1, 12, 8, 8), 16, 5), ((1, 16, 8, 8), 21, 5)])
def test_not_taken(shape, outs, dilation):
    assert not dilated_triton.takes(spikes(*shape), torch.zeros(outs, shape[1], 3, 3), dilation)


@here
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1, 7, 8, 9, 255, 256, 257, 1000, 8 * 513])
def test_bits_there_and_back(size, dtype):
    flat = (random(size, seed=size) > 0.4).to(dtype)
    packed = bits_triton.pack(flat)
    assert torch.equal(packed, bits.plain_pack(flat)) and packed.dtype == torch.uint8
    back = bits_triton.unpack(packed, size, dtype)
    assert torch.equal(back, flat) and back.dtype == dtype


@here
@pytest.mark.parametrize(("channels", "across"), [(8, 8), (24, 16), (72, 64), (16, 4), (6, 4), (12, 8)])
def test_spikes_bring_their_bits(channels, across, monkeypatch):
    """Where channels fill bytes: those of the plain form, edges of tiles as well, and the layer behind need not pack them."""
    monkeypatch.setattr(fused_triton, "CHANNELS", across)
    y_TBCHW = in_rows((0.5 + random(5, 2, channels, 3, 7)).bfloat16())
    with torch.no_grad():
        spikes = ways.run(y_TBCHW, None, LIF(0.9, 0.5), "triton").spikes_TBCHW
    expected = bits.plain_pack(spikes.permute(0, 1, 3, 4, 2).reshape(-1))
    assert torch.equal(bits.pack(spikes).bits, expected) and 0 < spikes.mean() < 1
    assert hasattr(spikes, bits.BROUGHT) == (channels % 8 == 0 and across % 8 == 0)


@here
def test_the_next_layer_takes_the_bits_that_were_brought(monkeypatch):
    x, first, second = random(3, 2, 8, 5, 5).requires_grad_(), random(16, 8, 3, 3, seed=1), random(8, 16, 3, 3, seed=2)
    monkeypatch.setattr(fused_triton, "CHANNELS", 64)

    def pack(*_):
        raise AssertionError("packed again")

    monkeypatch.setattr(bits, "_compiled", lambda *_: None)
    monkeypatch.setattr(bits, "plain_pack", pack)
    s = unit.run(x, first.requires_grad_(), Wiring(of_spikes=False), None, LIF(0.9, 1.0), "triton").spikes_TBCHW
    out = unit.run(s, second.requires_grad_(), Wiring(), None, LIF(0.9, 1.0), "triton").spikes_TBCHW
    with pytest.raises(AssertionError, match="packed again"):
        unit.run(s.clone(), second, Wiring(), None, LIF(0.9, 1.0), "triton")
    out.sum().backward()
    assert x.grad.abs().sum() > 0


@here
def test_whatever_is_not_0_is_a_spike():
    flat = torch.tensor([0.0, -0.0, 1e-30, -2.0, 0.5, 3.0, 0.0, 256.0, 1.0], device=DEVICE)
    assert bits_triton.pack(flat).tolist() == bits.plain_pack(flat).tolist() == [0b10111100, 1]
