"""Whole nets, way by way: spikes of every layer, logits, running statistics and gradients; then two hundred steps of training.

The plain form is the oracle of the CPU's way; torch's own operators, in float64 and channels first, are that of the twins, which
have neither leak nor ways. A potential on edge is the affair of a last bit, and a spike that falls the other way changes all
layers behind: where one does, its potential is looked at, and the net is drawn anew.
"""
from dataclasses import dataclass, field
from functools import cache, partial
from math import ceil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snnseg.models.backbone import Analog, ConvUnit, Spiking
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.spiking import fused
from snnseg.spiking.neuron import LIF
from snnseg.spiking.surrogate import Triangle
from snnseg.training.loss import cross_entropy

NETS, NORMS, LEAKS, STEPS = (DeepLab, FCN), ("bntt", "tdbn", "bn"), (0.5, 0.9, 0.99, 1.0), (1, 2, 5, 20)
SIDES = {1: 32, 2: 64, 5: 32, 20: 32}       # at 64 the head's dilation of 12 meets its map of 16 x 16, at 32 its middle alone meets 8 x 8
WIDTH, DRAWS = 0.0625, 8


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spikes(*shape, seed):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


def apart(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


@pytest.fixture
def exact(monkeypatch):
    """The plain form's norm and neuron in float64: in float32, torch's batch norm is up to 1e-5 off, and twenty steps without leak add that up."""
    plain = fused.reference

    def reference(y, normal, neuron):
        fired = plain(y.double(), normal, neuron)
        return fired._replace(spikes_TBCHW=fired.spikes_TBCHW.to(y.dtype))

    monkeypatch.setattr(fused, "reference", reference)


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

    def fired(self):
        return [made.detach() for layer, _, made in self.neurons.layers if layer.func is not Spiking.read]


def answer(net, norm, leak, steps, dtype, way, draw):
    """With spikes as pictures: the same at every step at leak 0.99; at 0.9 the convolutions are done anew on the way back."""
    potentials, spike = [], Triangle()
    neuron = LIF(leak, 0.75, spike if way == "cpu" else lambda m: (potentials.append(m.detach()), spike(m))[1])
    neurons = Watched(steps, neuron, norm=norm, way=way, recompute=leak == 0.9)
    torch.manual_seed(draw)
    model = net(4, neurons, WIDTH)
    for name, p in model.named_parameters():
        if "norm" in name or "bias" in name and dtype == torch.float32:     # in bfloat16, the ways round a current and its bias once or twice
            p.data += 0.2 * random(*p.shape, seed=len(name))
    x = spikes(1 if leak == 0.99 else steps, 2, 3, SIDES[steps], SIDES[steps], seed=draw).expand(steps, -1, -1, -1, -1)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits = model(x)
    layers = [torch.stack(potentials[k:k + steps]) for k in range(0, len(potentials), steps)]
    return Answer(neurons, layers, logits.detach(), backward(model, logits), {name: b.clone() for name, b in model.named_buffers()})


def same_spikes(mine, plain):
    """Whether all are. If not, the first layer that has others has 1 in 100 000 of them, or one, and their potentials lay within 1e-5 of
    the threshold. Neurons with one potential, as bfloat16 has them, count as one."""
    for found, expected, m in zip(mine.fired(), plain.fired(), plain.potentials, strict=True):
        assert found.dtype == expected.dtype and 0.05 < expected.float().mean() < 0.6
        flipped = found != expected
        first = flipped & (flipped.cumsum(0) == 1)
        if flipped.any():
            assert len(m[first].unique()) <= ceil(1e-5 * first.numel()) and m[first].abs().max() < 1e-5
            return False
    return True


def settled(*case):
    """Both ways' answers where all spikes are the same."""
    for draw in range(DRAWS):
        mine, plain = (answer(*case, way, draw) for way in ("cpu", "reference"))
        assert len(mine.fired()) == len(plain.potentials) == {DeepLab: 8, FCN: 11}[case[0]]
        if same_spikes(mine, plain):
            return mine, plain
    raise AssertionError(f"spikes on edge in {DRAWS} of {DRAWS} draws")


CASES = pytest.mark.parametrize(("net", "norm", "leak", "steps"), [(n, k, a, t) for n in NETS for k in NORMS for a in LEAKS for t in STEPS])


@CASES
@pytest.mark.usefixtures("exact")
def test_spiking(net, norm, leak, steps):
    mine, plain = settled(net, norm, leak, steps, torch.float32)
    assert apart(mine.logits, plain.logits) < 1e-5
    for name, g in plain.gradients.items():
        assert g.any() and apart(mine.gradients[name], g) < 1e-4, name
    for name, table in plain.buffers.items():
        torch.testing.assert_close(mine.buffers[name], table, rtol=1e-5, atol=1e-6)


def alone(call, x, g):
    """A layer's gradients of its input and parameters, when x goes in and g comes back."""
    layer, what, _ = call
    leaf = (x if x.stride(0) else x[:1]).detach().requires_grad_()
    parameters = [p for module in what if isinstance(module, nn.Module) for p in module.parameters()]
    made = layer(*(leaf.expand_as(x) if isinstance(z, torch.Tensor) else z for z in what))
    return torch.autograd.grad(made, [leaf, *parameters], g)


@CASES
@pytest.mark.usefixtures("exact")
def test_spiking_in_bfloat16(net, norm, leak, steps):
    """Every layer hands its gradient on rounded to 8 bits, so that the nets' drift apart on the way back, as either does from the exact one:
    1e-2 holds for all parameters together, and for each where a layer is given the same x and gradient."""
    mine, plain = settled(net, norm, leak, steps, torch.bfloat16)
    assert apart(mine.logits, plain.logits) < 1e-2
    assert apart(*(torch.cat([g.flatten() for g in a.gradients.values()]) for a in (mine, plain))) < 1e-2
    for ours, theirs in zip(mine.neurons.layers, plain.neurons.layers, strict=True):
        x, = (z for z in theirs[1] if isinstance(z, torch.Tensor))
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = (alone(call, x, theirs[2].grad) for call in (ours, theirs))
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype and b.any() and apart(a, b) < 1e-2


# ------------------------------------------------------------------------------------------------ twins

class Written(Analog):
    """The twins' layers in torch's own functions."""

    def respond(self, conv, norm, cell, x, pooled, of_spikes):
        x = F.avg_pool2d(x.flatten(0, 1), 3, 2, 1) if pooled else x.flatten(0, 1)
        y = F.conv2d(x, conv.weight, padding=conv.dilation, dilation=conv.dilation)
        return F.batch_norm(y, None, None, training=True, eps=1e-4).relu().unflatten(0, (self.timesteps, -1))

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


# ------------------------------------------------------------------------------------------------ two hundred steps

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
    net, (pictures, masks), found = DeepLab(2, Spiking(4, way=way), 0.125), squares(), []
    for k, p in enumerate(net.parameters()):
        p.data *= 1 if nudge is None else 1 + 1e-6 * random(*p.shape, seed=100 * nudge + k)
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    for _ in range(steps):
        some = torch.randint(16, (4,))
        loss = cross_entropy(net(pictures[some].expand(4, -1, -1, -1, -1)), masks[some])
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


def test_two_hundred_steps():
    """Means of 20 steps are no further from the plain form's than those are from each other when they begin 1e-6 apart."""
    def curve(*how):
        return np.log(losses(how[0], 200, 0, *how[1:]).reshape(-1, 20).mean(1))

    plain, mine = [curve("reference", nudge) for nudge in (None, 1, 2, 3)], curve("cpu")
    noise = max(np.abs(a - b).max() for k, a in enumerate(plain) for b in plain[:k])
    assert noise < 0.15 and mine[-1] < mine[0] - 1.5
    assert np.abs(mine - plain[0]).max() < 3 * noise
