"""How long a training step takes, beside other libraries and beside what its convolutions alone would take.

    python -m benchmarks.train_step [--device cpu|cuda] [--quick] [--timesteps 4 20] [--batch N] [--dtype fp32 bf16] ...

The forms are in benchmarks/forms.py, the others' nets in benchmarks/styles.py; benchmarks/turns.py gives them turns. On a GPU fp32 is
true fp32 for snnseg, which has TF32 as a form of its own, and TF32 for the others; bf16 is autocast. `peak MiB` is the process's largest
resident memory on a processor, what torch had allocated on a GPU. "x best peer" is how many times as fast as the fastest other library
in that dtype, "x floor" what share of the speed of the convolutions alone. Writes data/bench/train_step.json.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks import forms, frame, turns
from benchmarks.forms import FORMS, Work
from snnseg import config, stage
from snnseg.errors import UsageError

PLAIN = ["snnseg", "snnseg reference", "paper", "spikingjelly", "snntorch", "floor", "floor channels_last"]
LAST = ["spikingjelly channels_last", "paper channels_last", "snntorch channels_last"]      # on a processor only the first is ever faster so
USUAL = {"cpu": {"timesteps": [4, 20], "batch": 2, "rounds": 5, "forms": PLAIN + LAST[:1]},
         "cuda": {"timesteps": [20], "batch": 16, "rounds": 7, "forms": [*PLAIN, "snnseg tf32", "paper without cuDNN", *LAST]}}
QUICK = {"timesteps": [4], "batch": 2, "rounds": 3, "size": 32, "width": 0.25, "forms": PLAIN}
TURN = {"cpu": {"steps": 2, "warm": 0}, "cuda": {"steps": 10, "warm": 2}}


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with how many times as fast each is as the best peer, the best peer in fp32, and the floor; None where there is none."""
    def times(row: dict[str, Any], kind: str, dtype: str) -> float | None:
        others = [other["ms"] for other in rows
                  if FORMS[other["form"]].kind == kind and other["dtype"] == dtype and other["timesteps"] == row["timesteps"]]
        return min(others) / row["ms"] if others else None

    return [{**row, "x_best_peer": times(row, "peer", row["dtype"]), "x_best_fp32_peer": times(row, "peer", "fp32"),
             "x_floor": times(row, "floor", row["dtype"])} for row in rows]


def show(rows: list[dict[str, Any]]) -> None:
    """The table, a part for each dtype and number of steps."""
    for dtype, timesteps in dict.fromkeys((row["dtype"], row["timesteps"]) for row in rows):
        print(f"\n{f'{dtype}, T = {timesteps}':27}{'ms':>9}{'samples/s':>11}{'peak MiB':>10}{'x best peer':>13}{'x best fp32 peer':>18}{'x floor':>9}")
        for row in rows:
            if (row["dtype"], row["timesteps"]) == (dtype, timesteps):
                best, fp32, floor = ("-" if row[k] is None else f"{row[k]:.2f}" for k in ("x_best_peer", "x_best_fp32_peer", "x_floor"))
                print(f"{row['form']:27}{row['ms']:9.1f}{row['samples_per_s']:11.2f}{row['peak_mib']:10.0f}{best:>13}{fp32:>18}{floor:>9}")


def options(about: str) -> argparse.ArgumentParser:
    """The options that say what is measured."""
    out = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--device", choices=["cpu", "cuda"], help="where to compute; a GPU where there is one")
    out.add_argument("--quick", action="store_true", help="a small net, T = 4, within a minute on two cores")
    out.add_argument("--timesteps", type=int, nargs="+", metavar="T")
    out.add_argument("--batch", type=int, metavar="N", help="pictures a step")
    out.add_argument("--size", type=int, choices=[32, 64], help="pixels a side")
    out.add_argument("--width", type=float, metavar="W", help="times the channels of the paper")
    out.add_argument("--dtype", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    out.add_argument("--norm", choices=["bntt", "bn"], default="bntt")
    out.add_argument("--net", choices=["deeplab", "fcn"], default="deeplab")
    out.add_argument("--coding", choices=["signed_poisson", "direct"], default="signed_poisson")
    out.add_argument("--forms", nargs="+", metavar="FORM", help=f"some of: {', '.join(FORMS)}")
    return out


def settle(asked: argparse.Namespace, usual: dict[str, dict[str, Any]], quick: dict[str, Any]) -> None:
    """Fill in what was not asked: from `quick` if so asked, else what is usual on the device. Raises UsageError."""
    asked.device = forms.checked_device(asked.device)
    for key, value in ({"size": 64, "width": 1.0} | usual[asked.device] | (quick if asked.quick else {})).items():
        if getattr(asked, key) is None:
            setattr(asked, key, value)
    for name, value in (("batch", asked.batch), ("timesteps", min(asked.timesteps)), ("rounds", getattr(asked, "rounds", 1))):
        if value < 1:
            raise UsageError(f"--{name} is {value}, has to be 1 or more")


def works(asked: argparse.Namespace) -> list[Work]:
    """One for each dtype and number of time steps. Raises ConfigError where snnseg's own form cannot be had so."""
    found = [Work(asked.device, dtype, asked.net, asked.norm, asked.coding, timesteps, asked.batch, asked.size, asked.width,
                  str(Path(config.PARAMS).absolute())) for dtype in asked.dtype for timesteps in asked.timesteps]
    for work in found:
        forms.numbers(work)
    return found


def main() -> None:
    arguments = options(__doc__)
    arguments.add_argument("--rounds", type=int, metavar="N", help="turns of each form")
    asked = arguments.parse_args()
    settle(asked, USUAL, QUICK)
    asked_works = works(asked)
    names = {work: forms.measurable(asked.forms, work) for work in asked_works}
    rows = compared([row for work in asked_works for row in turns.timed(names[work], work, asked.rounds, **TURN[asked.device])])
    machine = frame.machine(asked.device)
    frame.write("train_step", machine, rows)
    print(f"{frame.told(machine)}\n{asked.net}, {asked.norm}, {asked.coding}, width {asked.width}, {asked.batch} pictures of {asked.size}x{asked.size}, "
          f"medians of {asked.rounds} turns")
    show(rows)


if __name__ == "__main__":
    stage.run(main)
