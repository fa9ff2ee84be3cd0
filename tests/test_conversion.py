"""ANN-SNN conversion: norms folded, thresholds balanced, and the spiking net's answers on their way to the ANN's."""
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from snnseg.data import mnist_cifar
from snnseg.errors import ConfigError, DataError, NotFinite
from snnseg.evaluation.confusion import Confusion
from snnseg.models import balancing, conversion, folding
from snnseg.models.backbone import Analog, Spiking
from snnseg.models.conversion import Converted, Integrator
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.models.thresholds import Largest, Rule
from snnseg.spiking import counter
from snnseg.spiking import neuron as lif
from snnseg.spiking.encode import Rate

CPU = torch.device("cpu")
NETS = pytest.mark.parametrize("net", [DeepLab, FCN])
PER = pytest.mark.parametrize("per", ["layer", "channel"])
AT_ONCE = 32        # time steps that are convolved together: the same bits as of 4 (below), in half the time


pytestmark = pytest.mark.usefixtures("one_thread")     # these nets are too small to share out


def random_twin(net, width=0.1, seed=0, channels=3):
    """An ANN with running statistics of its own and some biases."""
    torch.manual_seed(seed)
    model = net(3, Analog(), width, channels)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0       # one batch is enough
    model.train()(torch.randn(1, 16, channels, 24, 24))
    for name, p in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(p, 0, 0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.add_(0.3 * torch.randn_like(buffer))
    return model.eval()


def pictures(count=6, size=24, seed=1, channels=3):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def logits_of(model, x_BCHW):
    with torch.no_grad():
        return model(x_BCHW[None])


def distance(logits, expected):
    return ((logits - expected).square().mean().sqrt() / expected.std()).item()


# ------------------------------------------------------------------------------------------------------------- folding

@NETS
@pytest.mark.parametrize("size", [(24, 24), (33, 47)])
def test_a_folded_net_answers_as_before_and_has_no_norm(net, size):
    model = random_twin(net)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = folding.fold(model.train())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules()) and not any("norm" in name for name in folded.state_dict())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert list(folding.layers(folded)) == list(folding.layers(model)) and len(folding.layers(folded)) == {DeepLab: 8, FCN: 9}[net]
    x_BCHW = torch.randn(2, 3, *size)
    expected = logits_of(model.eval(), x_BCHW)
    torch.testing.assert_close(logits_of(folded, x_BCHW), expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.5


@NETS
def test_a_twin_with_max_pools_is_refused(net):
    with pytest.raises(ConfigError, match="this twin has max pools.*Train one with model.pool: average.$"):
        folding.fold(net(2, Analog(), 0.05, pool="max"))


def test_gamma_and_beta_are_folded_too():
    """w = 2, gamma 3, beta 5, mean 4, var 4 - eps: 3 (2 x - 4) / 2 + 5 = 3 x - 1."""
    conv, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=1e-4)
    for parameter, number in ((conv.weight, 2), (norm.weight, 3), (norm.bias, 5), (norm.running_mean, 4), (norm.running_var, 4 - 1e-4)):
        nn.init.constant_(parameter, number)
    folding._fold(conv, norm)
    assert (conv.weight.item(), conv.bias.item()) == pytest.approx((3, -1))


# ---------------------------------------------------------------------------------------------------------- thresholds

def pencil():
    """A DeepLab of one input channel, of which only the middle taps are not 0: all layers pass on what they get, but the first two.

    One channel a layer. First layer: relu(2 x + 1), second: relu(3 y - 4).
    """
    model = DeepLab(2, Analog(), 0.001, in_channels=1).eval()
    for name, layer in folding.layers(model).items():
        nn.init.zeros_(layer.conv.weight)
        nn.init.constant_(layer.norm.norm.running_var, 1 - 1e-4)
        scale, bias = {"block1.0": (2, 1), "block1.1": (3, -4)}.get(name, (1, 0))
        with torch.no_grad():
            layer.conv.weight[:, :, 1, 1] = torch.eye(*layer.conv.weight.shape[:2]) * scale
        nn.init.constant_(layer.norm.norm.running_mean, -bias)
    return model


def test_thresholds_by_hand():
    """x in -1, 0, 1, 2: the first layer has 0, 1, 3, 5, the second 0, 0, 5, 11. Of 1, 3, 5 the 60th percentile is the second, 3; of 5, 11, 11."""
    x_NCHW = torch.tensor([-1., 0, 1, 2]).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    folded = folding.fold(pencil())
    for rule, first, second in ((Rule(), 5, 11), (Rule(percentile=60), 3, 11), (Rule(percentile=30), 1, 5), (Rule(scale=0.5), 2.5, 5.5)):
        for batch in (1, 3, 4):
            found = balancing.of_activations(folded, x_NCHW, rule, batch)
            assert found.by_layer["block1.0"] == pytest.approx((first,)) and found.by_layer["block1.1"] == pytest.approx((second,))
        assert (found.of, found.pictures, found.timesteps, found.amplitude, found.silent) == ("activations", 4, 1, 2.0, {})


def test_a_spike_stands_for_its_threshold_by_hand():
    """x = 2 at every step gives currents of 5 at a threshold of 10: a spike at every second step, 10 in the next layer's weights.

    Second layer: 3 * 10 - 4 = 26 and -4 in turn, 11 on average, as the ANN has it, at a threshold of 22: again every second step.
    """
    x_NCHW, folded = torch.full((1, 1, 8, 8), 2.0), folding.fold(pencil())
    found = balancing.of_activations(folded, x_NCHW, Rule(scale=2))
    assert (found.by_layer["block1.0"], found.by_layer["block1.1"]) == (pytest.approx((10,)), pytest.approx((22,)))
    net = conversion.convert(folded, found)
    currents = torch.cat(list(net.currents("block1.1", x_NCHW, 12)))[:, 0, 0, 4, 4]
    torch.testing.assert_close(currents[currents > 0], torch.full((5,), 26.0), rtol=1e-4, atol=0)     # 5 is not above 10 at step 2, 15 is at step 3
    torch.testing.assert_close(currents[currents < 0], torch.full((7,), -4.0), rtol=1e-4, atol=0)
    assert currents.gt(0).nonzero().flatten().tolist() == [2, 4, 6, 8, 10]


@PER
@pytest.mark.parametrize("percentile", [100, 99.9, 99, 50, 7.3, 1e-9])
def test_a_percentile_is_exact_over_the_whole_set(per, percentile):
    """numpy's inverted_cdf of the positive values, whatever the parts; a channel that is never active has the layer's largest."""
    rng = np.random.default_rng(3)
    x_NCHW = np.maximum(rng.standard_normal((40, 4, 9, 11)), 0).astype(np.float32) * np.array([1, 0, 3, .01], np.float32)[:, None, None]
    rule = Rule(per, percentile)
    rows = np.moveaxis(x_NCHW, 1, 0).reshape(4 if per == "channel" else 1, -1)
    expected = [np.percentile(row[row > 0], percentile, method="inverted_cdf") if (row > 0).any() else 0 for row in rows]
    expected = [e or max(expected) for e in expected]
    for sizes in ([40], [1, 9, 30], [20, 20]):
        largest = Largest(rule, rows.shape[1])
        for part in torch.from_numpy(x_NCHW).split(sizes):
            largest.add(part[None])
        assert largest.thresholds("layer").tolist() == expected
        assert largest.kept_RK.shape[1] <= rows.shape[1] * (1 - percentile / 100) + 2       # no more than is needed


def test_channels_that_are_never_active_are_told_and_have_a_threshold():
    model = random_twin(DeepLab)
    model.block2[1].norm.norm.running_mean[2:5] += 1e4        # three channels below 0, for good
    model.head.norm.norm.running_mean += 1e4                 # and a whole layer
    folded = folding.fold(model)
    for per in ("layer", "channel"):
        found = balancing.of_activations(folded, pictures(), Rule(per))
        assert found.silent == {"block2.1": 3, "head": 102}
        assert set(found.by_layer["head"]) == {1.0} and len(found.by_layer["head"]) == {"layer": 1, "channel": 102}[per]
        assert per == "layer" or found.by_layer["block2.1"][2:5] == (max(found.by_layer["block2.1"]),) * 3
        assert conversion.convert(folded, found)(pictures(2), 8).isfinite().all()


@PER
@pytest.mark.parametrize("coded", [False, True], ids=["direct", "poisson"])
def test_thresholds_of_currents_layer_after_layer(per, coded):
    """Written anew with earlier layers that spike, one step after the other: the largest weighted input of each over time."""
    folded, x_NCHW, T = folding.fold(random_twin(DeepLab, 0.05)), pictures(5, 16), 11
    key_N = counter.keys(range(5)) if coded else None
    found = balancing.of_currents(folded, x_NCHW, Rule(per, scale=0.8), T, key_N, batch=2)
    amplitude = x_NCHW.abs().max()
    x_TBCHW = amplitude * Rate(x_NCHW / amplitude, key_N, T, signed=True).steps(0, T) if coded else x_NCHW.expand(T, *x_NCHW.shape)
    for name, layer in folding.layers(folded).items():
        with torch.no_grad():
            current_TBCHW = torch.stack([folding.weighted(layer.conv, x_BCHW[None], layer.pooled)[0] for x_BCHW in x_TBCHW])
        most = current_TBCHW.amax((0, 1, 3, 4)).clamp(min=0) * 0.8
        threshold = most.max() if per == "layer" else torch.where(most > 0, most, most.max())
        assert found.by_layer[name] == pytest.approx(threshold.view(-1).tolist(), rel=1e-4)
        threshold = threshold.view(-1, 1, 1)
        x_TBCHW = threshold * lif.run(current_TBCHW, lif.LIF(1.0, threshold))[0]
    assert (found.of, found.timesteps, found.amplitude) == ("currents", T, pytest.approx(amplitude.item()))
    assert found.by_layer["head"] > balancing.of_activations(folded, x_NCHW, Rule(per, scale=0.8)).by_layer["head"] or per == "channel"


# -------------------------------------------------------------------------------------------------------- the spiking net

@pytest.mark.parametrize(("leak", "start"), [(1.0, 0.0), (0.9, 0.5)])
def test_integrators_have_the_bits_of_the_plain_neuron(leak, start):
    torch.manual_seed(4)
    cell = Integrator(5, leak, start)
    cell.threshold.uniform_(0.2, 2)
    for current_TBCHW in (torch.randn(20, 3, 5, 7, 8), torch.randn(3, 5, 7, 8).expand(20, -1, -1, -1, -1)):
        begin = torch.zeros(3, 5, 7, 8) + start * cell.threshold
        spikes, left = lif.run(current_TBCHW, lif.LIF(leak, cell.threshold), begin)
        u, parts = None, []
        for part in current_TBCHW.split([3, 1, 16]):
            s, u = cell(part, u)
            parts.append(s)
        assert torch.equal(torch.cat(parts), spikes) and torch.equal(u, left) and 0.1 < spikes.mean() < 0.9


@NETS
@PER
@pytest.mark.parametrize("neuron", [(1.0, 0.0), (0.95, 0.5)], ids=["plain", "leak and start"])
def test_the_net_is_the_ann_with_spikes_worth_their_thresholds_step_by_step(net, per, neuron):
    """The ANN's weights and norms left as they are, every neuron's spike multiplied by its threshold, the read-out added up at every step."""
    model, (leak, start), T = random_twin(net, 0.06).double(), neuron, 9
    x_BCHW, folded = pictures(2, 22).double(), folding.fold(model)
    found = balancing.of_activations(folded, x_BCHW, Rule(per, 90, 0.8))
    u, total = {}, 0

    def fire(name, current):
        threshold = torch.tensor(found.by_layer[name], dtype=torch.float64).view(-1, 1, 1)
        u[name] = leak * u.get(name, start * threshold) + current
        s = (u[name] > threshold).double()
        u[name] = u[name] - threshold * s
        return threshold * s

    with torch.no_grad():
        for _ in range(T):
            x, seen = x_BCHW, []
            for name, layer in folding.layers(model).items():
                if name in ("block2.0", "block3.0", "head.0"):
                    seen.append(x)
                    x = F.avg_pool2d(x, 3, 2, 1)
                x = fire(name, layer.norm(F.conv2d(x, layer.conv.weight, padding=layer.conv.padding, dilation=layer.conv.dilation)[None])[0])
            if net is DeepLab:
                total = total + F.interpolate(model.classifier(x), (22, 22), mode="bilinear", align_corners=True)
            else:
                x = model.score(x)
                for k, feature in enumerate(reversed(seen)):
                    up = F.interpolate(model.ups[k].conv(x), feature.shape[-2:], mode="bilinear", align_corners=True)
                    x = up + model.skips[2 - k](feature)
                total = total + x
    converted = conversion.convert(folded, found, leak, start).double()
    torch.testing.assert_close(converted(x_BCHW, T), total / T, rtol=1e-6, atol=1e-6)
    assert total.std() > 0.1 and all(value.any() for value in u.values())


@NETS
@PER
def test_answers_come_near_to_the_ann(net, per):
    """Errors fall as 1 / T, those that begin at half a threshold from half as high; means over two nets."""
    errors, at = {0: [], 0.5: []}, {DeepLab: (16, 64, 256), FCN: (12, 40, 128)}[net]
    for seed in range(2):
        model, x_BCHW = random_twin(net, 0.1, seed), pictures(2)
        folded, expected = folding.fold(model), logits_of(model, x_BCHW)
        found = balancing.of_activations(folded, x_BCHW, Rule(per))
        for start, of_nets in errors.items():
            of_nets.append([distance(logits, expected) for _, logits in conversion.convert(folded, found, start=start).anytime(x_BCHW, at, piece=AT_ONCE)])
    plain, half = np.mean(errors[0], 0), np.mean(errors[0.5], 0)
    assert (plain[1:] < 0.5 * plain[:-1]).all() and plain[-1] < 0.12
    assert (half < 0.8 * plain).all()


@NETS
def test_spike_norm_and_rate_coding_come_near_to_the_ann_too(net):
    model, x_BCHW, at = random_twin(net, seed=2), pictures(2), {DeepLab: (8, 64, 384), FCN: (8, 48, 256)}[net]
    folded, expected, keys = folding.fold(model), logits_of(model, x_BCHW), counter.keys(range(2))
    assert x_BCHW.abs().max() > 3       # far beyond a rate of 1
    activations = balancing.of_activations(folded, x_BCHW, Rule("channel"))

    def errors(found, key_B):
        return [distance(logits, expected) for _, logits in conversion.convert(folded, found).anytime(x_BCHW, at, key_B, AT_ONCE)]

    for found, key_B in ((balancing.of_currents(folded, x_BCHW, Rule(), 16), None), (balancing.of_currents(folded, x_BCHW, Rule(), 16, keys), keys),
                         (activations, keys)):
        short, long, longest = errors(found, key_B)
        assert longest < 0.4 * long < 0.4 * short and longest < 0.2
    cut = errors(dataclasses.replace(activations, amplitude=1.0), keys)     # the authors' coder, which cuts off what is beyond 1
    assert cut[2] > 2 * longest


@NETS
def test_thresholds_can_be_changed(net):
    """What a layer's readers hold of the threshold before is taken out again."""
    folded = folding.fold(random_twin(net, 0.06))
    found = balancing.of_activations(folded, pictures(), Rule("channel"))
    net, doubled = conversion.convert(folded, found), conversion.convert(folded, found)
    for name, threshold in found.by_layer.items():
        doubled.balance(name, 2 * torch.tensor(threshold))
    assert not torch.equal(doubled(pictures(2), 30), net(pictures(2), 30))
    for name, threshold in found.by_layer.items():
        doubled.balance(name, torch.tensor(threshold))      # by 2 and back is exact
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in doubled.state_dict().items())


def test_a_leak_loses_charge():
    """Currents of 5 at a threshold of 5.5: with a leak of 0.99 there are fewer spikes, with one of 0.05 u stays below 5.5."""
    x_BCHW, folded = torch.full((1, 1, 8, 8), 2.0), folding.fold(pencil())
    found = balancing.of_activations(folded, x_BCHW, Rule(scale=1.1))

    def spikes(leak):
        return sum((current[:, 0, 0, 4, 4] > 0).sum().item() for current in conversion.convert(folded, found, leak).currents("block1.1", x_BCHW, 200))

    assert spikes(1.0) == 181 > spikes(0.99) > 100 > spikes(0.05) == 0


# ---------------------------------------------------------------------------------------------------- one pass, any T

def made(net, seed=0, **how):
    folded = folding.fold(random_twin(net, 0.07, seed))
    return conversion.convert(folded, balancing.of_activations(folded, pictures(4, 20), Rule("channel", 95)), **how)


@NETS
@pytest.mark.parametrize("keys", [None, counter.keys([5, 6, 7])], ids=["direct", "poisson"])
@pytest.mark.parametrize("piece", [4, 7])
def test_each_answer_of_one_pass_is_that_of_a_run_of_its_own(net, keys, piece):
    converted, x_BCHW = made(net, start=0.5), pictures(3, 20)
    at = [1, 6, 7, 16, 33]
    one_pass = dict(converted.anytime(x_BCHW, at[::-1] if piece == 7 else at, keys, piece))
    assert list(one_pass) == at
    for T in at:
        (_, alone), = converted.anytime(x_BCHW, [T], keys, piece)
        assert torch.equal(one_pass[T], alone)
    assert torch.equal(converted(x_BCHW, 16, keys), dict(converted.anytime(x_BCHW, [16], keys))[16])
    assert not torch.equal(one_pass[16], one_pass[33])


@NETS
@pytest.mark.parametrize("count", [1, 3])
def test_pieces_of_time_of_any_length_give_the_same_bits(net, count):
    converted, x_BCHW, at = made(net, leak=0.98), pictures(count, 20), [3, 12, 25]
    for keys in (None, counter.keys(range(count))):
        by_piece = [[logits for _, logits in converted.anytime(x_BCHW, at, keys, piece)] for piece in (1, 2, 4, 11, 32)]
        assert all(torch.equal(a, b) for answers in by_piece[1:] for a, b in zip(by_piece[0], answers, strict=True))


class LargestTensor(TorchDispatchMode):
    """Remembers how many values the largest tensor had that any operation made, and how many tensors there were."""

    values, tensors = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.values, self.tensors = max(self.values, tensor.untyped_storage().nbytes() // tensor.element_size()), self.tensors + 1
        return out


@NETS
@pytest.mark.parametrize("keys", [None, counter.keys([0, 1])], ids=["direct", "poisson"])
def test_memory_does_not_grow_with_time(net, keys):
    converted, x_BCHW, seen = made(net), pictures(2, 20), []
    for T in (4, 48):
        with LargestTensor() as largest:
            assert len(list(converted.anytime(x_BCHW, range(1, T + 1), keys))) == T
        seen.append(largest)
    assert seen[0].values == seen[1].values <= 4 * 2 * 20 * 20 * 26 and seen[1].tensors > 8 * seen[0].tensors        # 26: the widest, next to the head's


# ------------------------------------------------------------------------------------------------------- trained nets

@pytest.fixture(scope="module")
def toy():
    """Digits on photographs: 96 pictures to train, 16 others; normalised x_NCHW f32 and masks i8."""
    sets = {}
    for split, count in (("train", 96), ("test", 16)):
        made = mnist_cifar.make(mnist_cifar.pool("sample", None, split, 0), "binary", 32, 0, split, 0, count)
        sets[split] = (torch.from_numpy(made["image"]).permute(0, 3, 1, 2).float() - 130) / 70, torch.from_numpy(made["mask"])
    return sets


@pytest.fixture(scope="module", params=[DeepLab, FCN])
def trained(request, toy):
    """An ANN twin of width 0.0625 after 48 steps."""
    torch.manual_seed(0)
    model, (x_NCHW, mask_NHW) = request.param(2, Analog(), 0.0625).train(), toy["train"]
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(8):
        for index in torch.randperm(96).split(16):
            optimizer.zero_grad()
            F.cross_entropy(model(x_NCHW[index][None]), mask_NHW[index].long(), weight=torch.tensor([1.0, 3.0])).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return model.eval()


@PER
def test_a_trained_net_keeps_its_accuracy(trained, toy, per):
    x_NCHW, mask_NHW = toy["test"]

    def miou(logits):
        return 100 * Confusion.of(mask_NHW.numpy(), logits.argmax(1).numpy(), 2).miou()

    whole, folded = miou(logits_of(trained, x_NCHW)), folding.fold(trained)
    found = balancing.of_activations(folded, toy["train"][0][:64], Rule(per, 99.9))
    curve = {T: miou(logits) for T, logits in conversion.convert(folded, found).anytime(x_NCHW, [2, 32, 64, 128], piece=AT_ONCE)}
    assert whole > 55, "a net that learned nothing shows nothing"
    assert abs(curve[128] - whole) < 2 and abs(curve[64] - whole) < 4
    assert curve[2] < curve[32] < curve[64] + 2 and curve[2] < curve[128] - 5


# ---------------------------------------------------------------------------------------------------------- bad input

def test_bad_input_is_refused_in_one_line():
    folded, x_NCHW = folding.fold(random_twin(DeepLab, 0.03)), pictures(4, 16)
    found = balancing.of_activations(folded, x_NCHW, Rule())
    net, broken = conversion.convert(folded, found), folding.fold(random_twin(DeepLab, 0.03))
    broken.head.conv.bias[0] = float("nan")
    for error, words, call in (
            *((ConfigError, f"percentile is {p}.*above 0, up to 100", lambda p=p: Rule(percentile=p)) for p in (0, -1, 100.1, float("nan"))),
            *((ConfigError, f"scale is {s}.*above 0", lambda s=s: Rule(scale=s)) for s in (0, -1, float("inf"), float("nan"))),
            (ConfigError, "per 'neuron'.*per layer and per channel", lambda: Rule("neuron")),
            (ConfigError, "leak is 0.*above 0, up to 1", lambda: Converted(folded, leak=0)),
            (ConfigError, "leak is 1.5.*above 0, up to 1", lambda: Converted(folded, leak=1.5)),
            (ConfigError, "start is 1.5 thresholds.*from 0 to 1", lambda: Converted(folded, start=1.5)),
            *((ConfigError, r"time steps \[.*from 1 on", lambda at=at: list(net.anytime(x_NCHW, at))) for at in ([], [0], [4, -2])),
            (ConfigError, r"time steps \[0\]", lambda: balancing.of_currents(folded, x_NCHW, Rule(), 0)),
            (ConfigError, "DeepLab is no ANN twin.*ann_deeplab or ann_fcn", lambda: folding.fold(DeepLab(2, Spiking(2), 0.03))),
            (ConfigError, "DeepLab is no ANN twin", lambda: folding.fold(folded)),
            (ConfigError, "Linear is no ANN twin", lambda: folding.fold(nn.Linear(2, 2))),
            (ConfigError, "FCN still has its norms.*Fold", lambda: Converted(random_twin(FCN, 0.03))),
            (ConfigError, "Linear .*cannot be converted", lambda: balancing.of_activations(nn.Linear(2, 2), x_NCHW, Rule())),
            (ConfigError, "thresholds are of layers block1.0.*Balance this net", lambda: conversion.convert(folding.fold(random_twin(FCN, 0.03)), found)),
            (DataError, "calibration set: holds no picture. Give at least 1", lambda: balancing.of_activations(folded, x_NCHW[:0], Rule())),
            (DataError, "4 pictures give 64 values a channel of block3.0, where percentile 99.9 needs 1000. Give at least 63 pictures, or lower",
             lambda: balancing.of_activations(folded, x_NCHW, Rule("channel", 99.9))),
            (DataError, "percentile 99.9999 needs 1000000. Give at least", lambda: balancing.of_currents(folded, x_NCHW, Rule(percentile=99.9999), 3)),
            (NotFinite, "layer head: .*not finite", lambda: balancing.of_activations(broken, x_NCHW, Rule()))):
        with pytest.raises(error, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
