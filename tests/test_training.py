"""The loop: it learns, stops before bad updates, and goes on exactly where it stopped."""
import json
import math
import os
import shutil
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from snnseg import lock
from snnseg.data import prepare, store
from snnseg.data.augment import Augment
from snnseg.errors import Busy, CheckpointMismatch, Interrupted, NoSpace, NotFinite
from snnseg.evaluation import tally
from snnseg.evaluation.confusion import Confusion
from snnseg.models import saved, zoo
from snnseg.models.feed import fed
from snnseg.seal import file_sha256
from snnseg.training import checkpoint, loop, optim, run
from snnseg.training.loss import cross_entropy, weighted
from snnseg.training.report import Journal, Reporters, read_journal
from snnseg.training.step import PLAINLY, Step

CPU = torch.device("cpu")


LOADED: dict[str, loop.Loaded] = {}


def loaded(config) -> loop.Loaded:
    """Stores of the same numbers are made and read once."""
    if config.store.name not in LOADED:
        prepare.prepare(config)
        digest = store.check(config.store, config.store_params)
        LOADED[config.store.name] = loop.Loaded(store.read(config.store, "train"), store.read(config.store, "test"), digest)
    return LOADED[config.store.name]


class Seen:
    """A reporter that remembers."""

    def __init__(self):
        self.lines, self.checkpoints, self.begun = [], [], []

    def begin(self, step, steps, epochs):
        self.begun.append(step)

    def numbers(self, step, numbers):
        self.lines.append((step, numbers))

    def saved(self, step, checkpoint):
        assert not self.lines or self.lines[-1][0] <= step
        self.checkpoints.append(step)

    def end(self, status):
        pass


def fit(config, data, folder, stop=lambda: False, fingerprint="f"):
    folder.mkdir(exist_ok=True)
    seen = Seen()
    model, state = loop.fit(config, data, folder, Reporters([Journal(folder / "metrics.jsonl"), seen]), stop, CPU, fingerprint)
    return model, state, seen


def weights(model) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def assert_identical(a, b):
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    return tmp_path_factory.mktemp("whole") / "run", {}


@pytest.fixture
def finished(tiny, tmp_path, trained_once):
    """The tiny config, its data and the weights it is trained to, once a module; tmp_path / "run" is a copy of that training."""
    (folder, found), config = trained_once, tiny()
    data = loaded(config)
    if not found:
        found |= weights(fit(config, data, folder)[0])
    shutil.copytree(folder, tmp_path / "run")
    return config, data, found


@pytest.mark.parametrize(("name", "epochs"), [("spiking_deeplab", 4), ("spiking_fcn", 6), ("ann_deeplab", 4), ("ann_fcn", 4)])
def test_each_net_learns(tiny, tmp_path, name, epochs):
    config = tiny(name, f"train.epochs={epochs}", "model.width=0.125")
    _, _, seen = fit(config, loaded(config), tmp_path / "run")
    losses = [n["train/epoch_loss"] for _, n in seen.lines if "test/miou" in n]
    assert len(losses) == epochs and losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("overrides", [(), ("encode.coding=signed_poisson", "train.flip=true", "train.shift=3"),
                                       ("encode.coding=poisson", "model.norm=tdbn", "optim.schedule=multistep"),
                                       ("train.precision=bf16", "optim.clip_norm=1.0", "model.norm=bn", "neuron.reset=hard")])
def test_resume_is_exact(tiny, tmp_path, overrides):
    """Stopped after every third step again and again, a training ends with the very same weights and numbers."""
    config = tiny("spiking_deeplab", *overrides)
    data = loaded(config)
    whole, state, _ = fit(config, data, tmp_path / "whole")
    assert state.step == 12
    for _ in range(3):
        calls = iter(range(100))
        with pytest.raises(Interrupted) as stopped:
            fit(config, data, tmp_path / "parts", stop=lambda calls=calls: next(calls) == 2)
        assert stopped.value.exit_code == 130
    parts, _, seen = fit(config, data, tmp_path / "parts")
    assert seen.begun == [7]        # the third went on from step 6, whose epoch it validated again, and was stopped at step 7
    assert_identical(weights(whole), weights(parts))
    lines = read_journal(tmp_path / "parts" / "metrics.jsonl")
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps))
    timing = ("train/samples_per_s",)
    expected = {line["step"]: {k: v for k, v in line.items() if k not in timing} for line in read_journal(tmp_path / "whole" / "metrics.jsonl")}
    found = {line["step"]: {k: v for k, v in line.items() if k not in timing} for line in lines}
    assert all(found[step] == line for step, line in expected.items())


def test_stopped_while_it_validates(finished, tmp_path):
    """The epoch was saved before; the validation is done when the training goes on, and its line is there once."""
    config, data, whole = finished
    calls = iter(range(100))
    with pytest.raises(Interrupted, match="stopped after step 6 of 12"):
        fit(config, data, tmp_path / "parts", stop=lambda: next(calls) == 6)        # six steps, then the first batch of the test split
    assert checkpoint.all_steps(tmp_path / "parts") == [4, 6]
    assert [line["step"] for line in read_journal(tmp_path / "parts" / "metrics.jsonl")] == [2, 4]
    parts, _, seen = fit(config, data, tmp_path / "parts")
    assert seen.begun == [5] and seen.lines[0][0] == 6 and "test/miou" in seen.lines[0][1]
    assert_identical(whole, weights(parts))


def test_damaged_checkpoints_do_not_count_as_the_newest(tiny, tmp_path):
    config = tiny("spiking_deeplab", "train.keep=1")
    data = loaded(config)
    fit(config, data, tmp_path / "run")
    (checkpoint.folder_of(tmp_path / "run", 12) / "state.json").write_text("{}")
    calls = iter(range(100))
    with pytest.raises(Interrupted):
        fit(config, data, tmp_path / "run", stop=lambda: next(calls) == 2)
    assert checkpoint.all_steps(tmp_path / "run") == [3]


def test_killed_between_journal_and_checkpoint(finished, tmp_path):
    """Lines beyond the checkpoint, and a line cut in the middle, are dropped and written again."""
    config, data, whole = finished
    journal = tmp_path / "run" / "metrics.jsonl"
    before = [line["step"] for line in read_journal(journal)]
    for step in checkpoint.all_steps(tmp_path / "run")[-1:]:
        (checkpoint.folder_of(tmp_path / "run", step) / "seal.json").unlink()      # as if the kill came before the seal
    with open(journal, "a") as f:
        f.write('{"step": 13, "train/lo')
    again, _, seen = fit(config, data, tmp_path / "run")
    assert seen.begun == [8]
    assert [line["step"] for line in read_journal(journal)] == before
    assert_identical(whole, weights(again))


@pytest.mark.parametrize("file", ["model.safetensors", "optim.pt", "state.json", "seal.json"])
def test_damaged_checkpoint_falls_back(finished, tmp_path, file, capsys):
    config, data, whole = finished
    newest = checkpoint.folder_of(tmp_path / "run", 12)
    content = bytearray((newest / file).read_bytes())
    content[len(content) // 2] ^= 1
    (newest / file).write_bytes(content)
    again, _, seen = fit(config, data, tmp_path / "run")
    assert seen.begun == [8]
    assert "step-000012" in capsys.readouterr().err
    assert_identical(whole, weights(again))


def test_checkpoint_of_another_config(finished, tmp_path):
    config, data, _ = finished
    with pytest.raises(CheckpointMismatch, match="written under config f"):
        fit(config, data, tmp_path / "run", fingerprint="two")


def test_fingerprint_follows_what_shapes_the_weights(tiny):
    base = tiny().fingerprint("seal", "code")
    assert base == tiny("spiking_deeplab", "train.log_every=1", "evaluate.timesteps=9", "data.workers=2", "train.keep=5").fingerprint("seal", "code")
    others = ["train.epochs=3", "optim.lr=0.1", "neuron.leak=0.5", "encode.timesteps=3", "model.width=0.2", "train.seed=1", "loss.void=background"]
    prints = {tiny("spiking_deeplab", o).fingerprint("seal", "code") for o in others} | {base, tiny().fingerprint("other", "code"), tiny().fingerprint("seal", "other"), tiny("spiking_fcn").fingerprint("seal", "code")}
    assert len(prints) == len(others) + 4
    ann = tiny("ann_fcn").fingerprint("seal", "code")
    assert ann == tiny("ann_fcn", "encode.timesteps=7", "neuron.leak=0.5").fingerprint("seal", "code"), "an ANN has no time"


def test_not_finite_stops_before_the_update(tiny, tmp_path):
    """A learning rate of 1e37 makes the second loss useless; the weights stay those after the first step."""
    config = tiny("ann_deeplab")
    config = config.model_copy(update={"optim": config.optim.model_copy(update={"lr": 1e37})})
    data = loaded(config)
    with pytest.raises(NotFinite, match="The update was not made") as error:
        fit(config, data, tmp_path / "run")
    assert error.value.exit_code == 7 and "samples" in str(error.value)


def stepped(model, config, device=CPU):
    return Step(model, optim.build(config.optim, model), config, device)


def test_not_finite_leaves_the_weights(tiny, monkeypatch):
    config = tiny("ann_fcn")
    data = loaded(config)
    model = zoo.build(config).train()
    batch = next(iter(loop.batches(data.train, 8)))
    monkeypatch.setattr("snnseg.training.step.cross_entropy", lambda *a: cross_entropy(*a) * math.nan)
    before = {k: v.clone() for k, v in model.named_parameters()}
    with pytest.raises(NotFinite):
        stepped(model, config)(batch, checkpoint.State()).loss()
    assert all(torch.equal(before[k], v) for k, v in model.named_parameters())


def test_the_device_tells_its_counts_only_where_they_are_wanted(tiny, tmp_path, monkeypatch):
    """12 steps in 2 epochs: at steps 5 and 10 for a line, at 8 for a checkpoint, at the ends of epochs, and once a validation."""
    config, read, asked = tiny("ann_fcn", "train.log_every=5", "train.checkpoint_every=8"), tally.read, []
    monkeypatch.setattr(tally, "read", lambda counts: asked.append(1) or read(counts))
    _, _, seen = fit(config, loaded(config), tmp_path / "run")
    assert [step for step, _ in seen.lines] == [5, 6, 10, 12] and seen.checkpoints == [6, 8, 12]
    assert len(asked) == len({5, 6, 8, 10, 12}) + 2


@pytest.mark.parametrize("name", ["spiking_deeplab", "ann_fcn"])
def test_tally_of_a_training_is_the_confusion_of_its_predictions(tiny, tmp_path, monkeypatch, name):
    """`train/miou` is over all batches of the epoch so far, each predicted before its update; void pixels are left out."""
    config = tiny(name, "train.log_every=1", "train.shift=3", "train.flip=true")
    counted, parts = tally.counted, []
    monkeypatch.setattr(tally, "counted", lambda truth, called, classes: parts.append(
        Confusion.of(truth.numpy(), called.numpy(), classes)) or counted(truth, called, classes))
    _, _, seen = fit(config, loaded(config), tmp_path / "run")
    total, steps = Confusion.empty(config.classes), iter(parts)
    for step, numbers in seen.lines[:6]:
        total += next(steps)
        assert numbers["train/miou"] == 100 * total.miou(), step


def test_a_step_takes_batches_from_main_memory_and_from_the_device(tiny):
    config = tiny("spiking_fcn", "encode.coding=poisson")
    data, augment = loaded(config), Augment(flip=True, shift=3)
    drawn = [augment.drawn(b, 0, 0) for b in loop.batches(data.train, 8)]
    with fed(iter(drawn), CPU, 2) as here:
        for ready, batch in zip(here, [augment(b, 0, 0) for b in loop.batches(data.train, 8)], strict=True):
            one, other = (stepped(zoo.build(config).train(), config)(b, checkpoint.State()) for b in (ready, batch))
            assert one.loss() == other.loss() and torch.equal(one.tally, other.tally)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("overrides", [(), ("encode.coding=signed_poisson", "train.precision=bf16", "optim.clip_norm=1.0"), ("model.name=ann_deeplab",)])
def test_a_step_does_not_wait_for_the_device(tiny, overrides):
    config, device = tiny("spiking_deeplab", *overrides), torch.device("cuda")
    data, augment = loaded(config), Augment(flip=True, shift=3)
    update = stepped(zoo.build(config).to(device).train(), config, device)
    with fed((augment.drawn(b, 0, 0) for b in loop.batches(data.train, 8)), device) as here, warnings.catch_warnings(record=True) as waits:
        for k, batch in enumerate(here):
            if k == PLAINLY + 1:       # kernels were chosen and compiled, and the step was captured
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
            update(batch, checkpoint.State())
        torch.cuda.set_sync_debug_mode("default")
    assert k > PLAINLY + 1 and not [str(w.message) for w in waits if "called a synchronizing" in str(w.message)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("overrides", [("encode.coding=poisson",), ("encode.coding=phase",), ("neuron.levels=3",), ("model.name=spiking_fcn",),
                                       ("encode.coding=direct", "optim.clip_norm=1.0", "optim.amsgrad=true"),
                                       ("model.name=ann_fcn",), ("model.norm=tdbn", "neuron.learn_leak=channel", "neuron.learn_threshold=layer")])
def test_a_captured_step_is_the_plain_one(tiny, overrides):
    """Each step from the same weights: loss, tally, and the weights and running statistics after it."""
    device = torch.device("cuda")
    configs = [tiny("spiking_deeplab", *overrides, f"train.graph={graph}") for graph in ("false", "true")]
    data = loaded(configs[0])
    plain, captured = (stepped(zoo.build(config).to(device).train(), config, device) for config in configs)
    for epoch in range(3):
        for k, batch in enumerate(loop.batches(data.train, 10)):        # of 10, 10, 10, 10 and 8
            for mine, theirs in zip([*captured.model.state_dict().values(), *sum(captured.optimizer.state.values(), []), *captured.optimizer.steps],
                                    [*plain.model.state_dict().values(), *sum(plain.optimizer.state.values(), []), *plain.optimizer.steps], strict=True):
                mine.copy_(theirs)
            found = []
            for update in (plain, captured):
                update.optimizer.rate.fill_(3e-3 / (1 + epoch))
                found.append(update(batch, checkpoint.State(epoch=epoch)))
            (expected, loss), (counts, other_counts) = zip(*((taken.loss(), taken.tally) for taken in found), strict=True)
            assert loss == pytest.approx(expected, rel=1e-4), (epoch, k)
            assert (counts - other_counts).abs().sum() <= 1e-3 * counts.sum()
            for name, theirs in plain.model.state_dict().items():
                mine = captured.model.state_dict()[name]
                assert (mine.float() - theirs.float()).norm() <= 1e-3 * theirs.float().norm() + 1e-6, (epoch, k, name)
    assert len(captured.captured) == 1 and not plain.captured, "a shape seen thrice is captured, another is not"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_captured_step_leaves_out_an_update_that_is_not_finite(tiny):
    config, device = tiny("spiking_deeplab"), torch.device("cuda")
    model = zoo.build(config).to(device).train()
    update, batch = stepped(model, config, device), next(iter(loop.batches(loaded(config).train, 8)))
    for _ in range(PLAINLY + 2):
        update(batch, checkpoint.State()).loss()
    before = [p.detach().clone() for p in model.parameters()]
    update.optimizer.parameters[0].data[0] = math.nan
    with pytest.raises(NotFinite):
        update(batch, checkpoint.State()).loss()
    assert update.captured and all(torch.equal(a, b) for a, b in zip(before[1:], list(model.parameters())[1:], strict=True))


def test_loss_of_void():
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 1, 0, 0] = math.log(3.0)                       # p(class 1) = 3/4 at the first pixel, 1/2 at the second
    mask = torch.tensor([[[1, 255]]], dtype=torch.uint8)
    assert cross_entropy(logits, mask).item() == pytest.approx(-math.log(3 / 4))
    assert cross_entropy(logits, mask, "background").item() == pytest.approx((-math.log(3 / 4) - math.log(1 / 2)) / 2)
    nothing = torch.full((1, 1, 2), 255, dtype=torch.uint8)
    assert cross_entropy(logits, nothing).item() == 0


def test_loss_of_a_background_that_counts_for_less(tiny):
    logits, mask = torch.randn(2, 3, 4, 4), torch.randint(3, (2, 4, 4))
    pixels = F.cross_entropy(logits, mask, reduction="none")
    expected = (pixels * torch.where(mask == 0, 0.25, 1.0)).mean()
    torch.testing.assert_close(cross_entropy(logits, mask, weight_K=weighted(3, 0.25)), expected)
    assert weighted(3, 1.0) is None
    config = tiny("ann_deeplab", "loss.background=0.25")
    model = zoo.build(config)
    update = Step(model, optim.build(config.optim, model), config, torch.device("cpu"))
    plain = Step(model, optim.build(config.optim, model), tiny("ann_deeplab"), torch.device("cpu"))
    assert update.weight_K.tolist() == [0.25, 1.0] and plain.weight_K is None


def test_learning_rate(tiny):
    paper = tiny("spiking_deeplab", "optim.schedule=multistep").optim
    assert [optim.learning_rate(paper, 0, 1, e, 60) for e in (0, 29, 30, 59)] == pytest.approx([3e-3, 3e-3, 3e-4, 3e-4])
    cosine = tiny().optim
    assert [optim.learning_rate(cosine, s, 100, 0, 1) for s in (0, 50, 100)] == pytest.approx([3e-3, 1.5e-3, 0])
    assert optim.learning_rate(tiny("spiking_deeplab", "optim.schedule=constant").optim, 99, 100, 0, 1) == 3e-3


def test_run_publishes_a_sealed_model(tiny):
    config = tiny()
    prepare.prepare(config)
    folder = run.train(config)
    run.publish(folder, config)
    model, trained, about = saved.load(config.model_folder, config.root)
    assert trained.encode == config.encode and about["steps"] == 12 and about["train_samples"] == 48
    assert sum(p.numel() for p in model.parameters()) == about["parameters"]
    curve = (config.result_folder / "curve.csv").read_text().splitlines()
    assert curve[0].startswith("step,epoch,train/loss") and len(curve) == 1 + len(read_journal(folder / "metrics.jsonl"))
    first = file_sha256(config.model_folder / "model.safetensors")
    assert run.train(config) == folder and file_sha256(folder / "model" / "model.safetensors") == first     # finished: nothing is done anew
    assert len(list((config.root / "data" / "run").glob("[!.]*"))) == 1


def test_second_process_is_refused(tiny, tmp_path):
    folder = tmp_path / "run"
    with lock.held(folder, "training"), pytest.raises(Busy, match=f"process {os.getpid()} is training here") as error, lock.held(folder, "training"):
        pass
    assert error.value.exit_code == 5
    with lock.held(folder, "training"):
        pass        # free again


def test_full_disk_keeps_the_last_checkpoint(finished, tmp_path, monkeypatch):
    import errno

    config, data, expected = finished
    real, folder = torch.save, tmp_path / "full"

    def full(*a, **k):
        if checkpoint.all_steps(folder):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*a, **k)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(NoSpace, match="MiB free") as error:
        fit(config, data, folder)
    assert error.value.exit_code == 6
    assert checkpoint.all_steps(folder) == [4] and not list(folder.glob(".partial*"))
    monkeypatch.undo()
    whole, _, seen = fit(config, data, folder)
    assert seen.begun == [4]
    assert_identical(weights(whole), expected)


def test_keeps_the_newest_checkpoints(tiny, tmp_path):
    config = tiny("spiking_deeplab", "train.keep=1", "train.checkpoint_every=1")
    _, _, seen = fit(config, loaded(config), tmp_path / "run")
    assert seen.checkpoints == list(range(1, 13)) and checkpoint.all_steps(tmp_path / "run") == [12]


def test_state_survives_json():
    state = checkpoint.State(step=3, confusion=np.eye(2, dtype=int).tolist(), seconds=1.5)
    assert checkpoint.State(**json.loads(json.dumps(state.__dict__))) == state
