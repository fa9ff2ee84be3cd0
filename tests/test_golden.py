"""A change that should not matter is shown not to matter: 20 steps of each spiking net against recorded losses.

Bit for bit where torch, the instruction set and the threads are those of the record, within 1e-3 elsewhere. After a
change that is meant to change losses: make golden
"""
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from snnseg import config
from snnseg.data import mnist_cifar
from snnseg.data.loader import batches, epoch_order
from snnseg.data.store import Split
from snnseg.models import zoo
from snnseg.training import optim
from snnseg.training.checkpoint import State
from snnseg.training.step import Step

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "loss.json"
STEPS = 20
FORMS = {"spiking_deeplab direct": ["encode.coding=direct"], "spiking_deeplab signed_poisson": ["encode.coding=signed_poisson"],
         "spiking_fcn direct": ["encode.coding=direct"]}


def losses(form: str, kernels: str = "reference") -> list[float]:
    numbers = config.load(ROOT / "params.yaml", form.split()[0], [*FORMS[form], f"train.kernels={kernels}", "encode.timesteps=3", "model.width=0.125", "train.batch=8"])
    pool = mnist_cifar.pool("sample", numbers.raw, "train", 0)
    made = mnist_cifar.make(pool, "binary", 32, 0, "train", 0, STEPS * 8)
    split = Split(made["image"], made["mask"], {})
    model = zoo.build(numbers).train()
    update = Step(model, optim.build(numbers.optim, model), numbers, torch.device("cpu"))
    return [update(batch, State(step=k)).loss()
            for k, batch in enumerate(batches(split, 8, epoch_order(len(split), 0, 0)))]


def machine() -> dict[str, str | int]:
    return {"torch": torch.__version__.partition("+")[0], "cpu": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}


def test_losses_are_those_recorded(request, two_threads):
    found = {form: losses(form) for form in FORMS}
    if request.config.getoption("--refresh-golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps({"machine": machine(), "losses": found}, indent=1) + "\n")
        pytest.skip("written anew")
    golden = json.loads(GOLDEN.read_text())
    for form, recorded in golden["losses"].items():
        if golden["machine"] == machine():
            assert found[form] == recorded, form
        else:
            np.testing.assert_allclose(found[form][:5], recorded[:5], rtol=1e-3, err_msg=form)
        assert found[form][-1] < found[form][0]


@pytest.mark.parametrize("form", FORMS)
def test_compiled_operators_give_the_same_curve(form):
    """The same spikes at first; later, the last bit of a gradient has been a spike somewhere."""
    recorded, found = json.loads(GOLDEN.read_text())["losses"][form], losses(form, "auto")
    np.testing.assert_allclose(found[:3], recorded[:3], rtol=1e-3)
    assert abs(np.mean(found[-5:]) - np.mean(recorded[-5:])) < 0.1 * np.mean(recorded[-5:])
