"""How fast pictures come from a sealed store into shuffled batches, decoded, not yet augmented.

    python -m benchmarks.loader [--quick] [--store FOLDER]

`cold` is what a training pays once: verify every byte, decode the split, and hand out one shuffled epoch. `warm` is an
epoch from then on. Without --store, a store of 48 000 pictures of 32x32 is made from the embedded sample first. Writes
data/bench/loader.json; `images_per_s` in its row is the cold figure, the median of the repetitions.
"""
from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import frame
from snnseg import config, seal
from snnseg.data import loader, prepare, store

BATCH = 64


def epoch(split: store.Split, number: int) -> int:
    """Take all shuffled batches of an epoch; return the pictures seen, having touched each batch's bytes."""
    seen = 0
    for batch in loader.batches(split, BATCH, loader.epoch_order(len(split), 0, number)):
        seen += len(batch.input) if batch.input[-1, -1, -1, -1] >= 0 and batch.mask_BHW[-1, -1, -1] >= 0 else 0
    return seen


def measure(folder: Path, repetitions: int) -> dict[str, float]:
    """Pictures per second, cold and warm, as medians over the repetitions."""
    cold, warm = [], []
    for k in range(repetitions):
        start = time.perf_counter()
        seal.verify(folder, store.REMEDY)
        split = store.read(folder, "train")
        assert epoch(split, 2 * k) == len(split)
        middle = time.perf_counter()
        assert epoch(split, 2 * k + 1) == len(split)
        cold.append(len(split) / (middle - start))
        warm.append(len(split) / (time.perf_counter() - middle))
    return {"images_per_s": statistics.median(cold), "images_per_s_warm": statistics.median(warm),
            "images": len(split), "size": split.input.shape[1], "batch": BATCH}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="a smaller store, fewer repetitions")
    arguments.add_argument("--store", type=Path, help="an existing sealed store")
    asked = arguments.parse_args()
    pictures, repetitions = (12_000, 3) if asked.quick else (48_000, 5)
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.store
        if folder is None:
            numbers = config.load(overrides=["data.source=sample", "data.size=32", f"data.mnist_cifar.train={pictures}"])
            numbers = numbers.model_copy(update={"root": Path(scratch)})
            prepare.prepare(numbers)
            folder = numbers.store
        found = measure(folder, repetitions)
    frame.write("loader", frame.machine(), [{"form": "snnseg", **found}])
    print(f"{'':6}{'pictures/s':>12}   ({found['images']} of {found['size']}x{found['size']}, batches of {BATCH}, medians of {repetitions})")
    print(f"{'cold':6}{found['images_per_s']:12.0f}   seal verified, decoded, one shuffled epoch")
    print(f"{'warm':6}{found['images_per_s_warm']:12.0f}   a further epoch")


if __name__ == "__main__":
    main()
