"""DDD17 as a store: event frames of 50 ms with labels, from any of its three public forms.

    data/raw/ddd17/**/NAME.*  with  labels/{train,test}/NAME_export_FRAME.png      recordings, as published or your own
    data/raw/ddd17/events/{train,test}/*.npy  with labels, or below dataset/       Ev-SegNet's export
    data/raw/ddd17/**/dir*/                                                        ESS's export

Recordings without a label make a split of their own, `unlabelled`. Frames of the recordings that Ev-SegNet labelled are
those of its intervals; of another recording, from its first label to its last.
"""
from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from snnseg import provenance, seal
from snnseg.data import ddd17_export, ddd17_frames, parallel, recordings
from snnseg.data.ddd17_export import CLASSES, FRAMES
from snnseg.data.ddd17_frames import Account, Counted, Recording
from snnseg.data.ddd17_maker import SCALED, Frame, Part
from snnseg.data.recipe import Progress, Recipe
from snnseg.errors import DataError, DataMissing
from snnseg.sections import Config

PALETTE = ["#804080", "#4682b4", "#dcdc00", "#6b8e23", "#dc143c", "#00008e"]       # those of Cityscapes, whose classes these are made of
LABEL = re.compile(r"(?P<name>.+)_export_(?P<frame>[0-9]{1,9})\.png")
SPLITS = ("train", "test")
REMEDY = "Put DDD17 there in one of its three forms (data/raw/README.md), and set data.ddd17.form to it."
Tell = Callable[[Progress], None]


def recipe(config: Config, work: Path, left_out: dict[str, str], tell: Tell) -> Recipe:
    """The store of `config` without the files named in `left_out`; recordings are counted here.

    Raises DataMissing, DataError, ClusterError.
    """
    data, raw = config.data, config.raw / "ddd17"
    if data.source == "sample":
        from snnseg.data import driving_sample

        raw, told = work / "raw" / "ddd17", f"{data.ddd17.sample} {data.seed}"
        if not (work / "raw" / "made").exists() or (work / "raw" / "made").read_text() != told:
            driving_sample.write(work / "raw", data.ddd17.sample.train, data.ddd17.sample.test, data.seed)
            seal.write_file(work / "raw" / "made", told)
    if not raw.is_dir():
        raise DataMissing(raw, REMEDY)
    if data.ddd17.form == "recordings":
        frames, sensor, about, bad = _recordings(config, raw, work, tell)
    else:
        listed = _export if data.ddd17.form == "ev_segnet" else _ess_folders
        frames, sensor, about, bad = listed(raw, data.allow_partial), ddd17_export.SIZE, {}, {}
    official, found = _found(frames, data.ddd17.form)
    if not data.allow_partial and not bad and any(found[split] < count for split, count in official.items()):
        raise DataError(raw, f"{found['train']} and {found['test']} labelled frames, officially {official['train']} and {official['test']}",
                        "Add the other recordings and labels, or give --allow-partial to use what is there.")
    frames = {split: tuple(_kept(part, left_out)) for split, part in frames.items() if part}
    if empty := [split for split, part in frames.items() if not part] or ([] if frames else ["any"]):
        raise DataError(raw, f"no frame of {empty[0]} can be used ({next(iter((left_out | bad).values()), 'none is there')})", REMEDY)
    gain = 1 / SCALED if data.ddd17.form == "ev_segnet" else 1.0
    form, size = data.ddd17.form, data.size
    told = {split: {"sensor": list(sensor), "gain": gain, **about.get(split, {})} for split in frames}
    return Recipe(lambda split, start, stop: Part(frames[split][start:stop], form, size, sensor), "frames",
                  {split: len(part) for split, part in frames.items()},
                  {"events": ((2, size, size), "uint16"), "mask": ((size, size), "uint8"),
                   **{name: ((), "int32") for name in ("sequence", "frame", "below", "rejected")}},
                  CLASSES, PALETTE, raw, found, official, told, bad)


def _found(frames: dict[str, list[Frame]], form: str) -> tuple[dict[str, int], dict[str, int]]:
    """Official numbers of labelled frames, if these are the official recordings, and how many of them are there."""
    table = len(ddd17_export.intervals())
    mine = {split: [f for f in frames.get(split, []) if f.label is not None and (form == "ess" or f.sequence < table)] for split in SPLITS}
    known = form == "ess" or any(f.sequence < table for split in SPLITS for f in frames.get(split, []))
    return {split: FRAMES[split] for split in SPLITS} if known else {}, {split: len(part) for split, part in mine.items()}


def _kept(frames: list[Frame], left_out: dict[str, str]) -> Iterator[Frame]:
    """Without bad frames; a frame whose label is bad stays, unlabelled: those after it need it."""
    for frame in frames:
        if frame.named not in left_out:
            yield frame if str(frame.label) not in left_out else replace(frame, label=None)


# ------------------------------------------------------------------------------------------- recordings

def _labels(raw: Path) -> dict[str, dict[str, dict[int, Path]]]:
    """recording -> split -> frame -> label picture. Raises DataError."""
    found: dict[str, dict[str, dict[int, Path]]] = {}
    for split in SPLITS:
        for path in sorted((raw / "labels" / split).glob("[!.]*")):
            named = LABEL.fullmatch(path.name)
            if named is None:
                raise DataError(path, "not named RECORDING_export_FRAME.png", "Move it out of the labels.")
            mine = found.setdefault(named["name"], {}).setdefault(split, {})
            if (other := mine.setdefault(int(named["frame"]), path)) != path:
                raise DataError(path, f"the same frame as {other.name}", "Move one of them out of the labels.")
    return found


def _files(raw: Path) -> list[Path]:
    """All recordings below `raw`, in folders that are links too."""
    found, seen = [], set()
    for folder, folders, names in os.walk(raw, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        found += [Path(folder, name) for name in names if not name.startswith(".") and Path(name).suffix.lower() in recordings.SUFFIXES]
    return sorted(path for path in found if path.is_file())


def _spans(name: str, labels: dict[str, dict[int, Path]]) -> list[tuple[str, int, int, int]]:
    """split, sequence, first frame and the one after the last, of what is stored of a recording; in the order of frames."""
    table = ddd17_export.intervals()
    spans = [(i.split, k, i.start, i.stop) for k, i in enumerate(table) if i.recording == name and i.split in SPLITS]
    if not spans:
        spans = [(split, -1, min(frames), max(frames) + 1) for split, frames in labels.items()]
    spans.sort(key=lambda span: span[2])
    for a, b in zip(spans, spans[1:], strict=False):
        if b[2] < a[3]:
            raise DataError(next(iter(labels[b[0]].values())), f"frame {b[2]} of {name} is {b[0]}, but {a[0]} goes to {a[3] - 1}",
                            "Keep the splits apart in time.")
    return spans


def _recordings(config: Config, raw: Path, work: Path, tell: Tell) -> tuple[dict[str, list[Frame]], tuple[int, int], dict[str, Any], dict[str, str]]:
    labels, paths = _labels(raw), _files(raw)
    if not paths:
        raise DataMissing(raw / "*.hdf5", REMEDY)
    places = {path.stem: path for path in paths}
    if len(places) < len(paths):
        twice = next(path for path in paths if places[path.stem] != path)
        raise DataError(twice, f"has the name of {places[twice.stem]}", "Give them two names; labels are found by name.")
    if (strange := sorted(labels.keys() - places.keys())) and not config.data.allow_partial:
        raise DataMissing(raw / f"{strange[0]}.hdf5", f"Its labels are there: put it there, move the labels of {len(strange)} recordings away, "
                                                      "or give --allow-partial.")
    spans = {name: _spans(name, labels.get(name, {})) for name in places}
    code = provenance.code_digest(sorted(Path(__file__).parent.glob("*.py")))
    tasks = [ddd17_frames.Task(Recording(name, path, tuple(span[2:] for span in spans[name])), config.data.size, work / "frames", code,
                               config.data.skip_bad, config.data.allow_partial) for name, path in places.items()]
    done = {task.recording.name: ready for task in tasks if (ready := ddd17_frames.counted(task))}
    tell(Progress("recordings", len(done), len(tasks)))
    for told in parallel.results(ddd17_frames.count, [task for task in tasks if task.recording.name not in done], config):
        done[told.name] = told
        tell(Progress("recordings", len(done), len(tasks)))
    bad = {str(places[name]): told.bad for name, told in sorted(done.items()) if told.bad}
    good = {name: done[name] for name in places if not done[name].bad}
    sensors = {told.sensor for told in good.values()}
    if not good:
        raise DataError(raw, f"no recording can be used ({next(iter(bad.values()))})", REMEDY)
    if len(sensors) > 1:
        odd = next(name for name, told in good.items() if told.sensor != next(iter(good.values())).sensor)
        raise DataError(places[odd], f"of another sensor than {next(iter(good))}", "Put recordings of one kind of camera there; columns can "
                        "tell the sensor in `size` [height, width].")
    table = len(ddd17_export.intervals())
    frames: dict[str, list[Frame]] = {split: [] for split in (*SPLITS, "unlabelled")}
    for k, (name, told) in enumerate(good.items()):
        place, row = work / "frames" / name / "frames.npy", 0
        for split, sequence, start, stop in spans[name] or [("unlabelled", -1, 0, told.frames)]:
            mine = labels.get(name, {}).get(split, {})
            there = min(stop - start, told.frames - row)        # fewer where the recording may end before
            frames[split] += [Frame(place, row + j, mine.get(start + j), table + k if sequence < 0 else sequence, start + j) for j in range(there)]
            row += there
    accounts = _accounts(good)
    about = {split: {"recordings": {name: accounts[name] for name in dict.fromkeys(f.source.parent.name for f in part)}} for split, part in frames.items()}
    return frames, sensors.pop(), about, bad


def _accounts(good: dict[str, Counted]) -> dict[str, dict[str, int]]:
    """Where the events of each recording went; raises RuntimeError if one was lost."""
    told = {}
    for name, counted in good.items():
        account: Account = counted.account
        told[name] = {k: v for k, v in vars(account).items()}
        if account.read != account.counted + account.elsewhere + account.below + account.rejected:
            raise RuntimeError(f"{name}: the events do not add up: {told[name]}")
    return told


# ------------------------------------------------------------------------------------------- exports

def _export(raw: Path, allow_partial: bool) -> dict[str, list[Frame]]:
    root = next((p for p in (raw, raw / "dataset") if (p / "events").is_dir() or (p / "train").is_dir() or (p / "test").is_dir()), raw)
    table, frames = ddd17_export.intervals(), {}
    for split in SPLITS:
        try:
            pairs = ddd17_export.pairs(root, split, allow_partial)
        except DataMissing:
            if not allow_partial or split == SPLITS[-1] and not any(frames.values()):
                raise
            pairs = []
        known = ddd17_export.sequences([p.recording for p in pairs], np.array([p.frame for p in pairs], np.int64), table)
        others = {name: len(table) + k for k, name in enumerate(sorted({p.recording for p in pairs}))}
        frames[split] = [Frame(p.events, 0, p.label, int(k) if k >= 0 else others[p.recording], p.frame) for p, k in zip(pairs, known, strict=True)]
    return frames


def _ess_folders(raw: Path, allow_partial: bool) -> dict[str, list[Frame]]:
    root = next((clock.parent.parent for clock in sorted(raw.rglob("events.dat.t"))), raw)
    return {split: [Frame(folder, row, mask, sequence, row) for sequence, folder in enumerate(ddd17_export.ess_folders(root, split))
                    for row, mask in sorted(ddd17_export.ess_recording(folder).masks.items())] for split in SPLITS}
