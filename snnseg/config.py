"""The only reader of params.yaml.

params.yaml holds every number; this module holds their types and rules and no default. Each section is a frozen
model; an experiment is a set of changes to the sections. Whatever does not fit is refused before anything heavy is
imported, with file, line, key, what was found and what is expected.
"""
from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.error import YAMLError

from snnseg.errors import ConfigError

PARAMS = "params.yaml"
LIMIT_BYTES = 2**20     # a params file of a megabyte is not one


def _finite(value: float) -> float:
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("must be a finite number")
    return value


Count = Annotated[int, Field(ge=1)]
Number = Annotated[float, AfterValidator(_finite)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class MnistCifar(Section):
    """The synthetic benchmark of section 5.1.1: a digit added to a photograph."""

    classes: Literal["binary", "digits"]        # digit against background, or ten digits and background
    train: Count                                # pictures made for training
    test: Count                                 # pictures held out


class Data(Section):
    """Which raw data becomes which sealed store."""

    dataset: Literal["mnist_cifar"]
    source: Literal["sample", "archives"]       # embedded real pictures, or the official files below data/raw
    size: Literal[32, 64]                       # pixels a side
    seed: Seed
    workers: Annotated[int, Field(ge=0)]        # processes that write a store; 0 = one a core
    mnist_cifar: MnistCifar


class Encode(Section):
    """A picture as the input of T time steps (section 4.2)."""

    coding: Literal["direct", "poisson", "signed_poisson"]
    timesteps: Annotated[int, Field(ge=1, le=1000)]
    mean: Number                                # of a byte; direct and signed_poisson see (byte - mean) / std
    std: Positive


class Neuron(Section):
    """Leaky integrate-and-fire (eqs. 2, 3, 6)."""

    leak: Annotated[Number, Field(gt=0, le=1)]
    threshold: Positive
    reset: Literal["soft", "hard"]
    surrogate: Literal["triangle", "arctan", "sigmoid", "rectangle"]
    surrogate_scale: Positive                   # times the surrogate gradient; the authors' code has 0.3


class Model(Section):
    name: Literal["spiking_deeplab", "spiking_fcn", "ann_deeplab", "ann_fcn"]
    width: Annotated[Number, Field(gt=0, le=4)]  # times the channels of the paper
    norm: Literal["bntt", "tdbn", "bn", "none"]  # of the spiking nets; the twins have plain batch norm
    past_trained: Literal["hold", "cycle", "skip"]  # BNTT at time steps beyond those it was trained with


class Loss(Section):
    void: Literal["ignore", "background"]       # pixels marked 255: left out, or trained as background (the authors' way)


class Optim(Section):
    lr: Positive
    schedule: Literal["multistep", "cosine", "constant"]
    milestones: list[Share]                     # shares of all epochs at which multistep multiplies by gamma
    gamma: Annotated[Number, Field(gt=0, le=1)]
    weight_decay: Annotated[Number, Field(ge=0)]
    amsgrad: bool
    clip_norm: Positive | None                  # greatest norm of all gradients together; null = no clipping


class Train(Section):
    epochs: Count
    batch: Count
    seed: Seed
    precision: Literal["fp32", "bf16"]
    flip: bool                                  # mirror half of the pictures
    shift: Annotated[int, Field(ge=0, le=32)]   # move pictures by up to so many pixels
    validate_every: Annotated[int, Field(ge=0)]  # epochs between looks at the test split; 0 = only at the end
    log_every: Count                            # steps between lines of metrics.jsonl
    checkpoint_every: Count                     # steps
    keep: Count                                 # checkpoints


class Evaluate(Section):
    batch: Count
    norm: Literal["running", "batch"]           # which statistics the norms use
    pictures: Annotated[int, Field(ge=1, le=64)]


class Track(Section):
    mlflow: bool
    experiment: Annotated[str, Field(pattern=r"^[\w.-]{1,60}$")]


class Sections(Section):
    """All numbers of one experiment."""

    data: Data
    encode: Encode
    neuron: Neuron
    model: Model
    loss: Loss
    optim: Optim
    train: Train
    evaluate: Evaluate
    track: Track

    @model_validator(mode="after")
    def _pictures_exist(self) -> Sections:
        if self.evaluate.pictures > self.data.mnist_cifar.test:
            raise ValueError("evaluate.pictures is larger than data.mnist_cifar.test")
        return self


class Config(Sections):
    """The sections as one experiment sees them, and where its files live. Paths are absolute from here on."""

    experiment: str
    root: Path

    @property
    def protocol(self) -> str:
        """Classes and resolution, e.g. `binary@32`: named in every result, since the paper leaves both open."""
        return f"{self.data.mnist_cifar.classes}@{self.data.size}"

    @property
    def spiking(self) -> bool:
        return self.model.name.startswith("spiking")

    @property
    def classes(self) -> int:
        return {"binary": 2, "digits": 11}[self.data.mnist_cifar.classes]

    @property
    def timesteps(self) -> int:
        """Time steps of this net: T for a spiking net, one for an ANN."""
        return self.encode.timesteps if self.spiking else 1

    @property
    def raw(self) -> Path:
        return self.root / "data" / "raw"

    @property
    def store(self) -> Path:
        d = self.data
        return self.root / "data" / "store" / f"{d.dataset}-{d.source}-{d.mnist_cifar.classes}-{d.size}"

    @property
    def store_params(self) -> dict[str, Any]:
        """The numbers that the store depends on: kept in it and compared when it is opened."""
        d = self.data
        return {"dataset": d.dataset, "source": d.source, "size": d.size, "seed": d.seed, **d.mnist_cifar.model_dump()}

    @property
    def model_folder(self) -> Path:
        return self.root / "data" / "model" / self.experiment

    @property
    def result_folder(self) -> Path:
        """Curve, scores and pictures of this experiment."""
        return self.root / "data" / "result" / self.experiment

    @property
    def report(self) -> Path:
        """All experiments side by side."""
        return self.root / "data" / "report"

    def fingerprint(self, store_digest: str) -> str:
        """sha256 over all that influences the weights: sections, and the seal of the training store."""
        told = self.model_dump(include={"encode", "neuron", "model", "loss", "optim", "train"})
        for cadence in ("validate_every", "log_every", "checkpoint_every", "keep"):
            del told["train"][cadence]
        told |= {"store": store_digest, "experiment": self.experiment}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _plain(node: Any, where: str, lines: dict[str, int], seen: set[int]) -> Any:
    """A parsed YAML node as plain dicts, lists and scalars; tags and anchors are refused, lines are noted by key."""
    if isinstance(node, TaggedScalar) or (isinstance(node, CommentedMap | CommentedSeq) and node.tag.value):
        raise ConfigError(f"{where or 'params'}: YAML tags are not allowed. Write the plain value.")
    if not isinstance(node, CommentedMap | CommentedSeq):
        return node
    if id(node) in seen or node.anchor.value:
        raise ConfigError(f"{where or 'params'}: YAML anchors and aliases are not allowed. Write the value twice.")
    seen.add(id(node))
    if isinstance(node, CommentedSeq):
        return [_plain(v, f"{where}.{i}", lines, seen) for i, v in enumerate(node)]
    out = {}
    for key, value in node.items():
        if not isinstance(key, str):
            raise ConfigError(f"{where or 'params'}: the key {key!r} is not a name. Keys are section and setting names.")
        path = f"{where}.{key}".lstrip(".")
        lines[path] = node.lc.key(key)[0] + 1
        out[key] = _plain(value, path, lines, seen)
    return out


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """A YAML file of plain values, and the line of each dotted key. Raises ConfigError."""
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise ConfigError(f"{path}: larger than {LIMIT_BYTES} bytes, so not a params file. Restore it: git checkout {path.name}")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as e:
        raise ConfigError(f"{path}: not found. Run snnseg in the project's folder, or restore it: git checkout {path.name}") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: not UTF-8 text at byte {e.start}. Save it as UTF-8.") from e
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror}). Check that it is a readable file.") from e
    lines: dict[str, int] = {}
    try:
        plain = _plain(YAML().load(text), "", lines, set())
    except (YAMLError, ValueError, RecursionError) as e:
        if isinstance(e, ConfigError):
            raise ConfigError(f"{path}: {e}") from e
        mark = getattr(e, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        fact = " ".join(str(getattr(e, "problem", None) or e or "nested too deeply").split()).partition(" To suppress")[0]
        raise ConfigError(f"{path}{line}: not valid YAML ({fact}). Correct this line.") from e
    if not isinstance(plain, dict):
        raise ConfigError(f"{path}: holds no sections. Restore it: git checkout {path.name}")
    return plain, lines


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, section by section; neither is altered."""
    out = dict(base)
    for key, value in changes.items():
        out[key] = merge(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def parse_set(text: str) -> dict[str, Any]:
    """`section.key=value` as a nested mapping; the value is read as YAML would read it. Raises ConfigError."""
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or len(names) < 2 or not all(names):
        raise ConfigError(f"--set {text}: expected section.key=value, for example --set train.epochs=3")
    try:
        parsed = _plain(YAML().load(f"v: {value}\n"), "", {}, set())["v"]
    except (YAMLError, ValueError, RecursionError, KeyError, TypeError) as e:
        raise ConfigError(f"--set {text}: the value is not plain YAML. Expected for example --set train.epochs=3") from e
    for name in reversed(names):
        parsed = {name: parsed}
    return parsed


def _known_keys(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


def _section_at(path: tuple) -> type[BaseModel] | None:
    model: Any = Sections
    for name in path:
        field = model.model_fields.get(name) if isinstance(model, type) and issubclass(model, BaseModel) else None
        model = field.annotation if field else None
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def _explain(error: dict[str, Any], source: str, lines: dict[str, int], prefix: str) -> str:
    """One pydantic error as one line: file, line, key, fact, remedy."""
    names = tuple(n for n in error["loc"] if not str(n).startswith("function-"))
    key = ".".join(map(str, names))
    line = lines.get(f"{prefix}{key}") or lines.get(key)
    place = f"{source}:{line}: {key}" if line else f"{source}: {key}" if key else source
    if error["type"] == "extra_forbidden":
        section = _section_at(names[:-1])
        known = _known_keys(section) if section else []
        near = difflib.get_close_matches(str(names[-1]), known, 1, 0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(known)}."
        return f"{place}: unknown key. {hint}"
    if error["type"] == "missing":
        return f"{place}: missing. Add it, or restore the file: git checkout {PARAMS}"
    if error["type"] == "value_error" and not names:
        return f"{place}: {error['ctx']['error']}. Change one of them."
    expected = error["msg"][0].lower() + error["msg"][1:]
    hint = ""
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        near = difflib.get_close_matches(error["input"], str(error["ctx"]["expected"]).replace("'", " ").split(), 1, 0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
    return f"{place}: {expected}, found {str(error['input'])[:80]!r}.{hint}"


def _build(numbers: dict[str, Any], experiment: str, root: Path, source: str, lines: dict[str, int], prefix: str = "") -> Config:
    try:
        sections = Sections.model_validate(_floats(Sections, numbers))
    except ValidationError as e:
        first, *others = e.errors(include_url=False)
        more = f" ({len(others)} more)" if others else ""
        raise ConfigError(_explain(first, source, lines, prefix) + more) from e
    return Config(experiment=experiment, root=root, **{k: getattr(sections, k) for k in Sections.model_fields})


def _floats(model: type[BaseModel], numbers: Any) -> Any:
    """Nothing is coerced but ruamel's own float and int types, which carry how they were written."""
    if isinstance(numbers, dict):
        return {k: _floats(model, v) for k, v in numbers.items()}
    if isinstance(numbers, list):
        return [_floats(model, v) for v in numbers]
    for plain in (bool, int, float, str):
        if isinstance(numbers, plain):
            return plain(numbers)
    return numbers


def load(params: Path | str = PARAMS, experiment: str | None = None, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """Read params.yaml, lay the experiment's changes over it, then the `section.key=value` overrides.

    Every experiment in the file is checked, not only the one asked for. Raises ConfigError.
    """
    path = Path(params).absolute()
    numbers, lines = read_yaml(path)
    source = path.name
    experiments = numbers.pop("experiments", None)
    if not isinstance(experiments, dict) or not experiments:
        raise ConfigError(f"{source}: experiments: expected a mapping of names to changes, found {experiments!r}.")
    base = _build(numbers, "", path.parent, source, lines)
    for name, changes in experiments.items():
        if not name.replace("_", "").replace("-", "").isalnum() or len(name) > 40 or not name.isascii():
            raise ConfigError(f"{source}: experiments.{name[:60]}: a name has up to 40 letters, digits, '_' and '-'.")
        if not isinstance(changes, dict):
            raise ConfigError(f"{source}:{lines.get(f'experiments.{name}')}: experiments.{name}: expected changes to sections, found {changes!r}.")
        _build(merge(numbers, changes), name, path.parent, source, lines, f"experiments.{name}.")
    if experiment is not None and experiment not in experiments:
        near = difflib.get_close_matches(experiment, experiments, 1, 0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(experiments)}."
        raise ConfigError(f"{source}: no experiment is named {experiment!r}. {hint}")
    if experiment is None and not overrides:
        return base
    numbers = merge(numbers, experiments[experiment]) if experiment else numbers
    for text in overrides:
        numbers = merge(numbers, parse_set(text))
    return _build(numbers, experiment or "", path.parent, "--set" if overrides else source, {} if overrides else lines)


def experiments(params: Path | str = PARAMS) -> list[str]:
    """The names of all experiments, in the order of the file."""
    load(params)
    return list(read_yaml(Path(params))[0]["experiments"])
