"""What a training step keeps in memory, beside other libraries.

    python -m benchmarks.memory [--device cpu|cuda] [--quick] [--timesteps 20] [--batch N] [--dtype fp32 bf16] ...

`kept` is what autograd saves between the forward and the backward pass (benchmarks/kept.py), in bytes a neuron and time step,
measured with one and two pictures; it does not depend on how many more there are. `peak MiB` is that of whole steps: on a processor the
largest resident memory of the process, its libraries included (`floor` shows how much that is at least), on a GPU what torch
had allocated. Writes data/bench/memory.json.
"""
from __future__ import annotations

import sys
from typing import Any

from benchmarks import forms, frame, kept, turns
from benchmarks.forms import Work
from benchmarks.train_step import options, settle, works
from snnseg import stage

USUAL = {device: {"timesteps": [20], "batch": batch, "forms": ["snnseg", "snnseg recompute", "snnseg reference", "paper", "spikingjelly", "snntorch", "floor"]}
         for device, batch in (("cpu", 2), ("cuda", 16))}
QUICK = {"timesteps": [4], "batch": 2, "size": 32, "width": 0.25}
STEPS = 2


def measure(names: list[str], work: Work) -> list[dict[str, Any]]:
    """A row for each form; one after another, as the largest may need the machine for itself."""
    rows = []
    for name in names:
        with turns.workers([name], work) as ready:
            for worker in ready.values():
                try:
                    worker.ask(do="go", warm=1, steps=STEPS)
                    peak = worker.ask(do="peak")        # before anything else is measured: it never falls
                    rows.append({"form": name, **work.row, "neurons": kept.neurons(work), "peak_mib": peak,
                                 "kept_bytes_per_neuron_step": worker.ask(do="kept")})
                except turns.FormEnded as e:
                    print(e, file=sys.stderr)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """The table, a part for each dtype and number of steps."""
    for dtype, timesteps in dict.fromkeys((row["dtype"], row["timesteps"]) for row in rows):
        print(f"\n{f'{dtype}, T = {timesteps}':27}{'kept, bytes':>12}{'peak MiB':>10}")
        for row in rows:
            if (row["dtype"], row["timesteps"]) == (dtype, timesteps):
                print(f"{row['form']:27}{row['kept_bytes_per_neuron_step']:12.2f}{row['peak_mib']:10.0f}")


def main() -> None:
    asked = options(__doc__).parse_args()
    settle(asked, USUAL, QUICK)
    asked_works = works(asked)
    names = forms.measurable(asked.forms, asked_works[0])
    rows = [row for work in asked_works for row in measure(names, work)]
    machine = frame.machine(asked.device)
    frame.write("memory", machine, rows)
    print(f"{frame.told(machine)}\n{asked.net}, {asked.norm}, {asked.coding}, width {asked.width}, {asked.batch} pictures of {asked.size}x{asked.size}")
    show(rows)


if __name__ == "__main__":
    stage.run(main)
