"""What numbers there are: a frozen model a section of params.yaml, types and rules only, no default.

Knows nothing of files; `config` reads them. Paths and what follows from the numbers are properties of `Config`.
"""
from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from snnseg import ranges
from snnseg.data_sections import Data
from snnseg.section import Bits, Count, CountOrZero, Number, Positive, Section, Seed, Share, Some


class Encode(Section):
    """A picture as the input of T time steps (section 4.2)."""

    coding: Literal["direct", "poisson", "signed_poisson", "latency", "phase", "burst"]
    timesteps: Annotated[int, Field(ge=1, le=1000)]
    mean: Number                                # of a byte; direct and signed_poisson see (byte - mean) / std
    std: Positive


class Neuron(Section):
    """Leaky integrate-and-fire (eqs. 2, 3, 6): IF where the leak is 1, PLIF where it is learned, integer where there are levels."""

    leak: Annotated[Number, Field(gt=0, le=1)]
    threshold: Positive
    learn_leak: Literal["none", "layer", "channel"]       # one leak a layer or a channel that is trained from there on
    learn_threshold: Literal["none", "layer", "channel"]
    levels: Annotated[int, Field(ge=0, le=64)]  # spikes that an integer neuron may fire at a step; 0 = one, once above the threshold
    reset: Literal["soft", "hard"]
    surrogate: Literal["triangle", "arctan", "sigmoid", "rectangle"]
    surrogate_scale: Positive                   # times the surrogate gradient; the authors' code has 0.3


class Model(Section):
    name: Literal["spiking_deeplab", "spiking_fcn", "ann_deeplab", "ann_fcn"]
    width: Annotated[Number, Field(gt=0, le=4)]  # times the channels of the paper
    norm: Literal["bntt", "tdbn", "bn", "none"]  # of the spiking nets; the twins have plain batch norm
    pool: Literal["average", "max"]             # behind a max pool a spiking net's layer sees 0 and 1, so it only adds


class Loss(Section):
    void: Literal["ignore", "background"]       # pixels marked 255: left out, or trained as background (the authors' way)
    spike_rate: Annotated[Number, Field(ge=0, le=1e6)]  # times the mean number of spikes a neuron and step, added to a spiking net's loss
    background: Annotated[Number, Field(gt=0, le=1000)]     # weight of a pixel of the first class; the others' is 1


class Optim(Section):
    lr: Annotated[Number, Field(gt=0, le=1000)]
    schedule: Literal["multistep", "cosine", "constant"]
    milestones: list[Share]                     # shares of all epochs at which multistep multiplies by gamma
    gamma: Annotated[Number, Field(gt=0, le=1)]
    weight_decay: Annotated[Number, Field(ge=0)]
    amsgrad: bool
    clip_norm: Positive | None                  # greatest norm of all gradients together; null = no clipping


class Train(Section):
    """How long, on how much at a time, and what it may cost in memory."""

    epochs: Count
    batch: Count
    workers: Literal["auto"] | Count            # processes that train one net; auto = 1 in place, all that a cluster has at cluster.address
    seed: Seed
    precision: Literal["fp32", "tf32", "bf16"]
    kernels: Literal["auto", "reference", "cpu", "triton"]      # how norm and neuron are run; auto takes the fastest that is sure on the device
    graph: bool                                 # on a GPU, capture a step once and replay it
    give_back: bool                             # on a CPU: freed memory goes back to the system at once, not to the next step
    recompute: bool                             # likewise, and convolve anew in the backward pass instead of keeping what was: less memory, more time
    sync_norm: Literal["synced", "local"]       # statistics of norms over all workers' pictures, or over each worker's own
    flip: bool                                  # mirror half of the pictures
    shift: Annotated[int, Field(ge=0, le=32)]   # move pictures by up to so many pixels
    validate_every: CountOrZero                 # epochs between looks at the test split; 0 = only at the end
    log_every: Count                            # steps between lines of metrics.jsonl
    checkpoint_every: Count                     # steps
    keep: Count                                 # checkpoints

    @property
    def gives_back(self) -> bool:
        """Whether freed memory goes back to the system at once."""
        return self.give_back or self.recompute


class Evaluate(Section):
    batch: Count
    norm: Literal["running", "batch"]           # which statistics the norms use
    timesteps: Annotated[int, Field(ge=1, le=10_000)] | None    # of a spiking net; null = as many as it was trained with
    past_trained: Literal["hold", "cycle", "skip"]  # BNTT at time steps beyond those it was trained with
    pictures: Annotated[int, Field(ge=1, le=64)]


class Energy(Section):
    """What an operation and a byte cost, in pJ, and over how many test pictures a net is counted."""

    pictures: Count
    multiply_pj: Annotated[Number, Field(ge=0)]     # of 32-bit floats at 45 nm: with add_pj a MAC is 4.6 (table 5)
    add_pj: Annotated[Number, Field(ge=0)]
    weight_bits: Bits
    activation_bits: Bits                       # of an ANN's values between layers
    pooled_bits: Bits                           # of a spiking net's pooled spikes; 4 would do for their ten counts
    fold_norm: bool                             # norms of the same numbers at each step go into the weights
    weight_byte_pj: Annotated[Number, Field(ge=0)]
    state_byte_pj: Annotated[Number, Field(ge=0)]       # of a membrane potential
    activation_byte_pj: Annotated[Number, Field(ge=0)]
    weights_held: bool                          # a weight is read once a picture, not at each step
    rival_timesteps: Annotated[int, Field(ge=1, le=10_000)]     # an ANN is counted quantised to match a spiking net of so many steps, too
    saturated: Share                            # a channel that fires this often is called saturated


Pixel = Annotated[list[CountOrZero], Field(min_length=2, max_length=2)]


class Activations(Section):
    """Which test pictures, layers and neurons are looked at step by step."""

    pictures: Some              # so many from all over the split, or their numbers
    layers: Annotated[list[str], Field(min_length=1, max_length=64)] | None     # null = all that fire; of an ANN, all that are rectified
    traced: str                 # the layer whose neurons are traced
    pixels: Annotated[list[Pixel], Field(min_length=1, max_length=64)]      # rows and columns of the picture
    channels: Some              # so many that fire most, or their numbers


Levels = Annotated[list[Annotated[Number, Field(ge=0, le=1000)]], Field(max_length=50)]
Shares = Annotated[list[Share], Field(max_length=50)]
ByteValues = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(max_length=50)]


class Robustness(Section):
    """Levels of each kind of noise that a net is scored on; an empty list leaves a kind out. Level 0, the untouched input, is always there."""

    pictures: Count | None      # of the test split; null = all
    draws: Annotated[int, Field(ge=1, le=1000)]
    seed: Seed
    gaussian: Levels            # standard deviations in byte values
    salt_pepper: Shares         # of the pixels
    blur: Levels                # standard deviations in pixels
    dropped: Shares             # of the events
    added: Levels               # events, as a share of the frame's own
    jittered: Levels            # standard deviations in cells
    fgsm: ByteValues            # largest change of a byte, against the net itself: one step of the gradient's sign
    pgd: ByteValues             # likewise, pgd_steps steps from a drawn start
    pgd_steps: Annotated[int, Field(ge=1, le=1000)]
    pgd_step: Annotated[Number, Field(gt=0, le=2)]      # length of one, as a share of the largest change


Steps = Annotated[int, Field(ge=1, le=10_000)]
ListOfSteps = Annotated[list[Steps], Field(min_length=1, max_length=100)]
class Conversion(Section):
    """How a trained ANN twin becomes a spiking net without training (section 3), and after how many time steps that is scored."""

    calibration: Count          # pictures of the training split
    thresholds: Literal["activations", "currents"]
    per: Literal["layer", "channel"]
    percentile: Annotated[Number, Field(gt=0, le=100)]  # 100 = the largest value
    scale: Positive             # times the percentile
    balance_timesteps: Steps    # that currents are watched for
    leak: Annotated[Number, Field(gt=0, le=1)]
    start: Share                # first potential, in thresholds
    coding: Literal["direct", "signed_poisson"]         # of pictures
    timesteps: ListOfSteps
    bits: Annotated[list[Annotated[int, Field(ge=1, le=8)]], Field(max_length=8)]     # of the twin's activations, scored on the whole test split
    pictures: Count | None      # of the test split; null = all


class TimeSteps(Section):
    """At which numbers of time steps a spiking net is read, and trained (section 5.3)."""

    pictures: Count | None      # of the test split; null = all
    past_trained: Annotated[list[Literal["hold", "cycle", "skip"]], Field(min_length=1)]        # BNTT's rules, each of them in turn
    inference: ListOfSteps      # of the trained net
    trained: Annotated[list[Annotated[int, Field(ge=1, le=1000)]], Field(max_length=100)]       # each a training of its own


Range = Annotated[dict[Literal["float", "log", "int", "choice"], list[bool | int | float | str | None]], AfterValidator(ranges.checked)]


class Tune(Section):
    """A sweep: which numbers are drawn from where, and for how long each trial trains."""

    name: Annotated[str, Field(pattern=r"^[\w-]+$", max_length=40)]     # another name begins another sweep
    trials: Annotated[int, Field(ge=1, le=100_000)]
    space: Annotated[dict[str, Range], BeforeValidator(ranges.by_key)]    # whether keys and values fit the other sections: tuning.space
    objectives: Annotated[list[Literal["miou", "energy"]], AfterValidator(ranges.objectives)]
    seed: Seed
    holdout: Annotated[Number, Field(gt=0, le=0.5)]     # share of the training split that trials are validated on
    epochs: Count                               # of a trial
    grace: Count                                # epochs before a trial may be stopped
    reduction: Annotated[Number, Field(gt=1, le=100)]   # one of so many goes on at each rung
    startup: CountOrZero                        # trials drawn at random before TPE learns from them
    energy_pictures: Count                      # of those held out, on which a finished trial's energy is counted
    concurrency: Count | None                   # trials at a time; null = as many as there are cores, or GPUs
    cpus_per_trial: Count
    gpus_per_trial: Positive


class Cluster(Section):
    """Where stores are written, trials run and commands sent when one machine is not enough."""

    address: Annotated[str, Field(pattern=r"^[\w.:/@\[\]-]+$", max_length=200)] | None  # of a Ray cluster: auto, HOST:PORT, local; null = none
    gpus_per_worker: Annotated[int, Field(ge=0, le=1)] | None   # null = 1 where there are GPUs, else 0
    storage: Annotated[str, Field(min_length=1, max_length=500)] | None     # folder or URL that gets a copy of each checkpoint; null = none
    max_failures: CountOrZero                   # lost workers after which a training goes on by itself
    wait_s: CountOrZero                         # for machines that it lacks: those an autoscaler brings, or that come back
    dashboard: Annotated[str, Field(pattern=r"^https?://[\w.:\[\]-]+/?$", max_length=209)]     # of a Ray cluster that takes jobs
    data: Annotated[str, Field(pattern=r"^/[^\n]+$", max_length=1001)] | None  # the project's data folder as a job's machine sees it; null = where it is here
    job_gpus: Annotated[int, Field(ge=0, le=64)]        # that a job has to itself, on one machine


class Track(Section):
    mlflow: bool
    system_metrics: bool        # of a training's machine, every ten seconds
    experiment: Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=60)]


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
    energy: Energy
    activations: Activations
    robustness: Robustness
    conversion: Conversion
    time_steps: TimeSteps
    tune: Tune
    cluster: Cluster
    track: Track

    @model_validator(mode="after")
    def _sample_is_recordings(self) -> Sections:
        if self.data.source == "sample" and self.data.ddd17.form != "recordings":
            raise ValueError(f"data.source is sample, whose data.ddd17.form is recordings, not {self.data.ddd17.form}")
        return self

    @model_validator(mode="after")
    def _pictures_exist(self) -> Sections:
        if self.data.dataset == "mnist_cifar" and self.evaluate.pictures > self.data.mnist_cifar.test:
            raise ValueError("evaluate.pictures is larger than data.mnist_cifar.test")
        return self


# numbers that came later, as nets before them were trained
LATER = {"model": {"pool": "average"}, "loss": {"spike_rate": 0.0, "background": 1.0}, "train": {"give_back": False}}
SHAPING = {"encode", "neuron", "model", "loss", "optim", "train"}       # beside the store, the sections that a net's weights follow from
DATA = "SNNSEG_DATA"    # in the environment of a job on a cluster, whose copy of the project holds the code only


def since(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Sections of a net that may have been saved before a number of LATER was there."""
    return {name: LATER.get(name, {}) | section for name, section in sections.items()}


def data_folder(root: Path) -> Path:
    """Where the files of the project at `root` lie, raw and produced: its `data`, or the folder that a job was told of."""
    return Path(os.environ.get(DATA) or root / "data")


class Config(Sections):
    """The sections as one experiment on one benchmark sees them, and where its files live. Paths are absolute from here on."""

    benchmark: str
    experiment: str
    store_name: str         # the benchmark, with a mark behind it where its data was changed for one command
    root: Path

    @classmethod
    def of(cls, about: dict[str, Any], root: Path, changes: dict[str, Any] | None = None) -> Config:
        """The config that an about.json tells of, with other sections in the place of some. Raises pydantic's ValidationError."""
        sections = Sections.model_validate(since(about["config"]) | (changes or {}))
        return cls(**{k: about[k] for k in ("benchmark", "experiment", "store_name")}, root=root,
                   **{k: getattr(sections, k) for k in Sections.model_fields})

    @property
    def about(self) -> dict[str, Any]:
        """What an about.json tells of it: the sections as plain values, and the names."""
        return {"benchmark": self.benchmark, "experiment": self.experiment, "store_name": self.store_name,
                "config": self.model_dump(mode="json", include=set(Sections.model_fields))}

    @property
    def around(self) -> dict[str, Any]:
        """The sections that shape no weights, as plain values: a saved net is measured by the project's own, not those of the day it was trained on."""
        return self.model_dump(include=set(Sections.model_fields) - SHAPING - {"data"})

    @property
    def name(self) -> str:
        """`voc/ann_fcn`: the name on the command line, and the place below data/model and data/result."""
        return f"{self.benchmark}/{self.experiment}"

    @property
    def protocol(self) -> str:
        """What results cannot be compared without, e.g. `binary@32`: named in each, since the paper leaves it open."""
        return f"{self.data.chosen.protocol}@{self.data.size}"

    @property
    def anywhere(self) -> Config:
        """The same numbers for whatever device there is: `train.kernels` is left to `auto` where it names a way that not every device has."""
        portable = self.train.kernels in ("auto", "reference")
        return self if portable else self.model_copy(update={"train": self.train.model_copy(update={"kernels": "auto"})})

    @property
    def same_on_any_number(self) -> bool:
        """Whether numbers are the same whatever the number of workers."""
        return self.train.sync_norm == "synced" or (self.spiking and self.model.norm == "none")

    @property
    def spiking(self) -> bool:
        return self.model.name.startswith("spiking")

    @property
    def classes(self) -> int:
        return self.data.chosen.number_of_classes

    @property
    def channels(self) -> int:
        """Of the input: red, green and blue, or ON and OFF."""
        return 2 if self.data.events else 3

    @property
    def timesteps(self) -> int:
        """Time steps of this net: T for a spiking net and for frames of events; one for an ANN that sees a picture."""
        return self.encode.timesteps if self.spiking or self.data.events else 1

    @property
    def raw(self) -> Path:
        return data_folder(self.root) / "raw"

    @property
    def store(self) -> Path:
        return data_folder(self.root) / "store" / self.store_name

    @property
    def store_params(self) -> dict[str, Any]:
        """The numbers that the store depends on: kept in it and compared when it is opened."""
        d = self.data
        chosen = d.chosen.model_dump(exclude=set() if d.source == "sample" else {"sample"})
        return {"dataset": d.dataset, "source": d.source, "size": d.size, "seed": d.seed, **chosen}

    @property
    def model_folder(self) -> Path:
        return data_folder(self.root) / "model" / self.name

    @property
    def result_folder(self) -> Path:
        """Curve, scores and pictures of this experiment."""
        return data_folder(self.root) / "result" / self.name

    @property
    def report(self) -> Path:
        """All experiments side by side."""
        return data_folder(self.root) / "report"

    def fingerprint(self, store_digest: str, code_digest: str) -> str:
        """sha256 over all that influences the weights: sections, the seal of the training store, the code."""
        told = self.model_dump(include=SHAPING)
        for without_effect in ("validate_every", "log_every", "checkpoint_every", "keep", "graph", "workers", "give_back"):
            del told["train"][without_effect]
        if self.same_on_any_number:
            del told["train"]["sync_norm"]
        if not self.spiking:        # an ANN has no neurons, and for pictures no time: sweeping T does not train its twin anew
            del told["neuron"], told["model"]["norm"], told["encode"]["coding"]
            if not self.data.events:
                del told["encode"]["timesteps"]
        if told["model"]["pool"] == "average":
            del told["model"]["pool"]
        if not told["loss"]["spike_rate"] or not self.spiking:
            del told["loss"]["spike_rate"]
        if told["loss"]["background"] == 1:
            del told["loss"]["background"]
        told |= {"store": store_digest, "code": code_digest, "name": self.name}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
