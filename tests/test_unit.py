"""Convolution, norm and neuron as one operator against plain PyTorch; spikes as bits; the convolution's backward pass by taps."""
import pytest
import torch

from snnseg.spiking import bits, convolution, counter, encode, pooling, unit, ways
from snnseg.spiking.cell import Cell
from snnseg.spiking.fused import Normal, in_rows
from snnseg.spiking.neuron import LIF
from snnseg.spiking.unit import Wiring

T, B, C, OUT = 3, 2, 5, 6
PRECISIONS = {torch.float32: 1e-4, torch.bfloat16: 1e-2}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def spikes(*shape, seed=1):
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.3).float()


# ------------------------------------------------------------------------------------------------ bits

@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (3, 2, 5, 7, 3), (2, 1, 8, 4, 4), (4, 3, 16, 40, 33)])
def test_bits_there_and_back(shape, dtype):
    x = in_rows(spikes(*shape).to(dtype))
    packed = bits.pack(x)
    assert packed.bits.dtype == torch.uint8 and packed.bits.numel() == -(-x.numel() // 8)
    back = bits.unpack(packed)
    assert torch.equal(back, x) and back.dtype == dtype and back.stride() == x.stride()
    flat = x.permute(0, 1, 3, 4, 2).reshape(-1)
    assert torch.equal(packed.bits, bits.plain_pack(flat)) and torch.equal(bits.plain_unpack(packed.bits, x.numel(), dtype), flat)


def test_bits_that_spikes_bring_are_taken_until_they_are_written_over():
    x = in_rows(spikes(2, 1, 8, 3, 3))
    theirs = torch.arange(x.numel() // 8, dtype=torch.uint8)
    bits.bring(x, theirs)
    assert bits.pack(x).bits is theirs and bits.pack(in_rows(x.float())).bits is theirs
    assert bits.pack(x.clone()).bits is not theirs and len(bits.pack(x[:1]).bits) == len(theirs) // 2
    x.mul_(0)
    assert not bits.pack(x).bits.any()
    with torch.inference_mode():
        x = in_rows(spikes(2, 1, 8, 3, 3))
        bits.bring(x, theirs)
        assert bits.pack(x).bits is not theirs      # torch does not count what is written there


# ------------------------------------------------------------------------------------------------ convolution

@pytest.mark.parametrize(("side", "kernel", "dilation", "share"), [(16, 3, 12, 0.25), (8, 3, 12, 1 / 9), (64, 3, 1, 0.979), (16, 1, 1, 1.0), (16, 3, 2, 0.84)])
def test_share_inside(side, kernel, dilation, share):
    assert convolution.inside(side, side, kernel, dilation) == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize(("height", "width", "dilation"), [(16, 16, 12), (8, 8, 12), (9, 20, 12), (7, 5, 3), (4, 6, 1), (5, 5, 2)])
def test_taps_give_the_gradients_of_the_convolution(height, width, dilation):
    x, w, g = random(4, C, height, width), random(OUT, C, 3, 3, seed=1), random(4, OUT, height, width, seed=2)
    leaves = x.double().requires_grad_(), w.double().requires_grad_()
    expected = torch.autograd.grad(convolution.forward(*leaves, dilation), leaves, g.double())
    torch.testing.assert_close(convolution.forward_inside(x, w, dilation).double(), convolution.forward(*leaves, dilation), rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolution.forward_inside(x, w, dilation).dtype == convolution.forward(x, w, dilation).dtype == torch.bfloat16
    for found in (convolution.backward_inside(g, x, w, dilation, True), convolution.backward(g, x, w, dilation, True)):
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4)
    assert convolution.backward_inside(g, x, w, dilation, False)[0] is None


# ------------------------------------------------------------------------------------------------ the whole

def normal_of(kind):
    gamma = (1 + 0.3 * random(T if kind == "bntt" else 1, OUT, seed=3)).requires_grad_()
    beta = (0.2 * random(1, OUT, seed=4)).requires_grad_()
    return {"none": None, "bntt": Normal(gamma, None, True, 1e-4, None, None), "tdbn": Normal(gamma, beta, False, 1e-4, None, None)}[kind]


def both(x, weight, wiring, kind, neuron, precision, ways=("reference", "auto")):
    """Spikes and gradients of all leaves, plain and as one operator."""
    out = []
    for way in ways:
        normal = normal_of(kind)
        leaf_x, leaf_w = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            fired = unit.run(leaf_x if x.stride(0) else leaf_x[:1].expand_as(x), leaf_w, wiring, normal, neuron, way)
        leaves = [leaf_x, leaf_w, *(z for z in (normal or ()) if isinstance(z, torch.Tensor) and z.requires_grad),
                  *(z for z in neuron[:2] if isinstance(z, torch.Tensor))]
        s = fired.spikes_TBCHW
        out.append((s, torch.autograd.grad(s, leaves, random(*s.shape, seed=9).to(s.dtype))))
    return out


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("kind", ["bntt", "tdbn", "none"])
@pytest.mark.parametrize("wiring", [Wiring(), Wiring(pooled=True), Wiring(12), Wiring(recompute=True), Wiring(2, True, recompute=True), Wiring(of_spikes=False)], ids=str)
def test_like_plain(wiring, kind, precision):
    x = spikes(T, B, C, 12, 10) if wiring.of_spikes else random(T, B, C, 12, 10)
    neuron = LIF(torch.tensor(0.9, requires_grad=True), (0.8 + 0.1 * random(OUT, 1, 1, seed=5).abs()).requires_grad_())
    (plain, expected), (mine, found) = both(x, 0.5 * random(OUT, C, 3, 3, seed=2), wiring, kind, neuron, precision)
    assert mine.dtype == plain.dtype == precision and 0.02 < plain.float().mean() < 0.9
    assert torch.equal(mine, plain)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype and (a - b).norm() <= PRECISIONS[precision] * b.norm()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("wiring", [Wiring(of_spikes=False), Wiring(pooled=True)])
def test_the_same_picture_at_every_step_is_convolved_once(wiring, recompute, monkeypatch):
    x = (spikes if wiring.of_spikes else random)(1, B, C, 12, 10).expand(T, -1, -1, -1, -1)
    seen, forward = [], convolution.forward
    monkeypatch.setattr(convolution, "forward", lambda x, *how: seen.append(len(x)) or forward(x, *how))
    (plain, expected), (mine, found) = both(x, random(OUT, C, 3, 3, seed=2), wiring._replace(recompute=recompute), "bntt", LIF(), torch.float32)
    assert seen == [T * B, *[B] * (1 + recompute)]
    assert torch.equal(mine, plain)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() <= 1e-4 * b.norm()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
@pytest.mark.parametrize("kind", ["constant", "rate", "frames"])
def test_a_coded_input_is_made_in_stretches(kind, precision, recompute, monkeypatch):
    """Spikes and gradients as of the whole input; of what is drawn or gathered, never more than a stretch is there, and none is kept."""
    steps, x = 11, random(B, C, 8, 6).sigmoid()
    made = {"constant": encode.Constant(x, steps), "rate": encode.Rate(x, counter.keys([3, 4]), steps), "frames": encode.Frames(random(B, steps, C, 8, 6))}[kind]
    monkeypatch.setattr(unit, "STRETCH", 5 * x.numel())
    asked = []
    of_steps = type(made).steps
    monkeypatch.setattr(type(made), "steps", lambda self, first, last: asked.append((first, last)) or of_steps(self, first, last))
    found = []
    for of, way in ((encode.whole(made), "reference"), (made, "auto")):
        asked.clear()
        weight, kept = random(OUT, C, 3, 3, seed=2).requires_grad_(), []
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(lambda z, kept=kept: kept.append(z) or z, lambda z: z):
            s = unit.run(of, weight, Wiring(of_spikes=False, recompute=recompute), None, LIF(0.9, 0.5), way).spikes_TBCHW
        found.append((s, torch.autograd.grad(s, weight, random(*s.shape, seed=9).to(s.dtype))[0]))
    assert kind == "constant" or asked == [(0, 4), (4, 8), (8, 11)] * (2 + recompute)
    assert kind == "constant" or not any(z.shape[-3:] == x.shape[-3:] for z in kept)
    (plain, expected), (mine, gradient) = found
    assert mine.dtype == plain.dtype and torch.equal(mine, plain) and 0.02 < plain.float().mean() < 0.9
    assert (gradient - expected).norm() <= PRECISIONS[precision] * expected.norm()


@pytest.mark.parametrize("shape", [(3, 5, 8, 8), (2, 8, 7, 9), (1, 16, 1, 5)])
def test_pools_forward_and_backward(shape):
    x = (random(*shape) > 0).double().requires_grad_()
    y = pooling.forward(x)
    g = random(*y.shape, seed=1).double()
    assert y.shape[2:] == ((shape[2] + 1) // 2, (shape[3] + 1) // 2)
    torch.testing.assert_close(pooling.backward(g, *shape[2:]), torch.autograd.grad(y, x, g)[0])
    spikes_TBCHW = in_rows(x.detach().float()[None])
    assert torch.equal(pooling.of_bits(bits.pack(spikes_TBCHW)), pooling.forward(x.detach().float()))


@pytest.mark.parametrize(("dtype", "recompute", "most"), [(torch.float32, False, 4.14), (torch.bfloat16, False, 2.14), (torch.bfloat16, True, 0.14), (torch.float32, True, 0.14)])
def test_what_is_kept(dtype, recompute, most):
    """Bytes a neuron and step, of tensors that grow with them."""
    x, weight, kept = spikes(8, 4, 8, 32, 32), random(8, 8, 3, 3), {}
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16), \
            torch.autograd.graph.saved_tensors_hooks(lambda z: kept.update({z.untyped_storage().data_ptr(): z.untyped_storage().nbytes()}) or z, lambda z: z):
        unit.run(x.requires_grad_(), weight.requires_grad_(), Wiring(recompute=recompute), Normal(None, None, True, 1e-4, None, None), LIF())
    assert sum(kept.values()) / x.numel() <= most


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
def test_tap_is_the_convolution_of_spikes(kernel, dtype):
    x, g = spikes(T, B, C, 6, 7).to(dtype), random(T, B, OUT, 6, 7, seed=3).to(dtype)
    found = []
    for way in (lambda x, w, b: unit.Tap.apply(x, w, b), lambda x, w, b: unit.plain(x, w.to(dtype), Wiring()) + b.to(dtype).view(-1, 1, 1)):
        leaves = [z.requires_grad_() for z in (x.clone(), random(OUT, C, kernel, kernel, seed=1), random(OUT, seed=2))]
        y = way(*leaves)
        found.append([y, *torch.autograd.grad(y, leaves, g)])
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype and (a - b).norm() <= PRECISIONS[dtype] * b.norm()


# ------------------------------------------------------------------------------------------------ learned leak and threshold

@pytest.mark.parametrize("shared", ["none", "layer", "channel"])
def test_cell_begins_at_its_neuron_and_learns_what_is_asked(shared):
    cell = Cell(LIF(0.9, 0.7), 4, leak=shared, threshold=shared)
    neuron = cell()
    assert [len(p) for p in cell.parameters()] == {"none": [], "layer": [1, 1], "channel": [4, 4]}[shared]
    torch.testing.assert_close(torch.as_tensor(neuron.leak).expand(4, 1, 1), torch.full((4, 1, 1), 0.9))
    torch.testing.assert_close(torch.as_tensor(neuron.threshold).expand(4, 1, 1), torch.full((4, 1, 1), 0.7))
    if shared != "none":
        y = random(5, 2, 4, 6, 6).requires_grad_()
        found = [torch.autograd.grad(ways.run(y, None, cell(), way).spikes_TBCHW, list(cell.parameters()), random(5, 2, 4, 6, 6, seed=1)) for way in ("cpu", "reference")]
        for a, b in zip(*found, strict=True):
            assert b.any() and (a - b).norm() <= 1e-4 * b.norm()


def test_a_leak_of_one_can_be_learned_too():
    assert 0.999 < Cell(LIF(1.0), 3, leak="layer")().leak.item() < 1
