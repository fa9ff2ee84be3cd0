"""A net as one file: what it says, that it answers as before, on which stores it is measured, and every kind of bad file through the command."""
import hashlib
import io
import json
import pickle
import re
import shutil
import sys
import zipfile

import numpy as np
import pytest
import torch
from conftest import SMALL, TINY
from safetensors import safe_open
from safetensors.torch import load_file, save

from snnseg import config
from snnseg.cli import main
from snnseg.data import prepare
from snnseg.errors import DataError, StoreError, UsageError
from snnseg.models import published, saved
from snnseg.report import activations, conversion, energy, export, result, robustness, timesteps

DATA = [text for text in TINY if text.startswith("data.mnist_cifar.")]


def snnseg(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["snnseg", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main.main()
    told = capsys.readouterr()
    return ended.value.code or 0, told.out, told.err


@pytest.fixture
def net(trained, tmp_path):
    """The config of a trained net, and the net as a file: net("ann_fcn", dtype="fp32")."""
    def make(experiment: str = "spiking_deeplab", *overrides: str, **options):
        numbers = trained(experiment, "energy.pictures=5", *overrides)
        return numbers, export.export(numbers.model_folder, numbers, tmp_path / f"{experiment}.safetensors", **options).path
    return make


@pytest.mark.parametrize("experiment", ["spiking_deeplab", "ann_deeplab"])
def test_the_file_alone_says_what_it_is(net, experiment):
    numbers, file = net(experiment)
    about, before = saved.read_about(numbers.model_folder), load_file(numbers.model_folder / "model.safetensors")
    with safe_open(file, "pt") as opened:
        told = json.loads(opened.metadata()["snnseg"])
    assert told["about"] == about | {"config": {k: about["config"][k] for k in ("data", "encode", "loss", "model", "neuron", "optim", "train")}}
    assert told["weights"] == "bf16" and told["scores"] == {"test": None, "energy": None, "excerpt": None}
    now = load_file(file)
    assert now.keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(now[name], tensor.bfloat16() if tensor.is_floating_point() else tensor), name
    assert experiment != "ann_deeplab" or any(not t.is_floating_point() for t in now.values()), "counters are exact"


def test_the_same_net_is_the_same_bytes(net):
    numbers, file = net()
    first = file.read_bytes()
    made = export.export(numbers.model_folder, numbers, file)
    assert file.read_bytes() == first and made.size == len(first) and made.sha256 == hashlib.sha256(first).hexdigest()
    with pytest.raises(UsageError, match="already there.*--force"):
        export.export(numbers.model_folder, numbers, file, "fp32")
    assert file.read_bytes() == first
    export.export(numbers.model_folder, numbers, file, "fp32", force=True)
    assert len(file.read_bytes()) > 1.5 * len(first)
    assert [p.name for p in file.parent.iterdir() if p.is_file()] == [file.name]


def test_in_float32_every_measurement_is_the_saved_net_s(net):
    numbers, file = net("spiking_deeplab", "robustness.gaussian=[40.0]", "robustness.salt_pepper=[0.2]", "robustness.draws=2", dtype="fp32")
    for measure in (result.measure, energy.measure, robustness.measure, timesteps.measure, activations.measure):
        of_file, of_folder = measure(file, numbers), measure(numbers.model_folder, numbers)
        assert (of_file.metrics == of_folder.metrics) if measure is result.measure else (of_file.summary == of_folder.summary), measure.__module__
    twin, file = net("ann_fcn", "conversion.bits=[3]", dtype="fp32")
    assert conversion.measure(file, twin).summary == conversion.measure(twin.model_folder, twin).summary


def test_scores_are_those_of_what_was_written(net, capsys):
    numbers, file = net("spiking_fcn", score=True)
    told = published.read(file).scores
    found, counted = result.measure(file, numbers).metrics, energy.measure(file, numbers).summary
    assert (told.test.pictures, told.test.miou, told.test.background_miou) == (16, found["miou"], found["background_miou"])
    assert (told.energy.pictures, told.energy.exact_mj, told.energy.spikes) == (5, counted["energy_mj"]["exact"], counted["spikes"]["a_picture"])
    assert "not on the store" not in capsys.readouterr().err, "it is the one that it was trained with"
    assert "mIoU" in export.lines(export.export(numbers.model_folder, numbers, file, score=True))


def test_a_store_of_other_pictures_is_named_in_a_line(net, monkeypatch, capsys, tiny):
    numbers, file = net()
    other = config.load(numbers.root / "params.yaml", "mnist_cifar/ann_fcn", [*TINY, *SMALL, "data.mnist_cifar.test=9"])
    prepare.prepare(other)
    words = [w for text in [*DATA[:1], "data.mnist_cifar.test=9", "evaluate.pictures=3"] for w in ("--set", text)]
    code, out, err = snnseg(monkeypatch, capsys, "evaluate", "spiking_deeplab", "--weights", file, *words, "--params", numbers.root / "params.yaml")
    assert code == 0 and sum(json.loads(out)["pixels"].values()) == 9 * 32 * 32 and json.loads(out)["experiment"] == "spiking_deeplab"
    assert err.count("\n") == 1 and str(other.store) in err and "not on the store that it was trained with" in err
    assert not numbers.result_folder.joinpath("metrics.json").exists(), "shown only"


@pytest.mark.parametrize(("change", "told"), [
    ("data.mnist_cifar.classes=digits", "mnist_cifar digits@32, 11 classes.*binary@32, 2 classes.*--set data.mnist_cifar.classes=binary"),
    ("data.size=64", "binary@64.*binary@32.*--set data.size=32"), ("data.dataset=voc", "voc stretch@32, 21 classes.*Name a benchmark of mnist_cifar")])
def test_a_store_that_does_not_fit_is_refused(net, monkeypatch, capsys, change, told):
    numbers, file = net()
    code, out, err = snnseg(monkeypatch, capsys, "evaluate", "spiking_deeplab", "--weights", file, "--set", change, "--params", numbers.root / "params.yaml")
    assert code == 5 and out == "" and err.count("\n") == 1 and re.search(told, err), err


@pytest.mark.parametrize(("words", "told"), [
    (["evaluate", "ann_fcn", "--weights", "x.safetensors", "--model", "y"], "two nets"), (["evaluate", "ann_fcn", "--weights", "x.pt"], "is a .safetensors file"),
    (["evaluate", "ann_fcn", "--weights", "x.safetensors", "--set", "encode.timesteps=3"], "keeps its own numbers"),
    (["export", "ann_fcn", "x.safetensors", "--set", "data.seed=3"], "keeps its own numbers")])
def test_what_makes_no_sense_is_a_usage_error(monkeypatch, capsys, project, words, told):
    code, out, err = snnseg(monkeypatch, capsys, *words, "--params", project / "params.yaml")
    assert code == 2 and told in err and err.count("\n") == 1


def test_export_by_the_command(net, monkeypatch, capsys, tmp_path):
    numbers, _ = net()
    shown = ("export", "spiking_deeplab", tmp_path / "out" / "x.safetensors", "--params", numbers.root / "params.yaml")
    code, out, err = snnseg(monkeypatch, capsys, *shown)
    data = (tmp_path / "out" / "x.safetensors").read_bytes()
    assert code == 0 and err == "" and hashlib.sha256(data).hexdigest() in out and f"{len(data):,} bytes".replace(",", " ") in out
    code, _, err = snnseg(monkeypatch, capsys, *shown, "--dtype", "fp32")
    assert code == 2 and "already there" in err and (tmp_path / "out" / "x.safetensors").read_bytes() == data
    assert snnseg(monkeypatch, capsys, *shown, "--dtype", "fp32", "--force")[0] == 0
    code, _, err = snnseg(monkeypatch, capsys, "export", "spiking_deeplab", tmp_path / "x.pt", *shown[3:])
    assert code == 2 and "ends with .safetensors" in err and not (tmp_path / "x.pt").exists()


# what may be wrong with a file: each takes its bytes and gives others

def parts(data: bytes) -> tuple[dict, bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8:8 + size]), data[8 + size:]


def joined(header: object, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def header_with(change):
    """The file with its header changed in place."""
    def made(data: bytes) -> bytes:
        header, body = parts(data)
        change(header)
        return joined(header, body)
    return made


def told_with(*keys: object):
    """The file with a value of what it says of itself replaced: told_with("about", "store", "x")."""
    def change(header: dict) -> None:
        told = json.loads(header["__metadata__"]["snnseg"])
        place = told
        for key in keys[:-2]:
            place = place[key]
        place[keys[-2]] = keys[-1]
        header["__metadata__"]["snnseg"] = json.dumps(told)
    return header_with(change)


def entry(text: object):
    return header_with(lambda header: header["__metadata__"].update(snnseg=text))


def tensor_with(**changes: object):
    return header_with(lambda header: header["block1.0.conv.weight"].update(changes))


def nested(depth: int, key: str = "") -> list | dict:
    made: list | dict = []
    for _ in range(depth):
        made = {key: made} if key else [made]
    return made


def without(key: str, *inner: str):
    def change(header: dict) -> None:
        told = json.loads(header["__metadata__"]["snnseg"])
        place = told
        for name in inner:
            place = place[name]
        del place[key]
        header["__metadata__"]["snnseg"] = json.dumps(told)
    return header_with(change)


def weights_of(value: float):
    """Some of the numbers of a convolution are not any more."""
    def made(data: bytes) -> bytes:
        header, body = parts(data)
        start = header["block1.0.conv.weight"]["data_offsets"][0]
        two = torch.tensor([value], dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes()
        return joined(header, body[:start] + two + body[start + 2:])
    return made


def pickled(data: bytes) -> bytes:
    out = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, out)
    return out.getvalue()


def zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model.safetensors", data)
    return out.getvalue()


def overlapping(header: dict) -> None:
    header["block1.1.conv.weight"]["data_offsets"] = header["block2.0.conv.weight"]["data_offsets"]


BAD = {
    "empty": lambda data: b"", "seven bytes": lambda data: data[:7], "length alone": lambda data: data[:8], "a page": lambda data: b"<!DOCTYPE html><html>404</html>",
    "a pointer of Git LFS": lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "a pickle": lambda data: pickle.dumps({"a": 1}),
    "a file of torch": pickled, "a zip": zipped, "zeros": lambda data: bytes(len(data)),
    "a length of 2^64": lambda data: b"\xff" * 8 + data[8:], "a length beyond its end": lambda data: len(data).to_bytes(8, "little") + data[8:],
    "a length a byte short": lambda data: (int.from_bytes(data[:8], "little") - 1).to_bytes(8, "little") + data[8:],
    "a header of two megabytes": header_with(lambda header: header["__metadata__"].update(more="x" * 2**21)),
    "half": lambda data: data[:len(data) // 2], "a byte less": lambda data: data[:-1], "a byte more": lambda data: data + b"\0", "the header alone": lambda data: joined(parts(data)[0], b""),
    "no JSON": lambda data: joined(b"{" * 100, b""), "a list": lambda data: joined([1, 2], parts(data)[1]), "a number": lambda data: joined(3, b""), "UTF-16": lambda data: joined(json.dumps(parts(data)[0]).encode("utf-16"), parts(data)[1]),
    "brackets": lambda data: joined(b"[" * 500_000, b""), "no metadata": header_with(lambda header: header.pop("__metadata__")),
    "metadata that is a text": header_with(lambda header: header.update(__metadata__="snnseg")), "metadata of others": header_with(lambda header: header.update(__metadata__={"format": "pt"})),
    "an entry that is no text": entry({"version": 1}), "an entry that is no JSON": entry("weights"), "an entry that is nothing": entry("null"), "brackets in the entry": entry("[" * 100_000),
    "nested metadata": entry('{"version": 1, "weights": "bf16", "scores": {}, "about": ' + '{"a":' * 900 + "1" + "}" * 901),
    "another version": told_with("version", 2), "weights of another kind": told_with("weights", "int8"), "more than it should say": told_with("run", "rm"), "scores above 100": told_with("scores", {"test": {"pictures": 3, "miou": 101.0, "background_miou": 1.0}}),
    "a path as benchmark": told_with("about", "benchmark", "../../etc"), "an escape code as experiment": told_with("about", "experiment", "\x1b[2J"), "a path as store": told_with("about", "store_name", "../x"),
    "no seal": told_with("about", "store", "x"), "a class too many": told_with("about", "classes", ["a", "b", "c"]), "no classes": told_with("about", "classes", []), "a colour that is none": told_with("about", "palette", ["#000000", "url(x)"]),
    "an escape code as class": told_with("about", "classes", ["background", "\x1b[31m"]), "both lists too long": lambda data: told_with("about", "palette", ["#000000"] * 3)(told_with("about", "classes", ["a", "b", "c"])(data)),
    "seconds that are no number": told_with("about", "seconds", float("nan")), "nested deeply": told_with("about", "config", "neuron", "leak", nested(600)), "dicts in dicts": told_with("about", "config", "neuron", "leak", nested(600, "a")), "no config": without("config", "about"), "no neuron": without("neuron", "about", "config"),
    "no leaks": told_with("about", "config", "neuron", []), "a leak that is a text": told_with("about", "config", "neuron", "leak", "0.9"), "an unknown number": told_with("about", "config", "neuron", "code", 1),
    "an unknown section": told_with("about", "config", "more", {}), "a wider net": told_with("about", "config", "model", "width", 4.0), "another net": told_with("about", "config", "model", "name", "spiking_fcn"), "more steps": told_with("about", "config", "encode", "timesteps", 1000),
    "other classes": told_with("about", "config", "data", "mnist_cifar", "classes", "digits"),
    "a tensor less": header_with(lambda header: header.pop("block1.0.conv.weight")), "a tensor more": header_with(lambda header: header.update(more={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})),
    "a tensor that is a list": header_with(lambda header: header.update({"block1.0.conv.weight": []})), "another shape": tensor_with(shape=[1, 1]), "a shape too large": tensor_with(shape=[2**62, 4, 3, 3]), "no shape": tensor_with(shape=None),
    "another kind": tensor_with(dtype="F16"), "a kind that there is not": tensor_with(dtype="OBJECT"), "whole numbers": tensor_with(dtype="I64"), "offsets beyond its end": tensor_with(data_offsets=[0, 2**60]), "offsets back": tensor_with(data_offsets=[9, 3]),
    "offsets below": tensor_with(data_offsets=[-5, 3]), "offsets of others": header_with(overlapping), "not a number": weights_of(float("nan")), "infinite": weights_of(float("inf")),
}


@pytest.fixture(scope="module")
def good(nets, tmp_path_factory):
    """A project and a published net, for all bad ones."""
    import os

    folder = tmp_path_factory.mktemp("published")
    data = nets("spiking_deeplab")
    numbers = config.load(data.parent / "params.yaml", "spiking_deeplab", [*TINY, *SMALL])
    file = export.export(data / "model" / numbers.name, numbers, folder / "good.safetensors").path
    assert os.path.getsize(file) < 100_000
    return numbers, file


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_line_and_4(good, monkeypatch, capsys, tmp_path, kind):
    numbers, file = good
    (tmp_path / "bad.safetensors").write_bytes(BAD[kind](file.read_bytes()))
    before = sorted(p for p in numbers.root.rglob("*") if not p.name.startswith("."))
    code, out, err = snnseg(monkeypatch, capsys, "evaluate", "spiking_deeplab", "--weights", tmp_path / "bad.safetensors", *[w for text in DATA for w in ("--set", text)],
                            "--params", numbers.root / "params.yaml")
    assert code == 4 and out == "" and err.startswith("snnseg: ") and err.count("\n") == 1 and "bad.safetensors" in err and len(err) < 600, err
    assert "\x1b" not in err and sorted(p for p in numbers.root.rglob("*") if not p.name.startswith(".")) == before


def test_no_file_and_a_folder_are_4_too(good, monkeypatch, capsys, tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("none.safetensors", "folder.safetensors"):
        code, out, err = snnseg(monkeypatch, capsys, "energy", "spiking_deeplab", "--weights", tmp_path / name, "--params", good[0].root / "params.yaml")
        assert code == 4 and out == "" and err.count("\n") == 1 and f"{name}: not found" in err


def test_a_flipped_byte_is_refused_or_a_weight(good, tmp_path):
    """Two hundred files, most with a byte of the header changed: DataError, or a net of the right shape, and nothing else."""
    numbers, file = good
    data, outcomes = file.read_bytes(), []
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    for k in range(200):
        changed = bytearray(data)
        changed[rng.integers(header if k % 4 else len(data))] = rng.integers(256)
        (tmp_path / "x.safetensors").write_bytes(changed)
        try:
            model, its_config, _ = published.load(tmp_path / "x.safetensors", numbers)
            outcomes.append(its_config.classes == 2 and not model.training)
        except DataError as e:
            outcomes.append("\n" not in str(e))
    assert all(outcomes) and len(outcomes) == 200


def test_a_net_that_tells_too_little_is_not_published(trained, tmp_path):
    from snnseg import seal

    numbers = trained()
    folder = shutil.copytree(numbers.model_folder, tmp_path / "model")
    about = json.loads((folder / "about.json").read_text())
    del about["commit"]
    (folder / "about.json").write_text(json.dumps(about))
    (folder / "seal.json").unlink()
    seal.seal(folder)
    with pytest.raises(StoreError, match="about.json does not say what a published net tells: commit"):
        export.export(folder, numbers, tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_a_file_from_before_a_number_takes_its_experiment_s(good, tmp_path, capsys):
    numbers, file = good
    (tmp_path / "x.safetensors").write_bytes(without("leak", "about", "config", "neuron")(file.read_bytes()))
    _, its_config, about = published.load(tmp_path / "x.safetensors", numbers)
    assert its_config.neuron.leak == about["config"]["neuron"]["leak"] == numbers.neuron.leak
    assert capsys.readouterr().err == "x.safetensors: from before there was neuron.leak, which is taken as in mnist_cifar/spiking_deeplab\n"
    other = config.load(numbers.root / "params.yaml", "spiking_fcn", TINY)
    with pytest.raises(DataError, match="whose numbers differ at neuron.leak. Name its own experiment, spiking_deeplab"):
        published.load(tmp_path / "x.safetensors", other)


def test_bytes_of_another_writer_are_read(good, tmp_path):
    """safetensors writes the same file again; the order of its tensors is its own."""
    numbers, file = good
    with safe_open(file, "pt") as opened:
        again = save(load_file(file), opened.metadata())
    (tmp_path / "x.safetensors").write_bytes(again)
    one, other = (published.load(p, numbers)[0].state_dict() for p in (file, tmp_path / "x.safetensors"))
    assert all(torch.equal(one[k], other[k]) for k in one)
