"""Latency, weighted phase and burst: tables by hand, each stretch a slice of the whole, what a net is given of them."""
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from snnseg import config
from snnseg.models.inputs import coded, keys
from snnseg.spiking import encode, unit
from snnseg.spiking.neuron import LIF
from snnseg.spiking.timed import CODES, Timed, phase_weight

CPU = torch.device("cpu")
PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"
ALL = torch.arange(256.0).view(1, 1, 16, 16) / 255
CODINGS = pytest.mark.parametrize("timing", CODES)


def train(timing, levels, timesteps):
    """The steps of each level: a list of 0, 1 or the weight."""
    x = torch.tensor(levels, dtype=torch.float32).view(1, 1, 1, -1) / 255
    return Timed(x, timesteps, timing).steps(0, timesteps)[:, 0, 0, 0].T.tolist()


def test_latency_by_hand():
    """T = 5: white at step 0, black at step 4; 127 / 255 is 2.008 steps from the first, 96 / 255 is 2.494 and 95 / 255 is 2.51."""
    assert train("latency", [255, 127, 96, 95, 0], 5) == [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    assert train("latency", [255, 0], 1) == [[1], [1]]


def test_phase_by_hand():
    """0b10100001: 1/2 + 1/8 + 1/256, and again from the ninth step on; four steps see the upper half."""
    found, = train("phase", [0b10100001], 11)
    assert found == [.5, 0, .125, 0, 0, 0, 0, 2**-8, .5, 0, .125]
    assert train("phase", [0b10100001, 0b00001111], 4) == [[.5, 0, .125, 0], [0, 0, 0, 0]]


def test_burst_by_hand():
    """T = 4, so at most 4 spikes: 255 at all steps; 191: ceil(2.996) = 3, ceil(4 - 3 * 0.749) = 2 apart, the third too late; 128: 3, 3 apart;
    1: one spike; 0: none. T = 10: 5 spikes of white side by side; 153: ceil(3) of them, ceil(10 - 5.4) = 5 apart, the third too late.
    """
    assert train("burst", [255, 191, 128, 1, 0], 4) == [[1, 1, 1, 1], [1, 0, 1, 0], [1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert train("burst", [255, 153], 10) == [[1] * 5 + [0] * 5, [1, 0, 0, 0, 0, 1, 0, 0, 0, 0]]


def one_by_one(timing, level, t, timesteps):
    """The docstrings' equations, in exact fractions of whole numbers."""
    if timing == "latency":
        return float(t == math.floor((timesteps - 1) * (255 - level) / 255 + 0.5))
    if timing == "phase":
        return int(f"{level:08b}"[t % 8]) * 2.0**-(1 + t % 8)
    most = min(5, timesteps)
    count, apart = -(-most * level // 255), -((-timesteps * 255 + (timesteps - 1) * level) // 255)
    return float(t in [k * apart for k in range(count)])


@CODINGS
@pytest.mark.parametrize("timesteps", [1, 2, 4, 8, 11])
def test_every_byte_is_the_equation(timing, timesteps):
    found = Timed(ALL, timesteps, timing).steps(0, timesteps).flatten(1)
    expected = [[one_by_one(timing, level, t, timesteps) for level in range(256)] for t in range(timesteps)]
    assert found.tolist() == expected


@CODINGS
def test_any_stretch_is_a_slice_of_the_whole(timing):
    x = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    source = Timed(x, 19, timing)
    whole = encode.whole(source)
    assert source.shape == whole.shape == (19, 2, 3, 5, 7) and whole.dtype == x.dtype and whole.any()
    for first, last in ((0, 1), (18, 19), (3, 11), (8, 16), (0, 19)):
        assert torch.equal(source.steps(first, last), whole[first:last])
    assert Timed(x.double(), 19, timing).steps(0, 3).dtype == torch.float64


@CODINGS
@pytest.mark.parametrize("timesteps", [4, 8, 20])
def test_brighter_is_more_or_earlier(timing, timesteps):
    """Mean rate (of phase, what its spikes stand for) never falls with the byte; one spike of latency comes never later."""
    found = Timed(ALL, timesteps, timing).steps(0, timesteps).flatten(1)
    rate = found[:8].sum(0) if timing == "phase" else found.sum(0)
    assert (rate.diff() >= 0).all()
    if timing == "latency":
        assert rate.eq(1).all() and (found.argmax(0).diff() <= 0).all()
    else:
        assert rate[0] == 0 and rate[255] > rate[128] > 0
    if timing == "phase" and timesteps >= 8:
        assert torch.equal(rate, torch.arange(256) / 256)


def test_spikes_are_binary_and_the_weight_is_the_steps():
    spikes = Timed(ALL, 10, "phase")
    assert spikes.weighted and spikes.spikes(0, 10).dtype == torch.bool
    assert torch.equal(spikes.steps(0, 10), spikes.spikes(0, 10) * phase_weight(torch.arange(10)).view(-1, 1, 1, 1, 1))
    for timing in ("latency", "burst"):
        other = Timed(ALL, 10, timing)
        assert not other.weighted and set(other.steps(0, 10).unique().tolist()) == {0, 1}


@CODINGS
def test_a_net_is_given_the_byte(timing):
    """Nothing is drawn; an ANN sees the normalised picture, and frames of events stay frames."""
    pictures = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    numbers = config.load(PARAMS, "spiking_deeplab", [f"encode.coding={timing}", "encode.timesteps=6"])
    assert keys(np.arange(2), numbers, ("train", 0)) is None
    found = encode.whole(coded(pictures, np.arange(2), numbers, CPU, ("train", 0)))
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(found, Timed(x, 6, timing).steps(0, 6))
    ann = config.load(PARAMS, "ann_deeplab", [f"encode.coding={timing}"])
    assert coded(pictures, np.arange(2), ann, CPU, ("train", 0)).shape == (1, 2, 3, 4, 4)
    events = config.load(PARAMS, "ddd17/spiking_deeplab", [f"encode.coding={timing}"])
    assert isinstance(coded(np.ones((1, 4, 2, 4, 4), np.float32), np.arange(1), events, CPU, ("train", 0)), encode.Frames)


@CODINGS
def test_a_layer_makes_it_stretch_by_stretch(timing, monkeypatch):
    """The compiled way, eight steps at a time: spikes and the weight's gradient of the plain form of all steps at once."""
    monkeypatch.setattr(unit, "STRETCH", 8 * 2 * 3 * 6 * 6)
    source = Timed(torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(1)), 11, timing)
    weight = torch.randint(-8, 9, (4, 3, 3, 3), generator=torch.Generator().manual_seed(2)) / 16       # sums are exact in any order
    found = []
    for x, way in ((source, "cpu"), (encode.whole(source), "reference")):
        w = weight.clone().requires_grad_()
        spikes = unit.run(x, w, unit.Wiring(of_spikes=False), None, LIF(0.9, 0.3), way).spikes_TBCHW
        (spikes * torch.arange(1.0, 12.0).view(-1, 1, 1, 1, 1)).sum().backward()
        found.append((spikes.detach(), w.grad))
    assert torch.equal(found[0][0], found[1][0]) and found[0][0].any()
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@CODINGS
def test_the_same_bits_on_a_gpu(timing):
    assert torch.equal(Timed(ALL.cuda(), 20, timing).steps(3, 17).cpu(), Timed(ALL, 20, timing).steps(3, 17))
