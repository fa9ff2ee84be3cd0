"""Events in AEDAT-4, Prophesee RAW (EVT 2 and 3) and DAT, ES and CSV, decoded by faery, an optional package.

faery refuses a file with events beyond its sensor, and holds time at the latest so far where it runs back. That RAW, DAT,
ES or CSV was cut off after a whole event cannot be seen. What faery raises, panics too, `recordings` names.

A CSV has a first line with names, like `t,x,y,p` or faery's own `t,x@346,y@260,on`, or the order t, x, y, p; t in whole us.
The header of an AEDAT-4 is checked here: faery takes it as it comes, and text that is none ends the process.
"""
from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from snnseg.data import event_columns
from snnseg.data.ddd17 import Piece
from snnseg.data.event_columns import DOWNLOAD, REMEDY, fitted
from snnseg.data.events import MOST
from snnseg.errors import DataError

LINE_BYTES = 1 << 16                # of a CSV: faery takes a longer line for the end of the file
AEDAT4 = b"#!AER-DAT4.0\r\n"
REMEDIES = {
    "evt": "If its header has no lines '% format EVT3' and '% geometry 1280x720', add them, as the camera was. Else download it again.",
    "dat": "If its header has no lines '% Version 2', '% Width 640' and '% Height 480', add them, as the camera was. Else download it again.",
    "csv": REMEDY,
}


def size(kind: str, path: Path) -> Any:
    """[height, width] of the sensor, unchecked; a CSV without it is read once. Raises DataError."""
    packets = _packets(kind, path)
    if kind != "csv":
        return packets.dimensions()[::-1]
    if said := _csv(path)[0]:
        return said
    largest = [(int(events["y"].max()), int(events["x"].max())) for events in packets if len(events)]
    return event_columns.size_of_largest(path, *(max((pair[k] for pair in largest), default=-1) for k in (0, 1)))


def pieces(kind: str, path: Path) -> Iterator[Piece]:
    """All events, some hundred thousand at a time. Raises DataError."""
    waiting, start, stop = [], 0, 0
    for packet in _packets(kind, path):
        waiting.append(packet)          # of any length: a file may be packets of one event
        stop += len(packet)
        if stop - start >= event_columns.STEP:
            yield _joined(waiting, start, stop)
            waiting, start = [], stop
    if start < stop:
        yield _joined(waiting, start, stop)


def _joined(packets: list[np.ndarray], start: int, stop: int) -> Piece:
    t, x, y, on = (np.concatenate([packet[name] for packet in packets]) for name in ("t", "x", "y", "on"))
    return Piece(fitted(t, np.int64), x, y, on.astype(np.uint8), 0, 0, (start, stop))


def _packets(kind: str, path: Path) -> Any:
    """The file as faery opens it: an iterable of arrays of events, which knows its dimensions."""
    try:
        import faery
    except ImportError as e:
        raise DataError(path, f"{path.suffix} is read with faery, which is not installed", "pip install 'snnseg[recordings]'") from e
    if kind == "csv":
        return faery.events_stream_from_file(path, file_type=kind, dimensions_fallback=(MOST, MOST), csv_properties=faery.CsvProperties(**_csv(path)[1]))
    if kind == "aedat":
        _check_aedat4(path)
    if kind in ("evt", "dat"):          # looked at without a fallback: faery would take any file for EVT 3 of 1280 x 720
        with getattr(faery, kind).Decoder(path, None, None) as decoder:
            if decoder.version == "evt2.1":
                raise DataError(path, "is EVT 2.1", "Convert it to EVT 3 with Prophesee's tools.")
    return faery.events_stream_from_file(path, file_type=kind)


def _check_aedat4(path: Path) -> None:
    """The header, a FlatBuffer (compression i32, place of the table at the end i64, text), and the lengths of all packets."""
    end = path.stat().st_size
    with open(path, "rb") as file:
        at = len(AEDAT4) + 4
        magic, length = struct.unpack("<14sI", file.read(at))
        if magic != AEDAT4 or length > end - at:
            raise DataError(path, f"its header is {length} bytes long, the file {end}", DOWNLOAD)
        table = _text_and_table(file.read(length))
        if table != -1:
            if not at + length <= table <= end:
                raise DataError(path, f"cut off: its table begins at byte {table} of {end}", DOWNLOAD)
            end = table
        at += length
        while at < end:
            file.seek(at)
            head = file.read(8)
            at += 8 + (int.from_bytes(head[4:], "little") if len(head) == 8 else end)
        if at > end:
            raise DataError(path, f"cut off or damaged: a packet ends at byte {at} of {end}", DOWNLOAD)


def _text_and_table(header: bytes) -> int:
    """Where the table begins, -1 without one. Raises ValueError, struct.error for offsets outside or text that is not UTF-8."""
    def read(kind: str, at: int) -> int:
        if at < 0:
            raise ValueError(f"an offset of {at}")
        return struct.unpack_from("<" + kind, header, at)[0]

    root = read("I", 0)
    fields = root - read("i", root)
    places = [read("H", fields + 4 + 2 * k) if read("H", fields) >= 6 + 2 * k else 0 for k in range(3)]
    if not places[2]:
        raise ValueError("no description of its streams")
    read("i", root + places[0])
    text = root + places[2] + read("I", root + places[2])
    if text + 4 + read("I", text) > len(header):
        raise ValueError("a description that is longer than the header")
    header[text + 4:text + 4 + read("I", text)].decode()
    return read("q", root + places[1]) if places[1] else -1


def _csv(path: Path) -> tuple[tuple[int, ...] | None, dict[str, Any]]:
    """[height, width], if the first line says it, and how to read the others."""
    with open(path, "rb") as file:
        line = file.readline(LINE_BYTES)
    if b"\0" in line or len(line) == LINE_BYTES:
        raise DataError(path, "its first line is no text", REMEDY)
    separator = next((s for s in ",;\t " if s.encode() in line), ",")
    words = [word.strip() for word in line.decode("utf-8", "replace").lstrip("\ufeff# ").lower().split(separator)]
    place, sides = dict(zip("txyp", range(4), strict=True)), ("", "")
    if named := not all(_number(word) for word in words):
        names = [word.partition("@")[0] for word in words]
        place = {column: names.index(name) for column, name in event_columns.chosen(path, names.__contains__).items()}
        sides = tuple(words[place[column]].partition("@")[2] for column in "yx")
    return tuple(map(int, sides)) if all(side.isdecimal() for side in sides) else None, {
        "has_header": named, "separator": separator.encode(), "t_index": place["t"], "x_index": place["x"], "y_index": place["y"], "on_index": place["p"],
        "t_scale": 0.0, "on_value": b"1", "off_value": b"0", "skip_errors": False}


def _number(word: str) -> bool:
    return word.lstrip("+-").replace(".", "", 1).isdecimal()
