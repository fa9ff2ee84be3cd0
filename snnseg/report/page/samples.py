"""Test pictures as the nets see and answer them: input, truth, each net's answer and where it is wrong; spikes as a film."""
from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from PIL import Image

from snnseg.data.store import VOID
from snnseg.report import pictures
from snnseg.report.page import nets as lying
from snnseg.report.page.blocks import Block, Cell, Gallery, Missing, Section, Swatch, Tile
from snnseg.report.page.glance import titled
from snnseg.report.page.nets import Net

SAMPLES = 5         # of a benchmark
NETS = 4


def uri(picture_HW3: np.ndarray) -> str:
    """A picture u8 [H,W,3] as a data: URI of its PNG."""
    return "data:image/png;base64," + base64.b64encode(pictures.png(Image.fromarray(picture_HW3))).decode()


def tile(picture_HW3: np.ndarray, alt: str) -> Tile:
    return Tile(uri(picture_HW3), alt, picture_HW3.shape[1], picture_HW3.shape[0])


def named(mask_HW: np.ndarray, classes: Sequence[str]) -> str:
    """The classes of a mask for who does not see it, the largest first: `background 81 %, dog 19 %`."""
    seen = mask_HW[mask_HW != VOID]
    found, count = np.unique(seen, return_counts=True)
    ranked = sorted(zip(count.tolist(), found.tolist(), strict=True), reverse=True)[:4]
    return ", ".join(f"{classes[k]} {100 * n / max(1, seen.size):.0f} %" for n, k in ranked) or "void"


def right(truth_HW: np.ndarray, answer_HW: np.ndarray) -> float:
    """Per cent of the pixels that are not void."""
    seen = truth_HW != VOID
    return 100 * float((truth_HW == answer_HW)[seen].mean()) if seen.any() else 0.0


def section(nets: Sequence[Net]) -> Section:
    """A gallery for each benchmark."""
    blocks: list[Block] = [block for benchmark, mine in lying.drawn(nets).items() if (block := _gallery(benchmark, mine))]
    return Section("pictures", "Pictures", blocks or [Missing("Pictures", "dvc repro evaluate")])


def _gallery(benchmark: str, mine: Sequence[Net]) -> Gallery | None:
    """The samples of a benchmark; a net with another truth (frames of other time steps) is left out."""
    shown: list[tuple[Net, np.ndarray]] = []
    images = truths = None
    for net in mine:
        path = net.folder / "pictures.npz"
        if not path.is_file() or len(shown) == NETS:
            continue
        with np.load(path, allow_pickle=False) as kept:
            if truths is None:
                images, truths = kept["image"][:SAMPLES], kept["truth"][:SAMPLES]
            if np.array_equal(kept["truth"][:SAMPLES], truths):
                shown.append((net, kept["prediction"][:SAMPLES]))
    if truths is None:
        return None
    classes, palette = mine[0].about["classes"], mine[0].about["palette"]
    rows = []
    for k, (image, truth) in enumerate(zip(images, truths, strict=True)):
        row = [tile(image, f"Input {k + 1} of {titled(benchmark)}"), tile(pictures.coloured(truth, palette), f"Truth: {named(truth, classes)}")]
        for net, answers in shown:
            share = f"{right(truth, answers[k]):.0f} % of the pixels right"
            row += [tile(pictures.coloured(answers[k], palette), f"{net.title} answers {named(answers[k], classes)}"),
                    tile(pictures.errors(truth, answers[k]), f"Errors of {net.title}: {share}")]
        rows.append((f"Sample {k + 1}", row))
    heads = [Cell("Input"), Cell("Truth")]
    for net, _ in shown:
        heads += [Cell(net.title, net=net.experiment), Cell("its errors")]
    seen = sorted({int(c) for mask in (truths, *(a for _, a in shown)) for c in np.unique(mask) if c != VOID})
    swatches = [Swatch(palette[c], classes[c]) for c in seen]
    wrong = [Swatch("#{:02X}{:02X}{:02X}".format(*colour), label) for colour, label in
             ((pictures.HIT, "right"), (pictures.MISSED, "an object was missed"), (pictures.WRONG, "another class was answered"), ((255, 255, 255), "void"))]
    events = [Swatch("#{:02X}{:02X}{:02X}".format(*map(int, colour)), label) for colour, label in ((pictures.ON, "ON"), (pictures.OFF, "OFF"))]
    keys = [*([("Events", events)] if mine[0].dataset == "ddd17" else []), ("Classes", swatches), ("Errors", wrong)]
    return Gallery(f"pictures-{benchmark}", f"{titled(benchmark)}, test pictures", heads, rows, keys)
