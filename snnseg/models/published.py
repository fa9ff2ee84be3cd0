"""A trained net as one file that travels: safetensors, whose own header says what the net is.

`__metadata__` has one entry, `snnseg`: JSON with `about` (about.json of the net, its config without the sections that shape no
weights), `weights` (bf16 or fp32) and `scores`. One, because several would be written in changing order. Weights of bf16 are
rounded, counters are as they were.

Such a file may come from anywhere: nothing in it is run, its size is bounded, and a net is built only where it holds all of its
tensors, so no room is made for what a header merely claims.
"""
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from snnseg import seal
from snnseg.config import merge
from snnseg.errors import DataError, DataMissing, UsageError
from snnseg.models import zoo
from snnseg.section import Count, CountOrZero, Number, Section, flat
from snnseg.sections import SHAPING, Config, since

SUFFIX = ".safetensors"
ENTRY = "snnseg"
LIMIT_BYTES = 2**28     # a Spiking-FCN of the paper's width has 54 MB in float32
LIMIT_HEADER = 2**20
WEIGHTS = {"bf16": torch.bfloat16, "fp32": torch.float32}
FLOATS = {"BF16", "F32"}
REMEDY = "Take it anew from where it was published and compare its sha256, or write it again: snnseg export"

Weights = Literal["bf16", "fp32"]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be shown")
    return text


def _shallow(value: Any, levels: int = 5) -> Any:
    if isinstance(value, dict | list):
        if not levels:
            raise ValueError("is nested too deeply")
        for inner in value.values() if isinstance(value, dict) else value:
            _shallow(inner, levels - 1)
    return value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}$")]      # becomes a part of a path
Text = Annotated[str, Field(max_length=500), AfterValidator(_printable)]
Colour = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Percent = Annotated[Number, Field(ge=0, le=100)]
Amount = Annotated[Number, Field(ge=0)]


class About(BaseModel):
    """What is used of an about.json; what else it says is kept as it is."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")

    benchmark: Name
    experiment: Name
    store_name: Name
    config: Annotated[dict[str, dict[str, Any]], AfterValidator(_shallow)]
    store: Sha256                               # seal of the store that it was trained with
    protocol: Text
    classes: Annotated[list[Text], Field(min_length=1, max_length=255)]
    palette: list[Colour]
    partial: Text | None
    left_out: CountOrZero
    train_samples: Count
    test_samples: Count
    device: Text
    torch: Text
    commit: Text
    seconds: Amount
    steps: CountOrZero

    @model_validator(mode="after")
    def _a_colour_a_class(self) -> About:
        if len(self.palette) != len(self.classes):
            raise ValueError(f"{len(self.palette)} colours for {len(self.classes)} classes")
        return self


class Accuracy(Section):
    """mIoU in per cent on the whole test split of the store that the net was trained with."""

    pictures: Count
    miou: Percent
    background_miou: Percent


class Spent(Section):
    """Of a picture, counted exactly over the first of the test split; an ANN has no spikes."""

    pictures: Count
    exact_mj: Amount
    spikes: Amount | None
    spike_rate: Amount | None                   # spikes a neuron and step


class Excerpt(Section):
    """mIoU in per cent on a small file of real test pictures (data.excerpt), and on a few of them, for who has little time."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,59}\.npz$")]
    sha256: Sha256
    pictures: Count
    miou: Percent
    few: Count
    few_miou: Percent


class Scores(Section):
    """Of the weights as they are in the file; None where it was not measured."""

    test: Accuracy | None = None
    energy: Spent | None = None
    excerpt: Excerpt | None = None


class Told(Section):
    """What a published file says of itself."""

    version: Literal[1]
    weights: Weights
    about: About
    scores: Scores


def packed(weights: dict[str, Tensor], about: dict[str, Any], kind: Weights = "bf16", scores: Scores | None = None) -> bytes:
    """The file's bytes: the same for the same net, on every machine. `about` as `saved` keeps it. Raises pydantic's ValidationError."""
    shaping = {name: about["config"][name] for name in sorted(SHAPING | {"data"})}
    told = Told(version=1, weights=kind, about=About(**about | {"config": shaping}), scores=scores or Scores())
    tensors = {k: v.detach().cpu().to(WEIGHTS[kind] if v.is_floating_point() else v.dtype).contiguous() for k, v in weights.items()}
    return to_bytes(tensors, {ENTRY: json.dumps(told.model_dump(mode="json"), sort_keys=True)})


def write(path: Path, data: bytes, force: bool = False) -> None:
    """Write the bytes at once and whole; the same ones may be there already. Raises UsageError, NoSpace."""
    if path.suffix != SUFFIX:
        raise UsageError(f"{path}: a published net is a file whose name ends with {SUFFIX}. Name it {path.name}{SUFFIX}")
    if path.is_file() and not force and path.read_bytes() != data:
        raise UsageError(f"{path}: already there, with other bytes. Name another file, or replace it with --force")
    seal.write_file(path, data)


def read(path: Path) -> Told:
    """What a file says of itself; its weights are left unread. Raises DataMissing, DataError."""
    return _header(path, _bytes(path))[0]


def load(path: Path, project: Config) -> tuple[nn.Module, Config, dict[str, Any]]:
    """A published net in evaluation mode, the config it was trained with and what is known of it, as `saved.load` gives them.

    The sections that shape no weights are `project`'s, and so is a number that is newer than the file, if both are of the same
    experiment: a line says so. Raises DataMissing, DataError.
    """
    data = _bytes(path)
    told, tensors = _header(path, data)
    about = told.about.model_dump()
    about["config"] = since(about["config"])
    if about["experiment"] == project.experiment:
        about["config"] = _completed(path, about["config"], project)
    try:
        config = Config.of(about, project.root, project.around)
    except ValidationError as e:
        raise DataError(path, f"of another version of snnseg, whose numbers differ at {_place(e)}",
                        f"Name its own experiment, {about['experiment']}, whose numbers complete it, or take the version of its commit") from e
    if config.classes != len(about["classes"]):
        raise DataError(path, f"names {len(about['classes'])} classes, and its data have {config.classes}", REMEDY)
    with torch.device("meta"):      # shapes alone: nothing is allocated yet
        wanted = zoo.build(config.anywhere).state_dict()
    _compare(path, tensors, wanted)
    try:
        found = from_bytes(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as e:
        raise DataError(path, f"its tensors cannot be read ({str(e).splitlines()[0][:100]})", REMEDY) from e
    for name, tensor in found.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise DataError(path, f"{name} holds values that are not finite", REMEDY)
    model = zoo.build(config.anywhere)
    model.load_state_dict(found)
    return model.eval(), config, about


def _completed(path: Path, own: dict[str, Any], project: Config) -> dict[str, Any]:
    """The file's sections with those keys of `project`'s that they lack: there were none when it was written."""
    now = project.model_dump(mode="json", include=own.keys() & Config.model_fields.keys())
    whole = merge(now, own)
    if newer := sorted(flat(whole).keys() - flat(own).keys()):
        print(f"{path.name}: from before there was {', '.join(newer)}, which is taken as in {project.name}", file=sys.stderr)
    return whole


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise DataMissing(path, f"Name a {SUFFIX} file that snnseg export wrote; models/README.md lists those that come with the project")
    with open(path, "rb") as file:
        data = file.read(LIMIT_BYTES + 1)
    if len(data) > LIMIT_BYTES:
        raise DataError(path, f"larger than {LIMIT_BYTES >> 20} MiB, which no net of ours is", REMEDY)
    return data


def _header(path: Path, data: bytes) -> tuple[Told, dict[str, Any]]:
    """What the file says of itself, and of its tensors by name. Raises DataError."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(LIMIT_HEADER, len(data) - 8):
        raise DataError(path, "no safetensors file, or not all of one", REMEDY)
    try:
        header = json.loads(data[8:8 + size].decode("utf-8"))
        text = header.pop("__metadata__")[ENTRY]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise DataError(path, "a safetensors file without a header that snnseg export wrote", REMEDY) from e
    try:
        told = Told.model_validate(json.loads(text))
        told.model_dump()       # what is nested too deeply to be written is refused here, not later
        return told, header
    except ValidationError as e:
        raise DataError(path, f"its header does not say what it should at {_place(e)}", REMEDY) from e
    except (ValueError, TypeError, RecursionError) as e:
        raise DataError(path, "its header is no JSON", REMEDY) from e


def _place(error: ValidationError) -> str:
    return ".".join(map(str, error.errors()[0]["loc"]))[:100] or str(error.errors()[0]["msg"])[:100]


def _compare(path: Path, tensors: dict[str, Any], wanted: dict[str, Tensor]) -> None:
    """See that the header names the net's tensors and no other, of their shapes and kinds. Raises DataError."""
    for name in sorted(tensors.keys() | wanted.keys()):
        if name not in tensors or name not in wanted:
            raise DataError(path, f"{name[:100]} is {'missing' if name in wanted else 'no part of its net'}", REMEDY)
        found, tensor = tensors[name], wanted[name]
        kinds = FLOATS if tensor.is_floating_point() else {"I64"}
        if not isinstance(found, dict) or found.get("dtype") not in kinds or found.get("shape") != list(tensor.shape):
            raise DataError(path, f"{name} is not {'floating' if tensor.is_floating_point() else 'whole'} numbers {list(tensor.shape)}", REMEDY)
