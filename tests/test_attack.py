"""Adversarial pictures: within eps, worse than noise of the same size, made against the very net."""
import dataclasses
import json

import numpy as np
import pytest
import torch

from snnseg.data import prepare, store
from snnseg.evaluation import attack, evaluate, noise
from snnseg.models import saved, zoo
from snnseg.models.inputs import keys, on, source
from snnseg.report import robustness
from snnseg.spiking import counter, encode
from snnseg.spiking.encode import Constant, Rate
from snnseg.training import run

CPU = torch.device("cpu")


@pytest.fixture
def trained(tiny):
    """Make, train and publish a small net that has learned something."""
    def make(experiment, *overrides):
        numbers = tiny(experiment, "data.mnist_cifar.train=192", "optim.lr=0.02", "robustness.draws=2", *overrides)
        if not numbers.store.exists():
            prepare.prepare(numbers)
        run.publish(run.train(numbers), numbers)
        return numbers
    return make


@pytest.fixture
def untrained(tiny):
    """A net as it is drawn, and its test split."""
    def make(experiment, *overrides):
        numbers = tiny(experiment, "data.mnist_cifar.train=8", "data.mnist_cifar.test=8", *overrides)
        if not numbers.store.exists():
            prepare.prepare(numbers)
        return numbers, zoo.build(numbers).eval(), store.read(numbers.store, "test", numbers.timesteps)
    return make


def total(model, split, numbers):
    """The loss of a split, of all pixels together, on the spikes that it is scored on."""
    key_B = keys(np.arange(len(split)), numbers, ("evaluate", 0))
    with torch.no_grad():
        return float(attack.loss(model, torch.from_numpy(split.input).float(), torch.from_numpy(split.mask_NHW), None if key_B is None else on(key_B, CPU), numbers))


@pytest.mark.parametrize(("experiment", "coding"), [("spiking_fcn", "direct"), ("spiking_fcn", "signed_poisson"), ("ann_fcn", "direct")])
@pytest.mark.parametrize("kind", attack.KINDS)
def test_bytes_stay_within_eps_and_the_loss_rises(untrained, kind, experiment, coding):
    numbers, model, split = untrained(experiment, f"encode.coding={coding}", "robustness.pgd_steps=3")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert attack.attacked(model, split, kind, 0.0, numbers, 0, CPU) is split
    clean, last = total(model, split, numbers), 0
    for eps in (1, 8):
        made = attack.attacked(model, split, kind, float(eps), numbers, 0, CPU)
        far = np.abs(made.input.astype(int) - split.input)
        assert made.input.dtype == np.uint8 and made.input.shape == split.input.shape and far.max() == eps and made.mask_NHW is split.mask_NHW
        assert far.mean() > last and total(model, made, numbers) > clean
        last = far.mean()
    again = attack.attacked(model, split, kind, 8.0, numbers, 0, CPU)
    assert noise.digest(again) == noise.digest(made), "a repeated attack is the same"
    other = attack.attacked(model, split, kind, 8.0, numbers, 1, CPU)
    assert (noise.digest(other) == noise.digest(made)) == (kind == "fgsm" and coding == "direct")
    assert not model.training and all(torch.equal(before[k], v) for k, v in model.state_dict().items()) and all(p.grad is None for p in model.parameters())


def test_black_and_white_stay_bytes(untrained):
    numbers, model, split = untrained("ann_fcn")
    ends = dataclasses.replace(split, input=np.where(split.input > 128, 255, 0).astype(np.uint8))
    for kind in attack.KINDS:
        made = attack.attacked(model, ends, kind, 5.0, numbers, 0, CPU).input
        assert set(np.unique(made)) <= {0, 1, 2, 3, 4, 5, *range(250, 256)}


def test_a_batch_more_or_less_changes_nothing(untrained):
    """Each picture is attacked by itself: in evaluation mode no picture is another's affair."""
    numbers, model, split = untrained("ann_deeplab")
    other = numbers.model_copy(update={"evaluate": numbers.evaluate.model_copy(update={"batch": 3})})
    made = [attack.attacked(model, split, "pgd", 4.0, each, 0, CPU).input for each in (numbers, other)]
    assert (made[0] != made[1]).mean() < 0.01       # a gradient of about 0 has either sign


def test_the_gradient_of_rate_coding_is_that_of_the_expectation():
    """Forward the drawn spikes, backward 1 for each step, and 0 where the rate is cut off."""
    x = torch.tensor([-1.5, -0.5, 0.25, 2.0]).view(1, 1, 1, 4).requires_grad_()
    key_B = counter.keys([7])
    for signed, slope in ((True, [0, 1, 1, 0]), (False, [0, 0, 1, 0])):
        rate = Rate(x, key_B, 5, signed)
        seen = attack.through(rate)
        assert torch.equal(seen.detach(), Rate(x.detach(), key_B, 5, signed).steps(0, 5))
        weights = torch.arange(1.0, 6).view(5, 1, 1, 1, 1)
        gradient, = torch.autograd.grad((weights * seen).sum(), x)
        assert gradient.flatten().tolist() == [15 * s for s in slope]
    assert torch.equal(attack.through(Constant(x, 3)), encode.direct(x, 3))


def test_the_compiled_way_s_gradient_is_the_plain_one_s(untrained):
    """Through a whole net in evaluation mode, to the bytes."""
    found = []
    for kernels in ("auto", "reference"):
        numbers, model, split = untrained("spiking_fcn", f"train.kernels={kernels}")
        x = torch.from_numpy(split.input[:4]).float().requires_grad_()
        found += torch.autograd.grad(attack.loss(model, x, torch.from_numpy(split.mask_NHW[:4]), None, numbers), x)
    assert found[0].abs().max() > 0
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5 * float(found[1].abs().max()))


def test_void_pixels_push_nothing(untrained):
    numbers, model, split = untrained("ann_fcn")
    void = dataclasses.replace(split, mask_NHW=np.full_like(split.mask_NHW, store.VOID))
    assert np.array_equal(attack.attacked(model, void, "fgsm", 8.0, numbers, 0, CPU).input, split.input)


@pytest.mark.parametrize("experiment", ["spiking_fcn", "ann_fcn"])
def test_an_attack_hurts_more_than_noise_of_its_size(trained, experiment):
    numbers = trained(experiment)
    model, split = saved.load(numbers.model_folder, numbers.root)[0], store.read(numbers.store, "test", numbers.timesteps)
    eps = 8
    even = np.random.default_rng(0).choice([-eps, eps], split.input.shape)
    uniform = dataclasses.replace(split, input=(split.input + even).clip(0, 255).astype(np.uint8))

    def score(each):
        return 100 * evaluate.confusion(model, each, numbers, CPU).miou()

    clean, noisy, fgsm = score(split), score(uniform), score(attack.attacked(model, split, "fgsm", float(eps), numbers, 0, CPU))
    assert clean > 55 and fgsm < noisy - 3 and fgsm < clean - 3, (clean, noisy, fgsm)
    assert score(attack.attacked(model, split, "pgd", float(eps), numbers, 0, CPU)) < noisy - 3


def test_the_bytes_are_each_net_s_own(trained):
    """In the files of the stage: another net's noise is the same, its attacks are others; eps 0 is the clean picture."""
    lines = []
    for experiment in ("ann_fcn", "ann_deeplab"):
        numbers = trained(experiment, "data.mnist_cifar.train=48", "train.epochs=1", "robustness.gaussian=[20.0]", "robustness.salt_pepper=[]", "robustness.blur=[]", "robustness.fgsm=[0,4]",
                          "robustness.pgd=[4]", "robustness.pgd_steps=2")
        told = robustness.write(numbers).summary
        assert json.loads((numbers.result_folder / "robustness.json").read_text()) == told
        assert [(p["level"], p["draws"]) for p in told["noise"]["fgsm"]] == [(0, 1), (4, 1)] and [p["draws"] for p in told["noise"]["pgd"]] == [1, 2]
        assert told["noise"]["fgsm"][0]["miou"] == told["miou"]
        lines.append({(n, float(level), draw): sha for n, level, draw, _, sha in
                      (row.split(",") for row in (numbers.result_folder / "robustness.csv").read_text().splitlines()[1:])})
    mine, theirs = lines
    assert mine.keys() == theirs.keys() and len(mine) == 3 + 2 + 3
    assert {place for place in mine if mine[place] != theirs[place]} == {("fgsm", 4.0, "0"), ("pgd", 4.0, "0"), ("pgd", 4.0, "1")}


def test_events_are_not_attacked(tiny):
    from snnseg.evaluation import robustness as scored

    assert "fgsm" in scored.kinds(tiny("spiking_fcn", "robustness.fgsm=[2]")) and "fgsm" not in scored.kinds(tiny("ddd17/spiking_fcn", "robustness.fgsm=[2]"))


def test_source_takes_bytes_as_floats(tiny):
    """So that a gradient reaches them: the same input as from u8."""
    numbers = tiny("spiking_fcn")
    items = torch.arange(2 * 4 * 4 * 3, dtype=torch.uint8).view(2, 4, 4, 3)
    assert torch.equal(source(items, None, numbers).x_BCHW, source(items.float(), None, numbers).x_BCHW)
