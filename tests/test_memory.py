"""What malloc is told: memory stays with the process, or goes back with each large tensor; what a training keeps then."""
import os
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
import torch

from snnseg import memory, sections
from snnseg.models import inputs, zoo
from snnseg.spiking import pages

ROOT = Path(__file__).resolve().parent.parent
GNU = bool(getattr(os, "confstr_names", {}).get("CS_GNU_LIBC_VERSION"))
GROWN = """
import torch
from snnseg import memory
memory.{mode}
before = memory.resident()
x = torch.ones(2**24)
held = memory.resident()
del x
print((held - before) >> 20, (memory.resident() - before) >> 20)
"""


@pytest.mark.skipif(not GNU, reason="needs GNU's C library")
@pytest.mark.parametrize(("mode", "stays"), [("keep_freed()", True), ("give_back()", False), ("keep_freed(), memory.give_back()", False)])
def test_a_large_tensors_memory_stays_or_goes(mode, stays, tmp_path, environment):
    (tmp_path / "grown.py").write_text(GROWN.format(mode=mode))
    done = forked.run([sys.executable, "-m", "grown"], capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
    held, left = map(int, done.stdout.split())
    assert held >= 60 and (left >= 60 if stays else left < 10)


@pytest.mark.parametrize(("number", "way"), [("train.keep=2", "keep_freed"), ("train.give_back=true", "give_back"), ("train.recompute=true", "give_back")])
def test_a_training_says_where_its_memory_goes(number, way, tiny, monkeypatch):
    asked = []
    for name in ("keep_freed", "give_back"):
        monkeypatch.setattr(memory, name, lambda name=name: asked.append(name))
    memory.set_up(tiny("spiking_deeplab", number).train)
    assert asked == [way]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_giving_back_the_first_layer_is_convolved_anew_to_the_same_bits(precision, tiny):
    """Its input is made anew in any case; the others keep what they convolved, so answer and gradients are equal."""
    found, kept = [], []
    for given in ("false", "true"):
        config = tiny("spiking_deeplab", "encode.coding=signed_poisson", "encode.timesteps=5", f"train.precision={precision}", f"train.give_back={given}")
        model, bytes_NHWC = zoo.build(config).train(), np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, of=sizes: of.append(x.nbytes) or x, lambda x: x), \
                torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(inputs.coded(bytes_NHWC, np.arange(2), config, torch.device("cpu"), ("poisson", 0)))
        logits.float().square().mean().backward()
        found.append((logits.detach(), *(p.grad for p in model.parameters())))
        kept.append(sum(sizes))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert kept[0] - kept[1] == 5 * 2 * 4 * 32 * 32 * (2 if precision == "bf16" else 4)


@pytest.mark.parametrize("values", [2**20, 2**21 + 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_large_tensor_begins_at_a_huge_page_where_there_are_some(values, dtype, monkeypatch):
    monkeypatch.setenv(pages.SWITCH, "1")
    x = pages.empty(values, dtype)
    assert x.shape == (values,) and x.dtype == dtype and x.is_contiguous()
    large = values * dtype.itemsize >= pages.WORTH
    assert (x.data_ptr() % pages.HUGE == 0) >= large and (x.untyped_storage().nbytes() > x.nbytes) is large
    y = pages.empty_NCHW(2, 8, 256, 513, dtype)
    assert y.shape == (2, 8, 256, 513) and y.is_contiguous(memory_format=torch.channels_last)
    monkeypatch.delenv(pages.SWITCH)
    assert pages.empty(values, dtype).untyped_storage().nbytes() == x.nbytes


def test_a_net_from_before_the_number_is_read_and_the_number_shapes_no_weights(tiny):
    now = tiny()
    about = now.about
    del about["config"]["train"]["give_back"]
    assert sections.Config.of(about, now.root) == now
    assert tiny("spiking_deeplab", "train.give_back=true").fingerprint("seal", "code") == now.fingerprint("seal", "code")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell")
def test_the_numbers_themselves_take_little(environment):
    """A text's length that is spelt out in its pattern is a program of megabytes."""
    code = """import pydantic, resource
def pages(): return int(open("/proc/self/statm").read().split()[1])
before = pages()
import snnseg.sections
print((pages() - before) * resource.getpagesize() >> 20)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT, check=True)
    assert int(done.stdout) < 24
