"""CIFAR-10: 32 x 32 colour pictures of ten classes, from the official binary or Python version.

A row is a label and a picture in planes: 1024 bytes of red, 1024 of green, 1024 of blue. Krizhevsky, "Learning multiple
layers of features from tiny images", 2009.

The Python version is a pickle, and a pickle can name any function of this machine. Here it is read with stand-ins: the
four names that the official files hold become inert objects that keep what they are given, every other name is refused,
and numpy sees plain bytes only.
"""
from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path

import numpy as np

from snnseg.data.archive import unpack
from snnseg.errors import DataError, DataMissing

SIDE, CLASSES = 32, 10
PICTURE = 3 * SIDE * SIDE                        # bytes
PICKLE_BYTES = 2**28                             # an official file has 31 MB
MEMO = 10**6                                     # an official file remembers some 10^4 objects
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
ARCHIVES = {BINARY: "cifar-10-binary.tar.gz", PYTHON: "cifar-10-python.tar.gz"}
DOWNLOAD = "Download it again from the data set's site and put it there."
USE_BINARY = f"Use the binary version instead ({ARCHIVES[BINARY]})."


def load(raw: Path, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Pictures u8 [N, 32, 32, 3] in RGB and labels u8 [N] of `split`, train or test, in the official order.

    Unpacks the official archive in `raw` if neither version's folder is there. Raises DataMissing, DataError, NoSpace.
    """
    folder = _folder(raw)
    pictures, labels = [], []
    for batch in BATCHES[split]:
        planes_NCHW, labels_N = (_read_binary(folder / f"{batch}.bin") if folder.name == BINARY
                                 else _read_pickle(folder / batch))
        pictures.append(np.ascontiguousarray(planes_NCHW.transpose(0, 2, 3, 1)))
        labels.append(labels_N)
    return np.concatenate(pictures), np.concatenate(labels)


def _folder(raw: Path) -> Path:
    for name in ARCHIVES:
        if (raw / name).is_dir():
            return raw / name
    for name, archive in ARCHIVES.items():
        if (raw / archive).is_file():
            unpack(raw / archive, raw / name)
            return raw / name
    raise DataMissing(raw / BINARY, f"Put {ARCHIVES[BINARY]} from the CIFAR-10 site into {raw}.")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as e:
        raise DataMissing(path, DOWNLOAD) from e
    except OSError as e:
        raise DataError(path, f"cannot be read ({e.strerror})", DOWNLOAD) from e


def _checked(path: Path, planes: np.ndarray, labels_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if labels_N.max() >= CLASSES:
        raise DataError(path, f"label {labels_N.max()} in row {labels_N.argmax()}, the classes are 0 to 9", DOWNLOAD)
    return planes.reshape(-1, 3, SIDE, SIDE), labels_N


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Planes u8 [N, 3, 32, 32] and labels u8 [N]."""
    data = _read_bytes(path)
    if not data or len(data) % (1 + PICTURE):
        raise DataError(path, f"{len(data)} bytes are not a whole number of rows of {1 + PICTURE} bytes", DOWNLOAD)
    rows = np.frombuffer(data, np.uint8).reshape(-1, 1 + PICTURE)
    return _checked(path, rows[:, 1:], rows[:, 0])


def _read_pickle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Planes u8 [N, 3, 32, 32] and labels u8 [N]."""
    content = _unpickle(path)
    labels = content.get(b"labels") if isinstance(content, dict) else None
    array = content.get(b"data") if isinstance(content, dict) else None
    if not isinstance(array, _Array) or not isinstance(labels, list) or not labels:
        raise DataError(path, "not a dict of data and labels", DOWNLOAD)
    if any(type(label) is not int or not 0 <= label < 256 for label in labels):
        raise DataError(path, "labels are not whole numbers from 0 to 9", DOWNLOAD)
    planes = array.as_u8((len(labels), PICTURE))
    if planes is None:
        raise DataError(path, f"data is not u8 [{len(labels)}, {PICTURE}]", DOWNLOAD)
    return _checked(path, planes, np.array(labels, np.uint8))


class _Dtype:
    """Stands in for numpy.dtype: keeps the type code."""

    def __init__(self, code: object = None, *_: object):
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and flags, which mean nothing for u8."""


class _Array:
    """Stands in for numpy.ndarray and its constructor: keeps shape, type and bytes."""

    state: object = None

    def __init__(self, *_: object):
        """Shape and type at first are placeholders; the state that follows has the real ones."""

    def __setstate__(self, state: object) -> None:
        self.state = state

    def as_u8(self, shape: tuple[int, int]) -> np.ndarray | None:
        """The array, if it is u8 of this shape; otherwise None."""
        match self.state:
            case (_, found, _Dtype(code=b"u1" | "u1"), bool(is_fortran), bytes(data)):
                if found == shape and len(data) == shape[0] * shape[1]:
                    return np.frombuffer(data, np.uint8).reshape(shape, order="F" if is_fortran else "C")
        return None


def _encode(text: str, _encoding: str) -> bytes:
    """Stands in for _codecs.encode, by which Python 3 writes bytes into the old pickle protocols."""
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Knows these four names, under numpy's old and new module paths, and no other."""

    KNOWN = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _encode,
    }

    def __init__(self, path: Path, data: bytes):
        super().__init__(io.BytesIO(data), encoding="bytes")
        self.path = path

    def find_class(self, module: str, name: str) -> object:
        try:
            return self.KNOWN[module, name]
        except KeyError:
            asked = f"{module}.{name}"
            raise DataError(self.path, f"the pickle asks for {asked[:80]!r}, which no CIFAR-10 file holds; it was not "
                                       "called", USE_BINARY) from None


def _unpickle(path: Path) -> object:
    data = _read_bytes(path)
    if len(data) > PICKLE_BYTES:
        raise DataError(path, f"{len(data)} bytes, an official file has 31 MB", USE_BINARY)
    try:
        # the unpickler believes lengths and memo numbers and would make room for them before it finds them wrong
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and argument > MEMO:
                raise DataError(path, f"the pickle remembers object {argument}", USE_BINARY)
        return _Unpickler(path, data).load()
    except DataError:
        raise
    except Exception as e:                       # a broken pickle may raise anything, says Python's manual
        raise DataError(path, f"damaged or not a CIFAR-10 file ({type(e).__name__})", DOWNLOAD) from e
