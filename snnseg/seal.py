"""Seals: a folder is whole, unchanged and complete, or it is refused.

A folder is written under a partial name, flushed, sealed (`seal.json`: size and sha256 of every file, and a digest over
the seal itself, written last) and renamed. Stores, checkpoints and models are all published this way.
"""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from snnseg.errors import NO_SPACE_ERRNOS, NoSpace, StoreAltered, StoreMissing

SEAL = "seal.json"
PARTIAL = ".partial-"
FORMER = "-former"


def file_sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    """All that is not a folder, links included: they are never followed."""
    return sorted(p for p in folder.rglob("*") if (p.is_symlink() or not p.is_dir()) and p != folder / SEAL)


def _digest(seal: dict) -> str:
    bare = {k: v for k, v in seal.items() if k != "digest"}
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()


def _text(seal: dict) -> str:
    return json.dumps(seal, sort_keys=True, indent=1) + "\n"


def fsync(path: Path) -> None:
    """Flush a file or a directory entry to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def no_space_named(place: Path) -> Iterator[None]:
    """Turn a full disk, quota or file size limit into `NoSpace` that names `place` and what is left there."""
    try:
        yield
    except OSError as e:
        if e.errno not in NO_SPACE_ERRNOS:
            raise
        there = next((p for p in [place, *place.parents] if p.exists()), Path("/"))
        raise NoSpace(place, shutil.disk_usage(there).free) from e


def write_file(path: Path, data: str | bytes) -> None:
    """Replace `path` in one step: written beside, flushed, renamed. Nothing is half written."""
    beside = path.with_name(f"{PARTIAL}{uuid.uuid4().hex[:8]}-{path.name}")
    with no_space_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_bytes(data.encode() if isinstance(data, str) else data)
            fsync(beside)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)


def seal(folder: Path) -> str:
    """Write `seal.json` over everything below `folder` and return the seal's digest."""
    files = {}
    for path in _files(folder):
        fsync(path)
        files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": file_sha256(path)}
    content = {"schema": 1, "files": files}
    content["digest"] = _digest(content)
    write_file(folder / SEAL, _text(content))
    return content["digest"]


@contextlib.contextmanager
def publish(final: Path) -> Iterator[Path]:
    """Give a partial folder beside `final` to fill; seal and rename it on success, remove it on failure.

    A `final` that is already there is replaced. Raises NoSpace.
    """
    partial = final.with_name(f"{PARTIAL}{uuid.uuid4().hex[:8]}-{final.name}")
    former = partial.with_name(partial.name + FORMER)
    with no_space_named(final):
        try:
            partial.mkdir(parents=True)
            yield partial
            seal(partial)
            fsync(partial)
            if final.exists():
                os.rename(final, former)
            os.rename(partial, final)
            fsync(final.parent)
        finally:
            if former.exists() and not final.exists():
                os.rename(former, final)
            for left in (partial, former):
                if left.exists():
                    _remove(left)


def sweep(folder: Path) -> None:
    """Clear up after a process that was killed while it wrote in `folder`, or `folder` itself. The caller holds the lock.

    A former folder whose successor did not come to be is put back.
    """
    mine = re.compile(rf"{re.escape(PARTIAL)}[0-9a-f]{{8}}-{re.escape(folder.name)}(?P<former>{FORMER})?")
    for left in sorted(folder.parent.glob(f"{PARTIAL}*"), reverse=True):       # NAME-former before NAME
        if match := mine.fullmatch(left.name):
            if match["former"] and not folder.exists():
                os.rename(left, folder)
            else:
                _remove(left)
    for left in folder.glob(f"{PARTIAL}*"):
        _remove(left)


def remove(folder: Path) -> None:
    """Remove a folder whole: out of the way first, under a name that `sweep` of the folder around it knows, should this process be killed meanwhile."""
    out_of_the_way = folder.with_name(f"{PARTIAL}{uuid.uuid4().hex[:8]}-{folder.name}")
    os.rename(folder, out_of_the_way)
    shutil.rmtree(out_of_the_way)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def is_sealed(folder: Path) -> bool:
    return (folder / SEAL).is_file()


def read_seal(folder: Path, remedy: str) -> dict:
    """The seal of `folder`, itself checked to the byte. Raises StoreMissing, StoreAltered."""
    if not folder.is_dir():
        raise StoreMissing(folder, "not found", remedy)
    if not is_sealed(folder):
        raise StoreMissing(folder, "not sealed, so it was never finished", remedy)
    try:
        text = (folder / SEAL).read_bytes().decode("utf-8")
        seal = json.loads(text)
        intact = text == _text(seal) and seal["digest"] == _digest(seal) and isinstance(seal["files"], dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise StoreAltered(folder, f"{SEAL} is not the file that was written", remedy)
    if seal["schema"] != 1:
        raise StoreAltered(folder, f"sealed with schema {seal['schema']}, this version reads schema 1", remedy)
    return seal


def verify(folder: Path, remedy: str, contents: bool = True) -> str:
    """Check `folder` against its seal and return the seal's digest.

    Every file must be there with its size, and no other file; with `contents` every byte is hashed as well.
    Raises StoreMissing, StoreAltered with the first file that differs.
    """
    seal = read_seal(folder, remedy)
    found = {p.relative_to(folder).as_posix(): p for p in _files(folder)}
    for name in sorted(seal["files"].keys() | found.keys()):
        if name not in found:
            raise StoreAltered(folder, f"{name} is missing", remedy)
        if name not in seal["files"]:
            raise StoreAltered(folder, f"{name} does not belong to it", remedy)
        expected, path = seal["files"][name], found[name]
        if not path.is_file() or path.is_symlink():
            raise StoreAltered(folder, f"{name} is no longer a plain file", remedy)
        if path.stat().st_size != expected["size"] or (contents and file_sha256(path) != expected["sha256"]):
            raise StoreAltered(folder, f"{name} is not the file that was sealed", remedy)
    return seal["digest"]
