"""The form of a sweep's ranges in params.yaml: `neuron.leak: {float: [0.5, 1.0]}`. Whether they fit the other sections: `tuning.space`."""
from __future__ import annotations

import math
from typing import Any


def by_key(given: Any, prefix: str = "") -> Any:
    """`{neuron: {leak: R}}` as `{neuron.leak: R}`, which may be written so as well; what is written later counts, and null takes a key out."""
    if not isinstance(given, dict):
        return given
    out: dict[str, Any] = {}
    for name, below in given.items():
        inner = isinstance(below, dict) and below and all(v is None or isinstance(v, dict) for v in below.values())
        out |= by_key(below, f"{prefix}{name}.") if inner else {f"{prefix}{name}": below}
    return out if prefix else {key: told for key, told in out.items() if told is not None}


def checked(told: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """One kind with values that leave a choice. Raises ValueError."""
    if len(told) != 1:
        raise ValueError("expected one of float, log, int, choice with its values")
    (kind, values), = told.items()
    if kind == "choice":
        if len(values) < 2 or any(a == b and type(a) is type(b) for k, a in enumerate(values) for b in values[:k]):
            raise ValueError("a choice has two values or more, none of them twice")
        return told
    numbers = (int,) if kind == "int" else (int, float)
    if len(values) != 2 or not all(isinstance(v, numbers) and not isinstance(v, bool) and math.isfinite(v) for v in values) or values[0] >= values[1]:
        raise ValueError(f"an empty range: {kind} has {'whole ' * (kind == 'int')}numbers [lowest, highest], the first below the second")
    if kind == "log" and values[0] <= 0:
        raise ValueError("a log range begins above 0")
    return told


def objectives(told: list[str]) -> list[str]:
    """What a sweep is for. Raises ValueError."""
    if told not in (["miou"], ["miou", "energy"]):
        raise ValueError("expected [miou] or [miou, energy]")
    return told
