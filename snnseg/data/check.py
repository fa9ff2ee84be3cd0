"""What is in a sealed store, looked at item by item: shapes, labels, void, classes, empty masks, duplicates, seal.

A fault is named with the place it is in; what is only worth knowing is a line.
"""
from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from snnseg import seal
from snnseg.data import store
from snnseg.data.store import VOID
from snnseg.errors import StoreError

QUIET = 50      # cells with events: a frame with fewer says nothing
NAMED = 5       # items that a line names; the others are counted


@dataclass
class Findings:
    """Lines for a person, and faults, each naming split and items."""

    lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def item_name(found: dict[str, np.ndarray], k: int) -> str:
    """Where item k of a split comes from: 17 (2007_000032), 17 (digit 4, photo 9), 17 (sequence 2, frame 310)."""
    if "name" in found:
        return f"{k} ({bytes(found['name'][k]).decode('ascii', 'replace').strip()})"
    told = ", ".join(f"{name} {int(found[name][k])}" for name in ("digit", "photo", "sequence", "frame") if name in found)
    return f"{k} ({told})" if told else str(k)


def _items(found: dict[str, np.ndarray], bad_N: np.ndarray) -> str:
    places = np.flatnonzero(bad_N)
    more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
    return f"item{'s' * (len(places) > 1)} {', '.join(item_name(found, int(k)) for k in places[:NAMED])}{more}"


def _shapes(split: str, found: dict[str, np.ndarray], about: dict[str, Any], findings: Findings) -> None:
    """Of one item, as the numbers that the store was made with say."""
    size = about["params"].get("size")
    wanted = {"image": ((size, size, 3), np.uint8), "events": ((2, size, size), np.uint16), "mask": ((size, size), np.uint8)}
    for name, (shape, dtype) in wanted.items():
        if name in found and (found[name].shape[1:] != shape or found[name].dtype != dtype):
            findings.faults.append(f"{split}.zarr/{name}: items are {found[name].dtype} {list(found[name].shape[1:])}, not {np.dtype(dtype)} {list(shape)}")
    count = len(found["mask"])
    findings.faults += [f"{split}.zarr/{name}: {len(array)} items, the masks are {count}" for name, array in found.items() if len(array) != count]


def _masks(split: str, found: dict[str, np.ndarray], about: dict[str, Any], findings: Findings) -> None:
    mask_NHW, classes = found["mask"], about["classes"]
    pixels, items = np.zeros(256, np.int64), np.zeros(256, np.int64)
    labels_NK = np.zeros((len(mask_NHW), 256), bool)
    for k, mask_HW in enumerate(mask_NHW):
        here = np.bincount(mask_HW.ravel(), minlength=256)
        pixels += here
        items += here > 0
        labels_NK[k] = here > 0
    strange = [label for label in np.flatnonzero(items).tolist() if label >= len(classes) and label != VOID]
    for label in strange:
        findings.faults.append(f"{split}.zarr/mask: label {label} beside the {len(classes)} classes in {_items(found, labels_NK[:, label])}")
    total = int(pixels.sum())
    findings.lines.append(f"{split}: {len(mask_NHW)} items, void {100 * pixels[VOID] / max(total, 1):.2f} % of the pixels")
    if split == "unlabelled":
        return
    before = [f" ({n} before it was made small)" for n in found["present"].sum(0).tolist()] if "present" in found else [""] * len(classes)
    share = 100 * pixels / max(total - pixels[VOID], 1)
    findings.lines += [f"{split}:   {name:24} {share[label]:6.2f} % of the labelled pixels, in {items[label]} items{before[label]}"
                       for label, name in enumerate(classes)]
    labelled_NK = labels_NK[:, :VOID]
    if (empty := ~labelled_NK.any(axis=1)).any():
        findings.lines.append(f"{split}: nothing is labelled in {_items(found, empty)}")
    if (plain := labelled_NK[:, 0] & ~labelled_NK[:, 1:].any(axis=1)).any():
        findings.lines.append(f"{split}: only {classes[0]} in {_items(found, plain)}")


def _contents(found: dict[str, np.ndarray]) -> dict[bytes, int]:
    """Digest of each item's picture or frame; quiet frames are easily alike and left out."""
    stored = found["image"] if "image" in found else found["events"]
    return {hashlib.blake2b(item.tobytes(), digest_size=16).digest(): k for k, item in enumerate(stored)
            if "image" in found or np.count_nonzero(item) >= QUIET}


def _duplicates(splits: dict[str, dict[str, np.ndarray]], findings: Findings) -> None:
    """What is in training and in the test split would make the scores worthless."""
    if not {"train", "test"} <= splits.keys():
        return
    train, test = _contents(splits["train"]), _contents(splits["test"])
    both = sorted(test[digest] for digest in train.keys() & test.keys())
    names = [f"{item_name(splits['test'], k)} = train {item_name(splits['train'], train[d])}" for d, k in test.items() if d in train][:NAMED]
    if both:
        findings.faults.append(f"{len(both)} items of test.zarr are in train.zarr too: {', '.join(names)}")
    else:
        findings.lines.append("train and test share no item")


def check(folder: Path) -> Findings:
    """Look at a whole store. Raises StoreMissing where there is none."""
    findings, splits = Findings(), {}
    seal.read_seal(folder, store.REMEDY)
    try:
        findings.lines.append(f"seal {seal.verify(folder, store.REMEDY)[:16]}: every byte is the one that was sealed")
    except StoreError as e:
        findings.faults.append(str(e))
    if not store.splits(folder):
        findings.faults.append(f"{folder}: holds no split")
    for split in store.splits(folder):
        try:
            found, about = store.arrays(folder, split)
        except StoreError as e:
            findings.faults.append(str(e))
            continue
        splits[split] = found
        if about.get("partial"):
            findings.lines.append(f"{split}: partial, {about['found']} of {about['official']}")
        if about.get("left_out"):
            findings.lines.append(f"{split}: {about['left_out']} files were left out: {', '.join(list(about['left_out_files'])[:NAMED])}")
        for name, account in about.get("recordings", {}).items():
            findings.lines.append(f"{split}: {name}: {account['read']} events read, {', '.join(f'{k} {v}' for k, v in account.items() if k != 'read' and v)}")
        _shapes(split, found, about, findings)
        _masks(split, found, about, findings)
    _duplicates(splits, findings)
    return findings
