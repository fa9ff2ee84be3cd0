"""The published nets of models/ as model cards: what their files say of themselves, with sizes and checksums.

    models/README.md    between its two marks: a table, and of each file the commands that train and evaluate it
    models/SHA256SUMS   for sha256sum -c

The commands follow from the config in the file and from params.yaml as it is now: what differs becomes a `--set`.
"""
from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snnseg import config as configs
from snnseg import seal
from snnseg.errors import DataError
from snnseg.models import published
from snnseg.models.published import Told
from snnseg.report.table import kind
from snnseg.section import flat
from snnseg.sections import SHAPING, Config

BEGIN, END = "<!-- snnseg models: begin -->", "<!-- snnseg models: end -->"
COLUMNS = ["file", "net", "protocol", "recipe", "mIoU", "all background", "energy, exact", "spikes", "size", "licence of the training data"]
LICENCES = {
    ("mnist_cifar", "archives"): "MNIST: CC BY-SA 3.0; CIFAR-10: none stated, cite Krizhevsky 2009",
    ("voc", "archives"): "VOC2012: Flickr's terms of use; SBD: of its page",
    ("ddd17", "archives"): "DDD17: of its page",
    ("mnist_cifar", "sample"): "scikit-learn: digits CC BY 4.0 (UCI), photographs CC BY 2.0",
    ("voc", "sample"): "scikit-learn: photographs CC BY 2.0; matplotlib: public domain",
    ("ddd17", "sample"): "none: a simulated street",
}
# neither weights nor scores follow from these
WITHOUT_EFFECT = {"train.workers", "train.validate_every", "train.log_every", "train.checkpoint_every", "train.keep", "train.graph", "data.workers"}


@dataclass(frozen=True)
class Card:
    """A published file, and what it says of itself."""

    name: str
    size: int
    sha256: str
    told: Told


def read(folder: Path) -> list[Card]:
    """A card for each file of a folder, by name. Raises DataError."""
    return [Card(path.name, path.stat().st_size, seal.file_sha256(path), published.read(path)) for path in sorted(folder.glob(f"*{published.SUFFIX}"))]


def recipe(config: dict[str, Any]) -> str:
    """How a net was trained, in a few words."""
    encode, model, optim, train, events = config["encode"], config["model"], config["optim"], config["train"], config["data"]["dataset"] == "ddd17"
    spiking = model["name"].startswith("spiking")
    steps = [f"T {encode['timesteps']}"] * (spiking or events) + [f"{encode['coding']} coding"] * (spiking and not events)
    neuron = [kind(config["neuron"]), model["norm"]] if spiking else []
    return ", ".join([*steps, *neuron, f"width {model['width']:g}", f"{train['epochs']} epoch{'s' * (train['epochs'] > 1)}, batch {train['batch']}",
                      f"Adam {optim['lr']:g} {optim['schedule']}", train["precision"], f"seed {train['seed']}"])


def changes(told: Told, now: Config, sections: set[str]) -> list[str]:
    """`--set` for each number of a net that is another in `now`, of those sections; none for what its kind of net or data does not have."""
    own, data = told.about.config, told.about.config["data"]
    spiking, events = own["model"]["name"].startswith("spiking"), data["dataset"] == "ddd17"
    without = WITHOUT_EFFECT | (set() if spiking else {"model.norm", "encode.coding"} | (set() if events else {"encode.timesteps"}))
    others = tuple(f"data.{name}." for name in ("mnist_cifar", "voc", "ddd17") if name != data["dataset"]) + (() if spiking else ("neuron.",))
    here = flat(now.model_dump(mode="json", include=sections))
    found = flat({name: own[name] for name in sorted(sections)})
    if data["source"] == "archives":
        without = without | {key for key in found if ".sample." in key}
    return [word for key, value in found.items() if here.get(key) != value and key not in without and not key.startswith(others)
            for word in ("--set", f"{key}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}")]


def commands(card: Card, params: Path) -> list[str]:
    """What trains the net anew, what makes its store, what evaluates the file. Raises ConfigError for an experiment that is not in `params`."""
    about = card.told.about
    name, now = f"{about.benchmark}/{about.experiment}", configs.load(params, f"{about.benchmark}/{about.experiment}")
    data = changes(card.told, now, {"data"})
    return [shlex.join(words) for words in (
        ["snnseg", "prepare", about.benchmark, *data], ["snnseg", "train", name, *changes(card.told, now, SHAPING | {"data"})],
        ["snnseg", "evaluate", name, "--weights", f"models/{card.name}", *data])]


def row(card: Card) -> dict[str, str]:
    """A line of the table; what was not measured, or what an ANN does not have, is `-`."""
    about, scores, config = card.told.about, card.told.scores, card.told.about.config
    marks = [f"partial, {about.partial}"] * bool(about.partial) + [f"{about.left_out} left out"] * bool(about.left_out)
    protocol = f"{config['data']['dataset']} {about.protocol}, {about.train_samples} / {about.test_samples}{''.join(f' ({m})' for m in marks)}"
    return {
        "file": f"`{card.name}`", "net": config["model"]["name"], "protocol": protocol, "recipe": recipe(config),
        "mIoU": f"{scores.test.miou:.2f}" if scores.test else "-", "all background": f"{scores.test.background_miou:.2f}" if scores.test else "-",
        "energy, exact": f"{scores.energy.exact_mj:.4f} mJ" if scores.energy else "-",
        "spikes": "-" if not scores.energy or scores.energy.spikes is None else f"{scores.energy.spikes:.0f} ({scores.energy.spike_rate:.3f})",
        "size": f"{card.size / 1e6:.2f} MB, {card.told.weights}",
        "licence of the training data": LICENCES[config["data"]["dataset"], config["data"]["source"]]}


def markdown(cards: list[Card], params: Path) -> str:
    """The table, and below it each file's checksum, provenance and commands."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row(card).values()) + " |" for card in cards]
    for card in cards:
        about, small = card.told.about, card.told.scores.excerpt
        score = f" mIoU on the {small.pictures} pictures of `{small.file}`: {small.miou:.2f}." if small else ""
        lines += ["", f"`{card.name}`, sha256 `{card.sha256}`: {about.steps} steps in {about.seconds:.0f} s on {about.device}, torch {about.torch}, commit "
                  f"{about.commit}; store {about.store[:12]}.{score}", "", "```", *commands(card, params), "```"]
    return "\n".join(lines)


def sums(folder: Path) -> str:
    """The checksums of all published files and test pictures, as sha256sum writes them."""
    return "".join(f"{seal.file_sha256(path)}  {path.name}\n" for path in sorted([*folder.glob(f"*{published.SUFFIX}"), *folder.glob("*.npz")]))


def write(folder: Path, text: str) -> None:
    """Put the table between the marks of README.md, and the checksums beside it. Raises DataError for a README without marks, NoSpace."""
    readme = folder / "README.md"
    before, begin, rest = (readme.read_text(encoding="utf-8") if readme.is_file() else "").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(readme, f"lacks the marks {BEGIN} and {END}", "Put them where the table shall be, or take the file from git")
    seal.write_file(readme, f"{before}{BEGIN}\n{text}\n{END}{after}")
    seal.write_file(folder / "SHA256SUMS", sums(folder))
