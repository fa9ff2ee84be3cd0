"""The mIoU that a DeepLab's grid allows: coarse logits fitted to each test picture's own mask, drawn bilinearly to its size as the net's are.

    python -m benchmarks.grid [--pictures 1000] [--steps 1000] [--weights 1 1.5 2] [--root FOLDER] [--set KEY=VALUE ...]

What is fitted, by Adam, is the training's cross entropy, with what is not background weighing more, as mIoU has it: the best of the weights is about
the most that a net with this grid can score. Reads the verified test split of the store that the numbers name, below FOLDER. Writes
data/bench/grid.json.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import frame
from snnseg import config, stage
from snnseg.data import store
from snnseg.evaluation.confusion import Confusion
from snnseg.models import zoo
from snnseg.sections import Config

FEW = 250       # masks fitted together


def cells(asked: Config) -> tuple[int, int]:
    """Rows and columns of the grid on which the net of these numbers answers."""
    with torch.no_grad():
        return tuple(zoo.build(asked).eval().fire(torch.zeros(1, 1, 3, asked.data.size, asked.data.size))[0].shape[-2:])


def fitted(mask_BHW: torch.Tensor, classes: int, grid: tuple[int, int], weight: float, steps: int, rate: float = 1.0) -> torch.Tensor:
    """The answer [B, H, W] of the logits on that grid that fit these masks best, found from zero in so many steps of Adam."""
    weights_K = torch.tensor([1.0] + [weight] * (classes - 1))
    coarse = torch.zeros(len(mask_BHW), classes, *grid, requires_grad=True)
    descent = torch.optim.Adam([coarse], rate)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(descent, steps)
    for _ in range(steps):
        descent.zero_grad()
        drawn = F.interpolate(coarse, mask_BHW.shape[-2:], mode="bilinear", align_corners=True)
        (F.cross_entropy(drawn, mask_BHW, weights_K) * len(mask_BHW)).backward()
        descent.step()
        falling.step()
    with torch.no_grad():
        return F.interpolate(coarse, mask_BHW.shape[-2:], mode="bilinear", align_corners=True).argmax(1)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--pictures", type=int, default=1000, metavar="N", help="the first of the test split")
    arguments.add_argument("--steps", type=int, default=1000, help="of the descent")
    arguments.add_argument("--weights", type=float, nargs="+", default=[1.0, 1.5, 2.0, 3.0], metavar="W", help="of a pixel that is not background")
    arguments.add_argument("--root", type=Path, default=Path(), metavar="FOLDER", help="that has data/store")
    arguments.add_argument("--set", action="append", default=[], dest="sets", metavar="KEY=VALUE")
    asked = arguments.parse_args()
    numbers = config.load(str(Path(config.PARAMS).absolute()), "mnist_cifar/ann_deeplab", asked.sets).model_copy(update={"root": asked.root.absolute()})
    test, grid, rows = store.read(numbers.store, "test"), cells(numbers), list[dict]()
    classes, masks = len(test.about["classes"]), np.asarray(test.mask_NHW[:asked.pictures])
    print(f"{numbers.protocol}: {len(masks)} masks through a grid of {grid[0]} x {grid[1]}, {asked.steps} steps\n")
    for weight in asked.weights:
        found = Confusion.empty(classes)
        for begin in range(0, len(masks), FEW):
            truth = masks[begin:begin + FEW]
            found += Confusion.of(truth, fitted(torch.from_numpy(truth).long(), classes, grid, weight, asked.steps).numpy(), classes)
        rows.append({"protocol": numbers.protocol, "pictures": len(masks), "grid": list(grid), "steps": asked.steps, "weight": weight,
                     "miou": round(100 * found.miou(), 2), "iou": [score and round(100 * score, 2) for score in found.iou()]})
        print(f"what is not background weighs {weight:g}: mIoU {rows[-1]['miou']:.2f}", flush=True)
        frame.write("grid", frame.machine(), rows)


if __name__ == "__main__":
    stage.run(main)
