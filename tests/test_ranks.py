"""Several ranks train as one process does: the same samples, losses, statistics, gradients, confusion; they stop and fail alike."""
import hashlib
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from rank_pairs import Pair, replayed

from snnseg import config as configs
from snnseg.data.augment import Augment
from snnseg.data.loader import batches, epoch_order
from snnseg.data.store import VOID, Split
from snnseg.errors import ConfigError, Interrupted, NotFinite
from snnseg.evaluation import evaluate
from snnseg.models.inputs import keys
from snnseg.ranks import ALONE, Ranks
from snnseg.spiking import fused, ways
from snnseg.spiking.fused import Normal
from snnseg.spiking.neuron import LIF
from snnseg.spiking.norm import BNTT, BatchNorm
from snnseg.training import checkpoint, loop

CPU = torch.device("cpu")
TINY = ["model.width=0.0625", "encode.timesteps=2", "encode.coding=signed_poisson", "train.epochs=5", "train.batch=7", "train.log_every=1",
        "train.checkpoint_every=50", "train.validate_every=3", "optim.lr=0.001", "train.flip=true", "train.shift=5", "evaluate.batch=4", "track.mlflow=false"]
SAMPLES = 27        # with batches of 7: four steps an epoch, of 7, 7, 7 and 6 pictures


def data() -> loop.Loaded:
    """Pictures of squares to be found in noise; of every third one most is void, so no two slices have as many pixels that count."""
    def split(count: int, seed: int) -> Split:
        rng = np.random.default_rng(seed)
        mask = np.zeros((count, 16, 16), np.uint8)
        for k, (y, x) in enumerate(rng.integers(0, 10, (count, 2))):
            mask[k, y:y + 6, x:x + 6] = 1
        image = (rng.integers(0, 150, (count, 16, 16, 3)) + 100 * mask[..., None]).astype(np.uint8)
        mask[::3, :12] = VOID
        return Split(image, mask, {"classes": ["background", "square"]})

    return loop.Loaded(split(SAMPLES, 1), split(11, 2), "digest")


class Seen:
    """A reporter that remembers."""

    def __init__(self):
        self.lines = {}

    def begin(self, step, steps, epochs):
        self.begun = step

    def numbers(self, step, numbers):
        self.lines.setdefault(step, []).append(numbers)

    def saved(self, step, folder):
        pass


def trained(ranks: Ranks, params, experiment, overrides, folder, stops=None, poisoned=False):
    """What a rank has at the end: the reporter's lines, its weights' hash, and the confusion of the test split."""
    config, seen, loaded = configs.load(params, experiment, [*TINY, *overrides]), Seen(), data()
    if poisoned:
        config = config.model_copy(update={"optim": config.optim.model_copy(update={"lr": 1e37})})
    folder.mkdir(exist_ok=True)
    calls = iter(range(10**6))
    model, state = loop.fit(config, loaded, folder, seen, lambda: stops is not None and ranks.rank == stops[0] and next(calls) >= stops[1], CPU, "f", ranks)
    digest = hashlib.sha256(b"".join(x.numpy().tobytes() for x in model.state_dict().values())).hexdigest()
    return seen.lines, digest, evaluate.confusion(model, loaded.test, config, CPU, ranks=ranks).matrix


@pytest.fixture(scope="module")
def pair():
    both = Pair()
    yield both
    both.close()


# ------------------------------------------------------------------------------------------------ slices

@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_slices_are_all_of_it_and_as_even_as_can_be(size):
    for count in range(30):
        slices = [list(range(count))[Ranks(k, size).slice(count)] for k in range(size)]
        assert sum(slices, []) == list(range(count))
        assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_samples_of_each_step_do_not_depend_on_ranks(project):
    """20 steps of 1, 2, 3 and 4 ranks: the same pictures, moved alike, with the same keys of their spikes."""
    config, train = configs.load(project / "params.yaml", "spiking_fcn", TINY), data().train

    def steps(ranks):
        for epoch in range(5):
            for batch in batches(train, 7, epoch_order(SAMPLES, 0, epoch), ranks=ranks):
                drawn = Augment(True, 5).drawn(batch, 0, epoch)
                yield batch.index_B, drawn.moves_3B, keys(batch.index_B, config, ("poisson", epoch)), batch.input, batch.all_B

    alone = list(steps(ALONE))
    assert len(alone) == 20 and len({tuple(sorted(index)) for index, *_ in alone}) > 15
    for size in (2, 3, 4):
        for one, *parts in zip(alone, *(steps(Ranks(k, size)) for k in range(size)), strict=True):
            for k, axis in enumerate((0, 1, 0, 0)):
                assert np.array_equal(np.concatenate([part[k] for part in parts], axis), one[k])
            assert all(np.array_equal(part[4], one[0]) for part in parts)


@pytest.mark.parametrize(("samples", "batch", "size", "told"), [(100, 16, 17, "a batch has 16"), (49, 8, 2, "the last batch of an epoch has 1"),
                                                               (3, 16, 4, "a batch has 3"), (97, 16, 2, "Set train.workers to 1 or less")])
def test_a_batch_with_fewer_pictures_than_ranks_is_refused(samples, batch, size, told):
    with pytest.raises(ConfigError, match=told):
        Ranks(0, size).check(samples, batch)
    for fits in range(1, 2 if told.startswith("the last") else 1):
        Ranks(0, fits).check(samples, batch)


# ------------------------------------------------------------------------------------------------ norm and neuron

def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


T, B, C, H, W = 3, 5, 4, 5, 6
CUTS = [slice(0, 1), slice(1, 5)], [slice(0, 3), slice(3, 5)], [slice(0, 2), slice(2, 3), slice(3, 5)]


def normal_of(kind, share=None, dtype=torch.float32):
    gamma, beta = (1 + 0.3 * drawn(T if kind == "bntt" else 1, C, seed=1)).to(dtype).requires_grad_(), drawn(1, C, seed=2).to(dtype).requires_grad_()
    return {"bntt": Normal(gamma, None, True, 1e-4, None, None, share), "tdbn": Normal(gamma, beta, False, 1e-4, None, None, share),
            "plain": Normal(None, None, False, 1e-4, None, None, share), "plain bntt": Normal(None, None, True, 1e-4, None, None, share)}[kind]


def gradients(way, y, g, kind, share=None):
    """Spikes, statistics, and gradients of y, gamma and beta."""
    y, normal = y.clone().requires_grad_(), normal_of(kind, share, y.dtype)
    fired = ways.run(y, normal, LIF(0.9, 0.5), way)
    leaves = [y, *(x for x in normal[:2] if x is not None)]
    return fired, torch.autograd.grad(fired.spikes_TBCHW, leaves, g)


def apart(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


@pytest.mark.parametrize("cuts", CUTS, ids=str)
@pytest.mark.parametrize("kind", ["bntt", "tdbn", "plain", "plain bntt"])
@pytest.mark.parametrize(("way", "dtype"), [("reference", torch.float64), ("cpu", torch.float32)])
@pytest.mark.parametrize("centre", [0.5, 100.0])
def test_shared_norm_and_neuron_are_those_of_one_process(cuts, kind, way, dtype, centre):
    y = (drawn(T, B, C, H, W) * torch.tensor([1, 1.5, 2, 3]).view(-1, 1, 1) + centre).to(dtype) + 0.3 * torch.arange(B, dtype=dtype).view(-1, 1, 1, 1)
    g = drawn(*y.shape, seed=9).to(dtype)
    one, of_one = gradients(way, y, g, kind)
    exact, expected = gradients("reference", y.double(), g.double(), kind)
    parts = replayed(len(cuts), lambda k, share: gradients(way, y[:, cuts[k]], g[:, cuts[k]], kind, share))
    fired = torch.cat([part[0].spikes_TBCHW for part in parts], 1)
    assert 0.1 < fired.double().mean() < 0.9 and torch.equal(fired, one.spikes_TBCHW)
    for part, _ in parts:
        assert part.count.item() == B * H * W * (1 if "bntt" in kind else T)
        for mine, whole in ((part.mean_TC, exact.mean_TC), (part.var_TC, exact.var_TC)):
            assert apart(mine, whole) < 1e-6
    found = [torch.cat([part[1][0] for part in parts], 1), *(sum(part[1][k] for part in parts) for k in range(1, len(expected)))]
    limit = 1e-9 if dtype == torch.float64 else 1e-6 if centre < 1 else 3e-5     # in float32, numbers about 100 are 8e-6 apart
    for mine, whole, true in zip(found, of_one, expected, strict=True):     # as near to what is exact as one process is
        assert true.any() and apart(mine, true) < apart(whole, true) + limit
    lonely = gradients(way, y[:, cuts[0]], g[:, cuts[0]], kind)[1][0]       # with statistics of its own: another gradient
    assert apart(lonely, expected[0][:, cuts[0]]) > 0.01


def test_an_input_that_is_the_same_at_each_step():
    """The fast way convolves it once; its statistics are those of one step."""
    y, g = drawn(1, B, C, H, W).expand(T, -1, -1, -1, -1), drawn(T, B, C, H, W, seed=3)

    def run(part, share=None):
        leaf = y[:1, part].clone().requires_grad_()
        fired = ways.run(leaf.expand(T, -1, -1, -1, -1), normal_of("bntt", share), LIF(0.9, 0.5), "cpu")
        return torch.autograd.grad(fired.spikes_TBCHW, leaf, g[:, part])[0]

    found = torch.cat(replayed(2, lambda k, share: run(CUTS[1][k], share)), 1)
    assert apart(found, run(slice(None))) < 1e-5


@pytest.mark.parametrize("make", [lambda share: BNTT(C, T, share=share), lambda share: BatchNorm(C, 0.7, share), lambda share: BatchNorm(C, None, share)])
def test_norm_modules_share_statistics_and_remember_them(make):
    y, g = drawn(T, B, C, H, W) * 2 + 1, drawn(T, B, C, H, W, seed=3)

    def run(part, share=None):
        norm, leaf = make(share), y[:, part].clone().requires_grad_()
        out = norm(leaf)
        return out, torch.autograd.grad(out, leaf, g[:, part])[0], norm.state_dict()

    expected = run(slice(None))
    parts = replayed(2, lambda k, share: run(CUTS[1][k], share))
    for k in range(2):
        assert apart(torch.cat([part[k] for part in parts], 1), expected[k]) < 1e-6
    for *_, state in parts:
        for name, whole in expected[2].items():
            torch.testing.assert_close(state[name], whole, rtol=1e-5, atol=1e-6)


def test_without_a_share_nothing_is_shared(monkeypatch):
    monkeypatch.setattr(fused, "_normalised_together", None)
    for way in ("cpu", "reference"):
        assert gradients(way, drawn(T, B, C, H, W), drawn(T, B, C, H, W), "bntt")[0].count is None


# ------------------------------------------------------------------------------------------------ trainings

NETS = [("spiking_deeplab", "model.norm=bntt", "train.kernels=cpu"), ("spiking_fcn", "model.norm=tdbn", "train.kernels=cpu"),
        ("spiking_deeplab", "model.norm=bn", "train.kernels=cpu", "optim.clip_norm=0.5"), ("spiking_deeplab", "model.norm=bntt", "train.kernels=reference"),
        ("spiking_deeplab", "model.norm=tdbn", "train.kernels=reference", "loss.void=background"),
        ("spiking_fcn", "model.norm=bn", "model.pool=max", "loss.spike_rate=0.5"), ("ann_deeplab", "optim.weight_decay=0.01", "loss.background=0.4")]


@pytest.mark.parametrize("net", NETS, ids=" ".join)
def test_two_ranks_take_the_course_of_one(net, project, tmp_path, pair, two_threads):
    """20 steps: losses, mIoU of training and validation, confusion; and both ranks have the same weights to the bit."""
    arguments = project / "params.yaml", net[0], net[1:]
    alone, _, confusion = trained(ALONE, *arguments, tmp_path / "one")
    first, second = pair.call(trained, *arguments, tmp_path / "two")
    assert not isinstance(first, Exception), first
    assert first[1] == second[1] and not second[0]
    assert list(first[0]) == list(alone) == list(range(1, 21))
    for step, (numbers,) in alone.items():
        told, = first[0][step]
        for name in numbers.keys() - {"train/samples_per_s"}:
            assert told[name] == pytest.approx(numbers[name], abs=1e-5 if "loss" in name or "rate" in name else 1e-9), (step, name)
    assert np.array_equal(first[2], confusion) and np.array_equal(second[2], confusion)
    assert alone[20][0]["train/loss"] < 0.95 * alone[1][0]["train/loss"]


def test_local_statistics_are_each_rank_s_own_and_evaluated_as_one(project, tmp_path, pair):
    arguments = project / "params.yaml", "spiking_deeplab", ["train.sync_norm=local"]
    alone, _, _ = trained(ALONE, *arguments, tmp_path / "one")
    first, second = pair.call(trained, *arguments, tmp_path / "two")
    assert first[1] == second[1] and np.array_equal(first[2], second[2])
    assert abs(first[0][1][0]["train/loss"] - alone[1][0]["train/loss"]) > 1e-4


def test_ranks_stop_at_the_same_step_and_go_on_in_any_number(project, tmp_path, pair):
    """The second rank alone is asked to stop, before its 6th step; both know with that step's loss, and end with the next."""
    arguments = project / "params.yaml", "spiking_deeplab", ["train.validate_every=0"]
    alone, _, confusion = trained(ALONE, *arguments, tmp_path / "one")
    ended = pair.call(trained, *arguments, tmp_path / "two", (1, 5))
    assert all(isinstance(e, Interrupted) and "stopped after step 7 of 20" in str(e) for e in ended), ended
    assert checkpoint.all_steps(tmp_path / "two")[-1] == 7
    ended = pair.call(trained, *arguments, tmp_path / "two", (0, 4))        # goes on from step 7: asked before the 12th
    assert all("stopped after step 13 of 20" in str(e) for e in ended), ended
    lines, _, found = trained(ALONE, *arguments, tmp_path / "two")
    assert min(lines) == 14 and np.array_equal(found, confusion)
    for step, (numbers,) in lines.items():
        for name in ("train/loss", "train/epoch_loss", "train/miou"):
            assert numbers[name] == pytest.approx(alone[step][0][name], abs=1e-5), (step, name)


def test_a_loss_that_is_not_finite_ends_all_ranks_alike(project, tmp_path, pair):
    ended = pair.call(trained, project / "params.yaml", "ann_deeplab", [], tmp_path / "run", None, True)
    assert all(isinstance(e, NotFinite) for e in ended) and str(ended[0]) == str(ended[1])
    step = int(str(ended[0]).split()[1].rstrip(","))
    named = str(ended[0]).split("samples ")[1].split(". The")[0]
    assert named == ", ".join(map(str, epoch_order(SAMPLES, 0, 0)[7 * step:7 * step + 7]))


def short_batch(ranks, params, folder):
    config = configs.load(params, "ann_fcn", [*TINY, "train.batch=13"])
    return loop.fit(config, data(), folder, Seen(), lambda: False, CPU, "f", ranks)


def test_a_last_batch_of_one_picture_is_refused_at_once(project, tmp_path, pair):
    ended = pair.call(short_batch, project / "params.yaml", tmp_path / "run")
    assert all(isinstance(e, ConfigError) and "the last batch of an epoch has 1" in str(e) for e in ended)


def waits(ranks):
    return ranks.add(torch.ones(1)).item()


def test_a_rank_that_is_gone_does_not_leave_the_other_waiting():
    both = Pair()
    try:
        assert both.call(waits) == [2, 2]
        both.processes[1].kill()
        both.pipes[0].send((waits, ()))
        began = time.monotonic()
        assert isinstance(both.answer(0), RuntimeError) and time.monotonic() - began < 20
    finally:
        both.close()


def test_benchmark(project, environment):
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "benchmarks.ranks", "--quick", "--device", "cpu", "--nets", "deeplab",
               "--sync_norm", "synced", "--curves", "3"]
    done = subprocess.run([sys.executable, *command], cwd=project, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    rows = json.loads((project / "data" / "bench" / "ranks.json").read_text())["rows"]
    assert [(row["part"], row["ranks"], row.get("scaling"), row["batch"]) for row in rows] == [
        ("rate", 1, "one", 4), ("rate", 2, "weak", 8), ("rate", 2, "strong", 4), ("curve", 1, None, 16), ("curve", 2, None, 16)]
    assert all(row["samples_per_s"] > 0 and 0 < row["efficiency"] < 3 and row["communication"] < 1 for row in rows[:3])
    assert len(rows[3]["losses"]) == len(rows[4]["losses"]) == 3 and rows[4]["largest_difference"] < 1e-5
    assert "weak" in done.stdout and "communication" in done.stdout
