"""The four nets: sizes, weights, and the spiking forward written anew as the paper tells it, one time step after the other."""
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snnseg import config
from snnseg.errors import StoreAltered, StoreMissing
from snnseg.models import saved, zoo
from snnseg.models.backbone import Analog, Spiking, scaled
from snnseg.models.deeplab import DeepLab
from snnseg.models.fcn import FCN
from snnseg.spiking import pooling
from snnseg.spiking.neuron import LIF

ROOT = Path(__file__).resolve().parent.parent
PARAMS = ROOT / "params.yaml"
NETS = pytest.mark.parametrize("net", [DeepLab, FCN])


pytestmark = pytest.mark.usefixtures("one_thread")     # these nets are too small to share out


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("net", "weights", "channels"), [
    # channels: 2 x 64 + 2 x 128 + 3 x 256, then 1 x 1 024 (DeepLab) or 2 x 1 024 (FCN)
    (DeepLab, 4_115_136, 2_176), (FCN, 13_573_719, 3_200)])
def test_parameters_of_the_paper(net, weights, channels):
    """The authors' nets at 21 classes; BNTT adds a gamma a channel and time step: 43 520 and 64 000 at T = 20."""
    with torch.device("meta"):
        assert count(net(21, Analog())) == weights
        assert count(net(21, Spiking(20))) == weights + 20 * channels
        assert count(net(21, Spiking(20, norm="none"))) == weights
        assert count(net(21, Spiking(20, norm="tdbn"))) == weights + 2 * channels      # gamma and beta, all steps together
    assert 20 * channels == {DeepLab: 43_520, FCN: 64_000}[net]


# in, out, kernel, stride, padding, dilation, bias: table 1 as the authors' code has it, C = 5 classes
BACKBONE = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256)]
PLAIN = (3, 1, 1, 1, False)
LAYERS = {
    DeepLab: [*(n + PLAIN for n in BACKBONE), (256, 256, 3, 1, 2, 2, False), (256, 256, 3, 1, 2, 2, False),
              (256, 1024, 3, 1, 12, 12, False), (1024, 5, 1, 1, 0, 1, False)],
    FCN: [*(n + PLAIN for n in [*BACKBONE, (256, 256), (256, 256), (256, 1024), (1024, 1024)]),
          *((n, 5, 1, 1, 0, 1, True) for n in (1024, 64, 128, 256)), *[(5, 5, 3, 2, 0, 1, False)] * 3],
}


@NETS
@pytest.mark.parametrize("neurons", [Spiking(3), Analog()], ids=["spiking", "ann"])
def test_a_net_and_its_twin_have_the_layers_of_table_1(net, neurons):
    with torch.device("meta"):
        model = net(5, neurons)
    assert [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0], m.padding[0], m.dilation[0], m.bias is not None)
            for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)] == LAYERS[net]


@NETS
@pytest.mark.parametrize("neurons", [Spiking(2), Analog()], ids=["spiking", "ann"])
@pytest.mark.parametrize(("height", "width", "of_channels"), [(32, 32, .05), (64, 64, .05), (32, 32, .11), (33, 47, .03)])
def test_logits_have_the_size_of_the_picture(net, neurons, height, width, of_channels):
    model = net(3, neurons, of_channels).eval()
    logits_BCHW = model(torch.zeros(neurons.timesteps, 2, 3, height, width))
    assert logits_BCHW.shape == (2, 3, height, width)


@pytest.mark.parametrize(("width", "expected"), [(1.0, 64), (0.25, 16), (0.11, 7), (0.001, 1), (4.0, 256)])
def test_width_multiplies_channels(width, expected):
    assert scaled(64, width) == expected


@NETS
def test_event_input_of_two_channels(net):
    model = net(6, Spiking(2), 0.05, in_channels=2).eval()
    assert model(torch.zeros(2, 1, 2, 32, 32)).shape == (1, 6, 32, 32)


def test_pool_counts_its_padding():
    """Ones in, 3x3 windows at stride 2 with one ring of zeros: 4, 6 or 9 of 9 pixels."""
    out = pooling.plain(torch.ones(1, 1, 4, 4))[None]
    torch.testing.assert_close(out[0, 0, 0], torch.tensor([[4, 6], [6, 9]]) / 9)


@NETS
def test_weights_begin_within_xavier_with_gain_2(net):
    """Uniform in +-2 sqrt(6 / (fan in + fan out)) where a fan is channels times kernel area; biases are 0."""
    torch.manual_seed(0)
    model, biases = net(4, Spiking(2), 0.2), 0
    for module in model.modules():
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            continue
        a, b, *kernel = module.weight.shape
        limit = 2 * (6 / ((a + b) * kernel[0] * kernel[1])) ** 0.5
        greatest = module.weight.abs().max().item()
        assert greatest <= limit + 1e-6
        if module.weight.numel() > 1000:
            assert greatest > 0.97 * limit
            assert module.weight.std().item() == pytest.approx(limit / 3**.5, rel=0.06)
        if module.bias is not None:
            assert not module.bias.any()
            biases += 1
    assert biases == {DeepLab: 0, FCN: 4}[net]


# ------------------------------------------------------------------ the forward of the paper, one step after the other

class StepByStep:
    """Walks through a net's submodules one time step at a time, keeping one potential for each neuron layer."""

    def __init__(self, net, neuron, training):
        self.net, self.neuron, self.training = net, neuron, training
        self.potentials, self.spikes = {}, {}

    def fire(self, name, current):
        u = self.neuron.leak * self.potentials.get(name, 0) + current
        s = (u > self.neuron.threshold).to(u.dtype)
        self.potentials[name] = u - self.neuron.threshold * s if self.neuron.soft_reset else u * (1 - s)
        self.spikes[name] = self.spikes.get(name, 0) + s.mean().item()
        return s

    def unit(self, name, unit, x, t):
        x = F.conv2d(x, unit.conv.weight, padding=unit.conv.padding, dilation=unit.conv.dilation)
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        else:
            mean, var = unit.norm.mean_TC[t], unit.norm.var_TC[t]
        column = (slice(None), None, None)
        x = unit.norm.gamma_TC[t][column] * (x - mean[column]) / (var[column] + 1e-4).sqrt()
        return self.fire(name, x)

    def units(self, name, units, x, t):
        for k, unit in enumerate(units):
            x = self.unit(f"{name}.{k}", unit, x, t)
        return x

    def deeplab(self, x_TBCHW):
        net, answers = self.net, []
        for t, x in enumerate(x_TBCHW):
            x = self.units("block1", net.block1, x, t)
            x = self.units("block2", net.block2, F.avg_pool2d(x, 3, 2, 1), t)
            x = self.units("block3", net.block3, F.avg_pool2d(x, 3, 2, 1), t)
            x = self.unit("head", net.head, x, t)
            x = F.conv2d(x, net.classifier.weight)
            answers.append(F.interpolate(x, x_TBCHW.shape[-2:], mode="bilinear", align_corners=True))
        return sum(answers) / len(answers)

    def up(self, k, x, feature):
        skip = F.conv2d(feature, self.net.skips[2 - k].weight, self.net.skips[2 - k].bias)
        up = F.conv_transpose2d(x, self.net.ups[k].conv.weight, stride=2)
        return F.interpolate(up, skip.shape[-2:], mode="bilinear", align_corners=True) + skip

    def fcn(self, x_TBCHW):
        net, answer = self.net, 0
        for t, x in enumerate(x_TBCHW):
            full = self.units("block1", net.block1, x, t)
            half = self.units("block2", net.block2, F.avg_pool2d(full, 3, 2, 1), t)
            quarter = self.units("block3", net.block3, F.avg_pool2d(half, 3, 2, 1), t)
            x = self.units("head", net.head, F.avg_pool2d(quarter, 3, 2, 1), t)
            x = F.conv2d(x, net.score.weight, net.score.bias)
            x = self.fire("up0", self.up(0, x, quarter))
            x = self.fire("up1", self.up(1, x, half))
            answer = answer + self.up(2, x, full)
        return answer


@NETS
@pytest.mark.parametrize("training", [True, False], ids=["batch statistics", "running statistics"])
@pytest.mark.parametrize("neuron", [LIF(0.99, 1.0), LIF(0.7, 0.6, soft_reset=False)], ids=["soft", "hard"])
def test_forward_is_the_paper_step_by_step(net, training, neuron):
    """DeepLab answers the mean over T of the classifier, FCN the sum over T of the last stage.

    In float64, so that no potential is on edge.
    """
    torch.manual_seed(1)
    timesteps, classes = 5, 3
    model = net(classes, Spiking(timesteps, neuron), 0.06).double()
    for name, tensor in model.state_dict().items():
        if name.endswith(("gamma_TC", "var_TC")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("mean_TC", "bias")):
            tensor.normal_(0, 0.3)
    model.train(training)
    x_TBCHW = torch.randn(timesteps, 2, 3, 22, 27, dtype=torch.float64)
    loop = StepByStep(model, neuron, training)
    with torch.no_grad():
        expected = (loop.deeplab if net is DeepLab else loop.fcn)(x_TBCHW)
        logits = model(x_TBCHW)
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    assert len(loop.spikes) == {DeepLab: 8, FCN: 11}[net]
    rates = {name: total / timesteps for name, total in loop.spikes.items()}
    assert all(0.005 < rate < 0.995 for rate in rates.values()), rates      # every layer takes part
    assert logits.std() > 0.01


@NETS
def test_one_step_more_adds_to_the_sum_and_leaves_the_mean(net):
    """Without memory (leak 0) and norm, T equal steps answer alike: the DeepLab's mean stays, the FCN's sum grows with T."""
    torch.manual_seed(2)
    model = net(3, Spiking(1, LIF(0.0, 0.5), norm="none"), 0.06)
    x_BCHW = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        one, four = model(x_BCHW[None]), model(x_BCHW.expand(4, *x_BCHW.shape))
    torch.testing.assert_close(four, one if net is DeepLab else 4 * one)
    assert one.std() > 0.01


@NETS
def test_twin_by_hand(net):
    """The ANN's forward with torch's own functions: batch norm without gamma and beta, ReLU, none between the upsamplings."""
    torch.manual_seed(3)
    model = net(3, Analog(), 0.06)
    x_BCHW = torch.randn(2, 3, 22, 27)

    def units(layers, x):
        for unit in layers:
            x = F.batch_norm(F.conv2d(x, unit.conv.weight, padding=unit.conv.padding, dilation=unit.conv.dilation),
                             None, None, training=True, eps=1e-4).relu()
        return x

    with torch.no_grad():
        logits = model(x_BCHW[None])
        full = units(model.block1, x_BCHW)
        half = units(model.block2, F.avg_pool2d(full, 3, 2, 1))
        quarter = units(model.block3, F.avg_pool2d(half, 3, 2, 1))
        if net is DeepLab:
            expected = model.classifier(units([model.head], quarter))
            expected = F.interpolate(expected, (22, 27), mode="bilinear", align_corners=True)
        else:
            expected = model.score(units(model.head, F.avg_pool2d(quarter, 3, 2, 1)))
            for k, feature in enumerate((quarter, half, full)):
                expected = F.interpolate(model.ups[k].conv(expected), feature.shape[-2:], mode="bilinear", align_corners=True)
                expected = expected + model.skips[2 - k](feature)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert logits.std() > 0.01


@NETS
def test_gradients_reach_every_parameter(net):
    torch.manual_seed(4)
    model = net(3, Spiking(3), 0.06)
    F.cross_entropy(model(torch.randn(3, 2, 3, 16, 16)), torch.randint(3, (2, 16, 16))).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


# ------------------------------------------------------------------------------------------------ zoo and saved

def small(experiment, *overrides):
    return config.load(PARAMS, experiment, ["model.width=0.05", "encode.timesteps=2", *overrides])


@pytest.mark.parametrize("experiment", ["spiking_deeplab", "spiking_fcn", "ann_deeplab", "ann_fcn"])
def test_build_follows_from_the_seed_and_leaves_the_global_state(experiment):
    def weights(seed):
        return zoo.build(small(experiment, f"train.seed={seed}")).state_dict()

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = weights(7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, other = weights(7), weights(8)
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    convolutions = [k for k in first if k.endswith("conv.weight")]
    assert convolutions and not any(torch.equal(first[k], other[k]) for k in convolutions)


def test_build_takes_the_net_from_the_config():
    c = small("spiking_fcn", "neuron.leak=0.5", "neuron.threshold=0.75", "neuron.reset=hard", "neuron.surrogate=arctan",
              "neuron.surrogate_scale=0.3", "evaluate.past_trained=cycle", "data.mnist_cifar.classes=digits")
    net = zoo.build(c)
    assert isinstance(net, FCN) and net.score.out_channels == 11
    spike = net.neurons.neuron.spike
    assert (net.neurons.neuron.leak, net.neurons.neuron.threshold, net.neurons.neuron.soft_reset) == (0.5, 0.75, False)
    assert (type(spike).__name__, spike.scale) == ("Arctan", 0.3)
    assert (net.block1[0].norm.past_trained, len(net.block1[0].norm.gamma_TC)) == ("cycle", 2)
    assert isinstance(zoo.build(small("ann_deeplab")), DeepLab)
    assert isinstance(zoo.neurons(small("ann_deeplab")), Analog)


def about(c):
    return {**c.about, "store": "0" * 64}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A net whose running statistics are no longer those of a new one, saved."""
    c = small("spiking_fcn", "train.seed=3")
    net = zoo.build(c)
    net.train()(torch.randn(2, 3, 3, 16, 16))
    folder = tmp_path_factory.mktemp("model") / "spiking_fcn"
    saved.save(folder, net, about(c))
    return c, net, folder


def test_saved_net_answers_as_before(published, tmp_path):
    c, net, folder = published
    loaded, its_config, its_about = saved.load(folder, c.root)
    assert sorted(p.name for p in folder.parent.iterdir()) == ["spiking_fcn"]
    assert its_config == c and its_about == about(c) and not loaded.training
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in net.state_dict().items())
    x_TBCHW = torch.randn(2, 2, 3, 20, 20)
    with torch.no_grad():
        logits, fresh = loaded(x_TBCHW), zoo.build(c).eval()(x_TBCHW)
        assert torch.equal(logits, net.eval()(x_TBCHW))
        assert not torch.equal(logits, fresh)


@pytest.mark.parametrize("file", ["model.safetensors", "about.json", "seal.json"])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_bit_is_refused(published, tmp_path, file, place):
    c, _, folder = published
    shutil.copytree(folder, tmp_path / "model")
    content = bytearray((tmp_path / "model" / file).read_bytes())
    content[int(place * len(content))] ^= 1
    (tmp_path / "model" / file).write_bytes(content)
    with pytest.raises(StoreAltered, match=file):
        saved.load(tmp_path / "model", c.root)


def test_missing_and_unfinished_models_are_refused(published, tmp_path):
    c, _, folder = published
    with pytest.raises(StoreMissing, match="not found.*train"):
        saved.load(tmp_path / "nothing", c.root)
    shutil.copytree(folder, tmp_path / "model")
    (tmp_path / "model" / "seal.json").unlink()
    with pytest.raises(StoreMissing, match="never finished"):
        saved.load(tmp_path / "model", c.root)


def test_weights_of_another_net_are_refused(published, tmp_path):
    c, _, folder = published
    with pytest.raises(StoreAltered, match=r"model\.safetensors.*this net's weights") as e:
        saved.read_weights(folder / "model.safetensors", zoo.build(small("spiking_deeplab")))
    assert "\n" not in str(e.value)
    (tmp_path / "no.safetensors").write_bytes(b"no")
    with pytest.raises(StoreAltered, match=r"no\.safetensors"):
        saved.read_weights(tmp_path / "no.safetensors", zoo.build(c))


LIMITED = """
    import resource, sys
    from pathlib import Path
    import torch
    from snnseg.errors import NoSpace
    from snnseg.models import saved

    net = torch.nn.Linear(100, 100)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        saved.save(Path(sys.argv[1]), net, {})
    except NoSpace as e:
        print(e)
"""


def test_no_space_for_the_weights_is_named_and_harms_nothing(published, tmp_path):
    _, _, folder = published
    shutil.copytree(folder, tmp_path / "model")
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(LIMITED), tmp_path / "model"], cwd=ROOT, timeout=120,
                         env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True, capture_output=True)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert "no space left to write" in out.stdout, out.stderr
