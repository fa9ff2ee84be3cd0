"""Every kind of bad raw file through the command: one line with its name, exit code 4, no store; `--skip-bad` goes on without it."""
import io
import shutil
import struct
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from snnseg import config
from snnseg.cli import main
from snnseg.data import ddd17, ddd17_frames, driving_sample, store, voc_sample

ROOT = Path(__file__).resolve().parent.parent
MARK = "executed"


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """Both samples where the official files would lie."""
    root = tmp_path_factory.mktemp("good")
    shutil.copy(ROOT / "params.yaml", root)
    voc_sample.write(root / "data" / "raw", 9, 4, 0)
    driving_sample.write(root / "data" / "raw", 8, 4, 0)
    return root


def snnseg(monkeypatch, capsys, root: Path, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["snnseg", *arguments, "--params", str(root / "params.yaml"), "--set", "data.source=archives", "--set", "data.workers=1"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    told = capsys.readouterr()
    return ended.value.code or 0, told.out, told.err


def as_png(array: np.ndarray, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG", **options)
    return out.getvalue()


def as_jpeg(path: Path, mode: str = "RGB", **options) -> bytes:
    out = io.BytesIO()
    with Image.open(path) as image:
        image.convert(mode).save(out, "JPEG", **options)
    return out.getvalue()


def bomb() -> bytes:
    """A PNG of 60 000 x 60 000 pixels in some bytes."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def as_mat(**content) -> bytes:
    out = io.BytesIO()
    savemat(out, content)
    return out.getvalue()


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 6
    return exif


def relabelled(path: Path, label: int) -> bytes:
    with Image.open(path) as image:
        mask = np.array(image)
    mask[3, 5] = label
    return as_png(mask)


def enlarged(jpeg: bytes) -> bytes:
    """The same JPEG, its header telling of 60 000 x 60 000 pixels."""
    place = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:place] + struct.pack(">HH", 60_000, 60_000) + jpeg[place + 4:]


PICTURE, MASK, MAT = "VOCdevkit/VOC2012/JPEGImages/train_00001.jpg", "VOCdevkit/VOC2012/SegmentationClass/train_00001.png", "benchmark_RELEASE/dataset/cls/train_00004.mat"
VOC = {
    "0-byte JPEG": (PICTURE, lambda p: b"", "empty"),
    "truncated JPEG": (PICTURE, lambda p: p.read_bytes()[:1200], "cut off"),
    "CMYK JPEG": (PICTURE, lambda p: as_jpeg(p, "CMYK"), "CMYK"),
    "EXIF-rotated JPEG": (PICTURE, lambda p: as_jpeg(p, exif=rotated()), "EXIF"),
    "JPEG of 12 bits": (PICTURE, lambda p: p.read_bytes().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c"), "12"),
    "16-bit picture under the name of a JPEG": (PICTURE, lambda p: as_png(np.zeros((9, 9), np.uint16)), "not a JPEG"),
    "decompression bomb as a JPEG": (PICTURE, lambda p: enlarged(p.read_bytes()), "60000"),
    "decompression bomb as a mask": (MASK, lambda p: bomb(), "60000"),
    "mask as RGB": (MASK, lambda p: as_png(np.zeros((9, 9, 3), np.uint8)), "RGB"),
    "mask of 16 bits": (MASK, lambda p: as_png(np.zeros((9, 9), np.uint16)), "16"),
    "mask of another size": (MASK, lambda p: as_png(np.zeros((9, 9), np.uint8)), "9 x 9"),
    "label 21": (MASK, lambda p: relabelled(p, 21), "label 21"),
    "label 254": (MASK, lambda p: relabelled(p, 254), "label 254"),
    "truncated mask": (MASK, lambda p: p.read_bytes()[:90], "cut off"),
    ".mat without GTcls": (MAT, lambda p: as_mat(other=np.zeros((3, 3))), "GTcls"),
    ".mat with a v7.3 header": (MAT, lambda p: b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n".ljust(512), "MATLAB"),
    ".mat cut off": (MAT, lambda p: p.read_bytes()[:200], "cut off"),
}


@pytest.mark.parametrize("name", VOC)
def test_a_bad_file_of_voc(name, good, tmp_path, monkeypatch, capsys):
    place, spoil, word = VOC[name]
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "data" / "raw" / place
    spoiled = spoil(path)
    assert spoiled != path.read_bytes()
    path.write_bytes(spoiled)
    code, out, err = snnseg(monkeypatch, capsys, tmp_path, "prepare", "voc", "--allow-partial")
    last = err.splitlines()[-1]
    assert code == 4 and out == "" and last.startswith("snnseg: ") and path.name in last and word.lower() in last.lower() and "Traceback" not in err, err
    numbers = config.load(tmp_path / "params.yaml", "voc", ["data.source=archives"])
    assert not numbers.store.exists()
    code, out, err = snnseg(monkeypatch, capsys, tmp_path, "prepare", "voc", "--allow-partial", "--skip-bad")
    assert code == 0 and "12 pictures (8 train, 4 test), partial, 1 files left out" in out and f"left out: {path}" in err, err
    assert store.arrays(numbers.store, "train")[1]["left_out"] == 1


class Trap:
    """What a pickle would run."""

    def __reduce__(self):
        return (open, (MARK, "w"))


def rows(path: Path, change) -> None:
    """Change row 3 on of `dvs/data`: header words and payload of the first row of events."""
    with h5py.File(path, "r+") as file:
        data = file["dvs/data"]
        for r in range(2, len(data)):
            head = np.frombuffer(data[r, 1].tobytes(), "<i4")
            if head.size == 7 and head[0] & 0xFFFF == 1:
                new_head, body = change(head.copy(), np.frombuffer(data[r, 2].tobytes(), "<u4").reshape(-1, 2).copy())
                data[r, 1], data[r, 2] = (np.frombuffer(part.tobytes(), np.uint8) for part in (new_head, body))
                return


def lying(head, body):
    head[5] = head[5] * 3       # the number of events
    return head, body


RECORDING = "rec0000000001.hdf5"
DDD17 = {
    "HDF5 truncated": (lambda p: p.write_bytes(p.read_bytes()[:60_000]), "cut off"),
    "0-byte HDF5": (lambda p: p.write_bytes(b""), ""),
    "packet lengths that lie": (lambda p: rows(p, lying), "row"),
    "text for HDF5": (lambda p: p.write_text("not HDF5 at all, but long enough"), ""),
}


@pytest.mark.parametrize("name", DDD17)
def test_a_bad_recording(name, good, tmp_path, monkeypatch, capsys):
    spoil, word = DDD17[name]
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "data" / "raw" / "ddd17" / RECORDING
    spoil(path)
    code, out, err = snnseg(monkeypatch, capsys, tmp_path, "prepare", "ddd17")
    last = err.splitlines()[-1]
    assert code == 4 and out == "" and path.name in last and word in last and "Traceback" not in err, err
    for label in (path.parent / "labels" / "train").glob("rec0000000001_*"):
        label.unlink()
    code, out, err = snnseg(monkeypatch, capsys, tmp_path, "prepare", "ddd17", "--skip-bad")
    assert code == 0 and "1 files left out" in out and f"left out: {path}" in err, err


def accounts(root: Path) -> dict[str, dict[str, int]]:
    numbers = config.load(root / "params.yaml", "ddd17", ["data.source=archives"])
    return {name: account for split in store.splits(numbers.store) for name, account in store.arrays(numbers.store, split)[1]["recordings"].items()}


@pytest.mark.parametrize(("name", "columns", "told"), [
    ("x and y outside the sensor", ([0, 1, 2, 60_000], [0, 400, 5, 5], [0, 5, 300, 5], [1, 1, 1, 0]), {"outside": 2, "counted": 2}),
    ("time running back", ([100, 50, 200, 10], [0, 1, 2, 3], [0, 1, 2, 3], [1, 0, 1, 0]), {"time_back": 2, "counted": 2}),
    ("polarity 2", ([0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 255]), {"polarity": 2, "counted": 2}),
    ("one event", ([7], [3], [4], [1]), {"counted": 1}),
    ("all at one time", ([7, 7, 7], [3, 3, 3], [4, 4, 4], [1, 1, 1]), {"counted": 3}),
    ("a silence of two shards", ([0, 60_000_000], [3, 3], [4, 4], [1, 0]), {"counted": 2}),
])
def test_strange_events_are_counted_not_lost(name, columns, told, tmp_path, monkeypatch, capsys):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    folder = tmp_path / "data" / "raw" / "ddd17"
    folder.mkdir(parents=True)
    t, x, y, p = (np.array(column, np.int64) for column in columns)
    np.savez(folder / "mine.npz", t=t, x=x, y=y, p=p, size=(260, 346))
    code, out, err = snnseg(monkeypatch, capsys, tmp_path, "prepare", "ddd17")
    assert code == 0, err
    account = accounts(tmp_path)["mine"]
    assert {k: v for k, v in account.items() if v and k != "read"} == told and account["read"] == len(t)


def test_an_empty_recording_and_one_of_objects_are_named(tmp_path, monkeypatch, capsys):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    folder = tmp_path / "data" / "raw" / "ddd17"
    folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for content in ({c: np.zeros(0, np.int64) for c in "txyp"}, {c: np.array([Trap()], object) for c in "txyp"}):
        np.savez(folder / "mine.npz", **content)
        code, out, err = snnseg(monkeypatch, capsys, tmp_path, "prepare", "ddd17")
        assert code == 4 and "mine.npz" in err.splitlines()[-1] and "Traceback" not in err, err
    assert not (tmp_path / MARK).exists()


def test_exported_frames_with_objects_are_not_unpickled(tmp_path, monkeypatch, capsys):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "data" / "raw" / "ddd17"
    for split in ("train", "test"):
        (raw / "events" / split).mkdir(parents=True)
        (raw / "labels" / split).mkdir(parents=True)
        np.save(raw / "events" / split / "rec1_export_1.npy", np.array([Trap()], object), allow_pickle=True)
        (raw / "labels" / split / "rec1_export_1.png").write_bytes(as_png(np.zeros((200, 346), np.uint8)))
    code, out, err = snnseg(monkeypatch, capsys, tmp_path, "prepare", "ddd17", "--allow-partial", "--set", "data.ddd17.form=ev_segnet")
    assert code == 4 and "objects" in err and "Traceback" not in err and not (tmp_path / MARK).exists()


def test_a_clock_that_jumps_ends_the_counting(tmp_path, monkeypatch, capsys):
    """Otherwise one wrong time would be years of empty frames."""
    monkeypatch.setattr(ddd17_frames, "LONGEST", 1000)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    folder = tmp_path / "data" / "raw" / "ddd17"
    folder.mkdir(parents=True)
    np.savez(folder / "mine.npz", t=np.array([0, 10**14]), x=np.array([1, 1]), y=np.array([1, 1]), p=np.array([1, 1]), size=ddd17.SENSOR)
    code, out, err = snnseg(monkeypatch, capsys, tmp_path, "prepare", "ddd17")
    assert code == 4 and "mine.npz" in err.splitlines()[-1] and "its clock leaps to" in err
