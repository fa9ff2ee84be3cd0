"""Energy of a picture in picojoules, counted three ways that are shown side by side.

    proxy         eqs. 9 to 12: every product of an ANN is a MAC, of a spiking net R_s(l) accumulates; nothing else
    exact         `operations`: what is not zero, as MAC or AC by what the input is, with pool, norm, neuron, resizing
    with memory   exact, and the bytes of `traffic`

The fair rival of a net of T steps is its ANN with activations of ceil(log2(T + 1)) bits, which tell as much as a count of
T spikes (Yan, Bai, Wong 2024, arXiv 2409.08290): `quantised`.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from snnseg.evaluation import operations, spikes, traffic
from snnseg.evaluation.activity import Activity
from snnseg.evaluation.layers import INPUT, Layer
from snnseg.evaluation.operations import Work

FULL = traffic.FULL
MILLIJOULE = 1e9        # pJ


@dataclass(frozen=True)
class Arithmetic:
    """pJ of an operation, and the bits of its numbers. The pJ are those of 32-bit floats at 45 nm (table 5; Horowitz 2014).

    Fewer bits: a multiplication costs in proportion to the product of both widths, an addition to the weight's, so a MAC of
    equal widths b is 3.7 (b / 32)^2 + 0.9 b / 32, as in spyx's `honest_energy_accounting`; at b = 32 it is 4.6.
    """

    multiply_pj: float = 3.7
    add_pj: float = 0.9
    weight_bits: int = FULL
    activation_bits: int = FULL         # of an ANN's values between layers; pictures stay at 32, in both nets
    pooled_bits: int = FULL             # of a spiking net's pooled spikes; 4 would do for the ten counts 0 to 9
    fold_norm: bool = True              # norms of the same numbers at each step go into the weights

    def mac(self, bits: int = FULL, weight_bits: int = FULL) -> float:
        return self.multiply_pj * bits * weight_bits / FULL**2 + self.ac(weight_bits)

    def ac(self, weight_bits: int = FULL) -> float:
        return self.add_pj * weight_bits / FULL


@dataclass(frozen=True)
class Memory:
    """pJ of a byte moved, by what it is. 24.96 is that of SpikingJelly 2.0's `SimpleEnergy` (3.12 pJ a bit); from DRAM it is 160 and more (Horowitz 2014)."""

    weight_pj: float = 24.96
    state_pj: float = 24.96
    activation_pj: float = 24.96
    weights_held: bool = False          # a weight is read once a picture, not at each step


@dataclass(frozen=True)
class LayerEnergy:
    """A layer's row: a picture's mean. Of the proxy, effective counts are those of eq. 9 or 10."""

    layer: str
    kind: str
    reads: str                          # spikes or values: what the convolution sees
    dense_macs: int                     # eq. 9
    macs: float                         # effective, all parts together
    acs: float
    rate: float | None                  # eq. 8, of layers that fire
    density: float | None               # share of the convolution's inputs that are not zero
    products_per_step: tuple[float, ...]        # effective, of the convolution; one number where it works once a picture
    bytes: float = 0.0
    pj: dict[str, float] = field(default_factory=dict)      # by part

    @property
    def total_pj(self) -> float:
        return sum(self.pj.values())


@dataclass(frozen=True)
class Energy:
    """A net's energy a picture, counted one way."""

    way: str
    layers: tuple[LayerEnergy, ...]

    @property
    def pj(self) -> float:
        return sum(layer.total_pj for layer in self.layers)

    @property
    def mj(self) -> float:
        return self.pj / MILLIJOULE

    @property
    def by_part(self) -> dict[str, float]:
        """pJ."""
        parts = dict.fromkeys(part for layer in self.layers for part in layer.pj)
        return {part: sum(layer.pj.get(part, 0.0) for layer in self.layers) for part in parts}

    @property
    def totals(self) -> dict[str, float]:
        """Operations, bytes and energy of the whole net."""
        summed = {name: sum(getattr(layer, name) for layer in self.layers) for name in ("dense_macs", "macs", "acs", "bytes")}
        return summed | {"pj": self.pj}

    def rows(self) -> list[dict[str, Any]]:
        """A plain dictionary a layer, for JSON or CSV: numbers, strings, None, and one list (`products_per_step`)."""
        out = []
        for layer in self.layers:
            row = asdict(layer)
            parts = row.pop("pj")
            out.append({"way": self.way} | row | {"products_per_step": list(layer.products_per_step)}
                       | {f"pj_{part}": pj for part, pj in parts.items()} | {"pj": layer.total_pj})
        return out


def proxy(layers: Sequence[Layer], rates: Mapping[str, float] | None = None, arithmetic: Arithmetic = Arithmetic()) -> Energy:
    """Eqs. 9 to 12. `rates`: R_s of each layer (`spikes.of_each_layer`), or none for an ANN.

    As in the paper, an ANN is counted for one step, however many frames it sees, and R_s is that of the layer itself, not of what it reads.
    """
    out = []
    for layer in layers:
        work = Work(macs=float(layer.macs)) if not rates else Work(acs=layer.macs * rates[layer.name])
        pj = {"synapses": work.macs * arithmetic.mac() + work.acs * arithmetic.ac()}
        out.append(LayerEnergy(layer.name, layer.kind, "spikes" if rates else "values", layer.macs, *work,
                               rates[layer.name] if rates and layer.ends == "fires" else None, None, (), pj=pj))
    return Energy("proxy", tuple(out))


def exact(activities: Sequence[Activity], arithmetic: Arithmetic = Arithmetic()) -> Energy:
    """Effective operations, part by part as `operations.of_layer` has them."""
    return Energy("exact", tuple(_layer(a, arithmetic, None) for a in activities))


def with_memory(activities: Sequence[Activity], arithmetic: Arithmetic = Arithmetic(), memory: Memory = Memory()) -> Energy:
    """`exact`, and the energy of the bytes of `traffic.of_layer`."""
    return Energy("with memory", tuple(_layer(a, arithmetic, memory) for a in activities))


def matched_bits(timesteps: int) -> int:
    """ceil(log2(T + 1)): the bits of a number of spikes from 0 to T."""
    return timesteps.bit_length()


def quantised(activities: Sequence[Activity], timesteps: int, arithmetic: Arithmetic = Arithmetic(), memory: Memory | None = None) -> Energy:
    """An ANN's energy, were its activations quantised to match a spiking net of so many steps; with memory, if that is given.

    Its activity is the unquantised one's: small values that quantising would make zero are counted. Weights keep their bits, as
    the spiking net's do (`arithmetic.weight_bits` for fewer). An average of nine activations is counted with their bits, though four more
    would tell it exactly. Raises ValueError for a spiking net, or for less than one step.
    """
    if timesteps < 1:
        raise ValueError(f"a spiking net has a time step or more: {timesteps}")
    if any(a.layer.spiking for a in activities):
        raise ValueError("the quantised rival is an ANN: these activities are a spiking net's")
    bits = matched_bits(timesteps)
    cheaper = replace(arithmetic, activation_bits=bits)
    counted = exact(activities, cheaper) if memory is None else with_memory(activities, cheaper, memory)
    return replace(counted, way=f"{counted.way}, {bits} bits")


def side_by_side(activities: Sequence[Activity], arithmetic: Arithmetic = Arithmetic(), memory: Memory = Memory(),
                 rival_of: int | None = None) -> tuple[Energy, ...]:
    """Proxy, exact, with memory; of an ANN that is the rival of a net of `rival_of` steps also both of it quantised."""
    out = (proxy([a.layer for a in activities], spikes.of_each_layer(activities), arithmetic), exact(activities, arithmetic),
           with_memory(activities, arithmetic, memory))
    return out if rival_of is None else (*out, *(quantised(activities, rival_of, arithmetic, m) for m in (None, memory)))


def _value_bits(a: Activity, arithmetic: Arithmetic) -> int:
    """Of a value between layers, as it lies in memory."""
    return FULL if a.layer.spiking else arithmetic.activation_bits


def _seen_bits(a: Activity, arithmetic: Arithmetic) -> int:
    """Of a value that the convolution multiplies."""
    if a.layer.reads == INPUT:
        return FULL
    return arithmetic.pooled_bits if a.layer.spiking and a.layer.pooled else _value_bits(a, arithmetic)


def _layer(a: Activity, arithmetic: Arithmetic, memory: Memory | None) -> LayerEnergy:
    work = operations.of_layer(a, arithmetic.fold_norm)
    pj = {part: w.macs * arithmetic.mac() + w.acs * arithmetic.ac() for part, w in work.items()}
    on_weights, bits = work["synapses"], arithmetic.weight_bits
    pj["synapses"] = on_weights.macs * arithmetic.mac(_seen_bits(a, arithmetic), bits) + on_weights.acs * arithmetic.ac(bits)
    moved = {}
    if memory is not None:
        moved = traffic.of_layer(a, bits, _value_bits(a, arithmetic), memory.weights_held, arithmetic.fold_norm)
        prices = {"weights": memory.weight_pj, "states": memory.state_pj, "activations": memory.activation_pj}
        pj |= {part: moved[part] * prices[part] for part in traffic.PARTS}
    rate = a.spikes / (a.pictures * spikes.neurons(a.layer)) if a.layer.ends == "fires" else None
    return LayerEnergy(a.layer.name, a.layer.kind, "spikes" if a.accumulates else "values", a.layer.macs, sum(w.macs for w in work.values()),
                       sum(w.acs for w in work.values()), rate, a.density, tuple(n / a.pictures for n in a.products_R), sum(moved.values(), 0.0), pj)
