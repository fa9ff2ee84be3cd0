"""What is fetched from where: one table of official files, which addresses may be asked, and how a file is told to be right.

Every URL is of the data set's own site. The sites publish md5 or nothing, and md5 alone can be forged, so the size and
the sha256 of the same bytes stand beside it and all three must fit. DDD17 has no direct link with published sums (a form,
a peer-to-peer folder, a share), so its table says where to get what, and what lies there is checked by its structure.
"""
from __future__ import annotations

import hashlib
import ipaddress
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from snnseg import lock
from snnseg.data import archive
from snnseg.errors import DataError, DataMissing

CHUNK = 2**20       # bytes hashed at a time


@dataclass(frozen=True)
class Source:
    """An official file. `file` and `unpacks_to` are below the raw folder; a sum that is not known is ""."""

    file: str
    url: str
    size: int                   # bytes
    md5: str = ""
    sha256: str = ""
    unpacks_to: str = ""        # the folder that an archive becomes


def _mnist(name: str, size: int, md5: str, sha256: str) -> Source:
    return Source(f"mnist/{name}", f"https://yann.lecun.com/exdb/mnist/{name}", size, md5, sha256)


TABLE: dict[str, tuple[Source, ...]] = {
    "voc": (Source(
        "VOCtrainval_11-May-2012.tar", "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar", 1_999_639_040,
        "6cd6e144f989b92b3379bac3b3de84fd", "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb", "VOCdevkit"),),
    "sbd": (Source(
        "benchmark.tgz", "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz", 1_419_539_633,
        "82b4d87ceb2ed10f6038a1cba92111cb", "6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53", "benchmark_RELEASE"),),
    "mnist": (
        _mnist("train-images-idx3-ubyte.gz", 9_912_422,
               "f68b3c2dcbeaaa9fbdd348bbdeb94873", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        _mnist("train-labels-idx1-ubyte.gz", 28_881,
               "d53e105ee54ea40749a09fcbcd1e9432", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        _mnist("t10k-images-idx3-ubyte.gz", 1_648_877,
               "9fb629c4189551a2d022fa330f9573f3", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        _mnist("t10k-labels-idx1-ubyte.gz", 4_542,
               "ec29112dd5afa0611ce80d1b7f02629c", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    "cifar10": (Source(
        "cifar-10-binary.tar.gz", "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", 170_052_171,
        "c32a1d4ab5d03f1284b67883e8d87530", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", "cifar-10-batches-bin"),),
}

# any one of these three forms of DDD17 will do
DDD17 = (
    "the recordings run2/rec1487339175, run3/rec1487417411, run3/rec1487593224, run4/rec1487779465, run5/rec1487842276 and "
    "run5/rec1487846842 (.hdf5), linked from https://sites.google.com/view/davis-driving-dataset-2020/home",
    "Ev-SegNet's export, linked from https://github.com/Shathe/Ev-SegNet, unpacked",
    "ESS's export, https://download.ifi.uzh.ch/rpg/ESS/ddd17_seg.tar.gz, unpacked",
)
EV_SEGNET = {"train": 15_950, "test": 3_890}        # frames
HDF5 = b"\x89HDF\r\n\x1a\n"


def by_hand(sources: tuple[Source, ...], raw: Path) -> str:
    """What to put where when the network does not give it: those of `sources` that are not there, in one line."""
    missing = [s for s in sources if not (raw / s.file).exists()] or sources
    files = ", ".join(f"{Path(s.file).name} ({s.size} bytes) from {s.url}" for s in missing)
    return f"Put {files} into {(raw / missing[0].file).parent} by hand and run the same command: it is verified then."


def fault(path: Path, source: Source) -> str | None:
    """What tells `path` from the official file; None if nothing does. Size first, as it costs nothing."""
    if not path.is_file():
        return "not a plain file"
    if (size := path.stat().st_size) != source.size:
        return f"{size} bytes, the official file has {source.size}"
    sums = {"md5": hashlib.md5(usedforsecurity=False), "sha256": hashlib.sha256()}
    with open(path, "rb") as f:
        while chunk := f.read(CHUNK):
            for algorithm in sums.values():
                algorithm.update(chunk)
    for name, official in (("sha256", source.sha256), ("md5", source.md5)):
        if official and (found := sums[name].hexdigest()) != official:
            return f"{name} is {found}, the official file's is {official}"
    return None


def unpack(name: str, raw: Path, table: dict[str, tuple[Source, ...]] = TABLE) -> list[Path]:
    """Make the folders that the data set's readers look for from its fetched archives; one that is there stays as it is.

    Raises Busy, DataMissing, UnsafeArchive, DataError, NoSpace.
    """
    folders = [(source, raw / source.unpacks_to) for source in table.get(name, ()) if source.unpacks_to]
    for source, folder in folders:
        with lock.held(folder, f"unpacking {source.file}"):
            if not folder.exists():
                archive.unpack(raw / source.file, folder, sha256=source.sha256 or None)
    return [folder for _, folder in folders]


# ------------------------------------------------------------------------------------------- addresses

def is_fit(url: str) -> bool:
    """Whether `url` may be asked: https, or plain http for a server on this very machine."""
    try:
        parts = urllib.parse.urlsplit(url)
        return bool(parts.hostname) and (parts.scheme == "https" or parts.scheme == "http" and is_loopback(url))
    except ValueError:
        return False


def redirected(url: str, location: str, remedy: str) -> str:
    """Where a redirect leads: to https, or from this machine to this machine. Raises DataError for all else."""
    try:
        target = urllib.parse.urljoin(url, location)
    except ValueError:
        target = location
    was_safe, is_safe = (u.lower().startswith("https:") for u in (url, target))
    if not is_fit(target) or was_safe and not is_safe:
        raise DataError(url, f"redirects to {target[:200]}, which is not https and was not followed", remedy)
    return target


def is_loopback(url: str) -> bool:
    """Whether the host is this machine, told by its name or number alone."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# ---------------------------------------------------------------------------------------------------- DDD17

def check_ddd17(raw: Path) -> list[Path]:
    """The recordings, exported frames' folder or ESS recordings below `raw`/ddd17, each seen to be whole.

    No sums are published: a cut-off or half-unpacked form is found by its own structure, other damage by its reader.
    Raises DataMissing with where to get which file, DataError.
    """
    folder = raw / "ddd17"
    recordings = sorted(folder.rglob("rec*.hdf5"))
    frames = sorted(folder.rglob("rec*_export_*.npy"))
    clocks = sorted(folder.rglob("events.dat.t"))
    if not (recordings or frames or clocks):
        raise DataMissing(folder, f"Put there one of: {'; '.join(DDD17)}. Then run the same command: it is checked.")
    for path in recordings:
        _check_hdf5(path)
    if frames:
        _check_frames(folder, frames)
    for path in clocks:
        _check_ess(path)
    return [*recordings, *sorted({p.parent for p in frames}), *(p.parent for p in clocks)]


def _check_hdf5(path: Path) -> None:
    """The superblock says where the file ends; a download that broke off ends before."""
    with open(path, "rb") as f:
        head = f.read(64)
    if len(head) < 64 or not head.startswith(HDF5):
        raise DataError(path, "not an HDF5 file", "Download it again.")
    # after signature and version: 15 (v0), 19 (v1) or 3 (v2, v3) bytes of settings, then base, extra and end address
    place = {0: (13, 40), 1: (13, 44), 2: (9, 28), 3: (9, 28)}.get(head[8])
    if place is None or head[place[0]] != 8:
        raise DataError(path, f"an HDF5 superblock of version {head[8]} that no DDD17 recording has", "Download it again.")
    end = int.from_bytes(head[place[1]:place[1] + 8], "little")
    if (size := path.stat().st_size) < end:
        raise DataError(path, f"cut off after {size} of {end} bytes", "Download it again.")


def _check_frames(folder: Path, frames: list[Path]) -> None:
    """As many frames of either split as the interval table has, each with its label picture."""
    labels = {(p.stem, _split(p)) for p in folder.rglob("rec*_export_*.png") if "labels" in p.parts}
    for path in frames:
        if path.stat().st_size == 0:
            raise DataError(path, "empty", "Unpack the archive again.")
        if _split(path) in EV_SEGNET and (path.stem, _split(path)) not in labels:
            raise DataError(path, "has no label picture of its name", "Unpack the archive again.")
    for split, count in EV_SEGNET.items():
        if (found := sum(_split(p) == split for p in frames)) != count:
            raise DataError(folder, f"holds {found} of {count} {split} frames", "Unpack the archive again.")


def _split(path: Path) -> str:
    """Either order of folders occurs: events/train and train/events."""
    return next((part for part in path.parts[-3:-1] if part in EV_SEGNET), "")


def _check_ess(clock: Path) -> None:
    """One int64 time and three int16 of x, y, p an event."""
    columns, masks = clock.with_name("events.dat.xyp"), clock.with_name("segmentation_masks")
    for path in (columns, masks):
        if not path.exists():
            raise DataMissing(path, "Unpack ddd17_seg.tar.gz again.")
    times, rest = clock.stat().st_size, columns.stat().st_size
    if times == 0 or times % 8 or rest * 8 != times * 6:
        raise DataError(clock, f"{times} bytes do not go with the {rest} bytes of {columns.name}", "Unpack ddd17_seg.tar.gz again.")
