"""How robust: relative drop of mIoU over the level of noise (figure 11), a panel for each kind."""
from __future__ import annotations

from collections.abc import Sequence

from snnseg.report.page import nets as lying
from snnseg.report.page.blocks import Drawing, Missing, Prose, Section
from snnseg.report.page.glance import titled
from snnseg.report.page.nets import Net
from snnseg.report.page.plot import Panel, Plot, Point, Series

LEVELS = {"gaussian": "sigma, of 255", "salt_pepper": "share of pixels", "blur": "sigma, pixels", "dropped": "share of events lost",
          "added": "events added, share", "jittered": "sigma, cells", "fgsm": "eps, of 255", "pgd": "eps, of 255"}


def section(nets: Sequence[Net]) -> Section:
    """The curves of all kinds of noise, and what the paper says of its own."""
    drawn = curves(nets)
    if drawn is None:
        return Section("robustness", "Robustness", [Missing("Scores on noisy inputs", "dvc repro robustness")])
    paper = Prose("Figure 11 of the paper has these curves for Gaussian noise; neither its levels nor its numbers are in the text. Its finding: spiking "
                  "nets lose less than their twins on VOC2012, which it puts down to Poisson coding, and about as much on DDD17.")
    return Section("robustness", "Robustness", [paper, Drawing(drawn)])


def curves(nets: Sequence[Net]) -> Plot | None:
    """None where nothing was run."""
    panels, draws = [], set()
    for benchmark, mine in lying.drawn(nets).items():
        able = [net for net in mine if net.robustness]
        for kind in dict.fromkeys(kind for net in able for kind in net.robustness["noise"]):
            series = []
            for net in able:
                points = [p for p in net.robustness["noise"].get(kind, []) if p["drop"] is not None]
                clean = net.robustness["miou"]
                draws |= {p["draws"] for p in points if p["level"]}
                if points:
                    series.append(Series(net.experiment, [_point(p, clean) for p in points], label=net.title))
            if series:
                panels.append(Panel(f"{titled(benchmark)}, {kind.replace('_', ' ')}", LEVELS.get(kind, kind), "drop of mIoU, %", series))
    if not panels:
        return None
    told = f"Bars: one standard deviation over {' or '.join(map(str, sorted(draws)))} draws of the noise." if draws else ""
    return Plot("robustness", "Robustness to noise", "Relative drop of mean IoU over the level of noise, a line a net.", panels,
                "Every net is scored on the same noisy bytes, but for attacks (FGSM, PGD), which are made against each net. "
                "Less is better; a drop below zero is a score that rose.", told)


def _point(p: dict, clean: float) -> Point:
    spread = 100 * p["spread"] / clean if clean and p["level"] else None
    return Point(p["level"], p["drop"], *((p["drop"] - spread, p["drop"] + spread) if spread else ()))
