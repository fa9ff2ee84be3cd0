"""The forms that are compared compute the same, are measured in turns, and end as rows of one frame."""
import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import forked
import pytest
import torch
from torch import nn

from benchmarks import forms, frame, gather, kept, nets, scan, styles, train_step, turns
from benchmarks.forms import FORMS, Work
from snnseg.errors import UsageError
from snnseg.models import zoo

ROOT = Path(__file__).resolve().parent.parent
WORK = Work("cpu", "fp32", "deeplab", "bntt", "signed_poisson", 3, 2, 32, 0.0625, str(ROOT / "params.yaml"))


@pytest.fixture
def style(request):
    needed = FORMS[request.param].needs
    if any(importlib.util.find_spec(package) is None for package in needed):
        pytest.skip(f"{needed[0]} is not installed")
    return request.param


def convolutions(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]


@pytest.mark.parametrize("style", ["paper", "spikingjelly"], indirect=True)
@pytest.mark.parametrize("net", ["deeplab", "fcn"])
def test_others_nets_give_our_logits_and_gradients(style, net):
    """In float64, where no spike depends on the last bit of a sum."""
    work = replace(WORK, net=net)
    ours = zoo.build(forms.numbers(work, "train.kernels=reference")).double().train()
    other = styles.build(style, net, forms.CLASSES, work.width, work.norm, work.timesteps).double().train()
    with torch.no_grad():
        for from_, to in zip(convolutions(ours), convolutions(other), strict=True):
            to.load_state_dict(from_.state_dict())
    torch.manual_seed(1)
    x_TBCHW = forms.coded(forms.normal_pictures(work), work).double()
    answers = [model(x_TBCHW) for model in (ours, other)]
    assert answers[0].std() > 0.01
    torch.testing.assert_close(*(answer.float() for answer in answers), rtol=1e-4, atol=1e-5)
    for answer in answers:
        answer.square().mean().backward()
    for from_, to in zip(convolutions(ours), convolutions(other), strict=True):
        assert (to.weight.grad - from_.weight.grad).norm() < 1e-5 * from_.weight.grad.norm()


@pytest.mark.parametrize("style", ["paper", "spikingjelly", "snntorch", "floor", "floor channels_last"], indirect=True)
@pytest.mark.parametrize("change", [{}, {"net": "fcn", "norm": "bn", "coding": "direct", "dtype": "bf16"}], ids=["deeplab", "fcn"])
def test_a_step_of_each_form_updates_its_weights(style, change):
    ready = FORMS[style].ready(replace(WORK, **change))
    before = [p.detach().clone() for p in ready.model.parameters()]
    assert ready.step() > 0
    assert all(not torch.equal(*pair) for pair in zip(before, ready.model.parameters(), strict=True))


@pytest.mark.parametrize("net", ["deeplab", "fcn"])
def test_neurons_are_counted(net):
    """By what leaves them in a step of one picture."""
    counted = []
    built = nets.NETS[net](styles.PLAIN, forms.CLASSES, WORK.width)
    for module in built.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda module, inputs, out: counted.append(out.numel()))
    built.features(torch.zeros(1, 3, 32, 32))
    assert sum(counted) == built.neurons(32) == kept.neurons(replace(WORK, net=net))


def test_kept_bytes_are_those_that_autograd_saves():
    """The floor keeps what ReLU answers, which is the next convolution's input, and the pools' answers."""
    a, b, c, d = nets.widths(WORK.width)
    full, half, quarter, _ = nets.areas(WORK.size)
    pooled = half * a + quarter * b
    wanted = 4 * (kept.neurons(WORK) + pooled) * WORK.timesteps + 4 * d * quarter        # the classifier sees the mean
    assert kept.bytes_per_neuron_step(FORMS["floor"], WORK) == pytest.approx(wanted / kept.neurons(WORK) / WORK.timesteps)
    ours, plain = (kept.bytes_per_neuron_step(FORMS[name], WORK) for name in ("snnseg", "paper"))
    assert 0 < ours < plain


def benchmark(name: str, project: Path, environment, *arguments: str) -> subprocess.CompletedProcess:
    return forked.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], cwd=project, env=environment, capture_output=True, text=True, timeout=250)


def rows(project: Path, name: str) -> list[dict]:
    found = json.loads((project / "data" / "bench" / f"{name}.json").read_text())
    assert found["machine"]["torch"] == torch.__version__ and found["machine"]["threads"] >= 1
    assert found["command"].startswith(f"python -m benchmarks.{name} --")
    return found["rows"]


TINY = ["--device", "cpu", "--size", "32", "--width", "0.0625", "--batch", "2", "--timesteps", "2", "--dtype", "fp32"]


def test_training_steps_are_measured_in_turns(project, environment):
    done = benchmark("train_step", project, environment, *TINY, "--rounds", "2", "--forms", "paper", "floor")
    assert done.returncode == 0, done.stderr
    found = rows(project, "train_step")
    assert [row["form"] for row in found] == ["paper", "floor"]
    for row in found:
        assert row | {"device": "cpu", "dtype": "fp32", "norm": "bntt", "timesteps": 2, "batch": 2, "size": 32, "width": 0.0625, "net": "deeplab",
                      "coding": "signed_poisson"} == row
        assert min(row[key] for key in ("ms", "samples_per_s", "peak_mib", "x_best_peer", "x_best_fp32_peer", "x_floor")) > 0
        assert len(row["turns_ms"]) == 2
        assert row["form"] in done.stdout
    assert found[0]["x_best_peer"] == found[1]["x_floor"] == 1


def test_memory_is_measured(project, environment):
    done = benchmark("memory", project, environment, *TINY, "--forms", "snnseg", "floor")
    assert done.returncode == 0, done.stderr
    found = rows(project, "memory")
    assert [row["form"] for row in found] == ["snnseg", "floor"]
    assert all(row["kept_bytes_per_neuron_step"] > 1 and row["peak_mib"] > 50 and row["neurons"] == kept.neurons(WORK) for row in found)


def test_norm_and_neuron_are_measured_alone(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    monkeypatch.setattr(scan, "COPY_MIB", {"cpu": 1})
    monkeypatch.setattr(sys, "argv", ["scan", "--device", "cpu", "--size", "32", "--width", "0.0625", "--timesteps", "2", "--rounds", "3", "--dtype", "fp32"])
    scan.main()
    found = json.loads((project / "data" / "bench" / "scan.json").read_text())["rows"]
    assert {row["form"] for row in found} >= {"reference"} and len({(row["channels"], row["size"]) for row in found}) == 4
    assert all(min(row["forward_ms"], row["forward_backward_ms"], row["forward_limit_ms"]) > 0 for row in found)
    assert "times the limit" in capsys.readouterr().out


def test_ratios_are_to_the_best_peer_and_the_best_floor():
    told = [("snnseg", "bf16", 10), ("paper", "bf16", 40), ("snntorch", "bf16", 30), ("paper", "fp32", 20), ("floor", "bf16", 8), ("floor channels_last", "bf16", 5)]
    ours, *_, fp32, _, _ = train_step.compared([{"form": form, "dtype": dtype, "timesteps": 4, "ms": ms} for form, dtype, ms in told])
    assert (ours["x_best_peer"], ours["x_best_fp32_peer"], ours["x_floor"]) == (3, 2, 0.5)
    assert fp32["x_floor"] is None


def test_a_peer_that_is_missing_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert forms.measurable(["snnseg", "spikingjelly", "spikingjelly channels_last", "paper"], WORK) == ["snnseg", "paper"]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and told[0].startswith("spikingjelly is not installed") and "'.[bench]'" in told[0]


def test_a_form_that_ends_is_one_line_and_the_others_go_on(monkeypatch, capsys):
    """Its process is killed before its second turn, as by a system that is out of memory."""
    monkeypatch.setattr(turns, "PAUSE_S", 0)
    ask, turn = turns.Worker.ask, []

    def killed(self, **message):
        turn.append(self.form)
        if self.form == "paper" and turn.count("paper") == 3:
            self.process.kill()
            self.process.wait()
        return ask(self, **message)

    monkeypatch.setattr(turns.Worker, "ask", killed)
    row, = turns.timed(["paper", "snnseg"], WORK, 2, 1, 0)
    assert row["form"] == "snnseg" and row["ms"] > 0 and len(row["turns_ms"]) == 2
    assert capsys.readouterr().err.splitlines() == ["paper: its process ended with exit code -9, its row is left out."]


def test_gather_tells_where_spikes_win(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["gather", "--size", "32", "--width", "0.5", "--rates", "0.2", "--pictures", "1", "--rounds", "1", "--dtype", "fp32"])
    gather.main()
    rows = json.loads((project / "data" / "bench" / "gather.json").read_text())["rows"]
    assert [(row["channels"], row["out"], row["dilation"]) for row in rows] == [(32, 32, 1), (64, 64, 1), (128, 128, 2), (128, 512, 12)]
    assert all(row[f"{part}_ms"] > 0 for row in rows for part in ("forward", "forward_dense", "weight", "weight_dense")) and "wins below" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["train_step", "memory", "scan"])
def test_a_gpu_that_is_not_there_is_refused(name, monkeypatch, capsys, project):
    from benchmarks import memory
    from snnseg import stage

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", [name, "--device", "cuda"])
    with pytest.raises(SystemExit) as ended:
        stage.run({"train_step": train_step, "memory": memory, "scan": scan}[name].main)
    assert ended.value.code == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and "--device cuda: no GPU" in told[0]


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(UsageError, match="no form is named 'ours'"):
        forms.measurable(["ours"], WORK)
    asked = train_step.options("").parse_args(["--device", "cpu", "--timesteps", "0"])
    with pytest.raises(UsageError, match="--timesteps is 0"):
        train_step.settle(asked, {"cpu": {"batch": 2, "forms": []}}, {})


def test_peak_memory_is_that_of_this_process():
    before = frame.peak_mib()
    block = bytearray(64 << 20)
    block[::4096] = b"1" * len(block[::4096])
    assert frame.peak_mib() >= before > 64
