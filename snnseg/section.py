"""What a section of params.yaml is made of: a frozen model, and kinds of numbers."""
from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

LARGEST = 10**9         # of any count
MOST = 64               # things that are looked at one by one


def _finite(value: float) -> float:
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("must be a finite number")
    return value


Count = Annotated[int, Field(ge=1, le=LARGEST)]
CountOrZero = Annotated[int, Field(ge=0, le=LARGEST)]
Number = Annotated[float, AfterValidator(_finite)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Bits = Annotated[int, Field(ge=1, le=32)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as `section.key` -> value."""
    out: dict[str, Any] = {}
    for key, value in section.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def _some(value: Any) -> Any:
    several = value if isinstance(value, list) and len(value) <= MOST else [-1]
    if not (type(value) is int and 1 <= value <= MOST or several and all(type(n) is int and 0 <= n <= LARGEST for n in several)):
        raise ValueError(f"expected how many, 1 to {MOST}, or a list of numbers from 0 on")
    return value


Some = Annotated[int | list[int], BeforeValidator(_some)]       # so many, or these


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
