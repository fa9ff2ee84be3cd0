"""The robustness of all nets side by side: relative drop of mIoU over the level of noise (figure 11), as a picture and a table."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from snnseg import seal
from snnseg.report import style
from snnseg.report.table import csv_text

COLUMNS = "benchmark experiment noise level miou spread drop draws".split()
LEVELS = {"gaussian": "sigma, of 255", "salt_pepper": "share of pixels", "blur": "sigma, pixels", "dropped": "share of events lost",
          "added": "events added, share", "jittered": "sigma, cells", "fgsm": "eps, of 255", "pgd": "eps, of 255"}


def rows(results: Path, names: list[str]) -> list[dict[str, Any]]:
    """A row for each net, kind and level; none for what was not run."""
    found = []
    for name in names:
        if (path := results / name / "robustness.json").is_file():
            told = json.loads(path.read_text(encoding="utf-8"))
            found += [{"benchmark": told["benchmark"], "experiment": told["experiment"], "noise": kind, **point}
                      for kind, points in told["noise"].items() for point in points]
    return found


def figure(found: list[dict[str, Any]]) -> bytes:
    """PNG: a row of panels for each benchmark, a panel for each kind of noise; bars are the spread over the draws."""
    kinds = {benchmark: list(dict.fromkeys(r["noise"] for r in found if r["benchmark"] == benchmark))
             for benchmark in dict.fromkeys(r["benchmark"] for r in found)}
    across = max((len(names) for names in kinds.values()), default=1)
    page, axes = style.panels(len(kinds), across)
    for row, (benchmark, names) in enumerate(kinds.items()):
        for panel, kind in zip(axes[row], names, strict=False):
            mine = [r for r in found if (r["benchmark"], r["noise"]) == (benchmark, kind) and r["drop"] is not None]
            for net in dict.fromkeys(r["experiment"] for r in mine):
                points = [r for r in mine if r["experiment"] == net]
                clean = points[0]["miou"]
                panel.errorbar([p["level"] for p in points], [p["drop"] for p in points], [100 * p["spread"] / clean for p in points], label=net, capsize=2,
                               **style.line(net))
            panel.set(title=f"{benchmark}: {kind.replace('_', ' ')}", xlabel=LEVELS[kind], ylabel="drop of mIoU, %")
            panel.grid(alpha=0.3)
        for panel in axes[row][len(names):]:
            panel.axis("off")
    if kinds:
        axes[0][0].legend(fontsize=7)
    return style.png(page)


def write(results: Path, report: Path, names: list[str]) -> list[dict[str, Any]]:
    """Write robustness.csv and robustness.png below `report` from the files of `names` below `results`; return the rows."""
    found = rows(results, names)
    told = [{k: "-" if r[k] is None else f"{r[k]:.4f}" if k in ("miou", "spread", "drop") else r[k] for k in COLUMNS} for r in found]
    seal.write_file(report / "robustness.csv", csv_text(told, COLUMNS))
    seal.write_file(report / "robustness.png", figure(found))
    return found
