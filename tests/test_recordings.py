"""Recordings: the same events come out of every format, bad files are named, memory does not grow with the file."""
import io
import pickle
import subprocess
import sys
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest

from snnseg.data import ddd17, event_columns, recordings
from snnseg.data.events import Events
from snnseg.errors import DataError, DataMissing

SIZE = (260, 346)
PIXELS = {"x": 346, "y": 260, "p": 2}
FAERY = ("es", "aedat4", "csv", "dat", "raw", "evt2.raw")


def events(n=5000, seed=0):
    """t, x, y, p of a sensor that was touched everywhere; t starts at 0, as in ES."""
    random = np.random.default_rng(seed)
    t = np.sort(random.integers(0, 10 * n, n))
    t[0] = 0
    columns = {"t": t} | {name: random.integers(0, most, n) for name, most in PIXELS.items()}
    columns["x"][-1], columns["y"][-1] = 345, 259
    return columns


WRITE = """
import io, sys
import faery, numpy as np
columns = np.load(io.BytesIO(sys.stdin.buffer.read()))
packet = np.zeros(len(columns["t"]), faery.EVENTS_DTYPE)
for name in columns:
    packet["on" if name == "p" else name] = columns[name]
faery.events_stream_from_array(packet, tuple(map(int, sys.argv[2:]))).to_file(sys.argv[1], version="evt2" if "evt2" in sys.argv[1] else None)
"""


def write_faery(path, columns, size=SIZE):
    """In another process: faery 0.7 writes with numpy's own uint8 and bool changed for good, and Pillow then knows them no more."""
    pytest.importorskip("faery")
    packed = io.BytesIO()
    np.savez(packed, **columns)
    subprocess.run([sys.executable, "-c", WRITE, path, *map(str, size[::-1])], input=packed.getvalue(), check=True)


def test_reading_leaves_numpy_as_it_is(tmp_path):
    for name in ("a.es", "a.aedat4", "a.csv", "a.dat", "a.raw"):
        read(recordings.of(write(tmp_path / name, events())))
    assert [np.dtype(t).str for t in (np.uint8, bool, np.int8)] == ["|u1", "|b1", "|i1"] == [np.zeros(1, t).__array_interface__["typestr"] for t in (np.uint8, bool, np.int8)]


def write_hdf5(path, columns, group="/", names="txyp", **attributes):
    with h5py.File(path, "w") as file:
        for name, values in zip(names.split() if " " in names else names, columns.values(), strict=True):
            file.require_group(group)[name] = values
        file.attrs.update(attributes)
    return path


def write(path, columns):
    if path.suffix == ".npz":
        np.savez_compressed(path, **columns, size=SIZE)
    elif path.suffix == ".aedat":
        records = np.stack([(259 - columns["y"]) << 22 | (345 - columns["x"]) << 12 | columns["p"] << 11, columns["t"]], axis=1)
        path.write_bytes(b"#!AER-DAT2.0\r\n# AEChip: Davis346blue\r\n" + records.astype(">u4").tobytes())
    elif path.name == "ddd17.hdf5":
        ddd17.write(path, *columns.values())
    elif path.suffix in (".hdf5", ".h5"):
        write_hdf5(path, columns, "events", height=260, width=346)
    else:
        write_faery(path, columns)
    return path


def read(recording):
    got = list(recording.pieces())
    assert all(piece.total == len(piece.x) == len(piece.y) == len(piece.p) for piece in got)
    columns = {c: np.concatenate([getattr(piece, c) for piece in got]) for c in "txyp"}
    assert [c.dtype for c in columns.values()] == [np.int64, np.uint16, np.uint16, np.uint8]
    return columns


def same(a, b):
    return all((a[c] == b[c]).all() for c in "txyp")


def refuses(path, words):
    with pytest.raises(DataError, match=words) as caught:
        list(recordings.of(path).pieces())
    assert path.name in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 1000


FORMATS = {"ddd17.hdf5": "DDD17", "a.h5": "HDF5", "b.HDF5": "HDF5", "a.npz": "NPZ", "a.aedat": "AEDAT-2", "a.es": "ES", "a.aedat4": "AEDAT-4",
           "a.csv": "CSV", "a.dat": "DAT", "a.raw": "RAW", "evt2.raw": "RAW"}


@pytest.mark.parametrize("name, format", FORMATS.items())
def test_the_same_events_come_out_of_every_format(tmp_path, name, format):
    columns = events()
    path = write(tmp_path / name, columns) if name != "b.HDF5" else write(tmp_path / "a.h5", columns).rename(tmp_path / name)
    recording = recordings.of(str(path))
    assert (recording.path, recording.format, recording.size) == (path, format, SIZE)
    got = read(recording)
    assert same(got, columns) and same(read(pickle.loads(pickle.dumps(recording))), columns)
    assert Events.checked(*got.values(), recording.size)[1].total == 0
    assert recordings.of(path) == recording and path.suffix.lower() in recordings.SUFFIXES


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.es", "a.dat", "a.csv"])
def test_pieces_join_without_a_gap(tmp_path, monkeypatch, name):
    monkeypatch.setattr(event_columns, "STEP", 700)
    columns = events(30_000)
    recording = recordings.of(write(tmp_path / name, columns))
    got = list(recording.pieces())
    assert len(got) > 2 and same(read(recording), columns)
    assert len(next(recording.pieces()).t) == len(got[0].t)         # and may be left alone after the first
    assert [piece.rows for piece in got] == [(stop - len(piece.t), stop) for piece, stop in zip(got, np.cumsum([len(g.t) for g in got]), strict=True)]


# ---------------------------------------------------------------------------------------- columns


@pytest.mark.parametrize("types", [("<u8", "u1", "u2", "?"), (">i8", ">i2", ">u4", "i1"), ("i4", "i8", "u2", "u1")])
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_whole_numbers_of_any_type_are_columns(tmp_path, suffix, types):
    columns = {name: values.astype(dtype) for (name, values), dtype in zip(events(500).items(), types, strict=True)}
    np.savez(tmp_path / "a.npz", **columns)
    write_hdf5(tmp_path / "a.h5", columns)
    assert same(read(recordings.of(tmp_path / f"a{suffix}")), columns)


@pytest.mark.parametrize("names, group", [("txyp", "/"), ("txyp", "events"), ("ts xs ys ps", "events"), ("ts xs ys ps", "/"), ("timestamp x y polarity", "events")])
def test_columns_have_common_names_and_places(tmp_path, names, group):
    columns = events(500)
    assert same(read(recordings.of(write_hdf5(tmp_path / "a.h5", columns, group, names))), columns)
    np.savez(tmp_path / "a.npz", **dict(zip(names.split() if " " in names else names, columns.values(), strict=True)))
    assert same(read(recordings.of(tmp_path / "a.npz")), columns)


@pytest.mark.parametrize("said, size", [
    ({"height": 480, "width": np.array([640])}, (480, 640)), ({"sensor_resolution": [480, 640]}, (480, 640)),
    ({"sensor_resolution": (480.0, 640.0, 1.0)}, (480, 640)), ({}, SIZE),
])
def test_the_size_is_what_is_said_or_what_the_events_need(tmp_path, said, size):
    for group in ("/", "events"):
        assert recordings.of(write_hdf5(tmp_path / "a.h5", events(), group, **said)).size == size
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["events/height"], file["events/width"] = 720, 1280
    assert recordings.of(tmp_path / "a.h5").size == (720, 1280) if not said else size
    np.savez(tmp_path / "a.npz", **events())
    assert recordings.of(tmp_path / "a.npz").size == SIZE


@pytest.mark.parametrize("size", [(0, 346), (-1, 346), (1, 2**16), (np.nan, 346), ("260", "346"), (260,), 1e400])
def test_a_size_that_no_sensor_has_is_refused(tmp_path, size):
    refuses(write_hdf5(tmp_path / "a.h5", events(), sensor_resolution=size), "size of its sensor is .*height, width")
    np.savez(tmp_path / "a.npz", **events(), size=size)
    refuses(tmp_path / "a.npz", r"height, width")


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_numbers_that_do_not_fit_are_left_to_the_caller_and_do_not_wrap(tmp_path, suffix):
    columns = {"t": np.array([0, 1, 2, 2**64 - 1, 4], np.uint64), "x": np.array([-1, 2**16, 1, 1, 1]), "y": np.array([1, 1, 1, 1, 2**32]),
               "p": np.array([1, 1, 256, 1, 1])}
    np.savez(tmp_path / "a.npz", **columns, size=SIZE)
    write_hdf5(tmp_path / "a.h5", columns, sensor_resolution=SIZE)
    kept, rejected = Events.checked(*read(recordings.of(tmp_path / f"a{suffix}")).values(), SIZE)
    assert (len(kept), rejected.outside, rejected.polarity, rejected.time_beyond) == (0, 3, 1, 1)


BAD_COLUMNS = {
    "float t": ({"t": np.arange(4) / 1e6}, "t is float64.*whole microseconds"),
    "whole float t": ({"t": np.arange(4.0)}, "t is float64.*whole microseconds"),
    "float x": ({"x": np.ones(4)}, "x is float64"),
    "p of -1": ({"p": np.array([1, 1, -1, 1])}, "p is -1 at event 2.*0 for OFF"),
    "text": ({"p": np.array([b"1"] * 4)}, "p is .S1.*whole numbers"),
    "table": ({"y": np.ones((4, 1), int)}, r"y is int64 of shape \[4, 1\]"),
    "one number": ({"y": np.array(3)}, r"y is int64 of shape \[\]"),
    "lengths": ({"x": np.arange(5)}, "are of 4, 5, 4, 4 events"),
    "no events": ({name: np.zeros(0, int) for name in "txyp"}, "holds no event"),
    "no pixels": ({"x": np.full(4, -1)}, "holds no event"),
}


@pytest.mark.parametrize("change, words", BAD_COLUMNS.values(), ids=BAD_COLUMNS)
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_bad_columns_are_named(tmp_path, suffix, change, words):
    columns = {name: np.arange(4) % most for name, most in {"t": 9, "x": 4, "y": 4, "p": 2}.items()} | change
    np.savez(tmp_path / "a.npz", **columns)
    write_hdf5(tmp_path / "a.h5", columns)
    refuses(tmp_path / f"a{suffix}", words)


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_missing_columns_are_named_and_a_recording_without_events_is_one(tmp_path, suffix):
    np.savez(tmp_path / "a.npz", t=[1], y=[1])
    write_hdf5(tmp_path / "a.h5", {"t": [1], "y": [1]}, names="ty")
    refuses(tmp_path / f"a{suffix}", "has no column x, p")
    write_hdf5(tmp_path / "a.h5", {name: np.zeros(0, int) for name in "txyp"}, height=4, width=5)
    np.savez(tmp_path / "a.npz", **{name: np.zeros(0, int) for name in "txyp"}, size=(4, 5))
    assert (recordings.of(tmp_path / f"a{suffix}").size, list(recordings.of(tmp_path / f"a{suffix}").pieces())) == ((4, 5), [])


def test_hdf5_reads_no_other_file_and_no_objects(tmp_path):
    other = write_hdf5(tmp_path / "other.h5", events(4))
    for name, link, words in (("t", h5py.ExternalLink(other.name, "/t"), "t is a link"), ("x", h5py.SoftLink("/y"), "x is a link"),
                              ("events", h5py.ExternalLink(other.name, "/"), "events is a link"), ("dvs", h5py.SoftLink("/no"), "dvs")):
        path = write_hdf5(tmp_path / "a.h5", events(4))
        with h5py.File(path, "a") as file:
            file.pop(name, None)
            file[name] = link
        refuses(path, words)
    for layout in ("virtual", "external", "object", "group"):
        path = write_hdf5(tmp_path / "a.h5", events(4))
        with h5py.File(path, "a") as file:
            del file["t"]
            if layout == "virtual":
                virtual = h5py.VirtualLayout((4,), np.int64)
                virtual[:] = h5py.VirtualSource(other, "t", (4,))
                file.create_virtual_dataset("t", virtual)
            elif layout == "external":
                file.create_dataset("t", (4,), np.int64, external=[(tmp_path / "numbers", 0, 32)])
            elif layout == "object":
                file.create_dataset("t", (4,), h5py.vlen_dtype(np.int64))
            else:
                file.create_group("t")
        refuses(path, {"object": "Python objects", "group": "t is no column"}.get(layout, "t lies in another file"))


def test_hdf5_with_chunks_larger_than_memory_may_be_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(event_columns, "CHUNK_BYTES", 1 << 16)
    with h5py.File(write_hdf5(tmp_path / "a.h5", events(4)), "a") as file:
        del file["t"]
        file.create_dataset("t", (4,), np.int64, chunks=(10_000,), maxshape=(None,), compression="gzip")
    refuses(tmp_path / "a.h5", "t has chunks of 10000 events.*Save it in chunks")


def packed(method=zipfile.ZIP_DEFLATED, **replaced):
    """Members of a .npz, some replaced by raw bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, values in events(100).items():
            body = io.BytesIO()
            np.save(body, values)
            archive.writestr(f"{name}.npy", replaced.get(name, body.getvalue()))
    return file.getvalue()


def header(text, version=1):
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text


def spoiled(data, at):
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1:]


def array(values, **options):
    file = io.BytesIO()
    np.save(file, values, **options)
    return file.getvalue()


BAD_NPZ = {
    "pickled": (packed(p=array(np.array([{}] * 100, object))), "p holds Python objects, which are not unpickled"),
    "cut off": (packed()[:-300], "zip file|cut off"),
    "only a beginning": (b"PK\x03\x04", "zip file"),
    "bits turned": (spoiled(packed(zipfile.ZIP_STORED), 400), "CRC"),
    "header lies": (packed(t=header(b"{'descr': '<i8', 'fortran_order': False, 'shape': (10**9,)}\n".replace(b"10**9", b"1000000000"))), "has .* bytes"),
    "header short": (packed(t=array(np.arange(100))[:-8]), "has .* bytes"),
    "negative": (packed(t=header(b"{'descr': '<i8', 'fortran_order': False, 'shape': (-1,)}\n")), "bytes|shape"),
    "header is code": (packed(t=header(b"__import__('os').abort()")), "header"),
    "header is endless": (packed(t=header(b"(" * 60_000)), "header|large"),
    "version": (packed(t=header(b"", 3)), "version"),
    "no array": (packed(t=b"hello"), "magic|EOF|expected"),
    "structure": (packed(t=array(np.zeros(100, [("a", "i8"), ("b", "f4")]))), "t is .*whole numbers"),
    "other packing": (packed(zipfile.ZIP_BZIP2), "t.npy is packed by method 12.*savez"),
}


@pytest.mark.parametrize("data, words", BAD_NPZ.values(), ids=BAD_NPZ)
def test_bad_npz_are_named(tmp_path, data, words):
    (tmp_path / "a.npz").write_bytes(data)
    refuses(tmp_path / "a.npz", words)


def test_a_zip_bomb_costs_no_memory(tmp_path):
    """An archive whose directory promises more than deflate can give, and one of honest zeros."""
    zeros = array(np.zeros(4_000_000, np.int64))
    data = packed(t=zeros, x=zeros, y=zeros, p=zeros)
    (tmp_path / "a.npz").write_bytes(data)
    assert len(data) * 500 < 4 * len(zeros)
    tracemalloc.start()
    total = sum(len(piece.t) for piece in recordings.of(tmp_path / "a.npz").pieces())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 4_000_000 and peak < len(zeros)          # of four such columns
    lying = packed(t=header(b"{'descr': '<i8', 'fortran_order': False, 'shape': (268435440,)}".ljust(117) + b"\n"))
    where = lying.index(b"PK\x01\x02") + 24
    (tmp_path / "a.npz").write_bytes(lying[:where] + (268435440 * 8 + 128).to_bytes(4, "little") + lying[where + 4:])
    refuses(tmp_path / "a.npz", r"t.npy has \d+ bytes in \d+, not")


# ---------------------------------------------------------------------------------------- faery


CSVS = {
    "no names": ("0,345,259,1\n1,0,0,0\n", None),
    "faery's": ("t,x@640,y@480,on\r\n0,345,259,1\r\n1,0,0,0\r\n", (480, 640)),
    "other order": ("# x;y;polarity;timestamp;more\n345;259;1;0;9\n0;0;0;1;9\n", None),
    "spaces": ("0 345 259 1\n1 0 0 0", None),
    "tabs and a mark": ("\ufefft\tx\ty\tp\n0\t345\t259\t1\n1\t0\t0\t0\n", None),
}


@pytest.mark.parametrize("text, size", CSVS.values(), ids=CSVS)
def test_csv_comes_with_names_or_without(tmp_path, text, size):
    pytest.importorskip("faery")
    (tmp_path / "a.csv").write_text(text, newline="", encoding="utf-8")
    recording = recordings.of(tmp_path / "a.csv")
    assert recording.size == (size or SIZE)
    assert [c.tolist() for c in read(recording).values()] == [[0, 1], [345, 0], [259, 0], [1, 0]]


BAD_FAERY = {
    "text.raw": (b"hello, I am no recording\n" * 99, "does not begin like a .raw"),
    "short.raw": (b"% evt 3.0\n% Date 2020-09-04\n\x00\x80", "no size.*geometry.*add"),
    "version.raw": (b"% geometry 1280x720\n\x00\x80", "no version.*format EVT3.*add"),
    "evt21.raw": (b"% format EVT21;width=640;height=480\n" + bytes(64), "EVT ?2.?1"),
    "evt2point1.raw": (b"% evt 2.1\n% geometry 640x480\n" + bytes(64), "is EVT 2.1.*EVT 3"),
    "outside.raw": (b"% evt 3.0\n% geometry 16x16\n" + bytes.fromhex("ff20") * 8, "x overflow"),
    "text.dat": (b"% Version 2\n% Width 9\n% Height 9\nhello", "size.*not supported|unknown"),
    "short.dat": (b"% Version 2\n\x0c\x08", "no size.*Width.*add"),
    "magic.es": (b"Event Strudel" + bytes(99), "does not begin like a .es"),
    "version.es": (b"Event Stream\x09\x00\x00\x01Z\x01\x04\x01", "9.0.0"),
    "short.es": (b"Event Stream\x02", "cut off, damaged"),
    "short.aedat4": (b"#!AER-DAT4.0\r\n\x10\x00\x00", "cut off, damaged"),
    "zeros.aedat4": (b"#!AER-DAT4.0\r\n" + (64).to_bytes(4, "little") + bytes(64), "cut off, damaged"),
    "older.aedat4": (b"#!AER-DAT2.0\r\n", "begins like a .aedat.*Rename"),
    "seconds.csv": (b"t,x,y,p\n0.000001,1,2,1\n", "field .*t.*whole microseconds"),
    "polarity.csv": (b"t,x,y,p\n1,1,2,-1\n", "-1.*p as 0 or 1"),
    "fields.csv": (b"t,x,y,p\n1,1\n", "missing.*Save columns"),
    "names.csv": (b"a,b,c,d\n1,2,3,1\n", "has no column t, x, y, p"),
    "empty.csv": (b"t,x,y,p\n", "holds no event"),
    "binary.csv": (bytes(range(256)) * 9, "is no text"),
    "line.csv": (b"1,2,3,1;" * 10_000, "is no text"),
}


@pytest.mark.parametrize("name", BAD_FAERY)
def test_bad_files_for_faery_are_named(tmp_path, name):
    pytest.importorskip("faery")
    data, words = BAD_FAERY[name]
    (tmp_path / name).write_bytes(data)
    refuses(tmp_path / name, words)


def test_an_aedat4_header_that_would_end_the_process_is_named(tmp_path):
    """faery 0.7 takes its text for UTF-8, its offsets for right and its lengths for true."""
    data = write(tmp_path / "a.aedat4", events(2000)).read_bytes()
    text = data.index(b"<dv")
    for at, byte, words in ((text + 9, 0x85, "utf-8"), (18, 0xFF, "offset|unpack"), (text - 2, 0xFF, "longer than the header"), (17, 0x7F, "header is .* long"),
                            (18 + int.from_bytes(data[14:18], "little") + 7, 0x7F, "a packet ends at byte")):
        (tmp_path / "a.aedat4").write_bytes(data[:at] + bytes([byte]) + data[at + 1:])
        refuses(tmp_path / "a.aedat4", words)
    (tmp_path / "a.aedat4").write_bytes(data[:len(data) // 2])
    refuses(tmp_path / "a.aedat4", "cut off: its table begins at byte")


@pytest.mark.parametrize("name", ["a.aedat4", "a.es", "a.dat", "a.raw", "a.csv", "a.npz", "a.aedat"])
def test_bytes_turned_anywhere_never_end_in_another_error(tmp_path, name):
    """They may go unseen: most formats have no checksum."""
    random, path = np.random.default_rng(1), write(tmp_path / name, events(2000))
    data = path.read_bytes()
    for _ in range(12):
        at = random.integers(0, len(data) if random.random() < 0.5 else min(len(data), 800), 3)
        changed = bytearray(data)
        for k in at:
            changed[k] = random.integers(0, 256)
        path.write_bytes(changed[: random.integers(len(data) // 2, len(data)) if random.random() < 0.3 else len(data)])
        try:
            sum(len(piece.t) for piece in recordings.of(path).pieces())
        except DataError as e:
            assert name in str(e)


def test_a_panic_of_faery_is_named_and_a_users_interrupt_is_not(tmp_path, monkeypatch):
    faery = pytest.importorskip("faery")
    path = write(tmp_path / "a.es", events(10))
    for error, expected in ((type("PanicException", (BaseException,), {}), DataError), (AssertionError, DataError), (KeyboardInterrupt, KeyboardInterrupt)):
        def broken(*_, error=error, **__):
            raise error("index out of bounds")
        monkeypatch.setattr(faery, "events_stream_from_file", broken)
        with pytest.raises(expected, match="index out of bounds"):
            recordings.of(path)


def test_without_faery_the_remedy_is_said_and_the_others_are_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faery", None)
    for name, data in (("a.es", b"Event Stream"), ("a.raw", b"% evt 3.0"), ("a.csv", b"t,x,y,p\n"), ("a.aedat4", b"#!AER-DAT4.0")):
        (tmp_path / name).write_bytes(data)
        refuses(tmp_path / name, r"pip install 'snnseg\[recordings\]'")
    for name in ("a.npz", "a.h5", "a.aedat", "ddd17.hdf5"):
        assert same(read(recordings.of(write(tmp_path / name, events()))), events())


# ---------------------------------------------------------------------------------------- the door


def test_what_is_no_recording_is_named(tmp_path):
    for name in ("no.npz", "folder.npz"):
        (tmp_path / "folder.npz").mkdir(exist_ok=True)
        with pytest.raises(DataMissing, match=f"{name}: not found"):
            recordings.of(tmp_path / name)
    for suffix in recordings.SUFFIXES:
        (tmp_path / f"empty{suffix}").touch()
        refuses(tmp_path / f"empty{suffix}", "is empty")
        if suffix != ".csv":
            (tmp_path / f"text{suffix}").write_text("some text")
            refuses(tmp_path / f"text{suffix}", "does not begin")
    (tmp_path / "a.txt").write_text("0 1 2 1")
    refuses(tmp_path / "a.txt", "not named .txt.*suffix of its format: .*npz")
    (tmp_path / "a").write_text("0 1 2 1")
    refuses(tmp_path / "a", "without a suffix")
    write_hdf5(tmp_path / "a.h5", events(4)).rename(tmp_path / "a.npz")
    refuses(tmp_path / "a.npz", "begins like a .hdf5.*Rename")
    (tmp_path / "a.h5").write_bytes((tmp_path / "a.npz").read_bytes()[:1000])
    refuses(tmp_path / "a.h5", "cut off, damaged.*truncated")
    (tmp_path / "a.aedat").write_bytes(b"#!AER-DAT3.1\r\n")
    refuses(tmp_path / "a.aedat", "AEDAT-3.1")


@pytest.mark.parametrize("packing", [{}, {"chunks": (1 << 16,), "compression": "gzip", "compression_opts": 1}])
def test_memory_does_not_grow_with_the_file(tmp_path, packing):
    n = 2_000_000
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, most, dtype in (("t", n, np.int64), ("x", 346, np.uint16), ("y", 260, np.uint16), ("p", 2, np.uint8)):
            file.create_dataset(name, data=(np.arange(n) % most).astype(dtype), **packing)
    tracemalloc.start()
    recording = recordings.of(tmp_path / "a.h5")
    total = sum(len(piece.t) for piece in recording.pieces())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == n and recording.size == SIZE and peak < n * 13 / 2
