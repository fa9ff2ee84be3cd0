"""The nets in models/: each answers as it did when it was written, and README.md and SHA256SUMS are what the files say."""
import io
import re
import shlex
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY

from snnseg import config, seal
from snnseg.data import excerpt, store
from snnseg.errors import DataError, DataMissing
from snnseg.models import published
from snnseg.report import cards, export

MODELS = ROOT / "models"
FILES = sorted(MODELS.glob("*.safetensors"))
PICTURES = MODELS / "mnist_cifar.npz"
CLOSE = 0.5     # points of mIoU: other kernels and orders of sums let a few pixels in a thousand change


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_published_net_answers_as_it_did(path):
    """On real pictures, in float32 on a CPU, whatever it was trained and scored with."""
    told = published.read(path)
    model, numbers, about = published.load(path, config.load(ROOT / "params.yaml", f"{told.about.benchmark}/{told.about.experiment}"))
    assert path.stat().st_size < 10e6 and about["commit"] != "unknown" and told.scores.test and told.scores.energy
    if numbers.data.dataset == "mnist_cifar" and numbers.data.size == 32:
        small, split = told.scores.excerpt, excerpt.read(PICTURES, numbers.data.chosen.protocol)
        assert (small.file, small.sha256, small.pictures) == (PICTURES.name, seal.file_sha256(PICTURES), len(split)) and abs(small.miou - told.scores.test.miou) < 10
        plain = numbers.model_copy(update={"train": numbers.train.model_copy(update={"precision": "fp32"})})
        few = numbers.timesteps > 8     # all of them take half a minute at T = 20
        found = export.miou(model, plain, torch.device("cpu"), split.first(small.few if few else None))
        then = small.few_miou if few else small.miou
        print(f"{path.stem}: mIoU {found:.3f} here, {then:.3f} when it was written")
        assert abs(found - then) < (2 * CLOSE if few else CLOSE)


def test_there_is_a_net():
    assert FILES


def test_readme_holds_what_the_files_say():
    text = (MODELS / "README.md").read_text(encoding="utf-8")
    between = text.partition(cards.BEGIN)[2].partition(cards.END)[0]
    assert between.strip() == cards.markdown(cards.read(MODELS), ROOT / "params.yaml").strip(), "run: snnseg models --write"
    assert (MODELS / "SHA256SUMS").read_text() == cards.sums(MODELS), "run: snnseg models --write"
    for path in FILES:
        assert f"`{path.name}`" in between and seal.file_sha256(path) in between


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum here")
def test_checksums_are_sha256sum_s():
    done = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=MODELS, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK") == len(FILES) + 1, done.stdout + done.stderr


def test_the_pictures_are_real_ones():
    digits, binary = (excerpt.read(PICTURES, protocol) for protocol in ("digits", "binary"))
    assert len(digits) == len(binary) == 300 and PICTURES.stat().st_size < 900_000
    assert set(np.unique(digits.mask_NHW)) == set(range(11)) and np.array_equal(binary.mask_NHW, digits.mask_NHW > 0)
    assert all(len(np.unique(mask)) == 2 for mask in digits.mask_NHW), "one digit a picture"
    ink = digits.mask_NHW > 0
    assert 0.02 < ink.mean() < 0.05 and digits.input[ink].mean() > digits.input[~ink].mean() + 50, "digits are brighter than photographs"


@pytest.fixture
def some(nets, tmp_path):
    """A folder of models with two tiny nets, one of other numbers, and the project's params file."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "README.md").write_text(f"# Nets\n\n{cards.BEGIN}\n{cards.END}\n\nThe end.\n")
    for name, experiment, changes in (("b", "ann_deeplab", ()), ("a", "spiking_deeplab", ("encode.coding=signed_poisson", "neuron.leak=0.9", "optim.milestones=[0.3,0.6]"))):
        data = nets(experiment, *changes)
        numbers = config.load(data.parent / "params.yaml", experiment, [*TINY, *changes])
        export.export(data / "model" / numbers.name, numbers, folder / f"{name}.safetensors", score=name == "b")
    return folder


def test_a_table_with_the_commands_that_make_the_net_again(some):
    text = cards.markdown(cards.read(some), ROOT / "params.yaml")
    lines = text.splitlines()
    assert lines[0].count("|") == lines[2].count("|") == len(cards.COLUMNS) + 1
    assert lines[2].startswith("| `a.safetensors` | spiking_deeplab | mnist_cifar binary@32, 48 / 16 | T 2, signed_poisson coding, lif, bntt, width 0.0625, ")
    assert "| - | - | - | - |" in lines[2] and "| - | - | - | - |" not in lines[3] and " mJ |" in lines[3] and "T 2" not in lines[3]
    told = {name: published.read(some / f"{name}.safetensors").about.config for name in "ab"}
    trained = [shlex.split(line) for line in lines if line.startswith("snnseg train")]
    for config_of, words in zip(told.values(), trained, strict=True):
        again = config.load(ROOT / "params.yaml", words[2], words[4::2]).about["config"]
        for section in ("encode", "model", "neuron") if config_of["model"]["name"].startswith("spiking") else ("model",):
            assert again[section] == config_of[section]
        assert {k: again["train"][k] for k in ("epochs", "batch", "seed")} == {k: config_of["train"][k] for k in ("epochs", "batch", "seed")}
        assert again["data"]["mnist_cifar"] == config_of["data"]["mnist_cifar"] and again["optim"] == config_of["optim"]
    assert not any("neuron" in word or "timesteps" in word for word in trained[1]), "an ANN has none"
    evaluated = [line for line in lines if line.startswith("snnseg evaluate")]
    assert evaluated[0].startswith("snnseg evaluate mnist_cifar/spiking_deeplab --weights models/a.safetensors --set data.mnist_cifar.t")
    assert all(word.startswith("data.") for line in evaluated for word in shlex.split(line)[6::2])


def test_what_is_written_stays_between_the_marks(some):
    cards.write(some, "one")
    cards.write(some, "two")
    assert (some / "README.md").read_text() == f"# Nets\n\n{cards.BEGIN}\ntwo\n{cards.END}\n\nThe end.\n"
    assert re.fullmatch(r"([0-9a-f]{64}  [ab]\.safetensors\n){2}", (some / "SHA256SUMS").read_text())
    (some / "README.md").write_text("# Nets\n")
    with pytest.raises(DataError, match="lacks the marks"):
        cards.write(some, "three")


def test_a_net_is_scored_on_the_project_s_pictures(nets, tmp_path):
    data = nets("ann_deeplab")
    numbers = config.load(data.parent / "params.yaml", "ann_deeplab", TINY)
    assert export.pictures_of(numbers) is None
    here = numbers.model_copy(update={"root": ROOT})
    assert export.pictures_of(here) == PICTURES
    assert export.pictures_of(here.model_copy(update={"data": here.data.model_copy(update={"size": 64})})) is None
    file = export.export(data / "model" / numbers.name, numbers, tmp_path / "x.safetensors").path
    model, its_config, _ = published.load(file, numbers)
    found = export.on_excerpt(model, its_config, torch.device("cpu"), PICTURES)
    assert (found.file, found.pictures, found.few) == ("mnist_cifar.npz", 300, 50) and 0 < found.miou < 100
    split = excerpt.read(PICTURES, "binary")
    assert found.few_miou == export.miou(model, its_config, torch.device("cpu"), split.first(50)) != found.miou == export.miou(model, its_config, torch.device("cpu"), split)


def test_an_excerpt_is_what_was_written(tmp_path):
    rng = np.random.default_rng(0)
    split = store.Split(rng.integers(256, size=(9, 32, 32, 3), dtype=np.uint8), rng.integers(11, size=(9, 32, 32), dtype=np.uint8), {"classes": ["background", *"0123456789"]})
    excerpt.write(split, 5, tmp_path / "x.npz")
    found = excerpt.read(tmp_path / "x.npz", "digits")
    assert np.array_equal(found.input, split.input[:5]) and np.array_equal(found.mask_NHW, split.mask_NHW[:5]) and found.about["classes"] == split.about["classes"]
    binary = store.Split(split.input, np.minimum(split.mask_NHW, 1), {"classes": ["background", "digit"]})
    with pytest.raises(DataError, match="not of digits@32"):
        excerpt.write(binary, 5, tmp_path / "y.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def saved(**arrays) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", bytes(2**25))
    return out.getvalue()


IMAGE, MASK = np.zeros((3, 32, 32, 3), np.uint8), np.zeros((3, 32, 32), np.uint8)


@pytest.mark.parametrize("data", [b"", b"PK", saved(image=IMAGE), saved(image=IMAGE, mask=MASK[:2]), saved(image=IMAGE.astype(float), mask=MASK), saved(image=IMAGE[:0], mask=MASK[:0]),
                                  saved(image=IMAGE, mask=MASK + np.uint8(11)), saved(image=IMAGE, mask=np.array([{}] * 3, object)), saved(image=IMAGE, mask=MASK)[:-40], bomb(), bytes(2**23)],
                         ids=["empty", "two bytes", "no masks", "too few masks", "floats", "no pictures", "other classes", "objects", "truncated", "bomb", "large"])
def test_a_bad_excerpt_is_named(tmp_path, data):
    (tmp_path / "x.npz").write_bytes(data)
    with pytest.raises(DataError, match="x.npz"):
        excerpt.read(tmp_path / "x.npz", "digits")
    with pytest.raises(DataMissing, match="y.npz"):
        excerpt.read(tmp_path / "y.npz", "digits")
