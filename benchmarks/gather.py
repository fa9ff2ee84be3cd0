"""A convolution of spikes that goes from spike to spike, or looks them up, beside the dense one, layer by layer and spike rate by spike rate, on a CPU.

    python -m benchmarks.gather [--quick] [--rates 0.1 0.25 0.5] [--pictures N] [--size 32|64] [--width W] [--dtype fp32 bf16] [--rounds N]

Of Spiking-DeepLab's layers that see spikes: the forward pass (dense: oneDNN's), and the gradient of the weight (dense: as snnseg takes it from
values, by `products_cpu`, by oneDNN, or tap by tap where most of the kernel lies outside the map). Forms take turns; medians. "wins below" is the
rate at which both would take equally long, forward and gradient together, were the time of the spikes proportional to their number, which it is
not where they are looked up. Writes data/bench/gather.json.
"""
from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

from benchmarks import frame
from benchmarks.scan import DTYPES, layers, once
from snnseg import memory, stage
from snnseg.spiking import bits, convolution, gathered_cpu, looked_up_cpu
from snnseg.spiking.fused import in_rows


def shapes(size: int, width: float) -> list[tuple[int, int, int, int]]:
    """In-channels, out-channels, pixels a side and dilation of the layers that see spikes themselves, not their pool."""
    (a, full), (b, half), (c, quarter), (d, _) = layers(size, width)
    return [(a, a, full, 1), (b, b, half, 1), (c, c, quarter, 2), (c, d, quarter, 12)]


def measure(channels: int, out: int, side: int, dilation: int, dtype: str, rate: float, pictures: int, rounds: int) -> dict[str, Any] | None:
    """A row; None where the loops do not know the layer."""
    torch.manual_seed(0)
    x = in_rows((torch.rand(1, pictures, channels, side, side) < rate).to(DTYPES[dtype]))
    weight = torch.randn(out, channels, 3, 3).contiguous(memory_format=torch.channels_last)
    g = torch.randn(pictures, out, side, side).to(DTYPES[dtype]).contiguous(memory_format=torch.channels_last)
    packed, x_NCHW, as_x = bits.pack(x), x.flatten(0, 1), weight.to(DTYPES[dtype])
    looks_up = looked_up_cpu.wins(packed, weight)
    if not looks_up and not gathered_cpu.fits(packed, weight):
        return None
    loops = looked_up_cpu if looks_up else gathered_cpu
    works = {"forward_dense": lambda: convolution.forward(x_NCHW, as_x, dilation), "forward": lambda: loops.forward(packed, weight, dilation),
             "weight_dense": lambda: convolution.backward(g, x_NCHW, as_x, dilation, False),
             "weight": lambda: loops.of_weight(packed, g, weight, dilation)}
    spent: dict[str, list[float]] = {name: [] for name in works}
    for k in range(rounds + 1):
        for name, work in works.items():
            taken = once(work, "cpu")
            if k:           # the first turn compiles
                spent[name].append(taken)
    ms = {f"{name}_ms": 1e3 * statistics.median(found) for name, found in spent.items()}
    wins_below = rate * (ms["forward_dense_ms"] + ms["weight_dense_ms"]) / (ms["forward_ms"] + ms["weight_ms"])
    return {"form": "looked up" if looks_up else "gathered", "device": "cpu", "dtype": dtype, "channels": channels, "out": out, "size": side,
            "dilation": dilation, "rate": rate, "batch": pictures, **ms, "wins_below": wins_below}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="half of the channels, one rate, three rounds")
    arguments.add_argument("--rates", type=float, nargs="+", metavar="R", help="spikes a neuron and time step")
    arguments.add_argument("--pictures", type=int, default=8, metavar="N", help="pictures times time steps")
    arguments.add_argument("--size", type=int, choices=[32, 64], default=64, help="pixels a side")
    arguments.add_argument("--width", type=float, metavar="W", help="times the channels of the paper")
    arguments.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    arguments.add_argument("--rounds", type=int, metavar="N", help="turns of each")
    asked = arguments.parse_args()
    usual = {"rates": [0.25], "width": 0.5, "rounds": 3} if asked.quick else {"rates": [0.1, 0.25, 0.4], "width": 1.0, "rounds": 7}
    for key, value in usual.items():
        if getattr(asked, key) is None:
            setattr(asked, key, value)
    memory.keep_freed()
    found = [measure(*shape, dtype, rate, asked.pictures, asked.rounds) for dtype in asked.dtype for shape in shapes(asked.size, asked.width)
             for rate in asked.rates]
    rows, machine = [row for row in found if row], frame.machine("cpu")
    frame.write("gather", machine, rows)
    print(f"{frame.told(machine)}\n{asked.pictures} pictures, medians of {asked.rounds} turns, ms\n\n{'layer':28}{'form':10}{'dtype':6}{'rate':>6}"
          f"{'forward':>9}{'dense':>8}{'weight':>9}{'dense':>8}{'wins below':>12}")
    for row in rows:
        layer = f"{row['channels']} -> {row['out']}, {row['size']}x{row['size']}, d {row['dilation']}"
        print(f"{layer:28}{row['form']:10}{row['dtype']:6}{row['rate']:6.2f}{row['forward_ms']:9.2f}{row['forward_dense_ms']:8.2f}{row['weight_ms']:9.2f}"
              f"{row['weight_dense_ms']:8.2f}{row['wins_below']:12.2f}")


if __name__ == "__main__":
    stage.run(main)
