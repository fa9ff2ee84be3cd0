"""The page as one file, data/report/index.html: its sections in order, through a template that escapes every text.

No request leaves it: style, script, drawings and pictures are inside, and its own policy forbids the browser everything else, the script of any
text that came as data before all. The same results give the same bytes.
"""
from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from snnseg import seal
from snnseg.report import style
from snnseg.report.page import accuracy, beside, course, files, film, frugal, glance, origin, robust, samples, steps, svg, sweeps
from snnseg.report.page import nets as lying
from snnseg.report.page import plot as plots
from snnseg.report.page.blocks import Cell, Drawing, Section
from snnseg.report.page.nets import Net
from snnseg.report.table import NOT_RUN

HERE = Path(__file__).parent
NAME = "index.html"


def sections(nets: Sequence[Net], rows: Sequence[dict[str, Any]], tune: Path) -> list[Section]:
    """All parts of the page, in order; another part is another line."""
    return [
        glance.section(nets),
        beside.section(nets),
        accuracy.section(nets, rows),
        samples.section(nets),
        robust.section(nets),
        frugal.section(nets),
        steps.section(nets),
        film.section(nets),
        course.section(nets),
        sweeps.section(tune),
        origin.section(nets),
    ]


def write(results: Path, report: Path, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> Path:
    """Write the page and its figures below `report` from what lies below `results`; `rows` are those of results.csv.

    Raises StoreAltered for a file that cannot be read, NoSpace.
    """
    nets = lying.read(results, names)
    told = sections(nets, rows, results.parent / "tune")
    files.write(report, [block.plot for section in told for block in section.blocks if isinstance(block, Drawing)])
    seal.write_file(report / NAME, page(nets, told, rows))
    return report / NAME


def page(nets: Sequence[Net], told: Sequence[Section], rows: Sequence[dict[str, Any]]) -> str:
    """The whole page as HTML."""
    css, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((HERE / "page.html").read_text(encoding="utf-8"))
    return template.render(
        headlines=glance.headlines(nets), sections=told, marks=_marks(rows), css=Markup(css), colours=Markup(_colours()), script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{_digest(script)}'; base-uri 'none'; form-action 'none'",
        drawn=lambda panel, alt: Markup(svg.draw(panel, alt)), mark=lambda net, hollow=False: Markup(svg.mark(net, hollow)), named=style.named,
        numbers=plots.table, NOT_RUN=NOT_RUN, Cell=Cell) + "\n"


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _colours() -> str:
    """The nets' colours as rules of CSS, for light and for dark."""
    def rules(which: str) -> str:
        return "".join(f".c{look.place}{{--c:{getattr(look, which)}}}" for look in style.LOOKS)

    return f"{rules('colour')}@media(prefers-color-scheme:dark){{{rules('on_dark')}}}"


def _marks(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader must know before any number."""
    ran = [row for row in rows if row["miou"] != NOT_RUN]
    sample, partial = (sum(row["source"] == "sample" for row in ran), sum("(" in row["dataset"] for row in ran))
    waiting = len(rows) - len(ran)
    told = [(sample, f"{'All' if sample == len(ran) else f'{sample} of {len(ran)}'} nets were trained and scored on sample data made by this project, "
                     "which say nothing about the benchmarks."),
            (partial, f"{partial} of {len(ran)} nets were trained and scored on partial data, named with each."),
            (waiting, f"{waiting} of {len(rows)} experiments were not run yet.")]
    return [text for count, text in told if count] if rows else ["No experiments yet: dvc repro makes the results that this page shows."]
