"""The numbers of the data sets: what a store is made of. Types and rules, as in `sections`."""
from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from snnseg.section import LARGEST, Count, Section, Seed


class MnistCifar(Section):
    """The synthetic benchmark of section 5.1.1: a digit added to a photograph."""

    classes: Literal["binary", "digits"]        # digit against background, or ten digits and background
    train: Count                                # pictures made for training
    test: Count                                 # pictures held out

    @property
    def protocol(self) -> str:
        """What the paper leaves open."""
        return self.classes

    @property
    def number_of_classes(self) -> int:
        return {"binary": 2, "digits": 11}[self.classes]


class Sample(Section):
    """How much of a made-up sample in the official layout, where the source is `sample`."""

    train: Count
    test: Count


class Voc(Section):
    """VOC2012 with SBD: photographs and masks of twenty kinds of things."""

    fit: Literal["stretch", "letterbox"]        # into the square: aspect lost as in the paper, or kept with void around
    sample: Sample                              # pictures

    @property
    def protocol(self) -> str:
        return self.fit

    @property
    def number_of_classes(self) -> int:
        return 21


class DrivingSample(Section):
    """Labelled frames of 50 ms, in several recordings."""

    train: Annotated[int, Field(ge=2, le=LARGEST)]
    test: Count


class Ddd17(Section):
    """Driving recordings of an event camera, in one of the three forms that are public."""

    form: Literal["recordings", "ev_segnet", "ess"]
    sample: DrivingSample

    @property
    def protocol(self) -> str:
        return self.form

    @property
    def number_of_classes(self) -> int:
        return 6


class Data(Section):
    """Which raw data becomes which sealed store."""

    dataset: Literal["mnist_cifar", "voc", "ddd17"]
    source: Literal["sample", "archives"]       # made of what packages bring, or the official files below data/raw
    size: Annotated[int, Field(ge=32, le=64, multiple_of=32)]   # pixels a side
    seed: Seed
    workers: Annotated[int, Field(ge=0, le=1024)]   # processes that write a store; 0 = one a core
    allow_partial: bool                         # take an incomplete download, counted in the store and the results
    skip_bad: bool                              # leave out files that cannot be used, listed and counted
    mnist_cifar: MnistCifar
    voc: Voc
    ddd17: Ddd17

    @property
    def chosen(self) -> MnistCifar | Voc | Ddd17:
        """The numbers of this data set alone."""
        return getattr(self, self.dataset)

    @property
    def events(self) -> bool:
        """Whether an item is T frames of an event camera, not a picture."""
        return self.dataset == "ddd17"
