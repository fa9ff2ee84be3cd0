"""How a training step scales over GPUs: a model whose constants are measured on one and two of them, checked at the points that were run.

    python -m benchmarks.scaling [RANKS.json ...] [--bandwidth GB/S] [--latency US] [--per-host 8]

Reads what `benchmarks.ranks` wrote (docs/results/ranks_gpu.json), prints tables in Markdown. A step of N GPUs takes

    compute(B) + norms + gradients * 2 (N - 1) / N / bandwidth + steps(N) * latency        steps(N) = log2 N within a host, and more between hosts

compute: one GPU's, a line through its smallest and its largest batch. norms: what statistics over all cost beside communication (`silent` less one GPU's).
Bandwidth and latency within a host: from the two nets' communication on two GPUs. Between hosts nothing was measured: --bandwidth (of a GPU,
50 GB/s = 400 Gbit/s) and --latency (of an exchange) are assumptions, and so are the tables beyond --per-host GPUs.
"""
from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import forms, frame
from benchmarks.forms import Work
from snnseg import config, stage
from snnseg.errors import DataMissing
from snnseg.models import zoo
from snnseg.spiking.norm import BNTT

USUAL = frame.root() / "docs" / "results" / "ranks_gpu.json"
GPUS = 1, 2, 4, 8, 16, 64, 256, 1024
FAR = {"bandwidth": 50.0, "latency": 25.0}      # GB/s and microseconds between hosts: assumed
SIDE, LARGE = 64, 512


@dataclass(frozen=True)
class Model:
    """A net's step. Times in ms, bytes of all gradients, exchanges a step: the pixels' count, the gradients, two a norm where these are synced."""

    fixed: float
    picture: float
    norms: float
    megabytes: float
    exchanges: int
    gb_s: float
    latency: float
    far_gb_s: float = FAR["bandwidth"]
    far_latency: float = FAR["latency"] / 1e3
    per_host: int = 8

    def communication(self, gpus: int) -> float:
        """ms of a step in which `gpus` exchange."""
        if gpus == 1:
            return 0.0
        near, hosts = min(gpus, self.per_host), -(-gpus // self.per_host)
        ms = 2 * (near - 1) / near * self.megabytes / self.gb_s + self.exchanges * self.latency * math.log2(near)
        if hosts > 1:       # each GPU of a host brings its part of the sum to the others
            ms += 2 * (hosts - 1) / hosts * self.megabytes / self.per_host / self.far_gb_s + self.exchanges * self.far_latency * math.log2(hosts)
        return ms

    def step(self, pictures: float, gpus: int, side: int = SIDE) -> float:
        """ms of a step with so many pictures on each GPU."""
        return self.fixed + self.picture * pictures * (side / SIDE)**2 + (self.norms if gpus > 1 else 0.0) + self.communication(gpus)


def sizes(row: dict[str, Any]) -> tuple[float, int]:
    """Megabytes of gradients (float32) and norms of a row's net."""
    asked = {k: row[k] for k in Work.__dataclass_fields__ if k in row}
    model = zoo.build(forms.numbers(Work(**asked, params=str(Path(config.PARAMS).absolute()))))
    return 4e-6 * sum(p.numel() for p in model.parameters()), sum(isinstance(m, BNTT) for m in model.modules())


def fitted(rows: list[dict[str, Any]], far: dict[str, float], per_host: int) -> dict[tuple[str, str], Model]:
    """A model for each net with norms synced or local."""
    one = {(r["net"], r["batch"]): r["ms"] for r in rows if r["scaling"] == "one"}
    two = {(r["net"], r["sync_norm"], r["batch"] // 2): r for r in rows if r["scaling"] == "weak" and r["ranks"] == 2}
    nets, (small, *_, large) = (sorted({key[k] for key in one}) for k in (0, 1))
    of = {net: sizes(next(r for r in rows if r["net"] == net)) for net in nets}

    def mean(net: str, sync_norm: str, value: str) -> float:
        found = [two[net, sync_norm, b] for b in (small, large)]
        return sum(r["ms"] - r["silent_ms"] if value == "loud" else r["silent_ms"] - one[net, r["batch"] // 2] for r in found) / len(found)

    local = {net: mean(net, "local", "loud") for net in nets}
    exchange = sum((mean(net, "synced", "loud") - local[net]) / (2 * of[net][1]) for net in nets) / len(nets)
    (a, b) = (min(nets, key=lambda n: of[n][0]), max(nets, key=lambda n: of[n][0]))
    gb_s = (of[b][0] - of[a][0]) / (local[b] - local[a])
    models = {}
    for net in nets:
        picture = (one[net, large] - one[net, small]) / (large - small)
        for sync_norm in ("synced", "local"):
            exchanges = 2 + (2 * of[net][1] if sync_norm == "synced" else 0)
            models[net, sync_norm] = Model(one[net, small] - small * picture, picture, mean(net, sync_norm, "silent"), of[net][0], exchanges, gb_s, exchange,
                                           far["bandwidth"], far["latency"] / 1e3, per_host)
    return models


def checked(rows: list[dict[str, Any]], models: dict[tuple[str, str], Model]) -> list[str]:
    """Each point that was run beside what the model says of it; `fitted` marks those that its constants come from."""
    ends = [pick(r["batch"] for r in rows if r["scaling"] == "one") for pick in (min, max)]
    lines = ["| net | GPUs | norms | pictures a GPU | measured ms | predicted ms | off | measured efficiency | |",
             "|---|---:|---|---:|---:|---:|---:|---:|---|"]
    for r in rows:
        if r["ranks"] > 1:
            each = r["batch"] / r["ranks"]
            ms = models[r["net"], r["sync_norm"]].step(each, r["ranks"])
            source = "fitted" if r["ranks"] == 2 and r["scaling"] == "weak" and each in ends else ""
            lines.append(f"| {r['net']} | {r['ranks']} | {r['sync_norm']} | {each:g} | {r['ms']:.2f} | {ms:.2f} | {100 * (ms / r['ms'] - 1):+.1f} % "
                         f"| {100 * r['efficiency']:.1f} % | {source} |")
    return lines


def ahead(models: dict[tuple[str, str], Model], pictures: float, side: int) -> list[str]:
    """Efficiency of weak scaling: the rate over N times that of one GPU."""
    lines = [f"| net, norms | {' | '.join(f'{n}' for n in GPUS)} |", "|---|" + "---:|" * len(GPUS)]
    for (net, sync_norm), model in models.items():
        alone = model.step(pictures, 1, side)
        lines.append(f"| {net}, {sync_norm} | " + " | ".join(f"{100 * alone / model.step(pictures, n, side):.1f} %" for n in GPUS) + " |")
    return lines


def exchanged(models: dict[tuple[str, str], Model]) -> list[str]:
    """What a GPU sends in a step, how long the exchanges take, and how long it computes meanwhile."""
    lines = [f"| net | of a step | {' | '.join(f'{n}' for n in GPUS)} |", "|---|---|" + "---:|" * len(GPUS)]
    for net in dict.fromkeys(net for net, _ in models):
        synced, local = (models[net, sync_norm] for sync_norm in ("synced", "local"))
        rows = {"gradients that a GPU sends, MB": [f"{2 * (n - 1) / n * synced.megabytes:.1f}" for n in GPUS],
                "communication, ms, norms synced": [f"{synced.communication(n):.2f}" for n in GPUS],
                "communication, ms, norms local": [f"{local.communication(n):.2f}" for n in GPUS]}
        rows |= {f"compute, ms, {pictures} pictures of {side} x {side}": [f"{synced.step(pictures, 1, side):.1f}"] * len(GPUS)
                 for pictures, side in ((16, SIDE), (8, LARGE))}
        lines += [f"| {net} | {what} | {' | '.join(values)} |" for what, values in rows.items()]
    return lines


def read(paths: list[Path]) -> list[dict[str, Any]]:
    """The rates of all files. Raises DataMissing."""
    if missing := [path for path in paths if not path.is_file()]:
        raise DataMissing(missing[0], "not found", "Measure it on two GPUs: torchrun --nproc-per-node 2 -m benchmarks.ranks")
    return [row for path in paths for row in json.loads(path.read_text(encoding="utf-8"))["rows"] if row["part"] == "rate"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("files", type=Path, nargs="*", default=[USUAL], metavar="RANKS.json")
    for name, unit in (("bandwidth", "GB/S"), ("latency", "US")):
        arguments.add_argument(f"--{name}", type=float, default=FAR[name], metavar=unit, help="between hosts")
    arguments.add_argument("--per-host", type=int, default=8, metavar="N", help="GPUs of a host")
    asked = arguments.parse_args()
    rows = read(asked.files)
    models = fitted(rows, {"bandwidth": asked.bandwidth, "latency": asked.latency}, asked.per_host)
    for (net, sync_norm), m in models.items():
        print(f"- {net}, norms {sync_norm}: {m.fixed:.2f} ms + {m.picture:.3f} ms a picture; {m.norms:.2f} ms for norms; {m.megabytes:.1f} MB of gradients at "
              f"{m.gb_s:.0f} GB/s; {m.exchanges} exchanges of {1e3 * m.latency:.0f} us")
    print("", *checked(rows, models), sep="\n")
    print("", *exchanged(models), sep="\n")
    for pictures, side in ((16, SIDE), (64, SIDE), (8, LARGE)):
        print(f"\n{pictures} pictures of {side} x {side} a GPU:\n", *ahead(models, pictures, side), sep="\n")


if __name__ == "__main__":
    stage.run(main)
