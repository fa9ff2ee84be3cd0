"""What numbers there are: a frozen model a section of params.yaml, types and rules only, no default.

Knows nothing of files; `config` reads them. Paths and what follows from the numbers are properties of `Config`.
"""
from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

LARGEST = 10**9         # of any count


def _finite(value: float) -> float:
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("must be a finite number")
    return value


Count = Annotated[int, Field(ge=1, le=LARGEST)]
CountOrZero = Annotated[int, Field(ge=0, le=LARGEST)]
Number = Annotated[float, AfterValidator(_finite)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as `section.key` -> value."""
    out: dict[str, Any] = {}
    for key, value in section.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


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
    size: Annotated[int, Field(ge=32, le=64, multiple_of=32)]   # pixels a side
    seed: Seed
    workers: Annotated[int, Field(ge=0, le=1024)]   # processes that write a store; 0 = one a core
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


class Loss(Section):
    void: Literal["ignore", "background"]       # pixels marked 255: left out, or trained as background (the authors' way)


class Optim(Section):
    lr: Annotated[Number, Field(gt=0, le=1000)]
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
    validate_every: CountOrZero                 # epochs between looks at the test split; 0 = only at the end
    log_every: Count                            # steps between lines of metrics.jsonl
    checkpoint_every: Count                     # steps
    keep: Count                                 # checkpoints


class Evaluate(Section):
    batch: Count
    norm: Literal["running", "batch"]           # which statistics the norms use
    timesteps: Annotated[int, Field(ge=1, le=10_000)] | None    # of a spiking net; null = as many as it was trained with
    past_trained: Literal["hold", "cycle", "skip"]  # BNTT at time steps beyond those it was trained with
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

    def fingerprint(self, store_digest: str, code_digest: str) -> str:
        """sha256 over all that influences the weights: sections, the seal of the training store, the code."""
        told = self.model_dump(include={"encode", "neuron", "model", "loss", "optim", "train"})
        for cadence in ("validate_every", "log_every", "checkpoint_every", "keep"):
            del told["train"][cadence]
        if not self.spiking:        # an ANN has no time: sweeping T does not train its twin anew
            del told["neuron"], told["model"]["norm"], told["encode"]["coding"], told["encode"]["timesteps"]
        told |= {"store": store_digest, "code": code_digest, "experiment": self.experiment}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
