"""Norm and neuron alone, over each layer of Spiking-DeepLab, beside what moving their bytes would take.

    python -m benchmarks.scan [--device cpu|cuda] [--quick] [--timesteps 20] [--batch N] [--dtype fp32 bf16] [--rounds N]

BNTT and the neuron as one operator (`snnseg.spiking.ways.run`) in each way that the device has, the currents with channels
innermost, memory [T, B, H, W, C]. The limit counts a neuron and time step: forward 3 values (the currents for the statistics
and again for the spikes, the spikes), backward 4 (the currents for the potentials and again for the batch's share, the spikes'
gradient, the currents' gradient), 12 and 16 bytes in fp32. It is what a copy of as many bytes takes, at the rate of a
large array's copy in the same run: what fits into a cache may be faster. Writes data/bench/scan.json.
"""
from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import forms, frame, nets
from snnseg import memory, stage
from snnseg.errors import UsageError
from snnseg.spiking import ways
from snnseg.spiking.neuron import LIF
from snnseg.spiking.norm import BNTT

WAYS = ("reference", "cpu", "triton")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
VALUES = {"forward": 3, "forward_backward": 3 + 4}      # that must pass between memory and processor, a neuron and time step
LEAST_S = 0.05      # a measurement repeats its work for so long: what starts a kernel is part of it once, not a whole clock
COPY_MIB = {"cpu": 256, "cuda": 1024}
USUAL = {"cpu": {"batch": 2, "rounds": 7}, "cuda": {"batch": 16, "rounds": 15}}


def layers(size: int, width: float) -> list[tuple[int, int]]:
    """Channels and pixels a side of those that differ."""
    full, half, quarter, _ = (math.isqrt(area) for area in nets.areas(size))
    return list(zip(nets.widths(width), (full, half, quarter, quarter), strict=True))


def once(work: Callable[[], object], device: str, least_s: float = LEAST_S) -> float:
    """Seconds that `work` takes, all that it started on a GPU included."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start, count = time.perf_counter(), 0
    while True:
        work()
        count += 1
        if device == "cpu" or count % 10 == 0:      # a GPU gets ten before it is asked
            wait()
            if (spent := time.perf_counter() - start) >= least_s:
                return spent / count


def prepared(way: str, y_TBCHW: Tensor, grad_TBCHW: Tensor) -> dict[str, Callable[[], object]]:
    """What is to be timed of a way, by name."""
    norm = BNTT(y_TBCHW.shape[2], len(y_TBCHW)).to(y_TBCHW.device)

    def forward() -> Tensor:
        return ways.run(y_TBCHW, norm.normal(len(y_TBCHW)), LIF(), way).spikes_TBCHW

    def forward_backward() -> None:
        y_TBCHW.grad = None
        forward().backward(grad_TBCHW)

    return {"forward": forward, "forward_backward": forward_backward}


def copy_rate(device: str, rounds: int) -> float:
    """Bytes a second that a copy reads and writes, both counted."""
    source = torch.ones(COPY_MIB[device] * 2**18, device=device)
    target = torch.empty_like(source)
    spent = [once(lambda: target.copy_(source), device) for _ in range(rounds + 1)]
    return 2 * 4 * source.numel() / statistics.median(spent[1:])


def measure(device: str, dtype: str, timesteps: int, batch: int, channels: int, side: int, rounds: int, rate: float) -> list[dict[str, Any]]:
    """A row for each way; the ways take turns."""
    shape = timesteps, batch, side, side, channels
    torch.manual_seed(0)
    y, grad = (torch.randn(shape, device=device).to(DTYPES[dtype]).permute(0, 1, 4, 2, 3) for _ in range(2))
    y.requires_grad_()
    normal = BNTT(channels, timesteps).to(device).normal(timesteps)
    works = {way: prepared(way, y, grad) for way in WAYS if not ways.refusal(way, y, normal, LIF())}
    spent: dict[tuple[str, str], list[float]] = {}
    for k in range(rounds + 1):
        for way, parts in works.items():
            for part, work in parts.items():
                if k:
                    spent.setdefault((way, part), []).append(once(work, device))
                else:
                    once(work, device, 0)       # compiled at its first call
    ms = {key: 1e3 * statistics.median(found) for key, found in spent.items()}
    limits = {part: 1e3 * values * y.numel() * y.element_size() / rate for part, values in VALUES.items()}
    return [{"form": way, "device": device, "dtype": dtype, "norm": "bntt", "timesteps": timesteps, "batch": batch, "channels": channels, "size": side,
             "copy_gb_per_s": rate / 1e9}
            | {f"{part}_ms": ms[way, part] for part in VALUES} | {f"{part}_limit_ms": limits[part] for part in VALUES}
            for way in works]


def show(rows: list[dict[str, Any]]) -> None:
    """The table: milliseconds, and in brackets how many times the limit."""
    print(f"\n{'layer':18}{'dtype':6}{'way':12}{'forward ms':>18}{'and backward ms':>20}{'limits ms':>16}")
    for row in rows:
        cells = [f"{row[f'{part}_ms']:.2f} ({row[f'{part}_ms'] / row[f'{part}_limit_ms']:.1f}x)" for part in VALUES]
        limits = " ".join(f"{row[f'{part}_limit_ms']:.2f}" for part in VALUES)
        layer = f"{row['channels']} x {row['size']} x {row['size']}"
        print(f"{layer:18}{row['dtype']:6}{row['form']:12}{cells[0]:>18}{cells[1]:>20}{limits:>16}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", choices=["cpu", "cuda"], help="where to compute; a GPU where there is one")
    arguments.add_argument("--quick", action="store_true", help="a quarter of the channels, T = 4, three rounds")
    arguments.add_argument("--timesteps", type=int, metavar="T")
    arguments.add_argument("--batch", type=int, metavar="N", help="pictures")
    arguments.add_argument("--size", type=int, choices=[32, 64], default=64, help="pixels a side")
    arguments.add_argument("--width", type=float, metavar="W", help="times the channels of the paper")
    arguments.add_argument("--dtype", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    arguments.add_argument("--rounds", type=int, metavar="N", help="turns of each way")
    asked = arguments.parse_args()
    asked.device = forms.checked_device(asked.device)
    usual = {"timesteps": 20, "width": 1.0} | USUAL[asked.device] | ({"timesteps": 4, "width": 0.25, "rounds": 3} if asked.quick else {})
    for key, value in usual.items():
        if getattr(asked, key) is None:
            setattr(asked, key, value)
    if min(asked.timesteps, asked.batch, asked.rounds) < 1:
        raise UsageError("--timesteps, --batch and --rounds have to be 1 or more")
    memory.keep_freed()         # as a training has it
    rate = copy_rate(asked.device, asked.rounds)
    rows = [row for dtype in asked.dtype for channels, side in layers(asked.size, asked.width)
            for row in measure(asked.device, dtype, asked.timesteps, asked.batch, channels, side, asked.rounds, rate)]
    machine = frame.machine(asked.device)
    frame.write("scan", machine, rows)
    print(f"{frame.told(machine)}\nBNTT, T = {asked.timesteps}, {asked.batch} pictures, medians of {asked.rounds} turns; a copy moves {rate / 1e9:.0f} GB/s; "
          "in brackets: times the limit")
    show(rows)


if __name__ == "__main__":
    stage.run(main)
