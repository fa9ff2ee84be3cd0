"""DDD17: every event of a recording is in a piece or counted, labels join by frame, what is broken is named with its place."""
import shutil
import struct

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from snnseg.data import ddd17, ddd17_export
from snnseg.errors import DataError, DataMissing

SMALL = (6, 8)      # rows, columns of a sensor
ON_3_2 = (1, 3, 2, 1)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def word(valid, x, y, p):
    return valid | p << 1 | y << 2 | x << 17


def polarity(*events, overflow=0, **lies):
    """A row of events (t, valid, x, y, p)."""
    body = b"".join(struct.pack("<Ii", word(*e), t) for t, *e in events)
    return row(1, body, 8, len(events), overflow=overflow, **lies)


def special(kind, overflow=0, valid=1):
    return row(0, struct.pack("<Ii", kind << 1 | valid, 2**31 - 1), 8, 1, overflow=overflow)


def frame(t, image, overflow=0, info=3, **lies):
    height, width = image.shape
    where = {"width": width, "height": height, "x": 0, "y": 0} | {k: lies.pop(k) for k in ("width", "height", "x", "y") if k in lies}
    head = struct.pack("<I8i", info, 1, t, 2, 3, *where.values())
    body = head + image.astype("<u2").tobytes()
    return row(2, body, len(body), 1, overflow=overflow, **lies)


def row(kind, payload, size, number, overflow=0, capacity=None, valid=None, offset=4, stamp=b"1487417411000000", cut=None):
    capacity, valid = number if capacity is None else capacity, number if valid is None else valid
    return stamp, struct.pack("<hhiiiiii", kind, 1, size, offset, overflow, capacity, number, valid)[:cut], payload


def save(path, rows, empty=3):
    with h5py.File(path, "w") as f:
        data = f.create_dataset("dvs/data", (len(rows) + empty, 3), h5py.vlen_dtype(np.uint8), chunks=(128, 3), maxshape=(None, 3))
        for r, cells in enumerate(rows):
            for c, cell in enumerate(cells):
                data[r, c] = np.frombuffer(cell, np.uint8)
    return path


def read(path, size=SMALL):
    """All columns and the counts of invalid and outside events."""
    got = list(ddd17.pieces(path, size))
    columns = [np.concatenate([getattr(g, c) for g in got]) for c in "txyp"]
    assert [c.dtype for c in columns] == [np.int64, np.uint16, np.uint16, np.uint8]
    return columns, sum(g.invalid for g in got), sum(g.outside for g in got)


def times(path):
    return read(path)[0][0].tolist()


def test_an_event_by_hand(tmp_path):
    """x 345 = 0b101011001 at bit 17, y 259 = 0b100000011 at bit 2, ON, valid; u32 and i32 little-endian."""
    assert word(1, 345, 259, 1) == 0b000000101011001_000000100000011_1_1
    (t, x, y, p), invalid, outside = read(save(tmp_path / "a.hdf5", [polarity((77, 1, 345, 259, 1), (78, 1, 0, 0, 0))]), ddd17.SENSOR)
    assert [c.tolist() for c in (t, x, y, p)] == [[77, 78], [345, 0], [259, 0], [1, 0]]
    assert invalid == outside == 0


def test_invalid_and_outside_are_counted_and_nothing_is_wrapped(tmp_path):
    rows = [polarity((1, 1, 7, 5, 1), (2, 0, 3, 2, 1), (3, 1, 8, 0, 0), (4, 1, 0, 6, 0), (5, 1, 32767, 32767, 1), (6, 0, 100, 100, 0), valid=4)]
    (t, x, y, _), invalid, outside = read(save(tmp_path / "a.hdf5", rows))
    assert (t.tolist(), x.tolist(), y.tolist(), invalid, outside) == ([1], [7], [5], 2, 3)
    assert next(ddd17.pieces(tmp_path / "a.hdf5", SMALL)).total == 6


def test_overflow_is_in_the_header_a_wrap_adds_nothing_and_time_may_run_back(tmp_path):
    rows = [polarity((2**31 - 1, *ON_3_2)), special(ddd17.WRAP, overflow=1), polarity((5, *ON_3_2), overflow=1), polarity((9, *ON_3_2), overflow=3)]
    assert times(save(tmp_path / "a.hdf5", rows)) == [2**31 - 1, 2**31 + 5, 3 * 2**31 + 9]
    assert times(save(tmp_path / "b.hdf5", [polarity((10, *ON_3_2), (5, *ON_3_2)), polarity((-7, *ON_3_2))])) == [10, 5, -7]


def test_after_a_reset_time_goes_on_from_the_last_event(tmp_path, monkeypatch):
    """10, 20 | reset | 3 -> 23, a frame that ended at 7 -> 27 | reset | 1 -> 28 | reset, reset | 2 -> 30, with the overflow of then."""
    rows = [special(ddd17.RESET), polarity((10, *ON_3_2), (20, *ON_3_2)), frame(2, np.zeros(SMALL)), special(ddd17.RESET),
            polarity((3, *ON_3_2)), frame(7, np.zeros(SMALL)), special(ddd17.RESET), polarity((1, *ON_3_2)), special(ddd17.RESET), special(ddd17.RESET),
            polarity((2, *ON_3_2)), special(ddd17.RESET, valid=0), special(2), polarity((4, *ON_3_2), overflow=1)]
    expected = [10, 20, 23, 28, 30, 28 + 2**31 + 4]
    assert times(save(tmp_path / "a.hdf5", rows)) == expected
    assert [f.t for f in ddd17.frames(tmp_path / "a.hdf5", SMALL)] == [2, 27]
    monkeypatch.setattr(ddd17, "BLOCK_ROWS", 1)
    many = save(tmp_path / "b.hdf5", [special(3)] * 16 + rows)      # after the first sixteen, block by block
    assert len(list(ddd17._blocks(many))) == 15 and times(many) == expected


def test_room_for_more_events_than_there_are(tmp_path):
    events = [(t, *ON_3_2) for t in range(4)]
    stamp, _, payload = polarity(*events)
    _, head, _ = polarity(*events[:2], capacity=4)
    _, cut, short = polarity(*events[:3], capacity=9)     # the unused room is not stored
    assert times(save(tmp_path / "a.hdf5", [(stamp, head, payload), (stamp, cut, short)])) == [0, 1, 0, 1, 2]


def test_other_packets_are_passed_over(tmp_path):
    rows = [row(3, bytes(36), 36, 1), row(4, bytes(48), 48, 1), row(100, b"abc", 1, 3), polarity(), polarity((4, *ON_3_2)), row(3, b"", 36, 0)]
    assert times(save(tmp_path / "a.hdf5", rows)) == [4]
    assert not list(ddd17.frames(tmp_path / "a.hdf5", SMALL))


def test_frames_by_hand(tmp_path):
    image = np.arange(48, dtype=np.uint16).reshape(SMALL) * 256 + 255
    part = np.full((2, 3), 65535)
    rows = [polarity((50, *ON_3_2)), frame(60, image, overflow=1), frame(61, part, x=5, y=4, info=2), frame(62, image, info=0)]
    a, b, c = ddd17.frames(save(tmp_path / "a.hdf5", rows), SMALL)
    assert (a.t, a.valid, a.row, b.t, b.valid, b.x, b.y, c.valid) == (2**31 + 60, True, 1, 61, False, 5, 4, False)
    assert a.image_HW.dtype == np.uint8 and np.array_equal(a.image_HW.ravel(), np.arange(48)) and (b.image_HW == 255).all()


def test_bins_start_at_the_first_event_or_frame(tmp_path):
    e, f = polarity((3, 0, 99, 2, 1), (9, *ON_3_2)), frame(5, np.zeros(SMALL), overflow=1)
    assert ddd17.first_time(save(tmp_path / "a.hdf5", [special(1), polarity(), e, f])) == 3
    assert ddd17.first_time(save(tmp_path / "b.hdf5", [row(3, bytes(36), 36, 1), f, e])) == 2**31 + 5
    with pytest.raises(DataError, match="no event and no frame"):
        ddd17.first_time(save(tmp_path / "c.hdf5", [special(1)]))
    assert ddd17.frame_index(np.array([3, 50_002, 50_003, 100_003, 2]), 3).tolist() == [0, 0, 1, 2, -1]


def test_empty_rows_end_a_recording(tmp_path, monkeypatch):
    assert times(save(tmp_path / "a.hdf5", [polarity((4, *ON_3_2))], empty=2047)) == [4]
    assert not list(ddd17.pieces(save(tmp_path / "b.hdf5", [], empty=300)))
    for before, step in ((0, 512), (20, 512), (10, 1)):     # the hole in the first block, in a later one, and as blocks of its own
        monkeypatch.setattr(ddd17, "BLOCK_ROWS", step)
        rows = [polarity((4, *ON_3_2))] * before + [(b"", b"", b"")] * 40 + [polarity((4, *ON_3_2))]
        with pytest.raises(DataError, match=f"row {before} is empty and later"):
            read(save(tmp_path / "c.hdf5", rows))


@st.composite
def streams(draw):
    n = draw(st.integers(0, 200))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    t = np.sort(rng.integers(0, draw(st.sampled_from([1, 1000, 2**31, 2**34])), n))
    frames = [(int(when), rng.integers(0, 256, SMALL, dtype=np.uint8)) for when in np.sort(rng.integers(0, 2**32, draw(st.integers(0, 4))))]
    return (t, rng.integers(0, SMALL[1], n).astype(np.uint16), rng.integers(0, SMALL[0], n).astype(np.uint16), rng.integers(0, 2, n).astype(np.uint8)), frames


@quick
@given(streams(), st.integers(1, 60), st.sampled_from([1, 300, ddd17.BLOCK_BYTES]))
def test_what_was_written_is_read(tmp_path, stream, packet, block):
    columns, frames = stream
    path = tmp_path / "a.hdf5"
    ddd17.write(path, *columns, frames=frames, size=SMALL, packet=packet)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddd17, "BLOCK_BYTES", block)
        got = list(ddd17.pieces(path, SMALL))
        again = list(ddd17.frames(path, SMALL))
    for k, name in enumerate("txyp"):
        assert np.array_equal(np.concatenate([getattr(g, name) for g in got] or [[]]), columns[k])
    assert all(g.invalid == g.outside == 0 and g.total == len(g.t) for g in got)
    assert [f.t for f in again] == [t for t, _ in frames]
    assert all(np.array_equal(f.image_HW, image) and f.valid for f, (_, image) in zip(again, frames, strict=True))


@quick
@given(streams(), st.integers(1, 8), st.integers(1, 6))
def test_a_smaller_sensor_counts_the_rest(tmp_path, stream, width, height):
    columns, _ = stream
    ddd17.write(tmp_path / "a.hdf5", *columns, size=SMALL)
    got = list(ddd17.pieces(tmp_path / "a.hdf5", (height, width)))
    inside = (columns[1] < width) & (columns[2] < height)
    assert sum(len(g.t) for g in got) == inside.sum() and sum(g.outside for g in got) == (~inside).sum()


def test_written_files_look_like_recordings(tmp_path):
    n = 300_000
    t = np.arange(n, dtype=np.int64) * 8192      # over the end of 31 bits
    z = np.zeros(n, np.uint16)
    for name in "ab":
        ddd17.write(tmp_path / name, t, z, z, z, frames=[(2**31, np.zeros(SMALL, np.uint8))], size=SMALL, packet=100)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with h5py.File(tmp_path / "a") as f:
        data, stamp = f["dvs/data"], f["dvs/timestamp"][:]
        heads = np.concatenate(data[:, 1]).view(ddd17.HEADER)
        assert len(data) == len(stamp) == 4096 and data.chunks == (128, 3) and not stamp[len(heads):].any()
        assert stamp[len(heads) - 1] == ddd17.Writer.EPOCH_US + t[-1] == int(data[len(heads) - 1, 0].tobytes())
    assert {k: int((heads["type"] == k).sum()) for k in range(4)}.items() >= {0: 2, 2: 1}.items() and (heads["type"] == 3).sum() > 100
    assert sorted(set(heads["overflow"])) == [0, 1]
    biggest = max(ddd17.pieces(tmp_path / "a", SMALL), key=lambda g: len(g.t))
    assert len(biggest.t) < ddd17.BLOCK_ROWS * 100 and np.array_equal(times(tmp_path / "a"), t)


def test_the_writer_refuses_what_no_sensor_gives(tmp_path):
    with ddd17.Writer(tmp_path / "a", SMALL) as writer:
        for bad in ((-1, 0, 0, 0), (0, 8, 0, 0), (0, 0, 6, 0), (0, 0, 0, 2), (0, -1, 0, 0)):
            with pytest.raises(ValueError, match="outside the sensor"):
                writer.events(*(np.array([v]) for v in bad))
        with pytest.raises(ValueError, match="frame"):
            writer.frame(0, np.zeros((2, 2), np.uint8))


ONE = (5, *ON_3_2)
LIES = {
    "negative type": (row(-1, bytes(8), 8, 1), "packet of type -1"),
    "no event size": (row(3, b"", 0, 1), "events of 0 bytes"),
    "event size": (row(1, bytes(12), 12, 1), "type 1 with events of 12 bytes"),
    "frame size": (row(2, bytes(30), 30, 1), "type 2 with events of 30 bytes"),
    "negative number": (row(1, b"", 8, -1, capacity=0, valid=0), "of -1 events"),
    "negative capacity": (row(1, b"", 8, 0, capacity=-3), "room for -3"),
    "negative valid": (polarity(ONE, valid=-1), "-1 valid of 1"),
    "too many valid": (polarity(ONE, valid=2), "2 valid of 1"),
    "too many events": (polarity(ONE, ONE, capacity=1), "2 events in room for 1"),
    "short payload": (row(1, bytes(15), 8, 2), "payload of 15 bytes"),
    "long payload": (row(1, bytes(17), 8, 2), "payload of 17 bytes, the header says 16"),
    "huge": (row(1, bytes(8), 8, 2**31 - 1), "payload of 8 bytes, the header says 17179869176"),
    "short header": (polarity(ONE, cut=27), "header of 27 bytes"),
    "overflow": (polarity(ONE, overflow=-1), "clock overflow -1"),
    "far": (polarity(ONE, overflow=2**30), "a thousand years"),
    "letters for time": (polarity(ONE, stamp=b"14874x"), "not digits"),
    "no time": (polarity(ONE, stamp=b""), "not digits"),
}


@pytest.mark.parametrize("bad, fact", LIES.values(), ids=LIES)
@pytest.mark.parametrize("before", [1, 16])
def test_a_row_that_lies_is_named(tmp_path, bad, fact, before):
    path = save(tmp_path / "a.hdf5", [polarity(ONE)] * before + [bad, polarity(ONE)])
    with pytest.raises(DataError, match=fact) as told:
        read(path)
    assert str(told.value).startswith(f"{path}: row {before}: ")


@pytest.mark.parametrize("lie", [{"width": 9}, {"height": -6}, {"width": 0}, {"x": 1}, {"y": -1}, {"width": 2**31 - 1, "height": 2**31 - 1}, {"info": 9}])
def test_a_frame_that_lies_is_named(tmp_path, lie):
    with pytest.raises(DataError, match="row 1: (frame of|a colour frame)"):
        list(ddd17.frames(save(tmp_path / "a.hdf5", [polarity(ONE), frame(5, np.zeros(SMALL), **lie)]), SMALL))
    with pytest.raises(DataError, match="with 94 bytes"):
        list(ddd17.frames(save(tmp_path / "a.hdf5", [frame(5, np.zeros(47).reshape(1, 47), width=8, height=6)]), SMALL))


def test_files_that_are_cut_off_or_no_recording(tmp_path):
    whole = tmp_path / "whole.hdf5"
    t = np.arange(3000)
    ddd17.write(whole, t, t % 8, t % 6, t % 2, size=SMALL, packet=50)
    data, cut = whole.read_bytes(), tmp_path / "cut.hdf5"
    for size in (0, 1, 512, 4000, len(data) // 2, len(data) - 1):
        cut.write_bytes(data[:size])
        with pytest.raises(DataError, match="cut off, damaged or not HDF5"):
            read(cut)
    cut.write_bytes(b"no recording" * 1000)
    with pytest.raises(DataError, match="not HDF5"):
        read(cut)
    with pytest.raises(DataMissing):
        read(tmp_path / "absent")


def test_nothing_but_a_recording_in_this_file_is_read(tmp_path):
    other = save(tmp_path / "other.hdf5", [polarity(ONE)])
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(96))
    layout = h5py.VirtualLayout((1, 3), h5py.vlen_dtype(np.uint8))
    layout[:] = h5py.VirtualSource(str(other), "dvs/data", (4, 3))[:1]
    plans = {
        "has no group dvs": lambda f: f.create_group("dsv"),
        "has no data set dvs/data": lambda f: f.create_group("dvs"),
        "no data set": lambda f: f.create_dataset("dvs", data=[1]),
        "is not vlen u8": lambda f: f.create_dataset("dvs/data", (4, 3), np.uint8),
        "not vlen u8": lambda f: f.create_dataset("dvs/data", (4, 3), h5py.vlen_dtype(np.int16)),
        "vlen u8": lambda f: f.create_dataset("dvs/data", (4,), h5py.vlen_dtype(np.uint8)),
        "u8": lambda f: f.create_dataset("dvs/data", (4, 3), np.uint8, external=[(str(secret), 0, 96)]),
        "vlen": lambda f: f.create_group("dvs/data"),
        "dvs is a link": lambda f: f.__setitem__("dvs", h5py.ExternalLink(other, "/dvs")),
        "data is a link": lambda f: f.create_group("dvs").__setitem__("data", h5py.ExternalLink(other, "/dvs/data")),
        "is a link": lambda f: f.__setitem__("dvs", h5py.SoftLink("/elsewhere")),
        "in another file": lambda f: f.create_group("dvs").create_virtual_dataset("data", layout),
    }
    for fact, plan in plans.items():
        with h5py.File(tmp_path / "a.hdf5", "w") as f:
            plan(f)
        with pytest.raises(DataError, match=fact):
            read(tmp_path / "a.hdf5")


def test_the_intervals_add_up(tmp_path):
    table = ddd17_export.intervals()
    assert sum(i.stop - i.start for i in table if i.split == "train") == 15_950
    assert sum(i.stop - i.start for i in table if i.split == "test") == 3_890
    assert [sum(i.split == s for i in table) for s in ("train", "test", "other")] == [16, 4, 1]
    assert len({i.recording for i in table if i.split != "other"}) == 6
    text = ddd17_export.TABLE.read_text()
    for change, fact in (("0,4151", "frames"), ("2000,6150", "touch at frame")):
        (tmp_path / "t.csv").write_text(text.replace("0,4150", change))
        with pytest.raises(DataError, match=fact):
            ddd17_export.intervals(tmp_path / "t.csv")


def test_sequences_of_the_table():
    table = ddd17_export.intervals()
    got = ddd17_export.sequences(["rec1487339175"] * 4 + ["rec1487417411", "rec0"], np.array([0, 4149, 4150, 5200, 100, 5]), table)
    assert got.tolist() == [0, 0, -1, 1, 16, -1] and table[16] == ddd17_export.Interval("test", "rec1487417411", 100, 1500)


def png(path, array=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((200, 346), np.uint8) if array is None else array).save(path, **options)


@pytest.fixture(params=["events/train", "train/events"])
def export(tmp_path, request):
    """Frames 2 and 10 of one recording, 7 of another, in the two orders of folders."""
    for name in ("rec2_export_10", "rec2_export_2", "rec11_export_7"):
        events = tmp_path / request.param / f"{name}.npy"
        events.parent.mkdir(parents=True, exist_ok=True)
        np.save(events, np.zeros((200, 346, 6), np.float32))
        png(tmp_path / request.param.replace("events", "labels") / f"{name}.png")
    return tmp_path


def test_pairs_join_by_name(export):
    got = ddd17_export.pairs(export, "train")
    assert [(p.recording, p.frame) for p in got] == [("rec11", 7), ("rec2", 2), ("rec2", 10)]
    assert all(p.events.stem == p.label.stem and ddd17_export.read_label(p.label).shape == (200, 346) for p in got)
    with pytest.raises(DataMissing, match="test"):
        ddd17_export.pairs(export, "test")
    shutil.copy(got[1].events, got[1].events.with_name("rec2_export_02.npy"))
    png(got[1].label.with_name("rec2_export_02.png"))
    with pytest.raises(DataError, match="the same frame as rec2_export_02"):
        ddd17_export.pairs(export, "train")
    got[1].events.with_name("rec2_export_02.npy").rename(got[1].events.with_name("copy.npy"))
    with pytest.raises(DataError, match="copy.npy: not named"):
        ddd17_export.pairs(export, "train")
    got[1].events.with_name("copy.npy").unlink()
    got[2].label.unlink()                       # by order, the frame would now get the label of another
    with pytest.raises(DataMissing, match="rec2_export_10.png"):
        ddd17_export.pairs(export, "train")


class Trap:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_event_frames(tmp_path):
    path, good = tmp_path / "a.npy", np.random.default_rng(0).random((200, 346, 6))
    for array in (good, good.astype(np.float32), np.asfortranarray(good), good.astype(">f4")):
        np.save(path, array)
        got = ddd17_export.read_events(path)
        assert got.dtype == np.float32 and np.array_equal(got, good[..., :2].astype(np.float32))
    bad = {"Python objects": np.array([Trap()]), r"float64 \[200, 346, 2\]": good[..., :2], r"int32 \[200": good.astype(np.int32),
           r"\[260, 346, 6\]": np.zeros((260, 346, 6)), "complex": good * 1j, "not finite": np.where(good > 0.9, np.nan, good), "float16": good.astype("f2")}
    for fact, array in bad.items():
        np.save(path, array, allow_pickle=True)
        with pytest.raises(DataError, match=f"a.npy: .*{fact}"):
            ddd17_export.read_events(path)
    np.save(path, good)
    whole = path.read_bytes()
    for data, fact in ((whole[:-1], "bytes of"), (whole[:50], "not a .npy"), (b"", "not a .npy"), (whole + b"1", "bytes of"),
                       (whole.replace(b"(200, 346, 6)", b"(9999999999,)"), r"float64 \[9999999999\]")):
        path.write_bytes(data)
        with pytest.raises(DataError, match=fact):
            ddd17_export.read_events(path)


def test_labels(tmp_path):
    path, good = tmp_path / "a.png", np.arange(200 * 346).reshape(200, 346) % 6
    good[0, 0] = 255
    png(path, good.astype(np.uint8))
    got = ddd17_export.read_label(path)
    assert got.dtype == np.uint8 and np.array_equal(got, good)
    bad = {"label 6": np.where(good == 5, 6, good), "346 x 199": good[:199], "colour type 2": np.stack([good] * 3, -1), "200 x 346": good.T}
    for fact, array in bad.items():
        png(path, array.astype(np.uint8))
        with pytest.raises(DataError, match=fact):
            ddd17_export.read_label(path)
    png(path, good.astype(np.uint16))
    with pytest.raises(DataError, match="depth 16"):
        ddd17_export.read_label(path)
    png(path, good.astype(np.uint8))
    whole = path.read_bytes()
    huge = whole[:16] + struct.pack(">II", 10**9, 10**9) + whole[24:]
    for data, fact in ((whole[:-40], "not a PNG"), (whole[:10], "not a PNG"), (b"", "not a PNG"), (b"x" * 100, "not a PNG"), (huge, "1000000000 x 1000000000")):
        path.write_bytes(data)
        with pytest.raises(DataError, match=fact):
            ddd17_export.read_label(path)


@pytest.fixture
def ess(tmp_path):
    """dir0 to dir6; in each ten events at 0, 1000.5, ... us, frames of rows 0 to 2 with events 0-4, 4-9, 9-10, masks 1 and 3."""
    for k in range(7):
        folder = tmp_path / f"dir{k}"
        (folder / "index").mkdir(parents=True)
        (np.arange(10, dtype=np.int64) * 1_000_500).tofile(folder / "events.dat.t")
        np.stack([np.arange(10) * 30, np.arange(10) * 20, np.arange(10) % 2], 1).astype(np.int16).tofile(folder / "events.dat.xyp")
        np.save(folder / "index" / "index_50ms.npy", np.array([[50, 4, -1], [100, 9, 4], [150, 10, 9]]))
        for j in (1, 3):
            png(folder / "segmentation_masks" / f"segmentation_{j:08d}.png")
    return tmp_path


def test_ess_by_hand(ess):
    assert [p.name for p in ddd17_export.ess_folders(ess, "train")] == ["dir0", "dir2", "dir3", "dir5", "dir6"]
    assert [[p.name for p in ddd17_export.ess_folders(ess, s)] for s in ("test", "other")] == [["dir1"], ["dir4"]]
    got = ddd17_export.ess_recording(ess / "dir1")
    assert isinstance(got.t_ns.base, np.memmap) and isinstance(got.xyp, np.memmap)
    assert {row: p.name for row, p in got.masks.items()} == {0: "segmentation_00000001.png", 2: "segmentation_00000003.png"}
    a, b, c = (got.events(row) for row in range(3))
    assert (a.t.tolist(), a.x.tolist(), a.y.tolist(), a.p.tolist()) == ([0, 1000, 2001, 3001], [0, 30, 60, 90], [0, 20, 40, 60], [0, 1, 0, 1])
    assert (b.rows, c.rows, c.t.tolist(), a.total + b.total + c.total) == ((4, 9), (9, 10), [9004], 10)
    assert (a.t.dtype, a.x.dtype, a.y.dtype, a.p.dtype) == (np.int64, np.uint16, np.uint16, np.uint8)


def xyp(folder, event, values):
    events = np.memmap(folder / "events.dat.xyp", np.int16, mode="r+", shape=(10, 3))
    events[event] = values
    events.flush()


def test_ess_events_outside_are_counted(ess):
    for event, values in ((0, (346, 0, 1)), (1, (0, 260, 1)), (2, (-1, 0, 1)), (3, (345, 259, 1))):
        xyp(ess / "dir0", event, values)
    piece = ddd17_export.ess_recording(ess / "dir0").events(0)
    assert (piece.t.tolist(), piece.x.tolist(), piece.outside, piece.total) == ([3001], [345], 3, 4)


def test_broken_ess_is_named(ess):
    d = ess / "dir0"
    xyp(d, 5, (1, 1, 2))
    with pytest.raises(DataError, match="event 5 has a polarity"):
        ddd17_export.ess_recording(d).events(1)
    for change, fact in ((np.zeros((3, 2), int), r"\[3, 2\]"), (np.array([[Trap()] * 3]), "Python objects"), (np.full((3, 3), 0.5), "fractions")):
        np.save(ess / "dir2" / "index" / "index_50ms.npy", change, allow_pickle=True)
        with pytest.raises(DataError, match=fact):
            ddd17_export.ess_recording(ess / "dir2")
    np.save(ess / "dir2" / "index" / "index_50ms.npy", np.array([[50, 11, 0], [100, 3, 4], [1, 2, 2]], np.float64))
    got = ddd17_export.ess_recording(ess / "dir2")
    for r in (0, 1):
        with pytest.raises(DataError, match=f"row {r} names events"):
            got.events(r)
    assert got.events(2).total == 0
    png(ess / "dir3" / "segmentation_masks" / "segmentation_00000004.png")
    with pytest.raises(DataError, match="00000004.png: its number is none of 1 to 3"):
        ddd17_export.ess_recording(ess / "dir3")
    for name, data, fact in (("events.dat.t", bytes(79), "79 bytes are not"), ("events.dat.t", bytes(72), "9 times but 10 events"),
                             ("events.dat.xyp", b"", "0 bytes")):
        old = (ess / "dir4" / name).read_bytes()
        (ess / "dir4" / name).write_bytes(data)
        with pytest.raises(DataError, match=fact):
            ddd17_export.ess_recording(ess / "dir4")
        (ess / "dir4" / name).write_bytes(old)
    shutil.rmtree(ess / "dir5" / "segmentation_masks")
    (ess / "dir6" / "events.dat.t").unlink()
    for k in (5, 6):
        with pytest.raises(DataMissing):
            ddd17_export.ess_recording(ess / f"dir{k}")
    shutil.rmtree(d)
    with pytest.raises(DataError, match="6 folders"):
        ddd17_export.ess_folders(ess, "train")
    with pytest.raises(DataMissing):
        ddd17_export.ess_folders(ess / "none", "train")
