"""What a store is made of: how many items, which arrays, and how to make any stretch of them."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class Progress(NamedTuple):
    """So many of `total` pictures, frames or recordings are done."""

    what: str
    done: int
    total: int


class Made(NamedTuple):
    """A stretch of items as named arrays, and the files that could not be used: name -> what is wrong."""

    items: dict[str, Any]
    bad: dict[str, str]


class Part(Protocol):
    """A stretch of items of one split, and how they are made. It goes to another process; nothing else shapes the items."""

    def make(self, skip_bad: bool) -> Made:
        """With `skip_bad`, files that cannot be used are named in the answer; else DataError is raised."""

    def files(self) -> Iterable[Path]:
        """What the items are made from: when one of these changed, they are made again."""


@dataclass(frozen=True)
class Recipe:
    """How the store of a data set is made.

    `found` and `official` are the items of each split that are there, and those of the complete data set (empty where there
    is no such number). `about` are attributes of the store beside the classes. `bad` are files left out already; `raw` is
    where the files lie.
    """

    part: Callable[[str, int, int], Part]                   # of a split, from item to item
    what: str                                               # pictures or frames
    counts: dict[str, int]
    arrays: dict[str, tuple[tuple[int, ...], str]]          # shape and dtype of one item
    classes: tuple[str, ...]
    palette: list[str]
    raw: Path
    found: dict[str, int] = field(default_factory=dict)
    official: dict[str, int] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)

    @property
    def partial(self) -> str | None:
        """`3 138/450` (training and test items at hand) where the download is not complete."""
        if all(self.found.get(split, 0) >= count for split, count in self.official.items()):
            return None
        return "/".join(f"{self.found.get(split, 0):,}".replace(",", " ") for split in self.official)

    @property
    def left_out(self) -> dict[str, str]:
        """The bad files, named from the raw folder on: a store does not depend on where that lies."""
        return {name.replace(f"{self.raw}/", ""): fact.replace(f"{self.raw}/", "") for name, fact in sorted(self.bad.items())}

    @property
    def told(self) -> str:
        """`3588 pictures (3138 train, 450 test), partial`, for a person."""
        splits = ", ".join(f"{count} {split}" for split, count in self.counts.items())
        marks = ", partial" * bool(self.partial) + f", {len(self.bad)} files left out" * bool(self.bad)
        return f"{sum(self.counts.values())} {self.what} ({splits}){marks}"


def state(files: Iterable[Path]) -> Iterator[tuple[str, int, int]]:
    """Name, bytes and time of change of each file: enough to see that it is still the one it was."""
    for path in files:
        told = path.stat()
        yield str(path), told.st_size, told.st_mtime_ns
