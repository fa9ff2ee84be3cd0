"""Norm and neuron as one operator: the CPU's way against the plain form, spike by spike and gradient by gradient; which way is taken."""
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from threading import Event
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numba import njit

from snnseg.spiking import cpu_kernels, fused_cpu, team, ways
from snnseg.spiking.cpu_kernels import narrow, wide
from snnseg.spiking.fused import Normal, reference
from snnseg.spiking.neuron import LIF
from snnseg.spiking.surrogate import Arctan, Rectangle, Sigmoid, Triangle
from snnseg.spiking.ways import refusal, run

C, EPS = 3, 1e-4
SURROGATES = [Triangle(0.3), Arctan(), Sigmoid(0.7), Rectangle(1.5)]
PRECISIONS = {torch.float32: 1e-4, torch.bfloat16: 1e-2}       # and how far a gradient may lie from the plain form's


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def normal_of(kind, T):
    """gamma and beta are leaves, as a module's are."""
    gamma = (1 + 0.3 * random(T if kind in ("bntt", "given") else 1, C, seed=2)).requires_grad_()
    beta = (0.2 * random(1, C, seed=3)).requires_grad_()
    if kind == "given":
        return Normal(gamma, beta, True, EPS, random(T, C, seed=4), 1 + random(T, C, seed=5).square())
    return {"none": None, "bntt": Normal(gamma, None, True, EPS, None, None), "tdbn": Normal(gamma, beta, False, EPS, None, None)}[kind]


def learned(value, per_channel):
    return (value * torch.tensor([1, 0.95, 0.9]).view(C, 1, 1) if per_channel else torch.tensor(value)).requires_grad_()


def leaves_of(y, normal, neuron):
    named = {"y": y, "gamma": normal and normal.gamma_TC, "beta": normal and normal.beta_TC, "leak": neuron.leak, "threshold": neuron.threshold}
    return {name: x for name, x in named.items() if isinstance(x, torch.Tensor) and x.requires_grad}


def gradients(way, y, normal, neuron):
    """What comes out, and the gradient of every leaf under random gradients of the spikes."""
    fired = run(y, normal, neuron, way)
    leaves = leaves_of(y, normal, neuron)
    found = torch.autograd.grad(fired.spikes_TBCHW, list(leaves.values()), random(*y.shape, seed=9, dtype=y.dtype))
    return fired, dict(zip(leaves, found, strict=True))


def assert_same_spikes(mine, y, normal, neuron):
    """At most 1 in 100 000 differs, and where a neuron first does so its potential was within 1e-5 of the threshold."""
    seen = []
    plain = reference(y, normal, neuron._replace(spike=lambda m: (seen.append(m), (m > 0).to(m.dtype))[1])).spikes_TBCHW
    assert 0.02 < plain.mean() < 0.98
    flipped = mine != plain
    assert flipped.sum() <= 1e-5 * flipped.numel()
    first = flipped & (flipped.cumsum(0) == 1)
    assert (torch.stack(seen)[first].abs() < 1e-5).all()
    assert mine.dtype == y.dtype and ((mine == 0) | (mine == 1)).all()


def assert_like_reference(y, normal, neuron):
    (mine, found), (plain, expected) = gradients("cpu", y, normal, neuron), gradients("reference", y, normal, neuron)
    assert_same_spikes(mine.spikes_TBCHW, y, normal, neuron)
    for a, b in ((mine.mean_TC, plain.mean_TC), (mine.var_TC, plain.var_TC)):
        assert (a is None) == (b is None) == (normal is None or normal.mean_TC is not None)
        if a is not None:
            assert a.dtype == torch.float32 and not a.requires_grad
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for name, b in expected.items():
        a = found[name]
        assert a.dtype == b.dtype and a.shape == b.shape, name
        assert a.isfinite().all() and (b.any() or name == "leak" and len(y) == 1), name
        error = (a - b).float().norm() / b.float().norm().clamp(min=1e-30)
        assert error <= (PRECISIONS[y.dtype] if name == "y" else 1e-4), f"{name}: {error:.1e}"


TIMES_2, TIMES_3 = [0, 2, 3, 1], [0, 3, 1, 2]      # of the field of four numbers: with its sums, 16 cases meet each pair of choices
CASES = [(norm, leak, a ^ b, a ^ TIMES_2[b], a ^ TIMES_3[b])
         for (a, norm), (b, leak) in product(enumerate(["bntt", "tdbn", "none", "given"]), enumerate([0.5, 0.9, 0.99, 1.0]))]


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize(("norm", "leak", "steps", "surrogate", "form"), CASES)
def test_like_reference(norm, leak, steps, surrogate, form, dtype):
    """Every leak and threshold is learned: one number, or one a channel."""
    T = [1, 2, 5, 20][steps]
    y = (random(T, 3, C, 9, 11, seed=1) * 1.5 + 0.4).to(dtype).requires_grad_()
    soft, per_channel = form < 2, form % 2 == 1
    neuron = LIF(learned(leak, per_channel), learned(0.8, per_channel), SURROGATES[surrogate], soft)
    assert_like_reference(y, normal_of(norm, T), neuron)


def test_cases_meet_each_pair():
    assert all(len({(case[i], case[j]) for case in CASES}) == 16 for i in range(5) for j in range(i))


@pytest.mark.parametrize("size", [(1, 1, 1, 2), (2, 7, 1, 1), (3, 2, 2, 3), (2, 2, 33, 32), (2, 2, 70, 70), (2, 150, 5, 6), (3, 2, 1, 4096)])
@pytest.mark.parametrize("norm", ["bntt", "tdbn"])
def test_any_size(size, norm):
    """Less than a block, blocks of several pictures, pictures of several blocks, and what is left over."""
    T, B, H, W = size
    y = (random(T, B, C, H, W) + 0.5).requires_grad_()
    (mine, found), (plain, expected) = (gradients(way, y, normal_of(norm, T), LIF(0.9)) for way in ("cpu", "reference"))
    assert torch.equal(mine.spikes_TBCHW, plain.spikes_TBCHW)
    for name in expected:       # two values a channel are +1 and -1 whatever they were: no gradient but rounding
        assert (found[name] - expected[name]).norm() <= 1e-4 * expected[name].norm() + 1e-5, name


def test_statistics_far_from_zero():
    """Mean 1000, deviation 1: a sum of squares in float32 would have no digit left."""
    y = random(2, 4, C, 40, 40) + 1000
    for normal in (normal_of("bntt", 2), normal_of("tdbn", 2)):
        _, mean, var, _ = run(y, normal, LIF(), "cpu")
        exact = y.double() if normal.per_step else y.double().flatten(0, 1)[None]
        torch.testing.assert_close(mean.double(), exact.mean((1, 3, 4)), rtol=2e-7, atol=0)
        torch.testing.assert_close(var.double(), exact.var((1, 3, 4), correction=0), rtol=1e-5, atol=0)


@dataclass(frozen=True)
class Steeper(Triangle):
    """A kind of its own, though its parent is known."""


@pytest.mark.parametrize(("neuron", "words"), [
    (LIF(spike=lambda m: (m > 0).float()), "Triangle, Arctan, Sigmoid, Rectangle, Integer, not <function"),
    (LIF(spike=Steeper()), "Steeper"),
    (LIF(leak=torch.rand(9, 11)), r"the leak is one number or one a channel, \[3, 1, 1\], not \[9, 11\]"),
    (LIF(leak=torch.rand(C)), "one a channel"),
    (LIF(threshold=torch.rand(1, C, 1, 1)), "the threshold is one number"),
    (LIF(threshold=torch.tensor(0.0)), "threshold of 0"),
    (LIF(threshold=-1.0), "threshold of 0")])
def test_refusals(neuron, words):
    y = random(2, 3, C, 9, 11)
    with pytest.raises(ValueError, match=f"the cpu way .*{words}"):
        run(y, None, neuron, "cpu")
    assert refusal("reference", y, None, neuron) is None


def test_refused_tensors_and_ways():
    y = random(2, 3, C, 9, 11)
    for other, words in ((y.double(), "float64"), (y.half(), "float16"), (y.to("meta"), "on meta")):
        assert words in refusal("cpu", other, None, LIF())
    with pytest.raises(ValueError, match="'gpu' is none of auto, reference, cpu, triton"):
        run(y, None, LIF(), "gpu")
    for neuron in (LIF(), *(LIF(0.5, torch.rand(n, 1, 1) + 1, s) for n in (1, C) for s in SURROGATES)):
        assert refusal("cpu", y, None, neuron) is None


def test_auto_takes_the_cpu_where_it_can(monkeypatch):
    y, asked = random(2, 3, C, 9, 11), []
    fire = fused_cpu.fire
    monkeypatch.setattr(fused_cpu, "fire", lambda *what: asked.append(what) or fire(*what))
    run(y, None, LIF())
    assert len(asked) == 1
    for other, neuron in ((y, LIF(spike=lambda m: (m > 0).float())), (y.double(), LIF())):
        assert torch.equal(run(other, None, neuron).spikes_TBCHW, reference(other, None, neuron).spikes_TBCHW)
    assert len(asked) == 1


@pytest.mark.parametrize("way_out", ["its end", "two minutes are over", "no place"])
def test_one_process_compiles_a_loop_and_others_wait(way_out, tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_kernels, "WAIT_S", 0.3 if way_out == "two minutes are over" else 60)
    monkeypatch.setattr(cpu_kernels.tempfile, "gettempdir", lambda: "/dev/null" if way_out == "no place" else str(tmp_path))
    begun, ended = Event(), []

    def compiling():
        with cpu_kernels._one_process("fire"):
            begun.set()
            time.sleep(1)
            ended.append("the first")

    with ThreadPoolExecutor(1) as other:        # locks of one process exclude each other as those of two
        other.submit(compiling)
        assert begun.wait(10)
        with cpu_kernels._one_process("unwind"):
            ended.append("another loop")
        with cpu_kernels._one_process("fire"):
            ended.append("the second")
    assert ended == ["another loop", *(["the first", "the second"] if way_out == "its end" else ["the second", "the first"])]


@pytest.fixture
def told(caplog):
    """What this process has said of its choices, as if it had made none before."""
    ways._tell.cache_clear()
    caplog.set_level(logging.DEBUG, "snnseg")
    return lambda: [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "snnseg"]


def on_a_gpu(y):
    """All that `choose` looks at of a tensor, as if it were there."""
    return SimpleNamespace(device=torch.device("cuda", 0), dtype=y.dtype, shape=y.shape)


def test_auto_takes_triton_on_a_gpu_if_it_can(told, monkeypatch):
    asked = []

    def refusal(y, normal, neuron):
        asked.append(neuron)
        return "its reason" if neuron.leak == 0.5 else None

    there = SimpleNamespace(refusal=refusal)
    monkeypatch.setattr(ways, "_compiled", lambda way: {"triton": there}[way])
    y, half = on_a_gpu(random(2, 3, C, 9, 11)), on_a_gpu(random(2, 3, C, 9, 11, dtype=torch.bfloat16))
    assert ways.choose(y, None, LIF()) is ways.choose(y, None, LIF()) is ways.choose(half, None, LIF()) is there
    assert ways.choose(y, None, LIF(0.5)) is ways.choose(y, None, LIF(0.5)) is None
    assert len(asked) == 5 and ways.choose(y, None, LIF(), "reference") is None and ways.choose(y, None, LIF(), "triton") is there
    with pytest.raises(ValueError, match="the triton way .* its reason"):
        ways.choose(y, None, LIF(0.5), "triton")
    where = "norm and neuron of torch.{} on cuda are run the {} way"
    assert told() == [("INFO", where.format("float32", "triton")), ("INFO", where.format("bfloat16", "triton")),
                      ("WARNING", where.format("float32", "reference") + ", which is slower and keeps more memory; the triton way cannot do this: its reason")]


def test_a_gpu_without_triton_takes_the_reference_and_says_so(told, monkeypatch):
    def missing(way):
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(ways, "_compiled", missing)
    assert ways.choose(on_a_gpu(random(2, 3, C, 9, 11)), None, LIF()) is None
    (level, words), = told()
    assert level == "WARNING" and "cannot be imported here (No module named 'triton')" in words


def test_auto_tells_once_what_it_picked_on_a_cpu(told):
    y = random(2, 3, C, 9, 11)
    for _ in range(3):
        run(y, None, LIF())
        run(y.double(), None, LIF())
        run(y, None, LIF(), "cpu")
    assert [level for level, _ in told()] == ["INFO", "WARNING"]
    assert "the cpu way" in told()[0][1] and "float64" in told()[1][1]
    assert ways.choose(y.to("meta"), None, LIF()) is None       # where there is no other way, nothing was refused
    assert told()[2] == ("INFO", "norm and neuron of torch.float32 on meta are run the reference way")


@pytest.mark.parametrize("way", ["reference", "cpu"])
@pytest.mark.parametrize(("shape", "normal", "words"), [
    ((2, 3, 9, 11), None, "floats"), ((2, 0, C, 9, 11), None, "none of them 0"),
    ((2, 3, C, 9, 11), Normal(torch.ones(3, C), None, True, EPS, None, None), r"gamma is \[1 or 2, 3\] here: got \[3, 3\]"),
    ((2, 3, C, 9, 11), Normal(torch.ones(2, C), None, False, EPS, None, None), r"gamma is \[1, 3\]"),
    ((2, 3, C, 9, 11), Normal(None, torch.ones(2, C), True, EPS, None, None), r"beta is \[1, 3\]"),
    ((2, 3, C, 9, 11), Normal(None, None, True, EPS, torch.ones(1, 4), torch.ones(1, 4)), r"mean is \[1 or 2, 3\]"),
    ((2, 3, C, 9, 11), Normal(None, None, True, EPS, torch.ones(1, C), None), "together"),
    ((2, 1, C, 1, 1), Normal(None, None, True, EPS, None, None), "two values a channel")])
def test_what_does_not_fit(way, shape, normal, words):
    with pytest.raises(ValueError, match=words):
        run(torch.zeros(shape), normal, LIF(), way)


def test_reference_is_the_norm_and_the_neuron_of_the_house():
    from snnseg.spiking.neuron import run as lif_run
    from snnseg.spiking.norm import BNTT
    y, bntt = random(4, 3, C, 9, 11), BNTT(C, 4)
    assert torch.equal(lif_run(bntt(y), LIF())[0], reference(y, Normal(bntt.gamma_TC, None, True, 1e-4, None, None), LIF()).spikes_TBCHW)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_only_y_is_kept_for_the_way_back(dtype):
    T, B, H, W = 5, 4, 16, 16
    y, normal, sizes = random(T, B, C, H, W, dtype=dtype).requires_grad_(), normal_of("bntt", T), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel() * x.element_size()) or x, lambda x: x):
        run(y, normal, LIF(), "cpu")
    assert max(sizes) == y.numel() * y.element_size()
    assert sum(sizes) <= y.numel() * y.element_size() + 16 * T * C + 8 * C, sizes


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
def test_inputs_stay_as_they_are_whatever_their_layout(dtype):
    plain = random(4, 3, C, 9, 11, dtype=dtype)
    _, expected = gradients("cpu", plain.clone().requires_grad_(), normal_of("tdbn", 4), LIF())
    layouts = [plain.clone(), plain.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, (4, 3)),
               plain.transpose(0, 4).contiguous().transpose(0, 4), torch.stack([plain, plain], -1)[..., 0]]
    for y in layouts:
        normal, fired, found = normal_of("tdbn", 4), *gradients("cpu", y.requires_grad_(), normal_of("tdbn", 4), LIF())
        assert torch.equal(y, plain) and torch.equal(normal.gamma_TC, normal_of("tdbn", 4).gamma_TC)
        assert fired.spikes_TBCHW.permute(0, 1, 3, 4, 2).is_contiguous()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("way", ["reference", "cpu"])
@pytest.mark.parametrize("per_step", [True, False])
@pytest.mark.parametrize("steps", [1, 3])
def test_one_picture_in_any_layout(way, per_step, steps):
    """Layouts do not change what a gradient says; torch's batch norm misreads those of a single picture."""
    y, g = (torch.randn(steps, 1, 4, 8, 8, generator=torch.Generator().manual_seed(k)) for k in range(2))
    innermost = g.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    of = [torch.autograd.grad(run(leaf, Normal(None, None, per_step, 1e-4, None, None), LIF(0.9, 0.5), way).spikes_TBCHW, leaf, each)[0]
          for leaf in (y.requires_grad_(), y.detach().permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3).requires_grad_()) for each in (g, innermost)]
    assert of[0].any()
    for found in of[1:]:
        torch.testing.assert_close(found, of[0])


def test_a_gradient_that_is_one_number_seen_everywhere():
    """sum() hands back an expanded scalar, which has no memory of its own."""
    y = random(4, 3, C, 9, 11).requires_grad_()
    normal = normal_of("bntt", 4)
    found = [torch.autograd.grad(run(y, normal, LIF(), way).spikes_TBCHW.sum(), y)[0] for way in ("cpu", "reference")]
    torch.testing.assert_close(*found, rtol=1e-4, atol=3e-6)


def test_as_many_threads_as_torch_has_and_the_same_result():
    y, neuron = random(3, 4, 2 * C, 80, 80).requires_grad_(), LIF(learned(0.9, False), learned(1.1, False), Sigmoid())
    assert y.numel() > 8 * team.SMALL
    normal, threads, found = Normal(torch.ones(3, 2 * C, requires_grad=True), None, True, EPS, None, None), torch.get_num_threads(), []
    try:
        for number in (1, 2, 4, 7):
            torch.set_num_threads(number)
            fired, answer = gradients("cpu", y, normal, neuron)
            found.append([*fired[:3], *answer.values()])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_two_threads_may_call_it_at_once():
    ys = [random(3, 4, C, 60, 60, seed=k).requires_grad_() for k in range(8)]
    alone = [gradients("cpu", y, None, LIF())[1]["y"] for y in ys]
    with ThreadPoolExecutor(4) as threads:
        beside = threads.map(lambda y: gradients("cpu", y, None, LIF())[1]["y"], ys)
    assert all(map(torch.equal, alone, beside))


def test_what_is_not_a_number_is_not_hidden():
    y = random(2, 3, C, 4, 4)
    y[1, 0, 1, 0, 0] = torch.nan
    _, found = gradients("cpu", y.requires_grad_(), normal_of("bntt", 2), LIF())
    assert found["y"][1, :, 1].isnan().all() and found["y"][:, :, [0, 2]].isfinite().all()


def test_bfloat16_is_rounded_as_torch_does():
    """Bits at random, with infinities, the largest numbers, halves between two neighbours and numbers that are none."""
    row = torch.randint(-2**31, 2**31, (1024,), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    row[:8] = torch.tensor([0x7F800000, -0x800000, 0x7F7FFFFF, 0x3F808000, 0x3F818000, 0x7FFFFFFF, 0x7F800001, 1])
    stored, back = np.zeros(1024, np.uint16), np.zeros(1024, np.float32)

    @njit
    def there_and_back(values, stored, back):
        for i in range(len(values)):
            stored[i] = narrow(values[i], stored)
            back[i] = wide(stored[i])

    there_and_back(row.view(torch.float32).numpy(), stored, back)
    torch.testing.assert_close(torch.from_numpy(back), row.view(torch.float32).bfloat16().float(), rtol=0, atol=0, equal_nan=True)
