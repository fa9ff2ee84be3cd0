"""What was measured of each net, from its files below data/result: for figures and tables of all nets."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NOT_RUN = "not run"     # a cell of a table whose number was never measured


def read(results: Path, names: list[str], file: str, spiking: bool) -> dict[str, dict[str, Any] | None]:
    """`file` (conversion.json) of each net of `names` (`voc/ann_fcn`) that is spiking, or is not; None where it was not made."""
    found = {}
    for name in names:
        about, told = results / name / "about.json", results / name / file
        if about.is_file() and json.loads(about.read_text(encoding="utf-8"))["config"]["model"]["name"].startswith("spiking") is spiking:
            found[name] = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else None
    return found


def written(value: Any) -> Any:
    """A number as a cell; None, what could not be measured, as one that says so."""
    return NOT_RUN if value is None else f"{value:.4f}" if isinstance(value, float) else value
