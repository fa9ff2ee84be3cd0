"""What a grid allows: masks as coarse as it are met, finer ones are not, and a lighter background finds more of what is thin."""
import json
import sys

import pytest
import torch

from benchmarks import grid
from snnseg.data import prepare


def lines(width: int) -> torch.Tensor:
    """[1, 32, 32]: three upright lines of so many pixels."""
    mask_BHW = torch.zeros(1, 32, 32, dtype=torch.int64)
    for x in (5, 14, 25):
        mask_BHW[..., x:x + width] = 1
    return mask_BHW


def test_masks_as_coarse_as_the_grid_are_met():
    half = torch.zeros(1, 32, 32, dtype=torch.int64)
    half[..., 16:] = 1
    assert torch.equal(grid.fitted(half, 2, (8, 8), 1.0, 100), half)
    assert torch.equal(grid.fitted(lines(1), 2, (32, 32), 1.0, 100), lines(1))


def test_thin_lines_are_lost_and_more_of_them_is_found_where_background_counts_for_less():
    line = lines(1)
    met = [(grid.fitted(line, 2, (6, 6), weight, 200) * line).sum().item() for weight in (1.0, 8.0)]
    assert met[0] < met[1] <= line.sum().item() and met[0] < 0.9 * line.sum().item()


def test_the_table(tiny, project, monkeypatch, capsys):
    prepare.prepare(tiny("ann_deeplab"))
    monkeypatch.setattr(grid.frame, "root", lambda: project)
    sets = [word for s in ("data.mnist_cifar.train=48", "data.mnist_cifar.test=16", "data.workers=1") for word in ("--set", s)]
    monkeypatch.setattr(sys, "argv", ["grid", "--root", str(project), "--pictures", "4", "--steps", "5", "--weights", "1", "2", *sets])
    monkeypatch.chdir(project)
    grid.main()
    rows = json.loads((project / "data" / "bench" / "grid.json").read_text())["rows"]
    assert [(row["weight"], row["grid"], row["pictures"]) for row in rows] == [(1.0, [8, 8], 4), (2.0, [8, 8], 4)]
    assert "binary@32: 4 masks through a grid of 8 x 8" in capsys.readouterr().out
    assert all(0 < row["miou"] <= 100 and row["miou"] == pytest.approx(sum(row["iou"]) / 2, abs=0.01) for row in rows)
