"""Whole nets, way by way: spikes of every layer, logits, running statistics and gradients; then many steps of training.

The plain form is the oracle of the CPU's way, and of Triton's interpreted in bfloat16 (in float32: test_fused_triton); torch's own
operators, in float64 and channels first, are that of the twins, which have neither leak nor ways. A potential on edge is the affair of
a last bit, and a spike that falls the other way changes all layers behind: where one does, its potential is looked at, and the net is
drawn anew. The last lines say how many cases there were and how far apart.
"""
import importlib.util
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import cache, partial
from math import ceil, sqrt
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from interpreter import everyday, interpreted
from torch import nn

from snnseg.models import deeplab, fcn
from snnseg.models.backbone import Analog, ConvUnit, Spiking
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.spiking import fused, ways
from snnseg.spiking.neuron import LIF
from snnseg.spiking.surrogate import Triangle
from snnseg.training.loss import cross_entropy

NETS, NORMS, LEAKS, STEPS = (DeepLab, FCN), ("bntt", "tdbn", "bn"), (0.5, 0.9, 0.99, 1.0), (1, 2, 5, 20)
SIDES = {1: 32, 2: 64, 5: 32, 20: 32}       # at 64 the head's dilation of 12 meets its map of 16 x 16, at 32 its middle alone meets 8 x 8
WIDTH, DRAWS = 0.0625, 8
CASES = [(n, k, a, t) for n in NETS for k in NORMS for a in LEAKS for t in STEPS]
SOME = [(n, k, a, STEPS[(i + j + m) % 4]) for i, n in enumerate(NETS) for j, k in enumerate(NORMS) for m, a in enumerate(LEAKS)]
FEW = [SOME[k] for k in (0, 5, 6, 11, 13, 18, 19, 20)]
SHORT = [case for case in FEW if case[3] < 20]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
WAY = "triton" if INTERPRETED else "cpu"
CLOSE = 1e-2 if torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported() else 2e-2    # where torch's own convolutions round more than once
CALLS, DONE, SAID = [], {}, []      # operators that were asked, and for which currents; what each case that held has to tell; lines from another process
plainly = fused.reference


def parametrize(cases, few):
    return pytest.mark.parametrize(("net", "norm", "leak", "steps"), everyday(cases, few))


@pytest.fixture(scope="module", autouse=True)
def summary(request):
    yield
    terminal, capture = map(request.config.pluginmanager.get_plugin, ("terminalreporter", "capturemanager"))
    with capture.global_and_fixture_disabled():
        for (kind, of), told in DONE.items():
            worst = ", ".join(f"{name} within {max(one[name] for one in told):.1e}" for name in told[0] if name not in ("spikes", "edge"))
            spikes, edge = (sum(one.get(name, 0) for one in told) for name in ("spikes", "edge"))
            SAID.append(f"{kind}: {len(told)} of {of} cases{f', {edge} of {spikes} spikes on edge' if spikes else ''}, {worst}")
        for line in SAID:
            terminal.write_line(f"\n{line}")


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spikes(*shape, seed):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


def apart(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def together(gradients):
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


@pytest.fixture
def exact(monkeypatch):
    """The plain form's norm and neuron in float64: in float32, torch's batch norm is up to 1e-5 off, and twenty steps without leak add that up.
    Who was asked is noted."""
    fast = ways._compiled(WAY)

    def reference(y, normal, neuron):
        CALLS.append(("reference", y.detach()))
        fired = plainly(y.double(), normal, neuron)
        return fired._replace(spikes_TBCHW=fired.spikes_TBCHW.to(y.dtype))

    def noted(name, function):
        return lambda *how, **more: (CALLS.append((name, None)), function(*how, **more))[1]

    monkeypatch.setattr(fused, "reference", reference)
    for name in ("fire", "unwind"):
        monkeypatch.setattr(fast, name, noted(name, getattr(fast, name)))


def backward(net, logits):
    """From gradients at random; what reaches each parameter."""
    (logits * random(*logits.shape, seed=8)).mean().backward()
    return {name: p.grad for name, p in net.named_parameters()}


# ------------------------------------------------------------------------------------------------ spiking nets

@dataclass(frozen=True)
class Watched(Spiking):
    """Neurons that remember, layer by layer: how it is run, what it was given, what it made."""

    layers: list = field(default_factory=list)

    def _watch(self, layer, *what):
        made = layer(self, *what)
        made.retain_grad()
        self.layers.append((partial(layer, self), what, made))
        return made

    def respond(self, *what):
        return self._watch(Spiking.respond, *what)

    def read(self, *what):
        return self._watch(Spiking.read, *what)

    def between_upsamplings(self, *what):
        return self._watch(Spiking.between_upsamplings, *what)


@dataclass
class Answer:
    """Of one net, run one way."""

    neurons: Watched
    potentials: list        # u / threshold - 1 of each layer of neurons, the plain form's alone
    logits: torch.Tensor
    gradients: dict
    buffers: dict
    asked: Counter          # operators of norm and neuron, there and back
    currents: list          # the plain form's alone

    def fired(self):
        return [made.detach() for layer, _, made in self.neurons.layers if layer.func is not Spiking.read]


def drawn(net, neurons, dtype, draw):
    """A net of its own, its norms and biases moved away from where they begin."""
    torch.manual_seed(draw)
    model = net(4, neurons, WIDTH)
    for name, p in model.named_parameters():
        if "norm" in name or "bias" in name and dtype == torch.float32:     # in bfloat16, the ways round a current and its bias once or twice
            p.data += 0.2 * random(*p.shape, seed=len(name))
    return model


def pictures(leak, steps, draw):
    """Of spikes, two, or one of twenty steps; the same at every step at leak 0.99."""
    return spikes(1 if leak == 0.99 else steps, 1 if steps == 20 else 2, 3, SIDES[steps], SIDES[steps], seed=draw)


def answer(net, norm, leak, steps, dtype, way, draw):
    """At leak 0.9 the convolutions are done anew on the way back. The plain form takes torch's own mean; in float32 gradients reach the pictures, too."""
    potentials, spike = [], Triangle()
    neuron = LIF(leak, 0.75, spike if way == WAY else lambda m: (potentials.append(m.detach()), spike(m))[1])
    neurons = Watched(steps, neuron, norm=norm, way=way, recompute=leak == 0.9)
    model, x = drawn(net, neurons, dtype, draw), pictures(leak, steps, draw).requires_grad_(dtype == torch.float32)
    CALLS.clear()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16), pytest.MonkeyPatch.context() as patch:
        for module in (deeplab, fcn) if way == "reference" else ():
            patch.setattr(module, "mean_over_time", lambda x_TBCHW: x_TBCHW.float().mean(0))
        logits = model(x.expand(steps, -1, -1, -1, -1))
    gradients = backward(model, logits) | ({"pictures": x.grad} if x.requires_grad else {})
    layers = [torch.stack(potentials[k:k + steps]) for k in range(0, len(potentials), steps)]
    buffers = {name: b.clone() for name, b in model.named_buffers()}
    return Answer(neurons, layers, logits.detach(), gradients, buffers, Counter(name for name, _ in CALLS), [y for _, y in CALLS])


def compared(mine, plain):
    """Of spikes: how many were, and how many of these fell the other way. If any did, they are in the first layer that has some 1 in 100 000 of
    them, or one, and their potentials lay within 1e-5 of the threshold. Neurons with one potential, as bfloat16 has them, count as one."""
    seen = 0
    for found, expected, m in zip(mine.fired(), plain.fired(), plain.potentials, strict=True):
        assert found.dtype == expected.dtype and 0.05 < expected.float().mean() < 0.6
        flipped, seen = found != expected, seen + found.numel()
        first = flipped & (flipped.cumsum(0) == 1)
        if flipped.any():
            assert len(m[first].unique()) <= ceil(1e-5 * first.numel()) and m[first].abs().max() < 1e-5
            return seen, int(first.sum())
    return seen, 0


def settled(*case):
    """Both ways' answers where all spikes are the same, and which draw that was; what there is to tell of the spikes."""
    told = Counter()
    for draw in range(DRAWS):
        mine, plain = (answer(*case, way, draw) for way in (WAY, "reference"))
        layers = {DeepLab: 8, FCN: 11}[case[0]]
        assert mine.asked == {"fire": layers, "unwind": layers} and plain.asked == {"reference": layers}
        assert len(mine.fired()) == len(plain.potentials) == layers
        seen, edge = compared(mine, plain)
        told.update(spikes=seen, edge=edge)
        if not edge:
            return mine, plain, draw, told
    raise AssertionError(f"spikes on edge in {DRAWS} of {DRAWS} draws")


def note(kind, of, told, **worst):
    DONE.setdefault((kind, of), []).append({**told, **worst})


def test_cases():
    """Each of 96, 24 of them that meet each pair of settings, and 8 in which each net meets each leak and each T, six of them at T < 20."""
    assert len(set(CASES)) == len(CASES) == 2 * 3 * 4 * 4 and set(SOME) < set(CASES)
    assert len(SOME) == 24 and all(len({(case[i], case[j]) for case in SOME}) == len({case[i] for case in SOME}) * len({case[j] for case in SOME})
                                   for i in range(4) for j in range(i))
    assert set(FEW) < set(SOME) and {case[1] for case in FEW} == set(NORMS)
    assert len({(case[0], case[2]) for case in FEW}) == len({(case[0], case[3]) for case in FEW}) == 8 and len(SHORT) == 6


@parametrize(CASES, SOME)
@pytest.mark.usefixtures("exact")
def test_spiking(net, norm, leak, steps):
    mine, plain, _, told = settled(net, norm, leak, steps, torch.float32)
    assert apart(mine.logits, plain.logits) < 1e-5
    for name, g in plain.gradients.items():
        assert g.any() and apart(mine.gradients[name], g) < 1e-4, name
    for name, table in plain.buffers.items():
        torch.testing.assert_close(mine.buffers[name], table, rtol=1e-5, atol=1e-6)
    note("float32", len(CASES), told, logits=apart(mine.logits, plain.logits), gradients=max(apart(mine.gradients[name], g) for name, g in plain.gradients.items()))


def alone(call, x, g):
    """A layer's gradients of its input and parameters, when x goes in and g comes back."""
    layer, what, _ = call
    leaf = (x if x.stride(0) else x[:1]).detach().requires_grad_()
    parameters = [p for module in what if isinstance(module, nn.Module) for p in module.parameters()]
    made = layer(*(leaf.expand_as(x) if isinstance(z, torch.Tensor) else z for z in what))
    return torch.autograd.grad(made, [leaf, *parameters], g)


def convolved(conv, x, pooled):
    x = F.avg_pool2d(x.flatten(0, 1), 3, 2, 1) if pooled else x.flatten(0, 1)
    return F.conv2d(x, conv.weight, padding=conv.dilation, dilation=conv.dilation)


@dataclass(frozen=True)
class Given(Spiking):
    """The plain form in float64, whose layers take the currents that they are given, but hand the gradient on to their own."""

    currents: list = field(default_factory=list)

    def _fired(self, y, normal, cell):
        return plainly(y + (self.currents.pop(0).double() - y).detach(), normal, cell()).spikes_TBCHW

    def respond(self, conv, norm, cell, x, pooled, of_spikes):
        return self._fired(convolved(conv, x, pooled).unflatten(0, x.shape[:2]), norm.normal(len(x)), cell)

    def between_upsamplings(self, cell, x):
        return self._fired(x, None, cell)


def unrounded(net, norm, leak, steps, draw, currents):
    """The gradients of a bfloat16 net's parameters without rounding on the way back."""
    neurons = Given(steps, LIF(leak, 0.75), norm=norm, way="reference", currents=currents)
    model = drawn(net, neurons, torch.bfloat16, draw).double()
    for p in model.parameters():
        p.data = p.data.bfloat16().double() if p.dim() == 4 else p.data
    logits = model(pictures(leak, steps, draw).double().expand(steps, -1, -1, -1, -1))
    assert not currents
    return backward(model, logits)


def assert_in_bfloat16(kind, of, *case):
    """Every layer hands its gradient on rounded to 8 bits, so that either net drifts from the unrounded one on the way back. 1e-2 holds for each
    gradient of a layer that is given the same x and gradient, and for all of a net's together from the unrounded; two that are rounded each
    in its way may then be 1.5e-2 apart. On processors without bfloat16, where the plain form is no better, it is twice that."""
    mine, plain, draw, told = settled(*case, torch.bfloat16)
    assert apart(mine.logits, plain.logits) < 1e-3
    ours, theirs, right = map(together, (mine.gradients, plain.gradients, unrounded(*case, draw, plain.currents)))
    assert apart(ours, right) < min(CLOSE, 1.75 * apart(theirs, right)) and apart(ours, theirs) < 1.5 * CLOSE
    layer = 0.0
    for my, other in zip(mine.neurons.layers, plain.neurons.layers, strict=True):
        x, = (z for z in other[1] if isinstance(z, torch.Tensor))
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = (alone(call, x, other[2].grad) for call in (my, other))
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype and b.any() and apart(a, b) < CLOSE
            layer = max(layer, apart(a, b))
    note(kind, of, told, logits=apart(mine.logits, plain.logits), gradients=apart(ours, theirs), **{"from unrounded": apart(ours, right), "a layer's": layer})


@parametrize(CASES, SOME)
@pytest.mark.usefixtures("exact")
def test_spiking_in_bfloat16(net, norm, leak, steps):
    assert_in_bfloat16("bfloat16", len(CASES), net, norm, leak, steps)


# ------------------------------------------------------------------------------------------------ Triton, interpreted

@pytest.mark.parametrize(("which", "count"), [("not slow", len(SHORT)), pytest.param("slow", len(SOME) - len(SHORT), marks=pytest.mark.slow)])
def test_interpreted(which, count):
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    told = interpreted(__file__, "-m", which)
    assert f"{count} passed" in told, told
    SAID.extend(line for line in told.splitlines() if line.startswith("bfloat16 by Triton"))


@pytest.fixture
def rounded(monkeypatch):
    """To bfloat16 as a GPU does; the interpreter cuts bits off."""
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def to_nearest(x, dtype, other, mode):
        if (str(dtype), str(other)) != ("fp32", "bf16"):
            return convert(x, dtype, other, mode)
        return torch.from_numpy(np.ascontiguousarray(x)).bfloat16().view(torch.int16).numpy()

    monkeypatch.setattr(interpreter, "_convert_float", to_nearest)


@parametrize(SOME, SHORT)
@pytest.mark.usefixtures("few_tiles", "whole_maps", "by_kernels", "rounded", "exact")
def test_by_triton(net, norm, leak, steps, monkeypatch):
    monkeypatch.setitem(SIDES, 2, 32)
    assert_in_bfloat16(f"bfloat16 by Triton, {net.__name__}", len(SOME) // 2, net, norm, leak, steps)


# ------------------------------------------------------------------------------------------------ twins

class Written(Analog):
    """The twins' layers in torch's own functions."""

    def respond(self, conv, norm, cell, x, pooled, of_spikes):
        return F.batch_norm(convolved(conv, x, pooled), None, None, training=True, eps=1e-4).relu().unflatten(0, (self.timesteps, -1))

    def read(self, conv, x):
        return torch.einsum("tbihw,oi->tbohw", x, conv.weight[:, :, 0, 0]) + conv.bias.view(-1, 1, 1)


def twin(net, neurons, dtype, draw):
    """Logits, gradients, and what each layer made of frames of events."""
    torch.manual_seed(draw)
    model, made = net(4, neurons, WIDTH), []
    for module in model.modules():
        if isinstance(module, ConvUnit):
            module.register_forward_hook(lambda *what: made.append(what[2].detach()))
    order = torch.channels_last if dtype == torch.float32 else torch.contiguous_format
    frames = random(neurons.timesteps, 2, 3, *[SIDES[neurons.timesteps]] * 2, seed=draw)
    logits = model.to(dtype, memory_format=order)(frames.to(dtype))
    return logits.detach(), backward(model, logits), made


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("steps", STEPS)
def test_twins(net, steps):
    """Where the sign of an activation is the affair of a last bit, its slope is too, and the net is drawn anew."""
    for draw in range(DRAWS):
        (logits, mine, layers), (expected, exact, plain) = (twin(net, *how, draw) for how in ((Analog(steps), torch.float32), (Written(steps), torch.float64)))
        assert len(layers) == len(plain) == {DeepLab: 8, FCN: 9}[net] and all(0.3 < (x > 0).double().mean() < 0.7 for x in plain)
        edges = [(a + b)[(a > 0) != (b > 0)] for a, b in zip(layers, plain, strict=True)]
        assert apart(logits, expected) < 1e-4 and all((edge < 1e-5).all() for edge in edges)
        if not any(map(len, edges)):
            break
    else:
        raise AssertionError(f"activations on edge in {DRAWS} of {DRAWS} draws")
    for name, g in exact.items():
        assert g.any() and apart(mine[name], g) < 1e-4, name
    note("twins, float32", 8, {}, logits=apart(logits, expected), gradients=max(apart(mine[name], g) for name, g in exact.items()))


def nearest(x):
    """Rounded to bfloat16, its gradient handed on."""
    return x + (x.bfloat16().double() - x).detach()


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("steps", STEPS)
def test_twins_in_bfloat16(net, steps):
    """Layer by layer, from the same x and gradient; x, weight and current are rounded on the way there, nothing on the way back."""
    torch.manual_seed(0)
    model, layers, worst = net(4, Analog(steps), WIDTH), [], 0.0
    for module in model.modules():
        if isinstance(module, ConvUnit):
            module.register_forward_hook(lambda layer, given, made: (made.retain_grad(), layers.append((layer, given[0].detach(), made)))[0])
    with torch.autocast("cpu", torch.bfloat16):
        backward(model, model(random(steps, 2, 3, *[SIDES[steps]] * 2, seed=0)))
    assert len(layers) == {DeepLab: 8, FCN: 9}[net]
    for layer, x, made in list(layers):
        leaf, right, weight = (z.detach().to(dtype).requires_grad_() for z, dtype in ((x, torch.float32), (x, torch.float64), (layer.conv.weight, torch.float64)))
        with torch.autocast("cpu", torch.bfloat16):
            found = torch.autograd.grad(layer(leaf), (leaf, layer.conv.weight), made.grad)
        seen = F.avg_pool2d(right.flatten(0, 1), 3, 2, 1).unflatten(0, right.shape[:2]) if layer.pooled else right
        y = nearest(convolved(SimpleNamespace(weight=nearest(weight), dilation=layer.conv.dilation), nearest(seen), False))
        z = F.batch_norm(y, None, None, training=True, eps=1e-4).relu().unflatten(0, x.shape[:2])
        for a, b in zip(found, torch.autograd.grad(z, (right, weight), made.grad.double()), strict=True):
            assert b.any() and apart(a, b) < CLOSE
            worst = max(worst, apart(a, b))
    note("twins, bfloat16", 8, {}, **{"a layer's gradients": worst})




# ------------------------------------------------------------------------------------------------ many steps

@cache
def squares():
    """Sixteen pictures of noise with a brighter square, and its mask."""
    pictures, masks = random(16, 3, 32, 32, seed=0), torch.zeros(16, 32, 32, dtype=torch.long)
    for k, (row, column, side) in enumerate(torch.randint(20, (16, 3), generator=torch.Generator().manual_seed(1)).tolist()):
        place = (..., slice(row, row + 8 + side // 4), slice(column, column + 8 + side // 4))
        pictures[k][place] += 2
        masks[k][place] = 1
    return pictures, masks


def losses(way, steps, seed=0, nudge=None):
    """Of a Spiking-DeepLab, BNTT and direct coding; a nudge moves each weight by 1e-6 of itself."""
    torch.manual_seed(seed)
    net, (pictures, masks), found = DeepLab(2, Spiking(3, way=way), 0.0625), squares(), []
    for k, p in enumerate(net.parameters()):
        p.data *= 1 if nudge is None else 1 + 1e-6 * random(*p.shape, seed=100 * nudge + k)
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        some = torch.randint(16, (4,))
        loss = cross_entropy(net(pictures[some].expand(3, -1, -1, -1, -1)), masks[some])
        adam.zero_grad()
        loss.backward()
        adam.step()
        found.append(loss.item())
    return np.array(found)


@pytest.mark.usefixtures("exact")
def test_trainings_begin_alike():
    """Five steps of five trainings, to 1e-4; a spike on edge may end that in one of them."""
    alike = [np.allclose(losses("cpu", 5, seed), losses("reference", 5, seed), rtol=1e-4, atol=0) for seed in range(5)]
    assert sum(alike) >= 4


@pytest.mark.parametrize(("steps", "learned"), [(40, 0.5), pytest.param(200, 1.5, marks=pytest.mark.slow)])
def test_many_steps(steps, learned):
    """Four trainings each way that begin 1e-6 apart. Means of 20 steps, in logarithms: those of the two ways are as near one another as their
    spread leaves means of four."""
    mine, plain = (np.log([losses(way, steps, 0, nudge).reshape(-1, 20).mean(1) for nudge in (None, 1, 2, 3)]) for way in ("cpu", "reference"))
    noise = sqrt((mine.var(0, ddof=1).mean() + plain.var(0, ddof=1).mean()) / 4)        # of the difference of two such means
    apart = mine.mean(0) - plain.mean(0)
    assert (plain[:, -1] < plain[:, 0] - learned).all() and 0 < noise < 0.025
    assert np.abs(apart).max() < 4 * noise and abs(apart.mean()) < 2 * noise
    note(f"{steps} steps, four trainings each way", 1, {}, **{"noise": noise, "curves": np.abs(apart).max(), "their means": abs(apart.mean())})


if INTERPRETED:     # what stays is test_by_triton, with the tiles of the whole nets there
    from test_fused_triton import by_kernels, few_tiles, whole_maps  # noqa: F401
for _name in [name for name in globals() if name.startswith("test_") and (name == "test_by_triton") != INTERPRETED]:
    del globals()[_name]
