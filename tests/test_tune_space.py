"""What a sweep draws from: every range that does not fit is refused by name, before anything heavy."""
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from snnseg import config
from snnseg.errors import ConfigError
from snnseg.tuning import space

NAME = "mnist_cifar/spiking_deeplab"


def load(*sets: str, name: str = NAME) -> config.Config:
    return config.load(ROOT / "params.yaml", name, sets)


class Middle:
    """Draws the middle of each range, and remembers what it was asked."""

    def __init__(self):
        self.asked = {}

    def suggest_float(self, name, low, high, *, log=False):
        self.asked[name] = (low, high, log)
        return (low * high) ** 0.5 if log else (low + high) / 2

    def suggest_int(self, name, low, high):
        self.asked[name] = (low, high)
        return (low + high) // 2

    def suggest_categorical(self, name, choices):
        self.asked[name] = choices
        return choices[-1]


def test_the_default_space_is_leak_threshold_and_timesteps():
    found = space.read(load())
    assert [(one.key, one.kind, one.values) for one in found] == [
        ("neuron.leak", "float", (0.5, 1.0)), ("neuron.threshold", "float", (0.5, 2.0)), ("encode.timesteps", "int", (1, 6))]


def test_each_kind_is_drawn_as_it_says():
    found = space.read(load("tune.space.optim.lr={log: [0.001, 0.1]}", "tune.space.model.norm={choice: [bntt, tdbn]}",
                            "tune.space.optim.clip_norm={choice: [null, 1.0]}", "tune.space.encode.timesteps={int: [2, 9]}"))
    drawer = Middle()
    drawn = {one.key: one.draw(drawer) for one in found}
    assert drawer.asked["optim.lr"] == (0.001, 0.1, True) and drawer.asked["neuron.leak"] == (0.5, 1.0, False)
    assert drawer.asked["encode.timesteps"] == (2, 9) and drawer.asked["optim.clip_norm"] == (None, 1.0)
    assert drawn == {"neuron.leak": 0.75, "neuron.threshold": 1.25, "encode.timesteps": 5, "optim.lr": pytest.approx(0.01), "model.norm": "tdbn", "optim.clip_norm": 1.0}
    changed = space.changed(load(), drawn)
    assert (changed.neuron.leak, changed.encode.timesteps, changed.model.norm, changed.optim.clip_norm) == (0.75, 5, "tdbn", 1.0)
    assert changed.name == NAME and changed.store == load().store


def test_a_key_may_be_written_by_section_or_with_dots_and_null_takes_it_out():
    for text in ("tune.space.optim.lr={log: [0.001, 0.1]}", "tune.space.optim={lr: {log: [0.001, 0.1]}}", "tune.space.optim.lr.log=[0.001, 0.1]"):
        assert load(text).tune.space["optim.lr"] == {"log": [0.001, 0.1]}
    assert load("tune.space.neuron.leak={choice: [0.9, 0.99]}").tune.space["neuron.leak"] == {"choice": [0.9, 0.99]}
    assert list(load("tune.space.neuron.leak=null").tune.space) == ["neuron.threshold", "encode.timesteps"]


REFUSED = {
    "tune.space.neuron.leek={float: [0.5, 1.0]}": ["tune.space.neuron.leek: unknown key", "Did you mean neuron.leak?"],
    "tune.space.zzz={int: [1, 2]}": ["tune.space.zzz: unknown key", "encode, neuron"],
    "tune.space.neuron.leak={float: [0.9, 0.9]}": ["tune.space.neuron.leak", "empty range"],
    "tune.space.neuron.leak={float: [0.9, 0.5]}": ["tune.space.neuron.leak", "empty range"],
    "tune.space.neuron.leak={float: [0.9]}": ["tune.space.neuron.leak", "empty range"],
    "tune.space.neuron.leak={float: []}": ["tune.space.neuron.leak", "empty range"],
    "tune.space.neuron.leak={float: [0.5, .inf]}": ["tune.space.neuron.leak", "empty range"],
    "tune.space.neuron.leak={float: [0.5, true]}": ["tune.space.neuron.leak", "empty range"],
    "tune.space.neuron.leak={float: [low, high]}": ["tune.space.neuron.leak", "empty range"],
    "tune.space.encode.timesteps={int: [1.5, 4]}": ["tune.space.encode.timesteps", "whole numbers"],
    "tune.space.encode.timesteps={float: [1, 4]}": ["tune.space.encode.timesteps", "valid integer"],
    "tune.space.encode.timesteps={int: [0, 4]}": ["tune.space.encode.timesteps", "greater than or equal to 1, found 0"],
    "tune.space.neuron.leak={float: [0.5, 1.2]}": ["tune.space.neuron.leak", "less than or equal to 1, found 1.2"],
    "tune.space.optim.lr={log: [0, 0.1]}": ["tune.space.optim.lr", "begins above 0"],
    "tune.space.model.norm={choice: [bntt]}": ["tune.space.model.norm", "two values or more"],
    "tune.space.model.norm={choice: [bntt, bntt]}": ["tune.space.model.norm", "none of them twice"],
    "tune.space.model.norm={choice: [bntt, tdnb]}": ["tune.space.model.norm", 'found "tdnb"'],
    "tune.space.neuron.leak={flaot: [0.5, 1.0]}": ["neuron.leak", 'found "flaot"', "Did you mean float?"],
    "tune.space.neuron.leak={float: [0.5, 1.0], int: [1, 2]}": ["tune.space.neuron.leak", "one of float, log, int, choice"],
    "tune.space.neuron.leak={}": ["tune.space.neuron.leak", "one of float, log, int, choice"],
    "tune.space.neuron.leak=0.9": ["tune.space.neuron.leak"],
    "tune.space.data.size={choice: [32, 64]}": ["tune.space.data.size", "share one store"],
    "tune.space.tune.epochs={int: [1, 4]}": ["tune.space.tune.epochs", "cannot be swept"],
    "tune.space.train.epochs={int: [1, 4]}": ["tune.space.train.epochs", "tune.epochs says"],
    "tune.space.train.keep={int: [1, 4]}": ["tune.space.train.keep", "changes no net"],
    "tune.objectives=[energy]": ["tune.objectives", "expected [miou] or [miou, energy]"],
    "tune.name=../x": ["tune.name"],
    "tune.holdout=0": ["tune.holdout", "greater than 0"],
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_does_not_fit_is_refused_by_name(text):
    with pytest.raises(ConfigError) as caught:
        space.read(load(text))
    told = str(caught.value)
    assert all(word in told for word in REFUSED[text]), told
    assert caught.value.exit_code == 3 and told.endswith((".", "?", ")", "=null"))


def test_a_number_without_effect_is_refused():
    """An ANN has no leak: all trials would be the same net."""
    with pytest.raises(ConfigError, match="neuron.leak: changes nothing in ann_fcn.*neuron.leak=null"):
        space.read(load(name="ann_fcn"))
    rest = ["tune.space.neuron.leak=null", "tune.space.neuron.threshold=null", "tune.space.encode.timesteps=null"]
    with pytest.raises(ConfigError, match="holds no number"):
        space.read(load(*rest, name="ann_fcn"))
    assert len(space.read(load(*rest, "tune.space.optim.lr={log: [0.001, 0.1]}", name="ann_fcn"))) == 1


def test_the_check_loads_nothing_heavy(environment):
    code = ("import sys\nfrom snnseg import config\nfrom snnseg.tuning import space\nspace.read(config.load('params.yaml', 'spiking_fcn'))\n"
            "print(*sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "optuna", "numpy", "mlflow", "zarr"} & set(done.stdout.split())


def test_numbers_are_told_short_and_set_exactly():
    params = {"neuron.leak": 0.9133678983902664, "encode.timesteps": 4, "train.flip": True, "optim.clip_norm": None, "model.norm": "bn", "optim.lr": 1e-05}
    assert space.told(params) == "leak 0.9134, T 4, flip true, clip_norm null, norm bn, lr 1e-05"
    words = space.arguments(params, ["model.width=0.5"])
    assert words[:2] == ["--set", "model.width=0.5"] and words[0::2] == ["--set"] * 7
    again = load(*words[1::2])
    assert space.changed(load("model.width=0.5"), params).about == again.about


def test_what_the_docs_say_fits():
    text = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
    sets, ranges = re.findall(r"--set (tune\.[^`\s\[,]+(?:\[[^\]]*\])?)", text), re.findall(r"\| `(\w+\.\w+: \{\w+: \[.*?\]\})` \|", text)
    assert len(sets) >= 4 and len(ranges) == 4
    for one in sets:
        assert space.read(load(one))
    for one in ranges:
        key, told = one.split(": ", 1)
        assert any(r.key == key for r in space.read(load(f"tune.space.{key}={told}")))
