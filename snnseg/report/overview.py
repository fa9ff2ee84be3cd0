"""All experiments side by side, everything that is made of all of them: the table of results, the sheet of pictures, further tables, the page."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from snnseg.report import side_by_side, table
from snnseg.report.page import index


def write(results: Path, report: Path, names: list[str]) -> list[dict[str, Any]]:
    """Write all of it below `report` from the files of `names` below `results`; return the table's rows. Raises as `table.write`."""
    rows = table.write(results, report, names)
    side_by_side.write(results, report, names)
    index.write(results, report, names, rows)
    return rows
