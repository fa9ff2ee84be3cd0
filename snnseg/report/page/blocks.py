"""What a section of the page is made of: plain values that the template turns into HTML, and escapes."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from snnseg.report.page.plot import Plot

NONE = "-"          # a thing that does not apply: an ANN's leak, the IoU of a class that does not occur


@dataclass(frozen=True)
class Cell:
    """Text of a table's cell; `net` gives it the mark of a net, `bar` a bar below it (0 to 1), `note` a smaller line."""

    text: str
    net: str = ""
    bar: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Column:
    """`key` is the column of results.csv that it shows, if it shows one; `long`: sentences, which are not squeezed."""

    label: str
    unit: str = ""
    number: bool = False
    key: str = ""
    long: bool = False


@dataclass(frozen=True)
class Table:
    """The first cell of a row heads it."""

    kind: ClassVar[str] = "table"
    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    sortable: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Prose:
    """A paragraph, with a link behind it where there is one."""

    kind: ClassVar[str] = "prose"
    text: str
    link: str = ""
    label: str = ""


@dataclass(frozen=True)
class Missing:
    """A part that nothing was run for: which stage makes it."""

    kind: ClassVar[str] = "missing"
    what: str
    command: str


@dataclass(frozen=True)
class Drawing:
    kind: ClassVar[str] = "drawing"
    plot: Plot


@dataclass(frozen=True)
class Tile:
    """A small picture, or none where a net has none; `uri` is a data: URI."""

    uri: str
    alt: str
    width: int
    height: int


@dataclass(frozen=True)
class Swatch:
    colour: str
    label: str


@dataclass(frozen=True)
class Gallery:
    """Pictures under column heads, a row a sample, the meaning of the colours below."""

    kind: ClassVar[str] = "gallery"
    id: str
    caption: str
    heads: Sequence[Cell]
    rows: Sequence[tuple[str, Sequence[Tile | None]]]
    keys: Sequence[tuple[str, Sequence[Swatch]]]


@dataclass(frozen=True)
class Strip:
    """A tile of a film: its frames side by side in one picture, each `width` x `height`."""

    uri: str
    label: str
    alt: str
    frames: int
    width: int
    height: int


@dataclass(frozen=True)
class Film:
    """Tiles that move together, which a reader plays, stops and steps through; `labels` tell of each frame."""

    kind: ClassVar[str] = "film"
    id: str
    caption: str
    strips: Sequence[Strip]
    labels: Sequence[str]


Block = Table | Prose | Missing | Drawing | Gallery | Film


@dataclass(frozen=True)
class Section:
    """A part of the page; `short` is its name in the list of parts. `cards`: its tables stand side by side where there is room."""

    id: str
    title: str
    blocks: Sequence[Any]
    short: str = ""
    cards: bool = False
