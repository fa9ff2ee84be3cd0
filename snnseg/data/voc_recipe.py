"""VOC2012 with SBD as a store: which pictures are in which split, and how a stretch of them is made."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from snnseg import seal
from snnseg.data import voc
from snnseg.data.recipe import Made, Recipe
from snnseg.errors import DataError, DataMissing
from snnseg.sections import Config

SOURCES = ("voc", "sbd", "aug")     # where a mask comes from, as the number in the store


@dataclass(frozen=True)
class Part:
    """Pictures and their masks, to be made small."""

    pairs: tuple[voc.Pair, ...]
    size: int
    fit: Literal["stretch", "letterbox"]

    def make(self, skip_bad: bool) -> Made:
        """image u8 [n,size,size,3], mask u8 [n,size,size], present u8 [n,21], name u8 [n,16], source u8 [n]. Raises DataError, DataMissing."""
        images, masks, presents, names, sources, bad = [], [], [], [], [], {}
        for pair in self.pairs:
            try:
                image, mask, present = voc.load(pair, self.size, self.fit)
            except (DataError, DataMissing) as e:
                if not skip_bad:
                    raise
                bad[pair.name] = str(e)
                continue
            images.append(image)
            masks.append(mask)
            presents.append(present)
            names.append(np.frombuffer(pair.name.encode().ljust(NAME_BYTES)[:NAME_BYTES], np.uint8))
            sources.append(SOURCES.index(pair.source))
        if not images:
            return Made({}, bad)
        return Made({"image": np.stack(images), "mask": np.stack(masks), "present": np.stack(presents), "name": np.stack(names),
                     "source": np.array(sources, np.uint8)}, bad)

    def files(self) -> Iterable[Path]:
        return [path for pair in self.pairs for path in (pair.image, pair.mask)]


NAME_BYTES = 16     # ASCII, filled up with spaces: 2007_000032, and longer ones cut


def recipe(config: Config, work: Path, left_out: dict[str, str]) -> Recipe:
    """The store of `config` without the pictures named in `left_out`. A sample is written in the official layout first.

    Raises DataMissing, DataError.
    """
    data, raw, sample = config.data, config.raw, config.data.source == "sample"
    if sample:
        from snnseg.data import voc_sample

        raw = work / "raw"
        told = f"{data.voc.sample} {data.seed}"
        if not (raw / "made").exists() or (raw / "made").read_text() != told:
            voc_sample.write(raw, data.voc.sample.train, data.voc.sample.test, data.seed)
            seal.write_file(raw / "made", told)
    found = {split: voc.pairs(raw, split, sample or data.allow_partial) for split in ("train", "test")}
    kept = {split: tuple(p for p in pairs.items if p.name not in left_out) for split, pairs in found.items()}
    if empty := [split for split, pairs in kept.items() if not pairs]:
        raise DataError(raw, f"no {empty[0]} picture can be used ({next(iter(left_out.values()), 'none is there')})", "Download VOC2012 again.")
    size = data.size
    return Recipe(lambda split, start, stop: Part(kept[split][start:stop], size, data.voc.fit), "pictures",
                  {split: len(pairs) for split, pairs in kept.items()},
                  {"image": ((size, size, 3), "uint8"), "mask": ((size, size), "uint8"), "present": ((len(voc.CLASSES),), "uint8"),
                   "name": ((NAME_BYTES,), "uint8"), "source": ((), "uint8")},
                  voc.CLASSES, voc.PALETTE, raw, {split: pairs.found for split, pairs in found.items()},
                  {} if sample else {split: pairs.official for split, pairs in found.items()},
                  {split: {"mask_sources": list(SOURCES)} for split in kept})
