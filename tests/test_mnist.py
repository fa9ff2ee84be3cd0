"""MNIST: the official idx files, byte by byte."""
import gzip
import os
import struct
import tracemalloc

import numpy as np
import pytest

from snnseg.data import mnist
from snnseg.errors import DataError, DataMissing

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def idx(array):
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


IMAGES_NHW = (np.arange(7 * 28 * 28) % 251).astype(np.uint8).reshape(7, 28, 28)
LABELS_N = np.array([5, 0, 4, 1, 9, 2, 1], np.uint8)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / IMAGES).write_bytes(idx(IMAGES_NHW))
    (tmp_path / LABELS).write_bytes(idx(LABELS_N))
    return tmp_path


def refused(folder, file, match):
    with pytest.raises(DataError, match=match) as e:
        mnist.load(folder)
    assert file in str(e.value) and "\n" not in str(e.value)


def test_raw(folder):
    images, labels = mnist.load(folder)
    assert images.dtype == labels.dtype == np.uint8 and images.flags.writeable
    assert np.array_equal(images, IMAGES_NHW) and np.array_equal(labels, LABELS_N)


def test_gz(folder):
    for name in (IMAGES, LABELS):
        (folder / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
        (folder / name).unlink()
    images, labels = mnist.load(folder, "train")
    assert np.array_equal(images, IMAGES_NHW) and np.array_equal(labels, LABELS_N)


def test_test_split(folder):
    (folder / IMAGES).rename(folder / "t10k-images-idx3-ubyte")
    (folder / LABELS).rename(folder / "t10k-labels-idx1-ubyte")
    assert np.array_equal(mnist.load(folder, "test")[1], LABELS_N)


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_missing(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataMissing, match=f"{name}: not found.* into "):
        mnist.load(folder)


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_cut_off_anywhere(folder, name):
    whole = (folder / name).read_bytes()
    for size in [*range(0, len(whole), 101), 3, 4, 8, 15, 16, len(whole) - 1]:
        if size < len(whole):
            (folder / name).write_bytes(whole[:size])
            refused(folder, name, "cut off")


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_trailing_byte(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes() + b"\0")
    refused(folder, name, "more than")


def test_files_swapped(folder):
    (folder / IMAGES).write_bytes(idx(np.arange(20, dtype=np.uint8)))
    refused(folder, IMAGES, "magic number 0x801")


@pytest.mark.parametrize("shape", [(7, 28, 29), (7, 14, 56), (0, 28, 28), (2**32 - 1, 28, 28), (60_001, 28, 28)])
def test_other_shape(folder, shape):
    (folder / IMAGES).write_bytes(struct.pack(">4I", 0x803, *shape) + IMAGES_NHW.tobytes())
    refused(folder, IMAGES, "shape")


def test_counts_differ(folder):
    (folder / LABELS).write_bytes(idx(LABELS_N[:-1]))
    refused(folder, str(folder), "7 train images but 6 labels")


def test_label_ten(folder):
    (folder / LABELS).write_bytes(idx(LABELS_N + 1))
    refused(folder, str(folder), "label 10")


def test_gz_damaged(folder):
    packed = gzip.compress((folder / IMAGES).read_bytes())
    (folder / IMAGES).unlink()
    path = folder / f"{IMAGES}.gz"
    wrong_crc = packed[:-8] + bytes(4) + packed[-4:]
    cut = packed[:-1], packed[:len(packed) // 2], packed[:5]
    for data in (*cut, wrong_crc, b"<html>404</html>", IMAGES_NHW.tobytes()):
        path.write_bytes(data)
        refused(folder, path.name, "cannot be read")


def test_gz_bomb_keeps_memory_flat(folder):
    """Half a gigabyte of zeros after the header."""
    (folder / IMAGES).unlink()
    part = gzip.compress(bytes(2**22))
    with open(folder / f"{IMAGES}.gz", "wb") as f:
        f.write(gzip.compress(idx(IMAGES_NHW)))
        f.writelines(part for _ in range(128))
    tracemalloc.start()
    refused(folder, f"{IMAGES}.gz", "more than 5488 bytes")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20


def test_a_folder_in_its_place(folder):
    (folder / IMAGES).unlink()
    os.mkdir(folder / IMAGES)
    refused(folder, IMAGES, "cannot be read")
