"""Adam against torch.optim.Adam, which it is but for what it leaves out."""
import subprocess
import sys

import pytest
import torch

from snnseg.sections import Optim
from snnseg.training.optim import Adam

SHAPES = (5, 3), (7,), (2, 1, 3, 3)


def numbers(**changes):
    return Optim(**{"lr": 3e-3, "schedule": "constant", "milestones": [], "gamma": 1.0, "weight_decay": 0.0, "amsgrad": False, "clip_norm": None} | changes)


def weights():
    return [torch.nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(k))) for k, shape in enumerate(SHAPES)]


def gradients(steps=6):
    random = torch.Generator().manual_seed(9)
    return [[torch.randn(*shape, generator=random) for shape in SHAPES] for _ in range(steps)]


def taken(optimizer, parameters, steps, *left_out):
    for gradient in steps:
        for p, g in zip(parameters, gradient, strict=True):
            p.grad = g.clone()
        optimizer.step(*left_out)


GO = torch.zeros(())


@pytest.mark.parametrize("changes", [{}, {"weight_decay": 5e-4, "amsgrad": True}], ids=str)
def test_like_torch(changes):
    mine, theirs, optim = weights(), weights(), numbers(**changes)
    taken(Adam(mine, optim), mine, gradients(), GO)
    taken(torch.optim.Adam(theirs, lr=optim.lr, weight_decay=optim.weight_decay, amsgrad=optim.amsgrad, fused=True), theirs, gradients())
    assert all(torch.equal(a, b) and not torch.equal(a, c) for a, b, c in zip(mine, theirs, weights(), strict=True))


def test_a_step_that_is_left_out_changes_nothing():
    parameters = weights()
    optimizer = Adam(parameters, numbers(amsgrad=True))
    taken(optimizer, parameters, gradients(2), GO)
    before = [x.clone() for x in (*parameters, *optimizer.steps, *sum(optimizer.state.values(), []))]
    taken(optimizer, parameters, [[torch.full(shape, torch.nan) for shape in SHAPES]], torch.ones(()))
    assert all(torch.equal(a, b) for a, b in zip(before, (*parameters, *optimizer.steps, *sum(optimizer.state.values(), [])), strict=True))


def test_goes_on_from_its_state(tmp_path):
    whole, halves = weights(), weights()
    taken(Adam(whole, numbers()), whole, gradients(), GO)
    first = Adam(halves, numbers())
    taken(first, halves, gradients()[:4], GO)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = Adam(halves, numbers())
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    taken(second, halves, gradients()[4:], GO)
    assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))


@pytest.mark.parametrize("told", [[], {"steps": []}, Adam(weights(), numbers(amsgrad=True)).state_dict(), Adam(weights()[:2], numbers()).state_dict(),
                                  lambda: torch.optim.Adam(weights()).state_dict()])        # loads torch's compiler
def test_another_state_is_refused(told):
    with pytest.raises(ValueError, match="another optimiser"):
        Adam(weights(), numbers()).load_state_dict(told() if callable(told) else told)


def test_the_rate_is_read_at_each_step():
    parameters = weights()
    optimizer = Adam(parameters, numbers())
    optimizer.rate.fill_(0.0)
    taken(optimizer, parameters, gradients(2), GO)
    assert all(torch.equal(a, b) for a, b in zip(parameters, weights(), strict=True))


def test_no_compiler_is_loaded():
    code = ("import sys, torch; from snnseg.sections import Optim; from snnseg.training.optim import Adam\n"
            "p = torch.nn.Parameter(torch.ones(3)); p.grad = torch.ones(3)\n"
            "a = Adam([p], Optim(lr=1.0, schedule='constant', milestones=[], gamma=1.0, weight_decay=0.0, amsgrad=False, clip_norm=None))\n"
            "a.step(torch.zeros(())); a.zero_grad(); assert p[0] < 1; sys.exit('torch._dynamo' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
