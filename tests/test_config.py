"""params.yaml is the one source of numbers, config.py its one reader, and nothing that does not fit gets past it."""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from snnseg import config, sections
from snnseg.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent
PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")
SETTINGS = sorted((ROOT / "settings").glob("*.yaml"))
LINE = {key: node.start_mark.line + 1 for key, (node, _) in config.nodes(PARAMS).items()}      # of each key
END = len(PARAMS.splitlines())
LOSS = PARAMS[PARAMS.index("loss:\n"):PARAMS.index("\noptim:\n")]
WITHOUT_EXPERIMENTS = PARAMS[:PARAMS.index("experiments:\n")]


def fields(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Dotted names of all numbers below a model."""
    out = set()
    for name, field in model.model_fields.items():
        assert field.default is PydanticUndefined and field.default_factory is None, f"{prefix}{name} has a default"
        inner = field.annotation
        below = isinstance(inner, type) and issubclass(inner, BaseModel)
        out |= fields(inner, f"{prefix}{name}.") if below else {prefix + name}
    return out


def keys(section: dict, prefix: str = "") -> set[str]:
    out = set()
    for name, value in section.items():
        below = isinstance(value, dict) and prefix + name != "tune.space"       # whose keys are those of other sections
        out |= keys(value, f"{prefix}{name}.") if below else {prefix + name}
    return out


def test_params_and_models_are_one_to_one():
    """No default in the models, no number in the file that the models do not know."""
    numbers, _ = config.read_yaml(ROOT / "params.yaml")
    del numbers["experiments"], numbers["benchmarks"], numbers["repro"]
    assert keys(numbers) == fields(config.Sections)
    assert all(m.model_config["frozen"] and m.model_config["strict"] for m in sections.Section.__subclasses__())


def test_settings_hold_the_same_keys_of_params():
    found = {p.stem: keys(config.read_yaml(p)[0]) for p in SETTINGS}
    assert found.keys() == {"integer", "paper", "sample", "variants"}
    benchmarks = {key for key in found["paper"] if key.startswith("benchmarks.")}
    repro = {f"repro.{kind}" for kind in ("benchmarks", "experiments", *config.PART)}
    assert all(told == found["paper"] for told in found.values()) and found["paper"] - benchmarks - repro <= fields(config.Sections)
    assert benchmarks <= keys({"benchmarks": config.read().benchmarks}) and repro <= found["paper"]


def test_every_experiment_of_the_file_loads_and_paths_are_absolute(monkeypatch):
    monkeypatch.chdir(ROOT)
    file = config.read()
    assert list(file.benchmarks) == ["mnist_cifar", "voc", "ddd17"]
    main = ["spiking_deeplab", "spiking_fcn", "ann_deeplab", "ann_fcn"]
    assert list(file.experiments)[:4] == main and all(name.startswith("spiking_fcn_") for name in list(file.experiments)[4:])
    assert config.names() == [f"{b}/{e}" for b in file.benchmarks for e in file.experiments]
    assert config.reproduced() == [f"{b}/{e}" for b in file.benchmarks for e in main]
    for name in config.reproduced():
        loaded = config.load(name=name)
        assert loaded.name == name == f"{loaded.data.dataset}/{loaded.model.name}" and loaded.store.name == loaded.benchmark
        assert all(p.is_absolute() for p in (loaded.root, loaded.raw, loaded.store, loaded.model_folder, loaded.report))
        assert loaded.timesteps == (4 if loaded.spiking or loaded.benchmark == "ddd17" else 1)
        assert (loaded.classes, loaded.channels) == {"mnist_cifar": (2, 3), "voc": (21, 3), "ddd17": (6, 2)}[loaded.benchmark]


def test_a_name_is_a_benchmark_an_experiment_or_both():
    file = config.read(ROOT / "params.yaml")
    assert file.find(None) == ("mnist_cifar", "") and file.find("voc") == ("voc", "")
    assert file.find("ann_fcn") == ("mnist_cifar", "ann_fcn") and file.find("voc/ann_fcn") == ("voc", "ann_fcn")
    for name in ("voc/ann_fnc", "vco/ann_fcn", "/ann_fcn", "ddd18", "voc/voc"):
        with pytest.raises(ConfigError, match="is named"):
            file.find(name)


def test_changed_data_gets_a_store_of_its_own():
    """A store that DVC knows is not written over by a command with --set; what does not shape the store leaves its name."""
    usual = config.load(ROOT / "params.yaml", "voc/ann_fcn")
    marked = config.load(ROOT / "params.yaml", "voc/ann_fcn", ["data.voc.fit=letterbox"])
    assert usual.store.name == "voc" and marked.store.name.startswith("voc-") and marked.protocol == "letterbox@32"
    for same in ("data.voc.fit=stretch", "train.epochs=9", "data.mnist_cifar.train=100", "data.workers=1", "data.allow_partial=true"):
        assert config.load(ROOT / "params.yaml", "voc/ann_fcn", [same]).store == usual.store


def changed(old: str, new: str, text: str = PARAMS) -> str:
    assert text.count(old) >= 1, old
    return text.replace(old, new, 1)


def more(experiment: str) -> str:
    return f"{PARAMS}  {experiment}\n"


# name: (file, words that the message has)
REFUSED = {
    "unknown key": (changed("  timesteps: 4", "  timestep: 4"), [f":{LINE['encode.timesteps']}: encode.timestep: unknown key. Did you mean timesteps?"]),
    "unknown key, far from all": (changed("  timesteps: 4", "  timesteps: 4\n  qqq: 1"), [f":{LINE['encode.mean']}: encode.qqq:", "Known here: coding, timesteps, mean, std"]),
    "unknown section": (f"{PARAMS}\nextra:\n  a: 1\n", [f":{END + 2}: extra: unknown key. Known here: data, encode"]),
    "section near miss": (changed("\nencode:", "\nencoder:"), [f":{LINE['encode']}: encoder: unknown key. Did you mean encode?"]),
    "dotted key": (f"{PARAMS}\ntrain.epochs: 3\n", [": train.epochs: unknown key"]),
    "text for a number": (changed("lr: 0.003", "lr: fast"), [f":{LINE['optim.lr']}: optim.lr:", "valid number", 'found "fast"']),
    "quoted number": (changed("lr: 0.003", 'lr: "0.003"'), [f":{LINE['optim.lr']}: optim.lr:", 'found "0.003"']),
    "quoted integer": (changed("epochs: 4", 'epochs: "4"'), [f":{LINE['train.epochs']}: train.epochs:", 'found "4"']),
    "float for an integer": (changed("epochs: 4", "epochs: 4.0"), [f":{LINE['train.epochs']}: train.epochs:", "integer", "found 4.0"]),
    "power for an integer": (changed("epochs: 4", "epochs: 1e3"), ["train.epochs:", "found 1000.0"]),
    "boolean for an integer": (changed("epochs: 4", "epochs: true"), ["train.epochs:", "found true"]),
    "boolean for a number": (changed("lr: 0.003", "lr: true"), ["optim.lr:", "found true"]),
    "number for a boolean": (changed("flip: false", "flip: 0"), [f":{LINE['train.flip']}: train.flip:", "boolean", "found 0"]),
    "text for a boolean": (changed("flip: false", 'flip: "false"'), ["train.flip:", 'found "false"']),
    "yes for a boolean": (changed("flip: false", "flip: yes"), ["train.flip:", 'found "yes"']),
    "list for a scalar": (changed("epochs: 4", "epochs: [4]"), ["train.epochs:", "found [4]"]),
    "mapping for a scalar": (changed("epochs: 4", "epochs: {a: 4}"), ["train.epochs:", 'found {"a": 4}']),
    "scalar for a list": (changed("milestones: [0.5]", "milestones: 0.5"), [f":{LINE['optim.milestones']}: optim.milestones:", "list", "found 0.5"]),
    "text in a list": (changed("milestones: [0.5]", "milestones: [half]"), [f":{LINE['optim.milestones']}: optim.milestones.0:", 'found "half"']),
    "mapping with odd keys in a list": (changed("milestones: [0.5]", "milestones: [{2020-01-01: 1}]"), [f":{LINE['optim.milestones']}: optim.milestones.0:"]),
    "scalar for a section": (changed(LOSS, "loss: 3\n"), [f":{LINE['loss']}: loss: expected keys below it (void, spike_rate, background), found 3"]),
    "list for a section": (changed(LOSS, "loss: [ignore]\n"), [f":{LINE['loss']}: loss:", 'found ["ignore"]']),
    "section without keys": (changed(LOSS, "loss:\n"), [f":{LINE['loss']}: loss:", "found null"]),
    "key without a value": (changed("epochs: 4", "epochs:"), [f":{LINE['train.epochs']}: train.epochs:", "found null"]),
    "date": (changed("epochs: 4", "epochs: 2020-01-01"), ["train.epochs:", "2020-01-01"]),
    "zero": (changed("epochs: 4", "epochs: 0"), ["train.epochs:", "greater than or equal to 1, found 0"]),
    "negative": (changed("lr: 0.003", "lr: -1.0"), ["optim.lr:", "greater than 0, found -1.0"]),
    "leak above one": (changed("leak: 0.99", "leak: 1.5"), [f":{LINE['neuron.leak']}: neuron.leak:", "less than or equal to 1"]),
    "list out of range": (changed("milestones: [0.5]", "milestones: [1.5]"), [f":{LINE['optim.milestones']}: optim.milestones.0:", "found 1.5"]),
    "size 33": (changed("size: 32", "size: 33"), [f":{LINE['data.size']}: data.size:", "32", "found 33"]),
    "size as float": (changed("size: 32", "size: 32.0"), [f":{LINE['data.size']}: data.size:", "found 32.0"]),
    "choice near miss": (changed("surrogate: triangle", "surrogate: triangel"), [f":{LINE['neuron.surrogate']}: neuron.surrogate:", "'arctan'", "Did you mean triangle?"]),
    "pictures above test": (changed("test: 480", "test: 2"), ["evaluate.pictures is larger than data.mnist_cifar.test"]),
    "missing key": (changed("  timesteps: 4\n", ""), [f":{LINE['encode']}: encode.timesteps: missing. Add it"]),
    "missing section": (changed(LOSS, ""), [": loss: missing"]),
    "empty": ("", ["holds no sections"]),
    "comments only": ("# nothing\n", ["holds no sections"]),
    "scalar file": ("42\n", ["holds no sections"]),
    "list on top": ("- a\n- b\n", ["holds no sections"]),
    "duplicate key": (changed("  timesteps: 4", "  timesteps: 4\n  timesteps: 5"), [f":{LINE['encode.mean']}:", 'duplicate key "timesteps"']),
    "duplicate section": (f"{PARAMS}\nloss:\n  void: ignore\n", [f":{END + 2}:", 'duplicate key "loss"']),
    "tab": (changed("  timesteps: 4", "\ttimesteps: 4"), [f":{LINE['encode.timesteps']}: not valid YAML", "\\t"]),
    "bad indentation": (changed("  timesteps: 4", "   timesteps: 4"), [f":{LINE['encode.timesteps']}: not valid YAML"]),
    "unclosed bracket": (changed("milestones: [0.5]", "milestones: [0.5"), [f":{LINE['optim.gamma']}: not valid YAML"]),
    "unclosed quote": (changed("void: ignore", 'void: "ignore'), ["not valid YAML"]),
    "two documents": (f"{PARAMS}---\na: 1\n", [f":{END + 1}: not valid YAML", "another document"]),
    "integer key": (changed("  timesteps: 4", "  3: 4"), [f":{LINE['encode.timesteps']}:", "the key '3' is not a name"]),
    "null key": (changed("  timesteps: 4", "  ~: 4"), [f":{LINE['encode.timesteps']}:", "'~' is not a name"]),
    "list as a key": (changed("  timesteps: 4", "  ? [a, b]\n  : 4"), [f":{LINE['encode.timesteps']}:", "is not a name"]),
    "anchor on a number": (changed("timesteps: 4", "timesteps: &a 4"), [f":{LINE['encode.timesteps']}: YAML anchors and aliases"]),
    "alias": (changed("epochs: 4", "epochs: *a", changed("timesteps: 4", "timesteps: &a 4")), [f":{LINE['encode.timesteps']}: YAML anchors and aliases"]),
    "undefined alias": (changed("epochs: 4", "epochs: *nope"), [f":{LINE['train.epochs']}: YAML anchors and aliases"]),
    "billion laughs": ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", [":1: YAML anchors and aliases"]),
    "merge key": (changed("  void: ignore", "  <<: {void: ignore}"), [f":{LINE['loss.void']}: YAML merge keys"]),
    "tag that would run a command": (changed("timesteps: 4", "timesteps: !!python/object/apply:os.system ['touch pwned']"), [f":{LINE['encode.timesteps']}: YAML tags"]),
    "tag that names a function": (changed("timesteps: 4", "timesteps: !!python/name:os.system"), [f":{LINE['encode.timesteps']}: YAML tags"]),
    "harmless tag": (changed("timesteps: 4", 'timesteps: !!int "4"'), [f":{LINE['encode.timesteps']}: YAML tags"]),
    "binary tag": (changed("timesteps: 4", "timesteps: !!binary aGVsbG8="), [f":{LINE['encode.timesteps']}: YAML tags"]),
    "set tag": (changed("loss:\n", "loss: !!set\n"), [f":{LINE['loss']}: YAML tags"]),
    "own tag": (changed("timesteps: 4", "timesteps: !foo 4"), [f":{LINE['encode.timesteps']}: YAML tags"]),
    "binary garbage": (bytes(range(256)) * 4, ["not UTF-8 text at byte 128"]),
    "Latin-1": (changed("# Every", "# Évery").encode("latin-1"), ["not UTF-8 text at byte 2"]),
    "UTF-16": (PARAMS.encode("utf-16"), ["not UTF-8 text"]),
    "NUL": (changed("timesteps: 4", "timesteps: 4\0"), ["#x0000"]),
    "2 MB": (PARAMS + "#" * 2**21, ["larger than 1048576 bytes"]),
    "10 000 brackets": (f"a: {'[' * 10_000}{']' * 10_000}\n", [":1: nested deeper than 10 levels"]),
    "10 000 open brackets": (f"a: {'[' * 10_000}\n", [":1: nested deeper than 10 levels"]),
    "10 000 braces": (f"a: {'{a: ' * 10_000}\n", [":1: nested deeper than 10 levels"]),
    "1000 levels of indentation": ("".join(f"{' ' * i}a:\n" for i in range(1000)), [":11: nested deeper than 10 levels"]),
    "nan": (changed("lr: 0.003", "lr: .nan"), [f":{LINE['optim.lr']}: optim.lr: must be a finite number, found NaN"]),
    "inf": (changed("lr: 0.003", "lr: .inf"), ["optim.lr: must be a finite number"]),
    "minus inf": (changed("mean: 130.0", "mean: -.inf"), [f":{LINE['encode.mean']}: encode.mean: must be a finite number"]),
    "overflow to inf": (changed("lr: 0.003", "lr: 1e999"), ["optim.lr: must be a finite number"]),
    "400 digits": (changed("epochs: 4", "epochs: " + "9" * 400), ["train.epochs:", "less than or equal to 1000000000"]),
    "400 digits for a float": (changed("lr: 0.003", "lr: " + "9" * 400), ["optim.lr:"]),
    "5000 digits": (changed("epochs: 4", "epochs: " + "9" * 5000), [f":{LINE['train.epochs']}: a value of 5000 characters"]),
    "20 000 hex digits": (changed("epochs: 4", "epochs: 0x" + "f" * 20_000), [f":{LINE['train.epochs']}: a value of 20002 characters"]),
    "seed too large": (changed("seed: 0", f"seed: {2**32}"), [f":{LINE['data.seed']}: data.seed:", "less than 4294967296"]),
    "long text": (changed("void: ignore", "void: " + "x" * 10_000), [f":{LINE['loss.void']}: a value of 10000 characters"]),
    "key with a line break": (f'{PARAMS}\n"foo\\nbar": 1\n', ["foo\\nbar: unknown key"]),
    "key with an escape code": (f'{PARAMS}\n"foo\\e[31mbar": 1\n', ["foo\\x1b[31mbar: unknown key"]),
    "value with a line break": (changed("void: ignore", 'void: "ig\\nnore"'), ["loss.void:", "ig\\nnore"]),
    "lone surrogate": (changed("void: ignore", 'void: "\\ud800"'), ["loss.void:"]),
    "tracking name as a path": (changed("experiment: snnseg", "experiment: ../x"), [f":{LINE['track.experiment']}: track.experiment:", 'found "../x"']),
    "no repro": (changed("repro:\n  benchmarks: [mnist_cifar, voc, ddd17]\n", "benchmarked:\n"), [": repro: expected lists of benchmarks and experiments"]),
    "repro, unknown": (changed("benchmarks: [mnist_cifar, voc, ddd17]", "benchmarks: [mnist_cifar, vco]"),
                       [f":{LINE['repro.benchmarks']}: repro.benchmarks: none of benchmarks is named 'vco'. Did you mean voc?"]),
    "repro, far from all": (changed("experiments: [spiking_deeplab,", "experiments: [qqq,"), [f":{LINE['repro.experiments']}: repro.experiments:", "Known: spiking_deeplab"]),
    "repro, twice": (changed("benchmarks: [mnist_cifar, voc, ddd17]", "benchmarks: [voc, voc]"), [f":{LINE['repro.benchmarks']}: repro.benchmarks: expected a list of names, each once"]),
    "repro, none": (changed("benchmarks: [mnist_cifar, voc, ddd17]", "benchmarks: []"), ["repro.benchmarks: expected a list of names", "found []"]),
    "repro, a name": (changed("benchmarks: [mnist_cifar, voc, ddd17]", "benchmarks: voc"), ["repro.benchmarks: expected a list of names", 'found "voc"']),
    "repro, a number": (changed("benchmarks: [mnist_cifar, voc, ddd17]", "benchmarks: [3]"), ["repro.benchmarks: expected a list of names", "found [3]"]),
    "no experiments": (WITHOUT_EXPERIMENTS, [": experiments: expected names"]),
    "null experiments": (f"{WITHOUT_EXPERIMENTS}experiments:\n", [f":{LINE['experiments']}: experiments:", "found null"]),
    "empty experiments": (f"{WITHOUT_EXPERIMENTS}experiments: {{}}\n", [f":{LINE['experiments']}: experiments:", "found {}"]),
    "experiments as a list": (f"{WITHOUT_EXPERIMENTS}experiments: [a, b]\n", [f":{LINE['experiments']}: experiments:", 'found ["a", "b"]']),
    "experiment ../../x": (more("../../x: {}"), [f":{END + 1}: experiments.../../x: a name has"]),
    "experiment /x": (more("/x: {}"), [f":{END + 1}: experiments./x: a name has"]),
    "experiment <script>": (more('"<script>alert(1)</script>": {}'), [f":{END + 1}: experiments.<script>", "a name has"]),
    "experiment without a name": (more('"": {}'), ["a name has"]),
    "experiment --help": (more("--help: {}"), [f":{END + 1}: experiments.--help: a name has"]),
    "experiment with 300 letters": (more("a" * 300 + ": {}"), ["up to 40 letters"]),
    "experiment with NUL": (more('"a\\0b": {}'), ["experiments.a\\x00b: a name has"]),
    "experiment with ü": (more("ü: {}"), ["experiments.ü: a name has"]),
    "experiment 3": (more("3: {}"), [f":{END + 1}:", "the key '3' is not a name"]),
    "experiment true": (more("true: {}"), [f":{END + 1}:", "the key 'true' is not a name"]),
    "experiment null": (more("x:"), [f":{END + 1}: experiments.x: expected changes to sections, found null"]),
    "experiment 7": (more("x: 7"), [f":{END + 1}: experiments.x: expected changes to sections, found 7"]),
    "experiment, unknown key": (more("x: {model: {nmae: ann_fcn}}"), [f":{END + 1}: experiments.x.model.nmae: unknown key. Did you mean name?"]),
    "experiment, unknown section": (more("x: {modle: {name: ann_fcn}}"), [f":{END + 1}: experiments.x.modle: unknown key. Did you mean model?"]),
    "experiment, wrong type": (more("x:\n    train:\n      epochs: many"), [f":{END + 3}: experiments.x.train.epochs:", 'found "many"']),
    "experiment, wrong choice": (more("x:\n    model:\n      name: ann_fnc"), [f":{END + 3}: experiments.x.model.name:", "Did you mean ann_fcn?"]),
    "experiment, section null": (more("x:\n    train:"), [f":{END + 2}: experiments.x.train: expected keys below it (epochs"]),
    "experiment, cross check": (more("x:\n    data: {mnist_cifar: {test: 2}}"), [f":{END + 1}: experiments.x: evaluate.pictures is larger"]),
    "no such experiment to convert": (changed("convert: [ann_deeplab", "convert: [ann_deplab"),
                                      [f":{LINE['repro.convert']}: repro.convert: none of repro.experiments is named 'ann_deplab'. Did you mean ann_deeplab?"]),
    "one to convert that is not made": (changed("experiments: [spiking_deeplab, spiking_fcn, ann_deeplab, ann_fcn]", "experiments: [spiking_deeplab, spiking_fcn, ann_fcn]"),
                                        [f":{LINE['repro.convert']}: repro.convert: none of repro.experiments is named 'ann_deeplab'"]),
    "percentile above all": (changed("percentile: 100.0", "percentile: 100.5"), [f":{LINE['conversion.percentile']}: conversion.percentile:", "less than or equal to 100"]),
    "percentile of nothing": (changed("percentile: 100.0", "percentile: 0.0"), ["conversion.percentile:", "greater than 0, found 0.0"]),
    "no time step at all": (changed("timesteps: [1, 2, 4,", "timesteps: [0, 2, 4,"), [f":{LINE['conversion.timesteps']}: conversion.timesteps.0:", "found 0"]),
    "no time steps": (changed("inference: [1, 2, 3, 6, 8, 16]", "inference: []"), [f":{LINE['time_steps.inference']}: time_steps.inference:", "found []"]),
    "a rule that BNTT does not have": (changed("past_trained: [hold,", "past_trained: [holt,"), ["time_steps.past_trained.0:", "Did you mean hold?"]),
    "experiment in an experiment": (more("x: {experiments: {y: {}}}"), [f":{END + 1}: experiments.x.experiments: unknown key"]),
    "experiment sets the root": (more("x: {root: /}"), [f":{END + 1}: experiments.x.root: unknown key"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_place_and_remedy(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, words = REFUSED[name]
    path = tmp_path / "params.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    start = time.process_time()        # whoever else uses the machine
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    message = str(caught.value)
    assert time.process_time() - start < 1
    assert message.startswith(str(path)) and message.isprintable() and len(message) < len(str(path)) + 420
    assert all(word in message for word in words), message
    assert [p.name for p in tmp_path.iterdir()] == ["params.yaml"], "something was written"


def test_enough_mutations():
    assert len(REFUSED) >= 100


@pytest.mark.parametrize("name", ["unknown key", "tab", "tag that would run a command", "10 000 brackets", "experiment ../../x", "UTF-16"])
def test_the_command_refuses_in_one_line_and_exit_code_3(name, tmp_path, environment):
    content, words = REFUSED[name]
    path = tmp_path / "my params ü.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "snnseg", "config", "--params", path.name], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, encoding="utf-8")
    assert time.perf_counter() - start < 5      # < 1 s on a machine that has nothing else to do
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr.startswith(f"snnseg: {path.name}") and done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words)
    assert list(tmp_path.iterdir()) == [path], "something was written"


def test_a_place_that_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place, told in ((tmp_path, "not a regular file"), (tmp_path / "none.yaml", "not found"), (tmp_path / "pipe", "not a regular file"),
                        (Path("/dev/zero"), "not a regular file"), (tmp_path / ("x" * 300), "cannot be read")):
        with pytest.raises(ConfigError, match=told):
            config.load(place)


ACCEPTED = {
    "byte order mark": b"\xef\xbb\xbf" + PARAMS.encode(),
    "CRLF": PARAMS.replace("\n", "\r\n").encode(),
    "document start": f"---\n{PARAMS}".encode(),
    "experiment without changes": more("x: {}").encode(),
    "whole number for a float": changed("lr: 0.003", "lr: 1").encode(),
    "power": changed("lr: 0.003", "lr: 3e-3").encode(),
    "null where null may be": changed("clip_norm: null", "clip_norm:").encode(),
    "four spaces": PARAMS.replace("\n    ", "\n        ").replace("\n  ", "\n    ").encode(),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_other_spellings_simply_work(name, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(ACCEPTED[name])
    found = config.load(path)
    expected = config.load(ROOT / "params.yaml")
    if name == "whole number for a float":
        expected = config.load(ROOT / "params.yaml", None, ["optim.lr=1.0"])
        assert type(found.optim.lr) is float
    assert found.model_dump(exclude={"root"}) == expected.model_dump(exclude={"root"})


@pytest.mark.parametrize(("experiment", "told"), [("spikng_fcn", "Did you mean spiking_fcn?"), ("zzz", "Known: mnist_cifar, voc, ddd17, spiking_deeplab, spiking_fcn"),
                                                   ("../../x", "Known:"), ("a\nb", r"'a\\nb'"), ("x" * 10_000, "Known:"), ("", "Known:")])
def test_an_unknown_experiment_names_the_nearest(experiment, told):
    with pytest.raises(ConfigError) as caught:
        config.load(ROOT / "params.yaml", experiment)
    assert told.replace("\\\\", "\\") in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) < 400


@pytest.mark.parametrize(("text", "value"), [
    ("train.epochs=3", {"train": {"epochs": 3}}),
    (" train.epochs = 3", {"train": {"epochs": 3}}),
    ("optim.lr=1e-4", {"optim": {"lr": 1e-4}}),
    ("optim.clip_norm=null", {"optim": {"clip_norm": None}}),
    ("optim.clip_norm=", {"optim": {"clip_norm": None}}),
    ("train.flip=true", {"train": {"flip": True}}),
    ("optim.milestones=[0.25, 0.75]", {"optim": {"milestones": [0.25, 0.75]}}),
    ("track.experiment=a=b", {"track": {"experiment": "a=b"}}),
    ("data.mnist_cifar={train: 3, test: 9}", {"data": {"mnist_cifar": {"train": 3, "test": 9}}}),
    ("data.mnist_cifar.train=5", {"data": {"mnist_cifar": {"train": 5}}}),
])
def test_set_is_read_as_yaml(text, value):
    assert config.parse_set(text) == value


@pytest.mark.parametrize(("text", "told"), [
    ("", "expected section.key=value"), ("train.epochs", "expected section.key=value"), ("=3", "expected section.key=value"),
    ("epochs=3", "expected section.key=value"), (".epochs=3", "expected section.key=value"), ("train..epochs=3", "expected section.key=value"),
    ("train.=3", "expected section.key=value"), ("train.epochs=[", "not plain YAML"), ("train.epochs=}", "not plain YAML"),
    ("train.epochs=a: b", "not plain YAML"), ("train.epochs=3\nw: 4", "not plain YAML"), ("train.epochs=\x1b[31m", "not plain YAML"),
    ("train.epochs={3: 4}", "not plain YAML"), ("train.epochs=&a 3", "anchors"), ("train.epochs={<<: {a: 3}}", "merge keys"),
    ("train.epochs=!!python/object/apply:os.system ['touch pwned']", "tags"), ("train.epochs=" + "[" * 5000, "nested deeper"),
    ("train.epochs=" + "9" * 5000, "5000 characters"),
    ("train.epochs=x", 'train.epochs: input should be a valid integer, found "x"'), ("train.epochs=", "found null"),
    ("train.epochs=3.0", "found 3.0"), ("train.flip=yes", 'found "yes"'), ("train.epochs.x=3", "train.epochs: input should be a valid integer"),
    ("train.epoch=3", "train.epoch: unknown key. Did you mean epochs?"), ("trian.epochs=3", "trian: unknown key. Did you mean train?"),
    ("experiments.x.model.name=ann_fcn", "experiments: unknown key"), ("root.x=/", "root: unknown key"), ("data.mnist_cifar=3", "found 3"),
    ("data.mnist_cifar.test=2", "evaluate.pictures is larger"), ("optim.milestones=[0.1, x]", 'optim.milestones.1: input should be a valid number, found "x"'),
    ("loss.void=Ignore", "Did you mean ignore?"),
])
def test_a_bad_set_is_named(text, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        config.load(ROOT / "params.yaml", "ann_fcn", ["train.batch=2", text])
    message = str(caught.value)
    assert f"--set {text.splitlines()[0][:150] if text else ''}".replace("\x1b", "\\x1b") in message and told in message
    assert message.isprintable() and len(message) < 420 and not list(tmp_path.iterdir())


def test_the_bad_one_of_several_sets_is_named():
    with pytest.raises(ConfigError, match=r"^--set train\.bach=3: train\.bach: unknown key\. Did you mean batch\?$"):
        config.load(ROOT / "params.yaml", None, ["train.epochs=3", "train.bach=3", "train.flip=true"])


def test_sets_come_after_the_experiment_and_the_later_wins():
    loaded = config.load(ROOT / "params.yaml", "ann_fcn", ["train.epochs=bad", "model.name=ann_deeplab", "train.epochs=3", "train.epochs=5"])
    assert (loaded.train.epochs, loaded.model.name, loaded.experiment) == (5, "ann_deeplab", "ann_fcn")
    both = config.load(ROOT / "params.yaml", None, ["data.mnist_cifar.test=2", "evaluate.pictures=2"])     # fit only together
    assert both.evaluate.pictures == both.data.mnist_cifar.test == 2


def test_a_config_cannot_be_changed_and_shows_itself_as_json():
    loaded = config.load(ROOT / "params.yaml", "ann_fcn")
    with pytest.raises(ValueError, match="frozen"):
        loaded.train.epochs = 3
    assert json.loads(loaded.model_dump_json())["train"]["epochs"] == 4


def test_merge_alters_neither_side():
    base, changes = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}, "d": {"e": 1}}
    assert config.merge(base, changes) == {"a": {"b": 9, "c": 2}, "d": {"e": 1}}
    assert (base, changes) == ({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}, "d": {"e": 1}})


@pytest.mark.parametrize(("change", "same"), [
    ("train.log_every=3", True), ("train.keep=1", True), ("train.checkpoint_every=7", True), ("train.validate_every=0", True),
    ("data.workers=3", True), ("track.mlflow=false", True), ("evaluate.batch=3", True),
    ("train.seed=1", False), ("optim.lr=0.1", False), ("encode.mean=0.0", False), ("neuron.leak=0.5", False), ("loss.void=background", False),
    ("model.width=1.0", False), ("train.batch=3", False),
])
def test_the_fingerprint_follows_what_shapes_the_weights(change, same):
    as_is = config.load(ROOT / "params.yaml", "spiking_fcn")
    now = config.load(ROOT / "params.yaml", "spiking_fcn", [change])
    assert (now.fingerprint("s", "c") == as_is.fingerprint("s", "c")) is same
    assert as_is.fingerprint("s", "c") != as_is.fingerprint("t", "c")
