"""Pictures and masks from outside: JPEG, PNG and the .mat files of SBD are decoded here and nowhere else.

Sizes are judged in the header before anything is decoded, and a file must be whole: a JPEG reaches its end mark, a PNG
has all rows and the checksum of every chunk, a .mat its declared bytes. (Pillow fills in what is not there.) Bytes that
were altered inside a JPEG cannot be seen: the format has no checksum.

A MATLAB 5 file is walked tag by tag, down to one matrix of bytes. `scipy.io.loadmat` would build all that the file
holds, sparse matrices, functions and objects too, and ends the process at cells nested some thousand deep.
"""
from __future__ import annotations

import contextlib
import io
import itertools
import re
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from snnseg.errors import DataError, DataMissing, SnnsegError

FILE_BYTES = 2**26          # a file, and what a .mat becomes when it is unpacked; an official one has less than 1 MiB
PIXELS = 2**25              # a picture, a good camera's; an official one has less than 2**18
ORIENTATION = 0x0112        # EXIF tag; 1 is upright
DOWNLOAD = "Download it again from the data set's site and put it there."
CONVERT = "Save it as an 8-bit RGB JPEG, upright and without an orientation tag."
INDEXED = "Save it as an 8-bit PNG that holds a class number a pixel: palette or grey."
MATLAB5 = "Use the official file, or save it with MATLAB's option -v7."


def open_jpeg(path: Path) -> Image.Image:
    """A grey or RGB JPEG: size known, checked to be whole and upright, not yet decoded. Raises DataMissing, DataError.

    CMYK is refused, because how inks look is not in the file. So is a picture that EXIF turns: whether its mask was
    drawn over the turned picture or over the stored one is not in the file either.
    """
    data = read_bytes(path)
    _walk_jpeg(path, data)
    with _decoding(path):
        image = JpegImageFile(io.BytesIO(data))
    _judge_size(path, *image.size)
    if image.mode not in ("L", "RGB"):
        raise DataError(path, f"a {image.mode} JPEG", CONVERT)
    with _decoding(path):
        orientation = image.getexif().get(ORIENTATION, 1)
    if orientation in range(2, 9):
        raise DataError(path, f"turned or mirrored by its EXIF orientation {orientation}", CONVERT)
    return image


def resized(path: Path, image: Image.Image, height: int, width: int) -> np.ndarray:
    """Decode a JPEG to RGB u8 [height, width, 3], antialiased.

    The filter is a triangle as wide as the pixels that become one. The authors blur with a Gaussian and then interpolate
    linearly; over real VOC pictures the triangle is nearer to that (1.0 grey level) than a box (1.9) or Lanczos (2.4).
    All pixels are decoded: letting the JPEG decoder halve the picture first moves the result by 1.2 levels.
    """
    with _decoding(path):
        return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def nearest(mask_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask at another size [height, width]: of each cell the pixel at its centre."""
    return mask_HW[np.ix_(_centres(mask_HW.shape[0], height), _centres(mask_HW.shape[1], width))]


def _centres(pixels: int, cells: int) -> np.ndarray:
    """The pixels [cells] that lie at the centres of `cells` equal parts of a side, in whole numbers."""
    return (2 * np.arange(cells) + 1) * pixels // (2 * cells)


def png_mask(path: Path) -> np.ndarray:
    """Class numbers u8 [H, W] of a PNG: the indices of a palette, or 8-bit grey. Raises DataMissing, DataError."""
    data = read_bytes(path)
    width, height, depth, colour, packed, rows = _walk_png(path, data)
    if colour != 3 and (depth, colour) != (8, 0):       # Pillow spreads the values of grey below 8 bits: 1 becomes 17
        kind = {0: "grey", 2: "RGB", 4: "grey and alpha", 6: "RGB and alpha"}.get(colour, "unknown colour")
        raise DataError(path, f"a PNG of {kind} with {depth} bits, which is no mask", INDEXED)
    _judge_size(path, width, height)
    with _decoding(path):
        if len(zlib.decompressobj().decompress(packed, rows)) < rows:
            raise DataError(path, "a PNG whose last rows are missing", DOWNLOAD)
        return np.asarray(PngImageFile(io.BytesIO(data)))


def mat_mask(path: Path) -> np.ndarray:
    """Class numbers u8 [H, W]: `GTcls.Segmentation` of a MATLAB 5 file. Raises DataMissing, DataError."""
    data = read_bytes(path)
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    version = struct.unpack(f"{order}H", data[124:126])[0] if order else None
    if version == 0x200 or data.startswith(b"\x89HDF"):
        raise DataError(path, "a MATLAB 7.3 file (HDF5), not version 5", MATLAB5)
    if version != 0x100:
        raise DataError(path, "not a MATLAB 5 file", MATLAB5)
    try:
        mask_HW = _segmentation(order, data)
    except (ValueError, struct.error, zlib.error) as e:
        raise DataError(path, f"damaged or cut off ({e})", DOWNLOAD) from e
    except LookupError as e:
        raise DataError(path, f"holds no {e.args[0]}", MATLAB5) from e
    _judge_size(path, *mask_HW.T.shape)
    return mask_HW


def read_bytes(path: Path, may_be_empty: bool = False) -> bytes:
    """A plain file of FILE_BYTES at most. Raises DataMissing, DataError."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise DataError(path, "not a plain file", DOWNLOAD)
        if about.st_size > FILE_BYTES:
            raise DataError(path, f"more than {FILE_BYTES >> 20} MiB", DOWNLOAD)
        data = path.read_bytes()
    except FileNotFoundError as e:
        raise DataMissing(path, DOWNLOAD) from e
    except OSError as e:
        raise DataError(path, f"cannot be read ({e.strerror})", DOWNLOAD) from e
    if not data and not may_be_empty:
        raise DataError(path, "empty", DOWNLOAD)
    return data


def _judge_size(path: Path, width: int, height: int) -> None:
    if not 0 < height * width <= PIXELS:
        raise DataError(path, f"{width} x {height} pixels, where 1 to {PIXELS} in all are read", DOWNLOAD)


@contextlib.contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """What Pillow says about bad bytes, its warnings about broken EXIF included, becomes one DataError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            yield
    except SnnsegError:
        raise
    except Exception as e:                              # broken pictures raise SyntaxError, struct.error, IndexError ...
        raise DataError(path, f"cannot be decoded ({str(e)[:100] or type(e).__name__})", DOWNLOAD) from e


# ---------------------------------------------------------------------------------------- JPEG

MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")   # FF 00 is a pixel byte, the other excluded ones have no length
END = 0xD9


def _walk_jpeg(path: Path, data: bytes) -> None:
    """From marker to marker, each segment passed over by its length, to the end mark. A picture that was cut off has none."""
    if not data.startswith(b"\xff\xd8"):
        raise DataError(path, "not a JPEG", DOWNLOAD)
    at = 2
    while found := MARKER.search(data, at):
        if data[found.end() - 1] == END:
            return
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    raise DataError(path, "a JPEG that is cut off", DOWNLOAD)


# ---------------------------------------------------------------------------------------- PNG

# the seven passes of an interlaced picture: first column and row, steps
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def _walk_png(path: Path, data: bytes) -> tuple[int, int, int, int, bytes, int]:
    """From chunk to chunk with their checksums: width, height, bits, colour type, packed rows, their size unpacked."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise DataError(path, "not a PNG", DOWNLOAD)
    view, at, kind, packed = memoryview(data), 8, b"", []
    while kind != b"IEND":
        length, kind = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        end = at + 12 + length
        if len(data) < end:
            raise DataError(path, "a PNG that is cut off", DOWNLOAD)
        if (at == 8) != (kind == b"IHDR" and length == 13):
            raise DataError(path, "a PNG without a proper header", DOWNLOAD)
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(view[end - 4 : end], "big"):
            raise DataError(path, f"a PNG whose chunk {kind.decode('latin1')} has another checksum", DOWNLOAD)
        if kind == b"IDAT":
            packed.append(view[at + 8 : end - 4])
        at = end
    width, height, depth, colour, interlaced = struct.unpack_from(">IIBB2xB", data, 16)
    rows = 0
    for x, y, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        columns = (width - x + across - 1) // across
        if columns > 0:
            rows += max(0, (height - y + down - 1) // down) * (1 + (columns * depth + 7) // 8)
    return width, height, depth, colour, b"".join(packed), rows


# ---------------------------------------------------------------------------------------- MATLAB 5

INT8, UINT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 2, 5, 6, 14, 15     # how an element is stored
STRUCT_CLASS, UINT8_CLASS = 2, 9                                        # what a matrix holds
VARIABLES, FIELD_BYTES, AXES = 16, 2**12, 32        # most of a file, a struct and a matrix; an official one has 1, some 100 and 2


def _segmentation(order: str, data: bytes) -> np.ndarray:
    """u8 [H, W]. LookupError names what is not there; the other errors mean damage."""
    for kind, body in itertools.islice(_elements(order, memoryview(data)[128:]), VARIABLES):
        if kind == COMPRESSED:
            kind, body = next(_elements(order, _inflated(body)), (None, None))
        if kind != MATRIX:
            raise ValueError(f"type {kind} where a matrix belongs")
        content, shape, name, fields = _matrix(order, body)
        if name == b"GTcls":
            break
    else:
        raise LookupError("GTcls")
    if content != STRUCT_CLASS or shape != (1, 1):
        raise LookupError("GTcls that is one struct")

    length = int.from_bytes(_next(fields, INT32), "little" if order == "<" else "big")
    names = _next(fields, INT8)
    if not 0 < length <= len(names) <= FIELD_BYTES:
        raise ValueError(f"{len(names)} bytes of field names, {length} each")
    keys = [bytes(names[at : at + length]).rstrip(b"\0") for at in range(0, len(names), length)]
    if b"Segmentation" not in keys:
        raise LookupError("GTcls.Segmentation")
    for _ in range(keys.index(b"Segmentation")):        # passed over by their size, not read
        _next(fields, MATRIX)
    content, shape, _, parts = _matrix(order, _next(fields, MATRIX))
    if content != UINT8_CLASS or len(shape) != 2:
        raise LookupError("GTcls.Segmentation that is a matrix of uint8")
    pixels = _next(parts, UINT8)
    if shape[0] * shape[1] != len(pixels):              # numpy would take a length of -1 for "whatever fits"
        raise ValueError(f"{len(pixels)} bytes for a matrix of {shape}")
    return np.frombuffer(pixels, np.uint8).reshape(shape, order="F")


def _elements(order: str, data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The elements that lie one after another in `data`: how each is stored, and its bytes."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start, at = at + 8, at + 8 + size + (0 if kind == COMPRESSED else -size % 8)
        if kind >> 16:                                  # up to four bytes, kept in the tag itself
            kind, size = kind & 0xFFFF, kind >> 16
            start, at = start - 4, start
        if start + size > min(at, len(data)):
            raise ValueError(f"an element of {size} bytes where {len(data) - start} are left")
        yield kind, data[start : start + size]


def _next(elements: Iterator[tuple[int, memoryview]], kind: int) -> memoryview:
    found, body = next(elements, (None, None))
    if found != kind:
        raise ValueError(f"type {found} where type {kind} belongs")
    return body


def _matrix(order: str, body: memoryview) -> tuple[int, tuple[int, ...], bytes, Iterator[tuple[int, memoryview]]]:
    """What a matrix holds, its shape and its name, and the elements that follow."""
    elements = _elements(order, body)
    flags, _ = struct.unpack(f"{order}II", _next(elements, UINT32))
    axes = _next(elements, INT32)
    if len(axes) > 4 * AXES:
        raise ValueError(f"{len(axes) // 4} axes")
    shape = struct.unpack(f"{order}{len(axes) // 4}i", axes)
    return flags & 0xFF, shape, bytes(_next(elements, INT8)), elements


def _inflated(packed: memoryview) -> memoryview:
    """What a compressed element holds; a bomb is left at FILE_BYTES."""
    decoder = zlib.decompressobj()
    data = decoder.decompress(packed, FILE_BYTES)
    if not decoder.eof:
        raise ValueError("it ends inside a compressed element" if len(data) < FILE_BYTES else f"more than {FILE_BYTES >> 20} MiB")
    return memoryview(data)
