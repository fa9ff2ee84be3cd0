"""Predicted memory: what is kept, counted again at full size; a dry run beside a real process; the line when memory runs out."""
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from conftest import TINY

from snnseg import memory
from snnseg.cli import main
from snnseg.data import prepare
from snnseg.errors import OutOfMemory
from snnseg.models import inputs, zoo
from snnseg.training import forecast

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FORMS = [("spiking_deeplab", "encode.coding=direct"), ("spiking_fcn", "encode.coding=direct"), ("spiking_deeplab", "encode.coding=poisson"),
         ("spiking_fcn", "encode.coding=signed_poisson", "model.norm=tdbn"), ("spiking_fcn", "train.kernels=reference"), ("ann_deeplab",), ("ann_fcn",),
         ("ddd17/spiking_fcn",), ("ddd17/ann_deeplab",)]


def kept(config) -> int:
    """Bytes in main memory that a forward pass with all pictures and time steps keeps for the backward pass, beside the weights."""
    model, found = zoo.build(config).train(), {}
    size, pictures, draw = config.data.size, config.train.batch, np.random.default_rng(0)
    items = draw.random((pictures, config.timesteps, 2, size, size), np.float32) if config.data.events else draw.integers(0, 256, (pictures, size, size, 3), np.uint8)
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: found.setdefault(x.untyped_storage().data_ptr(), x.untyped_storage()) and x, lambda x: x)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=config.train.precision == "bf16"):
        logits = model(inputs.coded(items, np.arange(pictures), config, torch.device("cpu"), ("poisson", 0)))       # noqa: F841  (its graph holds what is kept)
    return sum(place.nbytes() for place in found.values()) - sum({p.data_ptr(): p.nbytes for p in model.parameters() if p.data_ptr() in found}.values())


@pytest.mark.parametrize("recompute", ["false", "true"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("form", FORMS, ids=" ".join)
def test_what_is_kept_is_what_a_step_keeps(tiny, form, precision, recompute):
    """Counted on 2 and 3 pictures of 1 and 2 steps, it is right for 6 of 5; recomputing, a spiking net keeps less than half."""
    numbers = *form, f"train.precision={precision}", "encode.timesteps=5", "train.batch=6", "model.width=0.0625"
    predicted = forecast.of(config := tiny(*numbers, f"train.recompute={recompute}")).kept
    assert predicted == pytest.approx(kept(config), rel=0.02)
    if recompute == "true" and config.spiking and config.train.kernels == "auto":
        assert predicted < 0.5 * forecast.of(tiny(*numbers)).kept


@pytest.mark.parametrize("form", [("spiking_deeplab", "encode.coding=poisson"), ("ddd17/spiking_fcn",)], ids=" ".join)
def test_giving_back_a_step_keeps_one_layer_less(tiny, form):
    config = tiny(*form, "encode.timesteps=5", "train.batch=6", "model.width=0.0625", "train.give_back=true")
    assert forecast.of(config).kept == pytest.approx(kept(config), rel=0.02)
    assert forecast.of(config).kept < forecast.of(tiny(*form, "encode.timesteps=5", "train.batch=6", "model.width=0.0625")).kept


def test_it_grows_with_what_a_step_holds(tiny):
    def of(*overrides, experiment="spiking_deeplab"):
        return forecast.of(tiny(experiment, "encode.coding=poisson", *overrides))

    few, pictures, steps = of("encode.timesteps=4"), of("encode.timesteps=4", "train.batch=16"), of("encode.timesteps=8")
    assert all(1.9 < more.kept / few.kept < 2.1 and more.working == 2 * few.working for more in (pictures, steps))
    assert pictures.weights == few.weights < steps.weights, "BNTT has a scale a step"
    assert of("train.recompute=true").peak < of().peak > of("train.precision=bf16").peak
    assert of("train.kernels=reference").working > of("train.recompute=true").working > of().working
    assert of("encode.timesteps=8", experiment="ann_fcn") == of(experiment="ann_fcn"), "a twin that sees a picture has no time"
    assert of("optim.amsgrad=true").weights == 1.25 * of().weights
    assert of("train.kernels=triton") == of(), "told where there is no GPU, too"
    assert str(few).startswith(f"predicted peak {few.peak / 2**20:.0f} MiB beside the process itself: ")


def test_a_dry_run_tells_the_peak_and_writes_nothing(project, environment):
    """For a machine that this one need not be."""
    done = forked.run([sys.executable, "-m", "snnseg", "train", "voc/spiking_fcn", "--dry-run", "--set", "train.batch=5", "--set", "train.kernels=triton"],
                      cwd=project, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.startswith("voc/spiking_fcn, batch 5, 4 time steps, 32 x 32: predicted peak ") and done.stdout.count("\n") == 1
    assert sorted(p.name for p in project.iterdir()) == ["params.yaml", "settings"]


PEAK = """import re, sys
from snnseg.cli.main import main
try: main()
finally: print("peak", re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1], file=sys.stderr)"""


@pytest.mark.skipif(not Path("/proc/self/status").exists() or DEVICE == "cuda", reason="needs Linux, and a net in main memory")
def test_the_peak_of_a_training_is_near_the_dry_runs(tiny, project, environment):
    """A third off at most, the loops' first compilation included: a step of 48 pictures takes as much as half of the process."""
    numbers = [*TINY, "track.mlflow=false", "train.batch=48", "model.width=0.25", "encode.timesteps=8", "train.epochs=1"]
    prepare.prepare(config := tiny("spiking_deeplab", *numbers))

    def told(*options):
        return subprocess.run([sys.executable, "-c", PEAK, "train", "spiking_deeplab", *options, *(f"--set={n}" for n in numbers)], cwd=project, env=environment,
                              capture_output=True, text=True, timeout=120, check=True)

    predicted = int(told("--dry-run").stdout.split("predicted peak ")[1].split()[0])
    assert not (project / "data" / "run").exists()
    measured = int(told().stderr.split("peak ")[-1]) / 1024
    assert forecast.of(config).peak > 150 * 2**20 and 0.75 < measured / predicted < 1.33


SHORTAGES = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), MemoryError(), OSError(12, "Cannot allocate memory"),
             RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 1099511627776 bytes.")]


@pytest.mark.parametrize("shortage", SHORTAGES, ids=lambda e: type(e).__name__)
def test_a_step_that_runs_out_of_memory_ends_with_one_line(tiny, project, shortage, monkeypatch, capsys):
    def short(*arguments, **named):
        raise shortage

    prepare.prepare(config := tiny("spiking_fcn", "train.batch=24"))
    monkeypatch.setattr(torch.Tensor, "backward", short)
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["snnseg", "train", "spiking_fcn", *(f"--set={n}" for n in [*TINY, "track.mlflow=false", "train.batch=24"])])
    with pytest.raises(SystemExit) as ended:
        main.main()
    out, err = capsys.readouterr()
    last = f"snnseg: out of memory with train.batch 24, 2 time steps, data.size 32, model.width 0.0625: {forecast.of(config, DEVICE)}. Lower train.batch first.\n"
    assert ended.value.code == 8 and out == "" and err.endswith(last) and err.count("snnseg: ") == 1 and "Traceback" not in err


def test_the_line_comes_without_a_forecast_where_there_is_no_memory_for_one(tiny):
    def short():
        raise MemoryError

    with pytest.raises(OutOfMemory, match=r"model.width 0.0625. Lower train.batch first.$"), memory.shortage_named(tiny(), "train.batch", 8, short):
        short()
    for other in (RuntimeError("shapes do not fit"), ValueError("can't allocate memory")):
        with pytest.raises(type(other), match=str(other)), memory.shortage_named(tiny(), "train.batch", 8):
            raise other
