"""`train.kernels`: what may be named, what is told, and what cannot be had, found before anything is written."""
import sys

import forked
import pytest
import torch

from snnseg.data import prepare
from snnseg.errors import ConfigError
from snnseg.models import saved, zoo
from snnseg.report import result
from snnseg.spiking import ways
from snnseg.spiking.surrogate import SURROGATES
from snnseg.training import run

CPU, DEVICE = torch.device("cpu"), torch.device("cuda" if torch.cuda.is_available() else "cpu")
HERE = "triton" if DEVICE.type == "cuda" else "cpu"


@pytest.mark.parametrize("experiment", ["spiking_deeplab", "ddd17/spiking_fcn"])
def test_a_gpus_way_without_a_gpu_ends_before_anything_is_written(project, environment, experiment):
    """The store is not there yet either, which would be the next to be told."""
    no_gpu = {"CUDA_VISIBLE_DEVICES": "", "TRITON_INTERPRET": "0"} if DEVICE.type == "cuda" or "TRITON_INTERPRET" in environment else {}
    done = forked.run([sys.executable, "-m", "snnseg", "train", experiment, "--set", "train.kernels=triton"], cwd=project, env=environment | no_gpu,
                      capture_output=True, text=True, timeout=120)
    assert done.returncode == 3 and done.stdout == "" and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("snnseg: train.kernels: the triton way of norm and neuron cannot do this: ")
    assert done.stderr.endswith(". Set train.kernels to auto, which takes the fastest way that can.\n")
    assert sorted(p.name for p in project.iterdir()) == ["params.yaml", "settings"]


def cannot(config, device, why):
    with pytest.raises(ConfigError, match=f"^train.kernels: the {config.train.kernels} way .* cannot do this: .*{why}.* Set train.kernels to auto") as caught:
        zoo.way(config, device)
    assert caught.value.exit_code == 3


def test_every_reason_is_told(tiny, monkeypatch):
    cannot(tiny("spiking_fcn", "train.kernels=cpu"), torch.device("meta"), "on the CPU, not torch.float32 on meta")
    cannot(tiny("spiking_fcn", "train.kernels=cpu", "train.precision=bf16"), torch.device("meta"), "not torch.bfloat16")
    with monkeypatch.context() as patched:
        patched.setitem(SURROGATES, "sigmoid", lambda scale: "a step without a kernel")
        cannot(tiny("spiking_fcn", "train.kernels=cpu", "neuron.surrogate=sigmoid"), CPU, "a step without a kernel")

    def absent(way):
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(ways, "_compiled", absent)
    cannot(tiny("spiking_deeplab", "train.kernels=triton"), CPU, "No module named 'triton'")
    assert zoo.way(tiny("spiking_deeplab"), CPU) == "reference"


@pytest.mark.parametrize("learned", ["none", "layer", "channel"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_auto_stands_for_the_devices_own(tiny, precision, learned):
    overrides = f"train.precision={precision}", f"neuron.learn_leak={learned}", f"neuron.learn_threshold={learned}"
    for kernels, way in (("auto", HERE), (HERE, HERE), ("reference", "reference")):
        assert zoo.way(tiny("spiking_fcn", f"train.kernels={kernels}", *overrides), DEVICE) == way


def test_a_training_says_which_way_it_takes(tiny, capsys):
    short = "train.epochs=1", "model.width=0.03"
    prepare.prepare(tiny())
    for kernels, way in (("auto", HERE), ("reference", "reference")):
        config, line = tiny("spiking_fcn", *short, f"train.kernels={kernels}"), f"mnist_cifar/spiking_fcn: norm and neuron are run the {way} way\n"
        folder = run.train(config)
        assert capsys.readouterr().err.count(line) == 1
        assert run.train(config) == folder and line not in capsys.readouterr().err, "nothing is run"
    run.train(tiny("ann_fcn", *short, "train.kernels=triton"))
    assert "way" not in capsys.readouterr().err, "a twin has neither"


@pytest.mark.parametrize(("kernels", "built"), [("triton", "auto"), ("cpu", "auto"), ("reference", "reference"), ("auto", "auto")])
def test_a_net_is_evaluated_wherever_it_is(tiny, kernels, built):
    """One that was trained with a way that is not here has the scores of its weights, and its own numbers."""
    config = tiny("spiking_fcn", "train.epochs=1")
    prepare.prepare(config)
    trained = run.train(config) / "model"
    model, _, about = saved.load(trained, config.root)
    about["config"]["train"]["kernels"] = kernels
    elsewhere = config.root / "elsewhere"
    saved.save(elsewhere, model, about)
    again, its_config, _ = saved.load(elsewhere, config.root)
    assert again.block1[0].neurons.way == built and its_config.train.kernels == kernels
    scores = [result.measure(folder, config).metrics["miou"] for folder in (trained, elsewhere)]
    assert scores[1] == pytest.approx(scores[0], abs=0.1)
