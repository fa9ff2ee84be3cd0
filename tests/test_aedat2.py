"""AEDAT-2: every DVS event comes back with its own time, also over wraps and resets of the clock; what is no AEDAT-2 is refused."""
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snnseg.data import aedat2
from snnseg.data.events import Events
from snnseg.errors import DataError, DataMissing

DAVIS240 = b"eu.seebetter.ini.chips.davis.DAVIS240C"
SIZES = {DAVIS240: (180, 240), b"eu.seebetter.ini.chips.davis.Davis346blue": (260, 346), b"ch.unizh.ini.jaer.chip.retina.DVS128": (128, 128)}
VERSION = b"#!AER-DAT2.0\r\n"
SECOND = 1_000_000
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def address(x, y, p, chip=DAVIS240):
    """As jAER stores it: x mirrored, y from below, and for a DVS128 the polarity turned."""
    height, width = SIZES[chip]
    x, y = width - 1 - np.asarray(x), height - 1 - np.asarray(y)
    return (1 - np.asarray(p)) | x << 1 | y << 8 if chip.endswith(b"DVS128") else y << 22 | x << 12 | np.asarray(p) << 11


def save(path, addresses, times, chip=DAVIS240, header=None):
    records = np.empty((len(addresses), 2), ">u4")
    records[:, 0], records[:, 1] = addresses, np.asarray(times, np.int64) % 2**32
    path.write_bytes((VERSION + b"# AEChip: " + chip + b"\r\n" if header is None else header) + records.tobytes())
    return path


def read(path):
    got = list(aedat2.pieces(path))
    assert all(g.invalid == g.outside == 0 for g in got)
    columns = [np.concatenate([getattr(g, c) for g in got]) for c in "txyp"]
    assert [c.dtype for c in columns] == [np.int64, np.uint16, np.uint16, np.uint8]
    return columns


def times(path, raw):
    return read(save(path / "a.aedat", np.zeros(len(raw), int), raw))[0].tolist()


def test_an_event_of_a_davis_by_hand(tmp_path):
    """Address 0 | 000000001 | 0000000010 | 1 | 0 | 10 bits: raw y 1, raw x 2, ON; big-endian."""
    body = struct.pack(">Ii", 0b0_000000001_0000000010_1_0_0000000000, 77)
    (tmp_path / "a.aedat").write_bytes(VERSION + b"# AEChip: " + DAVIS240 + b"\r\n" + body)
    assert [c.tolist() for c in read(tmp_path / "a.aedat")] == [[77], [239 - 2], [179 - 1], [1]]


def test_an_event_of_a_dvs128_by_hand(tmp_path):
    """Address 0 | 0000001 | 0000010 | 0: raw y 1, raw x 2; jAER's extractor takes 0 for ON."""
    body = struct.pack(">IiIi", 0b0_0000001_0000010_0, 77, 0b0_0000001_0000010_1, 78)
    (tmp_path / "a.aedat").write_bytes(VERSION + b"# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n" + body)
    assert [c.tolist() for c in read(tmp_path / "a.aedat")] == [[77, 78], [125, 125], [126, 126], [1, 0]]


@st.composite
def recordings(draw):
    """A chip, and events with records between them that are none: the columns, and where those go."""
    chip = draw(st.sampled_from(sorted(SIZES)))
    height, width = SIZES[chip]
    event = st.tuples(st.integers(0, 2**30), st.integers(0, width - 1), st.integers(0, height - 1), st.integers(0, 1), st.booleans())
    events = draw(st.lists(event, min_size=1, max_size=40))
    gap, x, y, p, other = map(np.array, zip(*events, strict=True))
    gap[0] = draw(st.integers(0, 2**32 - 1))
    return chip, gap.cumsum(), x, y, p, other


@quick
@given(recording=recordings(), block=st.sampled_from([1, 3, 1 << 17]))
def test_all_events_come_back(tmp_path, recording, block):
    chip, t, x, y, p, other = recording
    where = np.flatnonzero(other)
    nothing = 1 << 31 | 0x7FFF_F3FF if chip != DAVIS240 else 1 << 10
    path = save(tmp_path / "a.aedat", np.insert(address(x, y, p, chip), where, nothing), np.insert(t, where, 5), chip)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aedat2, "BLOCK", block)
        got, rows = read(path), [piece.rows for piece in aedat2.pieces(path)]
    assert [c.tolist() for c in got] == [c.tolist() for c in (t, x, y, p)]
    assert rows[0][0] == 0 and rows[-1][1] == len(t) + len(where) and all(a[1] == b[0] for a, b in zip(rows, rows[1:], strict=False))
    assert aedat2.sensor(path) == SIZES[chip]


CLOCKS = {
    "disorder stays": ([5000, 3000, 6000], [5000, 3000, 6000]),
    "wrap of 32 bits": ([2**31 - 5, -(2**31) + 5, -1, 0, 7], [2**31 - 5, 2**31 + 5, 2**32 - 1, 2**32, 2**32 + 7]),
    "disorder over a wrap": ([2**32 - 5, 5, 2**32 - 2, 9], [2**32 - 5, 2**32 + 5, 2**32 - 2, 2**32 + 9]),
    "wrap of 31 bits": ([2**31 - 5, 5, 9], [2**31 - 5, 2**31 + 5, 2**31 + 9]),
    "reset": ([90 * SECOND, 3, 10], [90 * SECOND, 90 * SECOND + 3, 90 * SECOND + 10]),
    "reset of the second half": ([3 * 2**30, 3, 10], [3 * 2**30, 3 * 2**30 + 3, 3 * 2**30 + 10]),
    "two resets": ([9 * SECOND, 2, 5 * SECOND, 4, 5], [9 * SECOND, 9 * SECOND + 2, 14 * SECOND, 14 * SECOND + 4, 14 * SECOND + 5]),
    "one bad zero": ([90 * SECOND, 0, 90 * SECOND + 4, 90 * SECOND + 9], [90 * SECOND, 90 * SECOND, 90 * SECOND + 4, 90 * SECOND + 9]),
    "long silence": ([5, 3 * 2**29, 3 * 2**29 + 1], [5, 3 * 2**29, 3 * 2**29 + 1]),
}


@pytest.mark.parametrize("block", [1, 2, 3, 1 << 17])
@pytest.mark.parametrize("raw, right", CLOCKS.values(), ids=CLOCKS)
def test_time_goes_on_over_wraps_and_resets(tmp_path, monkeypatch, raw, right, block):
    """Wherever a piece ends."""
    monkeypatch.setattr(aedat2, "BLOCK", block)
    assert times(tmp_path, raw) == right


def test_what_is_no_event_of_the_dvs_is_left_out(tmp_path):
    addresses = [1 << 31, 1 << 31 | 3 << 10, 1 << 10, address(3, 4, 1), 1 << 31 | 1 << 11]
    assert [c.tolist() for c in read(save(tmp_path / "a.aedat", addresses, [9, 9, 9, 5, 9]))] == [[5], [3], [4], [1]]
    chip = b"ch.unizh.ini.jaer.chip.retina.DVS128"
    assert [c.tolist() for c in read(save(tmp_path / "a.aedat", [1 << 15, address(3, 4, 1, chip), 1 << 31], [9, 5, 9], chip))] == [[5], [3], [4], [1]]


def test_an_address_beyond_the_sensor_is_beyond_it_for_the_caller(tmp_path):
    t, x, y, p = read(save(tmp_path / "a.aedat", [511 << 22, 1023 << 12, 180 << 22, 240 << 12, address(0, 0, 1)], range(5)))
    events, rejected = Events.checked(t, x, y, p, aedat2.sensor(tmp_path / "a.aedat"))
    assert (rejected.outside, events.x.tolist(), events.y.tolist()) == (4, [0], [0])


@pytest.mark.parametrize("end", [b"", b"#End Of ASCII Header\r\n"])
def test_an_event_may_begin_like_a_header_line(tmp_path, end):
    """Raw y 140: the first byte is '#'; and a line break is among the bytes after it."""
    header = VERSION + b"# AEChip: " + DAVIS240 + b"\r\n" + end
    path = save(tmp_path / "a.aedat", [140 << 22, 0x23 << 24 | 10 << 16], [0x0D0A, 0x0D0B], header=header)
    assert (path.read_bytes()[len(header):len(header) + 1], read(path)[2].tolist()) == (b"#", [39, 39])


@pytest.mark.parametrize("lines", [
    b"# HardwareInterface: DVS128 v2\r\n",                                          # before 2014 jAER named no chip
    b"# HardwareInterface: \xff\x00\xfe\r\n#" + b"x" * 60_000 + b"\r\n#\r\n# AEChip: DVS128\r\n# AEChip: DAVIS240C\r\n",
    b"# AEChip: dvs128\n",
])
def test_the_sensor_is_read_from_the_header(tmp_path, lines):
    path = save(tmp_path / "a.aedat", [address(3, 4, 1, b"ch.unizh.ini.jaer.chip.retina.DVS128")], [5], header=VERSION + lines)
    assert aedat2.sensor(path) == (128, 128) and [c.tolist() for c in read(path)] == [[5], [3], [4], [1]]


CHIP = b"# AEChip: " + DAVIS240 + b"\r\n"
BAD = {
    "empty": (b"", "AEDAT-1, or no AEDAT.*jAER"),
    "no header": (b"\x00\x01\x00\x00\x00\x05", "AEDAT-1, or no AEDAT.*jAER"),
    "AEDAT-1": (b"#!AER-DAT1.0\r\n" + CHIP, "AEDAT-1.0, not AEDAT-2.*jAER"),
    "AEDAT-3": (b"#!AER-DAT3.1\r\n#Format: RAW\r\n", "AEDAT-3.1.*AEDAT-4.*DV"),
    "AEDAT-4": (b"#!AER-DAT4.0\r\n", "AEDAT-4.0.*recordings"),
    "AEDAT-many": (b"#!AER-DAT" + b"9" * 9999, "AEDAT-9{20},"),
    "no chip": (VERSION + b"# Timestamps tick is 1 us\r\n", "does not say its sensor.*DVS128"),
    "other chip": (VERSION + b"# AEChip: some.Cochlea\r\n# HardwareInterface: DVS128\r\n", "made with some.Cochlea.*DAVIS240"),
    "colour chip": (VERSION + b"# AEChip: eu.seebetter.ini.chips.davis.DavisRGBW640\r\n", "made with .*DavisRGBW640"),
    "cut off": (VERSION + CHIP + bytes(8 * 3 + 5), "cut off: 5 bytes.*after record 2"),
    "endless line": (VERSION + CHIP + b"#" + b"x" * 2**17, f"line at byte {len(VERSION + CHIP)} has no end"),
}


@pytest.mark.parametrize("data, words", BAD.values(), ids=BAD)
def test_what_is_no_aedat2_is_named(tmp_path, data, words):
    (tmp_path / "bad.aedat").write_bytes(data)
    with pytest.raises(DataError, match=f"bad.aedat: .*{words}"):
        aedat2.sensor(tmp_path / "bad.aedat")
    with pytest.raises(DataError, match=words):
        list(aedat2.pieces(tmp_path / "bad.aedat"))


def test_a_file_that_is_not_there_or_shrinks_is_named(tmp_path, monkeypatch):
    with pytest.raises(DataMissing, match="no.aedat"):
        list(aedat2.pieces(tmp_path / "no.aedat"))
    monkeypatch.setattr(aedat2, "BLOCK", 2**10)
    path = save(tmp_path / "a.aedat", np.zeros(2**16, int), np.arange(2**16))
    reading = aedat2.pieces(path)
    next(reading)
    save(path, [0], [0])
    with pytest.raises(DataError, match="became shorter"):
        list(reading)


def test_a_recording_without_events_is_one(tmp_path):
    assert list(aedat2.pieces(save(tmp_path / "a.aedat", [], []))) == []


def test_memory_does_not_grow_with_the_file(tmp_path):
    n = 2_000_000
    path = save(tmp_path / "a.aedat", np.arange(n) % 180 << 22 | np.arange(n) % 240 << 12, np.arange(n))
    tracemalloc.start()
    total = sum(len(piece.t) for piece in aedat2.pieces(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == n and peak < path.stat().st_size / 2
