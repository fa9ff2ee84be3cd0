"""Which way norm and neuron are run: the plain form, loops compiled for the CPU, or kernels for a GPU.

`fused.reference` is the oracle of the others. Each way has `refusal` and `run` as here, less `way`.
"""
from __future__ import annotations

from types import ModuleType

from torch import Tensor

from snnseg.spiking import fused
from snnseg.spiking.fused import Fired, Normal
from snnseg.spiking.neuron import LIF


def run(y_TBCHW: Tensor, normal: Normal | None, neuron: LIF, way: str = "auto") -> Fired:
    """Normalise (or not: None), integrate, fire; gradients reach y, gamma, beta and a learned leak and threshold.

    `auto` takes the compiled loops for a y in main memory if they can do it, else the reference: kernels for a GPU have to be
    named, as they make whole nets faster and slower (docs/house.md). Raises ValueError where shapes do not
    fit or the batch has too few values for statistics (see `fused.check`), and where `way` is named and cannot do it.
    """
    fused.check(y_TBCHW, normal)
    if way == "auto":
        way = "cpu" if y_TBCHW.device.type == "cpu" and not refusal("cpu", y_TBCHW, normal, neuron) else "reference"
    elif reason := refusal(way, y_TBCHW, normal, neuron):
        raise ValueError(f"the {way} way of norm and neuron cannot do this: {reason}")
    if way == "reference":
        return fused.reference(y_TBCHW, normal, neuron)
    return _compiled(way).run(y_TBCHW, normal, neuron)


def refusal(way: str, y_TBCHW: Tensor, normal: Normal | None, neuron: LIF) -> str | None:
    """Why `way` (reference, cpu, triton) cannot do it, in words; None if it can. ValueError for a way there is not."""
    if way == "reference":
        return None
    if way not in ("cpu", "triton"):
        raise ValueError(f"way {way!r} is none of auto, reference, cpu, triton")
    try:
        return _compiled(way).refusal(y_TBCHW, normal, neuron)
    except ImportError as error:
        return f"it cannot be imported here ({error})"


def _compiled(way: str) -> ModuleType:
    """Imported when first used: neither numba nor Triton is loaded for nothing. Raises ImportError."""
    if way == "cpu":
        from snnseg.spiking import fused_cpu

        return fused_cpu
    from snnseg.spiking import fused_triton

    return fused_triton
