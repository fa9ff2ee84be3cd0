"""Coding: a picture becomes the input of T time steps; each sample draws from its own seed."""
from pathlib import Path

import numpy as np
import pytest
import torch

from snnseg import config
from snnseg.models.inputs import coded, keys, source
from snnseg.spiking import counter, encode

CPU = torch.device("cpu")
PARAMS = Path(__file__).resolve().parent.parent / "params.yaml"


def bound(p, n, sigmas=5):
    """How far the mean of n draws with probability p may be from p; once in two million it is farther."""
    return sigmas * (p * (1 - p) / n) ** 0.5


def test_direct_is_a_view_that_is_the_same_at_every_step():
    x = torch.arange(24.0).view(2, 3, 2, 2)
    out = encode.direct(x, 5)
    assert out.shape == (5, 2, 3, 2, 2)
    assert out.data_ptr() == x.data_ptr() and out.stride(0) == 0
    assert all(torch.equal(step, x) for step in out)


def test_poisson_by_hand():
    """A spike where the uniform number is below x, strictly."""
    x = torch.tensor([0.0, 0.25, 0.25, 0.25, 1.0]).view(1, 1, 1, 5)
    uniform = torch.tensor([0.0, 0.125, 0.25, 0.5, 0.9999]).view(1, 1, 1, 1, 5)
    assert encode.poisson(x, uniform).flatten().tolist() == [0, 1, 0, 0, 1]


def test_signed_poisson_by_hand():
    """A spike of x's sign where the uniform number is at most |x|; |x| above 1 spikes always, 0 never."""
    x = torch.tensor([-2.0, -0.5, -0.5, -0.5, 0.0, 0.5, 0.5, 1.5]).view(1, 1, 1, 8)
    uniform = torch.tensor([0.99, 0.4, 0.5, 0.6, 0.0, 0.4, 0.6, 0.99]).view(1, 1, 1, 1, 8)
    assert encode.signed_poisson(x, uniform).flatten().tolist() == [-1, -1, -1, 0, 0, 1, 0, 1]


def test_poisson_rate_is_the_pixel():
    values, n = [0.0, 0.1, 0.5, 0.9, 1.0], 20_000
    x = torch.tensor(values).view(1, 5, 1, 1).expand(1, 5, 10, 10)
    spikes = encode.poisson(x, encode.uniforms([3], n // 100, (5, 10, 10)))
    assert set(spikes.unique().tolist()) == {0, 1}
    for value, rate in zip(values, spikes.mean((0, 1, 3, 4)).tolist(), strict=True):
        assert abs(rate - value) <= bound(value, n)     # for 0 and 1 exactly


def test_signed_poisson_expects_the_clipped_pixel():
    values, n = [-1.7, -1.0, -0.3, 0.0, 0.3, 0.8, 2.0], 20_000
    x = torch.tensor(values).view(1, 7, 1, 1).expand(1, 7, 10, 10)
    spikes = encode.signed_poisson(x, encode.uniforms([4], n // 100, (7, 10, 10)))
    for k, value in enumerate(values):
        sign = int(np.sign(value))
        assert set(spikes[:, :, k].unique().tolist()) <= {0, sign}
        expected = min(abs(value), 1)
        assert abs(spikes[:, :, k].mean().item() - sign * expected) <= bound(expected, n) + 1e-6


def test_steps_are_drawn_anew():
    uniform = encode.uniforms([0], 4, (1, 8, 8))
    assert uniform.dtype == torch.float32 and 0 <= uniform.min() and uniform.max() < 1
    assert len({tuple(step.flatten().tolist()) for step in uniform}) == 4


def test_uniforms_of_a_sample_follow_from_its_seed_alone():
    shape, seeds = (3, 4, 5), [11, 2**62 + 5, 13, 0]
    alone = {s: encode.uniforms([s], 6, shape)[:, 0] for s in seeds}
    assert len({tuple(u.flatten().tolist()) for u in alone.values()}) == 4
    before = torch.get_rng_state()
    for batch in (seeds, seeds[::-1], [13, 13], [2**62 + 5, 8, 6, 7, 11]):
        out = encode.uniforms(batch, 6, shape)
        assert out.shape == (6, len(batch), *shape)
        for b, s in enumerate(batch):
            if s in alone:
                assert torch.equal(out[:, b], alone[s])
    assert torch.equal(torch.get_rng_state(), before)


def test_uniforms_begin_at_any_step():
    whole = encode.uniforms([5, 6], 11, (2, 3, 4))
    assert torch.equal(whole, counter.uniforms(counter.keys([5, 6]), 0, 11, (2, 3, 4)))
    for first, steps in ((0, 3), (1, 1), (3, 6), (8, 3)):
        assert torch.equal(encode.uniforms([5, 6], steps, (2, 3, 4), first=first), whole[first:first + steps])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("signed", [False, True])
def test_rate_coding_a_stretch_at_a_time(signed, dtype):
    """The plain functions of the plain numbers, whatever is asked for first; the compiled form for float32, the plain one else."""
    x = torch.randn(3, 2, 5, 7, generator=torch.Generator().manual_seed(1)).to(dtype)
    uniform_TBCHW = counter.uniforms(counter.keys([1, 2, 3]), 0, 9, (2, 5, 7))
    whole = (encode.signed_poisson if signed else encode.poisson)(x, uniform_TBCHW)
    rate = encode.Rate(x, counter.keys([1, 2, 3]), 9, signed)
    assert rate.shape == whole.shape == (9, 3, 2, 5, 7)
    for first, last in ((8, 9), (0, 9), (4, 8), (0, 4), (3, 6), (3, 6)):
        part = rate.steps(first, last)
        assert part.dtype == dtype and torch.equal(part, whole[first:last])


def test_inputs_that_are_there_already():
    x = torch.rand(3, 2, 5, 7)
    constant = encode.Constant(x, 6)
    assert constant.shape == (6, 3, 2, 5, 7) and constant.steps(2, 5).shape == (3, 3, 2, 5, 7) and constant.steps(2, 5).data_ptr() == x.data_ptr()
    frames_BTCHW = torch.rand(3, 4, 2, 5, 7)
    frames = encode.Frames(frames_BTCHW)
    assert frames.shape == (4, 3, 2, 5, 7) and torch.equal(frames.steps(1, 3), frames_BTCHW[:, 1:3].transpose(0, 1))


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


def whole_of(*asked):
    return encode.whole(coded(*asked))


def config_with(*overrides):
    return config.load(PARAMS, "spiking_deeplab", ["encode.timesteps=3", "encode.mean=100.0", "encode.std=50.0", *overrides])


def test_coded_direct_and_ann_see_the_normalised_picture(pictures):
    expected = torch.tensor((pictures.astype(np.float32) - 100) / 50).permute(0, 3, 1, 2)
    index = np.arange(4)
    spiking = whole_of(pictures, index, config_with("encode.coding=direct"), CPU, ("train", 0))
    assert spiking.shape == (3, 4, 3, 8, 8)
    for step in spiking:
        torch.testing.assert_close(step, expected)
    ann = whole_of(pictures, index, config_with("encode.coding=poisson", "model.name=ann_fcn"), CPU, ("train", 0))
    assert ann.shape == (1, 4, 3, 8, 8)
    torch.testing.assert_close(ann[0], expected)


def test_coded_poisson_has_a_rate_of_byte_over_255():
    """White spikes at every step, black never; 51 at a fifth of the steps."""
    image = np.full((1, 40, 40, 3), (255, 0, 51), np.uint8)
    out = whole_of(image, np.arange(1), config_with("encode.coding=poisson"), CPU, ("train", 0))
    assert out[:, :, 0].all() and not out[:, :, 1].any()
    assert abs(out[:, :, 2].mean() - 0.2) <= bound(0.2, 3 * 1600)


@pytest.mark.parametrize("coding", ["poisson", "signed_poisson"])
def test_coded_spikes_of_a_sample_do_not_depend_on_its_batch(pictures, coding):
    index = np.array([7, 3, 9, 1])
    c = config_with(f"encode.coding={coding}")
    whole = whole_of(pictures, index, c, CPU, ("train", 2))
    assert set(whole.unique().tolist()) == ({0, 1} if coding == "poisson" else {-1, 0, 1})
    for batch in ([3, 2, 1, 0], [2], [1, 3]):
        assert torch.equal(whole_of(pictures[batch], index[batch], c, CPU, ("train", 2)), whole[:, batch])
    for other in (("train", 3), ("evaluate", 2)):
        assert not torch.equal(whole_of(pictures, index, c, CPU, other), whole)
    other_seed = config_with(f"encode.coding={coding}", "train.seed=1")
    assert not torch.equal(whole_of(pictures, index, other_seed, CPU, ("train", 2)), whole)


@pytest.mark.parametrize("coding", ["direct", "poisson", "signed_poisson"])
def test_coded_is_all_steps_of_its_source(pictures, coding):
    """From bytes in main memory and from a tensor alike."""
    c, index = config_with(f"encode.coding={coding}"), np.arange(4)
    whole = whole_of(pictures, index, c, CPU, ("train", 0), 10)
    key_B = keys(index, c, ("train", 0))
    made = source(torch.from_numpy(pictures), key_B if key_B is None else torch.from_numpy(key_B), c, 10)
    assert made.shape == whole.shape == (10, 4, 3, 8, 8)
    assert torch.equal(torch.cat([made.steps(0, 4), made.steps(4, 5), made.steps(5, 10)]), whole)
