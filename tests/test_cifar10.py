"""CIFAR-10: the binary and the Python version hold the same pictures; no pickle runs anything."""
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest

from snnseg.data import cifar10
from snnseg.errors import DataError, DataMissing

N = 3                                                        # rows a file
NAMES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def batch(number):
    """Rows u8 [N, 3072] in planes, and labels."""
    rows = np.random.default_rng(number).integers(0, 256, (N, 3072), np.uint8)
    return rows, [(number * N + i) % 10 for i in range(N)]


def write_binary(raw):
    folder = raw / "cifar-10-batches-bin"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        rows, labels = batch(number)
        (folder / f"{name}.bin").write_bytes(b"".join(bytes([k]) + row.tobytes() for k, row in zip(labels, rows, strict=True)))
    return folder


def write_python(raw, dump=None):
    folder = raw / "cifar-10-batches-py"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).write_bytes((dump or python2_pickle)(*batch(number)))
    return folder


def python2_pickle(rows, labels, order=b"\x89"):
    """As Python 2 wrote the official files (protocol 2, numpy 1)."""
    return (b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03U\x06labelsq\x04]q\x05("
            + b"".join(b"K" + bytes([k]) for k in labels)
            + b"eU\x04dataq\x06"
            + b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85U\x01b\x87Rq\x09"
            + b"(K\x01M" + struct.pack("<H", len(rows)) + b"M\x00\x0c\x86cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b"
            + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb" + order
            + b"T" + struct.pack("<i", rows.size) + rows.tobytes() + b"tb"
            + b"U\x09filenamesq\x0c]q\x0dU\x05x.pngq\x0eau.")


def python3_pickle(rows, labels):
    return pickle.dumps({b"data": rows, b"labels": labels}, protocol=2)


def expected(numbers):
    rows = np.concatenate([batch(n)[0] for n in numbers]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return rows, np.concatenate([batch(n)[1] for n in numbers])


def same(raw, split="train"):
    pictures, labels = cifar10.load(raw, split)
    rows, answers = expected(range(5) if split == "train" else [5])
    assert pictures.dtype == labels.dtype == np.uint8 and pictures.flags.c_contiguous and pictures.flags.writeable
    assert np.array_equal(pictures, rows) and np.array_equal(labels, answers)


def refused(raw, match=None, file="data_batch_1"):
    with pytest.raises(DataError, match=match) as e:
        cifar10.load(raw)
    assert file in str(e.value) and "\n" not in str(e.value)
    return str(e.value)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("write", [write_binary, write_python, lambda raw: write_python(raw, python3_pickle)])
def test_both_versions(tmp_path, write, split):
    write(tmp_path)
    same(tmp_path, split)


def test_planes_by_hand(tmp_path):
    """First red is 1, its right neighbour 2; first green 3; first blue 4."""
    folder = write_binary(tmp_path)
    row = bytearray(3073)
    row[0], row[1], row[2], row[1 + 1024], row[1 + 2048] = 7, 1, 2, 3, 4
    (folder / "test_batch.bin").write_bytes(row)
    pictures, labels = cifar10.load(tmp_path, "test")
    assert labels.tolist() == [7]
    assert pictures[0, 0, :2].tolist() == [[1, 3, 4], [2, 0, 0]]


def test_columns_first(tmp_path):
    folder = write_python(tmp_path)
    rows, labels = batch(5)
    (folder / "test_batch").write_bytes(python2_pickle(rows.T.reshape(N, -1), labels, order=b"\x88"))
    same(tmp_path, "test")


@pytest.mark.parametrize("write, archive", [(write_binary, "cifar-10-binary.tar.gz"),
                                            (write_python, "cifar-10-python.tar.gz")])
def test_official_archive_is_unpacked(tmp_path, write, archive):
    (tmp_path / "made").mkdir()
    (tmp_path / "raw").mkdir()
    folder = write(tmp_path / "made")
    with tarfile.open(tmp_path / "raw" / archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    same(tmp_path / "raw")
    same(tmp_path / "raw", "test")
    assert sorted(os.listdir(tmp_path / "raw")) == sorted([archive, folder.name])


def test_binary_is_preferred(tmp_path):
    write_binary(tmp_path)
    write_python(tmp_path, lambda rows, labels: b"broken")
    same(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(DataMissing, match="Put cifar-10-binary.tar.gz"):
        cifar10.load(tmp_path)


@pytest.mark.parametrize("write, name", [(write_binary, "data_batch_4.bin"), (write_python, "data_batch_4")])
def test_batch_missing(tmp_path, write, name):
    (write(tmp_path) / name).unlink()
    with pytest.raises(DataMissing, match=f"{name}: not found"):
        cifar10.load(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 3072, 3074, 3073 * N - 1])
def test_binary_cut_off(tmp_path, size):
    path = write_binary(tmp_path) / "data_batch_1.bin"
    path.write_bytes((path.read_bytes() + b"\0")[:size])
    refused(tmp_path, "not a whole number of rows")


@pytest.mark.parametrize("write, at", [(write_binary, 3073), (lambda raw: write_python(raw), None)])
def test_label_ten(tmp_path, write, at):
    folder = write(tmp_path)
    if at is None:
        rows, labels = batch(0)
        (folder / "data_batch_1").write_bytes(python2_pickle(rows, [labels[0], 10, labels[2]]))
    else:
        path = folder / "data_batch_1.bin"
        data = bytearray(path.read_bytes())
        data[at] = 10
        path.write_bytes(data)
    refused(tmp_path, "label 10 in row 1")


def test_a_folder_in_its_place(tmp_path):
    path = write_binary(tmp_path) / "data_batch_1.bin"
    path.unlink()
    path.mkdir()
    refused(tmp_path, "cannot be read")


# ---------------------------------------------------------------------------------------------- pickles

class Marker:
    """Writes a file when it is unpickled by a reader that lets it."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("call", ["system", "open", "eval", "numpy"])
def test_code_is_never_run(tmp_path, protocol, call):
    marker = tmp_path / "marker"
    calls = {"system": Marker(os.system, f"touch '{marker}'"), "open": Marker(open, str(marker), "w"),
             "eval": Marker(eval, f"open({str(marker)!r}, 'w')"), "numpy": Marker(np.ndarray.tofile, 1, str(marker))}
    folder = write_python(tmp_path)
    rows, labels = batch(0)
    (folder / "data_batch_1").write_bytes(
        pickle.dumps({b"labels": labels, b"data": rows, b"filenames": calls[call]}, protocol=protocol))
    message = refused(tmp_path, "asks for|damaged")
    assert not marker.exists()
    if call != "numpy" and protocol < 3:
        assert {"system": "posix.system", "open": ".open", "eval": ".eval"}[call] in message
        assert "cifar-10-binary.tar.gz" in message


@pytest.mark.parametrize("name", [b"numpy\nndarray.tofile", b"numpy\nload", b"numpy.core.multiarray\nscalar",
                                  b"_codecs\ndecode", b"builtins\ngetattr", b"__builtin__\neval", b"os\nsystem",
                                  b"copyreg\n_reconstructor", b"snnseg.data.cifar10\n_encode"])
def test_other_names_are_refused(tmp_path, name):
    (write_python(tmp_path) / "data_batch_1").write_bytes(b"\x80\x02c" + name + b"\n.")
    module, attribute = name.decode().split("\n")
    assert f"{module}.{attribute}" in refused(tmp_path, "asks for")


@pytest.mark.parametrize("data", [
    np.array([[None] * 3072] * N, object), np.zeros((N, 3072), np.uint16), np.zeros((N, 3072), np.int8),
    np.zeros((N, 3071), np.uint8), np.zeros((N + 1, 3072), np.uint8), np.zeros(N * 3072, np.uint8),
    np.zeros((N, 3, 32, 32), np.uint8), np.zeros((N, 3072), "V1"), np.zeros(N, [("a", "O")]), None, [1], b"bytes",
    {b"state": 1}])
def test_other_data(tmp_path, data):
    (write_python(tmp_path) / "data_batch_1").write_bytes(python3_pickle(data, [1] * N))
    refused(tmp_path, "data")


@pytest.mark.parametrize("labels", [[1] * (N - 1), [], None, [1, 2, "3"], [1, 2, 3.0], [1, 2, -1], [1, 2, 2**70],
                                    [1, 2, True], (1, 2, 3), [1, 2, [3]]])
def test_other_labels(tmp_path, labels):
    (write_python(tmp_path) / "data_batch_1").write_bytes(python3_pickle(batch(0)[0], labels))
    refused(tmp_path, "labels|data")


@pytest.mark.parametrize("data", [
    b"", b".", b"<html>404</html>", b"\x80\x02]q\x00.", b"\x80\x02}.", b"\x80\x02N.", b"\x80\x02(", b"\x80\x63N.",
    b"\x80\x02Nr\xff\xff\xff\xff.",                                     # remember as object 2^32 - 1
    b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00.",                   # 2^40 bytes follow
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",                  # a frame of 2^63 bytes
    b"\x80\x02\x82\x01.", b"Pid\n.", b"\x80\x02cnumpy\nndarray\n}b.",
    b"\x80\x02(U\x04dataU\x06labels]K\x01acnumpy\nndarray\n)\x81d.", b"\x80\x02cnumpy\nndarray\n."])
def test_broken_pickles(tmp_path, data):
    (write_python(tmp_path) / "data_batch_1").write_bytes(data)
    refused(tmp_path)


def test_pickle_cut_off_anywhere(tmp_path):
    path = write_python(tmp_path) / "data_batch_1"
    whole = path.read_bytes()
    for size in [*range(0, 400, 7), len(whole) // 2, *range(len(whole) - 30, len(whole))]:
        path.write_bytes(whole[:size])
        refused(tmp_path)
