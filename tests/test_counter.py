"""Numbers from a counter: those of the published generator, and the same bits from every form, in any stretch, on any device.

Where there is a GPU, the Triton form is tried on it. Without one it is interpreted on CPU tensors, in a process of its own
(`test_interpreted`), as Triton has to be told so before it is first imported.
"""
import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from interpreter import interpreted

from snnseg.spiking import counter, counter_cpu, encode

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
CUDA = torch.cuda.is_available()
TRITON = importlib.util.find_spec("triton") is not None and (INTERPRETED or CUDA)
DEVICE = "cuda" if CUDA and not INTERPRETED else "cpu"
SEEDS, SHAPE = [3, 0, 2**62 + 5, 2**64 - 1], (3, 5, 7)
STRETCHES = [(0, 8), (0, 1), (3, 4), (2, 11), (5, 7), (4, 4), (0, 3)]

forms = ["cpu", pytest.param("triton", marks=pytest.mark.skipif(not TRITON, reason="neither a GPU nor Triton's interpreter"))]


def form(name):
    """A fast form, and where its tensors lie."""
    if name == "cpu":
        return counter_cpu, "cpu"
    from snnseg.spiking import counter_triton

    return counter_triton, DEVICE


@pytest.mark.skipif(TRITON or importlib.util.find_spec("triton") is None, reason="the kernel runs in this process, or there is none")
def test_interpreted():
    interpreted(__file__, "-k", "triton")


# counter, key, answer: kat_vectors of Random123, philox4x32 10
KNOWN = [("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
         ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
         ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1")]


def words(text):
    return tuple(torch.tensor([int(w, 16)]) for w in text.split())


@pytest.mark.parametrize(("at", "key", "answer"), KNOWN)
def test_known_answers(at, key, answer):
    assert counter.philox(words(at), words(key)) == words(answer)


def test_known_answers_as_one_tensor():
    """Counters and keys side by side, as they are used."""
    ats, keys, answers = (tuple(map(torch.cat, zip(*map(words, column), strict=True))) for column in zip(*KNOWN, strict=True))
    assert all(torch.equal(found, answer) for found, answer in zip(counter.philox(ats, keys), answers, strict=True))


def test_which_number_is_whose():
    """The seed's halves are the key, position and step // 4 the counter, step % 4 the word; its upper 24 bits the number."""
    seed, place, step = 0x123456789ABCDEF0, 2 * 35 + 4 * 7 + 1, 6
    word = counter.philox(words(f"{place:x} 1 0 0"), words("9abcdef0 12345678"))[2].item()
    found = counter.uniforms(counter.keys([1, seed]), 0, 8, SHAPE)
    assert found[step, 1, 2, 4, 1].item() == (word >> 8) / 2**24


def test_numbers_are_uniform():
    """A million: every sixteenth of [0, 1) and each neighbourhood in step, place and seed as often as chance has it."""
    u = counter_cpu.uniforms(counter.keys(range(8)), 0, 16, (2, 64, 64))
    assert u.dtype == torch.float32 and u.min() >= 0 and u.max() < 1
    counts = torch.bincount((u * 16).long().flatten(), minlength=16).double()
    assert ((counts - u.numel() / 16).abs() < 5 * (u.numel() / 16) ** 0.5).all()
    centred = u.double() - 0.5
    for dim in range(5):
        pairs = centred.narrow(dim, 1, u.shape[dim] - 1) * centred.narrow(dim, 0, u.shape[dim] - 1)
        assert pairs.mean().abs() < 5 / 12 / pairs.numel() ** 0.5


def test_any_stretch_of_steps_is_that_of_the_whole():
    key = counter.keys(SEEDS)
    whole = counter.uniforms(key, 0, 12, SHAPE)
    for first, last in STRETCHES:
        part = counter.uniforms(key, first, last, SHAPE)
        assert part.shape == (last - first, 4, *SHAPE) and torch.equal(part, whole[first:last])
    assert torch.equal(counter.uniforms(key[2:3], 0, 12, SHAPE)[:, 0], whole[:, 2])


@pytest.mark.parametrize("name", forms)
@pytest.mark.parametrize(("first", "last"), STRETCHES)
def test_every_form_has_the_same_bits(name, first, last):
    way, device = form(name)
    for shape in (SHAPE, (1, 1, 1), (3, 40, 33)):
        found = way.uniforms(counter.keys(SEEDS, device), first, last, shape)
        assert found.device.type == device and torch.equal(found.cpu(), counter.uniforms(counter.keys(SEEDS), first, last, shape))


@pytest.mark.parametrize("name", forms)
@pytest.mark.parametrize(("first", "last"), STRETCHES)
def test_every_form_draws_the_same_spikes(name, first, last):
    """Values at 0, at 1 and beyond, and exactly at a number drawn."""
    way, device = form(name)
    key = counter.keys(SEEDS, device)
    uniform_TBCHW = counter.uniforms(counter.keys(SEEDS), first, last, SHAPE)
    x = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    x[:, 0, :2] = torch.tensor([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5])
    if last > first:
        x[:, 1], x[:, 2] = uniform_TBCHW[0, :, 1], -uniform_TBCHW[-1, :, 2]
    for signed, plain in ((False, encode.poisson), (True, encode.signed_poisson)):
        found = way.spikes(x.to(device), key, first, last, signed)
        assert found.dtype == torch.float32 and torch.equal(found.cpu(), plain(x, uniform_TBCHW))


@pytest.mark.parametrize("name", forms)
def test_a_picture_that_is_not_contiguous(name):
    way, device = form(name)
    key, x = counter.keys([5, 6], device), torch.rand(2, 8, 8, 3).to(device).permute(0, 3, 1, 2)
    assert torch.equal(way.spikes(x, key, 0, 5, False), way.spikes(x.contiguous(), key, 0, 5, False))


def test_importing_the_package_loads_no_compiler():
    """A machine whose pictures are on a GPU needs no numba."""
    code = "import sys, snnseg.models.inputs, snnseg.models.feed, snnseg.spiking.encode as e; assert not {'numba', 'triton'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not CUDA, reason="needs a GPU")
def test_the_plain_form_has_the_same_bits_on_a_gpu():
    assert torch.equal(counter.uniforms(counter.keys(SEEDS, "cuda"), 3, 11, SHAPE).cpu(), counter.uniforms(counter.keys(SEEDS), 3, 11, SHAPE))
