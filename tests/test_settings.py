"""Named settings: one command to the paper's numbers, one command back, and not a byte else."""
import json
from pathlib import Path

import pytest

from benchmarks import rows
from snnseg import config, settings
from snnseg.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent


def test_the_paper_setting_is_section_5_1_of_the_paper(project):
    settings.switch(project / "params.yaml", "paper")
    paper = config.load(project / "params.yaml", "spiking_deeplab")
    assert (paper.encode.timesteps, paper.neuron.leak, paper.neuron.threshold) == (20, 0.99, 1.0)
    assert (paper.optim.lr, paper.optim.schedule, paper.optim.milestones, paper.optim.gamma) == (3e-3, "multistep", [0.5], 0.1)
    assert (paper.train.batch, paper.train.epochs, paper.model.width, paper.model.norm) == (16, 60, 1.0, "bntt")
    assert (paper.data.mnist_cifar.train, paper.data.mnist_cifar.test, paper.data.source) == (48_000, 12_000, "archives")
    assert paper.encode.coding == "signed_poisson" and paper.neuron.reset == "soft" and paper.neuron.surrogate == "triangle"


def test_the_integer_setting_is_the_row_of_the_results(project):
    """The net that passes its twin: the setting trains what the row's command does, to the fingerprint; the twin's row likewise."""
    table = rows.read(ROOT / "docs" / "results" / "mnist_cifar_gpu.csv")
    settings.switch(project / "params.yaml", "integer")
    for experiment, miou in (("spiking_fcn", "93.84"), ("ann_fcn", "93.73")):
        row, = (row for row in table if row["net"] == experiment and row["protocol"] == "digits@32" and row["miou"] == miou)
        mine = config.load(project / "params.yaml", f"mnist_cifar/{experiment}")
        assert mine.fingerprint("", "") == rows.numbers(row["command"]).fingerprint("", "") and mine.data == rows.numbers(row["command"]).data
    assert config.reproduced(project / "params.yaml") == ["mnist_cifar/spiking_fcn", "mnist_cifar/ann_fcn"]


def test_params_as_delivered_are_the_sample_setting():
    assert settings.differences(ROOT / "params.yaml", "sample") == {}
    assert settings.names(ROOT) == ["integer", "paper", "sample", "variants"]


def test_variants_are_the_sample_with_other_experiments(project):
    """On MNIST-CIFAR10 alone; back again is the same file to the byte. What the user took out stays out."""
    path = project / "params.yaml"
    delivered = path.read_bytes()
    assert settings.switch(path, "variants").keys() == {f"repro.{kind}" for kind in ("benchmarks", "experiments", *config.PART)}
    names = config.reproduced(path)
    assert names[0] == "mnist_cifar/spiking_fcn" and len(names) == 15 and all(name.startswith("mnist_cifar/spiking_fcn") for name in names)
    told = {name: config.load(path, name) for name in names}
    assert {c.encode.coding for c in told.values()} == {"direct", "poisson", "latency", "phase", "burst"}
    assert len({json.dumps(c.about["config"], sort_keys=True) for c in told.values()}) == 15
    settings.switch(path, "sample")
    assert path.read_bytes() == delivered
    text = delivered.decode()
    path.write_text(text.replace("benchmarks: [mnist_cifar, voc, ddd17]", "benchmarks: [ddd17]").replace(
        text[text.index("  mnist_cifar:\n    data:\n      dataset"):text.index("  ddd17:       ")], ""))
    settings.switch(path, "paper")
    assert config.read(path).repro["benchmarks"] == ["ddd17"]
    settings.switch(path, "variants")       # its one benchmark is not there
    assert config.read(path).repro["benchmarks"] == ["ddd17"] and len(config.reproduced(path)) == 15


def crlf(text: bytes) -> bytes:
    return text.replace(b"\n", b"\r\n")


def four_spaces(text: bytes) -> bytes:
    return text.replace(b"\n    ", b"\n        ").replace(b"\n  ", b"\n    ")


SPELLINGS = {
    "as delivered": lambda text: text,
    "CRLF": crlf,
    "byte order mark": lambda text: b"\xef\xbb\xbf" + text,
    "four spaces": four_spaces,
    "no newline at the end": lambda text: text.rstrip(b"\n"),
    "comment close by": lambda text: text.replace(b"coding: direct            #", b"coding: direct #"),
    "trailing spaces": lambda text: text.replace(b"train: 1600\n", b"train: 1600   \n"),
    "section in one line": lambda text: text.replace(b"    classes: binary         # binary: digit and background; digits: ten digits and background\n"
                                                     b"    train: 1600\n    test: 480\n", b"    {classes: binary, train: 1600, test: 480}  # sizes\n"),
    "odd spelling of what stays": lambda text: text.replace(b"lr: 0.003", b"lr: 3.0e-3").replace(b"clip_norm: null", b"clip_norm:"),
    "own comments": lambda text: text.replace(b"  std: 70.0", b"  # mine: ok\n\n\n  std: 70.0 # \xc3\xbc"),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_there_and_back_is_the_same_file_to_the_byte(name, project):
    path = project / "params.yaml"
    delivered = path.read_bytes()
    before = SPELLINGS[name](delivered)
    assert name == "as delivered" or before != delivered
    path.write_bytes(before)
    there = settings.switch(path, "paper")
    paper = path.read_bytes()
    assert there["train.epochs"] == (4, 60) and paper != before and paper.count(b"\r\n") == before.count(b"\r\n")
    assert paper.count(b"#") == before.count(b"#")
    assert settings.switch(path, "paper") == {} and path.read_bytes() == paper
    back = settings.switch(path, "sample")
    assert path.read_bytes() == before
    assert {k: (b, a) for k, (a, b) in there.items()} == back


def test_only_lines_with_changed_values_differ(project):
    path = project / "params.yaml"
    before = path.read_text().splitlines()
    changes = settings.switch(path, "paper")
    after = path.read_text().splitlines()
    differ = [b for a, b in zip(before, after, strict=True) if a != b]
    assert len(differ) == len(changes)
    assert all(line.index("#") == 28 for line in differ if "#" in line), "comments left their column"


def test_numbers_of_the_user_stay(project):
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("  seed: 0", "  seed: 7").replace("experiment: snnseg", "experiment: mine"))
    settings.switch(path, "paper")
    loaded = config.load(path)
    assert (loaded.data.seed, loaded.train.seed, loaded.track.experiment) == (7, 7, "mine")


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_the_file_mode_stays(mode, project):
    path = project / "params.yaml"
    path.chmod(mode)
    settings.switch(path, "paper")
    assert path.stat().st_mode & 0o777 == mode


def test_a_linked_params_file_stays_a_link(project):
    (project / "params.yaml").rename(project / "mine.yaml")
    (project / "params.yaml").symlink_to("mine.yaml")
    settings.switch(project / "params.yaml", "paper")
    assert (project / "params.yaml").is_symlink() and config.load(project / "mine.yaml").train.epochs == 60


@pytest.mark.parametrize(("name", "told"), [("papr", "Did you mean paper?"), ("zzz", "Known: integer, paper, sample, variants."), ("../params", "Known:"),
                                        ("", "Known:"), ("a\nb", "Known:")])
def test_an_unknown_setting_names_the_nearest(name, told, project):
    before = (project / "params.yaml").read_bytes()
    for act in (settings.differences, settings.switch):
        with pytest.raises(ConfigError, match="no setting is named") as caught:
            act(project / "params.yaml", name)
        assert told in str(caught.value) and str(caught.value).isprintable()
    assert (project / "params.yaml").read_bytes() == before


@pytest.mark.parametrize(("text", "told"), [
    ("train: {epoch: 3}", "bad.yaml: train.epoch: unknown key"), ("extra: 3", "unknown key"), ("train: {epochs: many}", "train.epochs: input should be"),
    ("train: {epochs: &a 3}", "anchors"), ("data: {mnist_cifar: {test: 2}}", "evaluate.pictures"), ("[1]", "no sections"), ("train: 3", "unknown key"),
])
def test_a_bad_setting_leaves_params_as_they_were(text, told, project):
    (project / "settings" / "bad.yaml").write_text(text)
    before = (project / "params.yaml").read_bytes()
    with pytest.raises(ConfigError) as caught:
        settings.switch(project / "params.yaml", "bad")
    assert told in str(caught.value)
    assert (project / "params.yaml").read_bytes() == before
    assert sorted(p.name for p in project.iterdir()) == ["params.yaml", "settings"]


def test_bad_params_are_not_touched(project):
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("epochs: 4", "epochs: many"))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="train.epochs"):
        settings.switch(path, "paper")
    assert path.read_bytes() == before


def test_values_can_be_shown_as_json(project):
    assert json.dumps({k: list(v) for k, v in settings.differences(project / "params.yaml", "paper").items()})
