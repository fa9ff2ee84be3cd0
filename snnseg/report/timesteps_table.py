"""A spiking net's scores by number of time steps (timesteps.json) as lines: of a table, and for a person."""
from __future__ import annotations

from typing import Any

from snnseg.report import measured

COLUMNS = ["curve", "past_trained", "timesteps", "miou"]


def rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each score: curve is anytime, inference or trained, past_trained BNTT's rule where one was followed."""
    found = [("anytime", "-", p) for p in summary["anytime"]]
    found += [("inference", rule if p["timesteps"] > summary["trained_timesteps"] else "-", p) for rule, points in summary["inference"].items() for p in points]
    found += [("trained", "-", p) for p in summary["trained"]]
    told = [{"curve": curve, "past_trained": rule, "timesteps": p["timesteps"], "miou": measured.written(p["miou"])}
            for curve, rule, p in found]
    return list({tuple(row.values())[:3]: row for row in told}.values())       # up to the trained T all rules are one


def lines(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    names = {"anytime": "one pass, after step", "inference": "read at", "trained": "trained with"}
    told = [f"{summary['benchmark']}/{summary['experiment']}, trained with {summary['trained_timesteps']} time steps, {summary['pictures']} pictures"]
    told += [f"  {names[r['curve']]:22}{r['timesteps']:5}   mIoU {r['miou']:>8}{'' if r['past_trained'] == '-' else '   ' + r['past_trained']}"
             for r in rows(summary)]
    return "\n".join(told)
