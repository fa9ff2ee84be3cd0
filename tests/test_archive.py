"""Archives: good ones come out whole; hostile, damaged or oversized ones are refused and leave nothing behind."""
import gzip
import io
import lzma
import os
import random
import shutil
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from snnseg.data import archive
from snnseg.data.archive import unpack
from snnseg.errors import DataError, DataMissing, NoSpace, UnsafeArchive
from snnseg.seal import file_sha256

FILES = {"set/a.bin": b"first", "set/deep/b.bin": bytes(range(256)) * 700, "set/empty": b""}


def entry(name, data=b"", kind=tarfile.REGTYPE, link="", mode=0o644):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, len(data), link, mode
    return info, data


def make_tar(path, entries, mode="w", **options):
    with tarfile.open(path, mode, **options) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return path


def make_zip(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as z:
        for name, data in files.items():
            z.writestr(name, data)
    return path


def zip_info(name, mode):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def box(tmp_path):
    """A folder inside which everything must happen; what lies beside it must not change."""
    (tmp_path / "canary").write_text("untouched")
    (tmp_path / "box").mkdir()
    return tmp_path / "box"


def refused(box, path, error=UnsafeArchive, match=None, **limits):
    """`path` is refused with its own name in one line, and the disk is as before."""
    before = tree(box.parent)
    with pytest.raises(error, match=match) as e:
        unpack(path, box / "set", **limits)
    assert str(path) in str(e.value) and "\n" not in str(e.value)
    assert tree(box.parent) == before
    assert sorted(os.listdir(box)) == [path.name] and sorted(os.listdir(box.parent)) == ["box", "canary"]
    return e.value


# ---------------------------------------------------------------------------------------------- what is accepted

@pytest.mark.parametrize("name, mode", [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tgz", "w:gz"), ("x.tar.bz2", "w:bz2"),
                                        ("x.tar.xz", "w:xz")])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_comes_out_whole(box, name, mode, form):
    path = make_tar(box / name, [entry(n, d) for n, d in FILES.items()], mode, format=form)
    unpack(path, box / "set", sha256=file_sha256(path))
    assert {f"set/{n}": d for n, d in tree(box / "set").items()} == FILES
    assert sorted(os.listdir(box)) == ["set", name]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_comes_out_whole(box, method):
    unpack(make_zip(box / "x.zip", {"set/": b""} | FILES, method), box / "set")
    assert {f"set/{n}": d for n, d in tree(box / "set").items()} == FILES


def test_members_at_the_top_fill_the_target(box):
    unpack(make_tar(box / "x.tar", [entry("./", kind=tarfile.DIRTYPE), entry("./set/a", b"1"), entry("b", b"2")]),
           box / "set")
    assert tree(box / "set") == {"set/a": b"1", "b": b"2"}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_longer_than_a_tar_header(box, form):
    name = "set/" + "/".join(["n" * 48] * 4) + "/é.bin"
    unpack(make_tar(box / "x.tar", [entry(name, b"1"), entry("set/next", b"2")], format=form), box / "set")
    assert tree(box / "set") == {name[4:]: b"1", "next": b"2"}


def test_folders_may_be_listed_late_and_again(box):
    folder = entry("set", kind=tarfile.DIRTYPE)
    unpack(make_tar(box / "x.tar", [entry("set/a", b"1"), folder, folder]), box / "set")
    assert tree(box / "set") == {"a": b"1"}


def test_modes_are_not_taken_over(box):
    unpack(make_tar(box / "x.tar", [entry("set/a", b"1", mode=0o6777)]), box / "set")
    assert stat.S_IMODE((box / "set" / "a").stat().st_mode) & 0o7111 == 0


def test_several_xz_streams(box):
    path = make_tar(box / "x.tar", [entry(n, d) for n, d in FILES.items()])
    data = path.read_bytes()
    path.write_bytes(lzma.compress(data[:1000]) + lzma.compress(b"") + lzma.compress(data[1000:]))
    unpack(path, box / "set")
    assert {f"set/{n}": d for n, d in tree(box / "set").items()} == FILES


def test_target_may_be_an_empty_folder_and_nothing_else(box):
    path = make_tar(box / "x.tar", [entry("set/a", b"1")])
    (box / "set").mkdir()
    unpack(path, box / "set")
    with pytest.raises(DataError, match="already there"):
        unpack(path, box / "set")
    assert tree(box / "set") == {"a": b"1"}


# ---------------------------------------------------------------------------------------------- what is hostile

BAD_NAMES = {
    "parent": "../canary", "inner parent": "set/../../canary", "absolute": "/canary", "backslash": "..\\canary",
    "drive": "C:canary", "long": "set/" + "n" * 300, "long in parts": "set/" + "n/" * 200 + "n", "no name": ".",
    "not utf-8": "set/\udcff",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_names(box, name, form):
    refused(box, make_tar(box / "x.tar", [entry("set/fine", b"1"), entry(name, b"2")], format=form))


@pytest.mark.parametrize("name", [n for k, n in BAD_NAMES.items() if k != "not utf-8"])
def test_zip_names(box, name):
    refused(box, make_zip(box / "x.zip", {"set/fine": b"1", name: b"2"}))


def test_nul_in_a_name(box):
    info, data = entry("set/fine", b"1")
    info.pax_headers = {"path": "set/a\0b"}
    refused(box, make_tar(box / "x.tar", [(info, data)], format=tarfile.PAX_FORMAT), match="NUL")
    (box / "x.tar").unlink()
    path = make_zip(box / "x.zip", {"set/aXb": b"1"})
    path.write_bytes(path.read_bytes().replace(b"set/aXb", b"set/a\0b"))
    refused(box, path, match="NUL")


@pytest.mark.parametrize("kind, link", [
    (tarfile.SYMTYPE, "/etc/passwd"), (tarfile.SYMTYPE, "a"), (tarfile.LNKTYPE, "set/a"), (tarfile.CHRTYPE, ""),
    (tarfile.BLKTYPE, ""), (tarfile.FIFOTYPE, ""), (tarfile.CONTTYPE, ""), (tarfile.GNUTYPE_SPARSE, ""), (b"V", ""),
])
def test_tar_links_and_devices(box, kind, link):
    path = make_tar(box / "x.tar", [entry("set/a", b"1"), entry("set/odd", kind=kind, link=link)])
    assert "'set/odd'" in str(refused(box, path))


def test_hard_link_to_a_deeper_symlink(box):
    """The shape that the standard filters let through."""
    refused(box, make_tar(box / "x.tar", [
        entry("set/a/b", kind=tarfile.DIRTYPE), entry("set/a/b/s", kind=tarfile.SYMTYPE, link="../.."),
        entry("set/s", kind=tarfile.LNKTYPE, link="set/a/b/s"), entry("set/s/canary", b"owned")]))


def test_pax_sparse_and_global_names(box):
    info, data = entry("set/a", b"1")
    info.pax_headers = {"GNU.sparse.size": "1099511627776"}
    refused(box, make_tar(box / "x.tar", [(info, data)], format=tarfile.PAX_FORMAT), match="sparse")
    refused(box, make_tar(box / "x.tar", [entry("set/a", b"1")], format=tarfile.PAX_FORMAT,
                          pax_headers={"path": "../canary"}), match="renames")


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_zip_links_and_devices(box, mode):
    path = make_zip(box / "x.zip", {"set/fine": b"1", zip_info("set/odd", mode | 0o777): b"../../canary"})
    assert "'set/odd'" in str(refused(box, path))


CLASHES = [("set/a", "set/a"), ("set/a", "SET/a"), ("set/straße", "set/STRASSE"), ("set/é", "set/e\u0301"),
           ("set/a", "set/a/b"), ("set/a/b", "set/a")]


@pytest.mark.parametrize("names", CLASHES)
def test_names_that_clash(box, names):
    refused(box, make_tar(box / "x.tar", [entry(n, b"1") for n in names]), match="clash")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_names_that_clash(box):
    with zipfile.ZipFile(box / "x.zip", "w") as z:
        z.writestr("set/a", "1")
        z.writestr("set/a", "2")
    refused(box, box / "x.zip", match="clash")


def test_too_many_members(box):
    path = make_tar(box / "x.tar.gz", [entry(f"set/{i}") for i in range(1000)], "w:gz")
    refused(box, path, max_members=1000)       # the folder is one more
    unpack(path, box / "set", max_members=1001)


def test_too_many_folders_between(box):
    refused(box, make_tar(box / "x.tar", [entry(f"set/{i}/{i}/{i}") for i in range(50)]), max_members=100)


def test_too_many_zip_members(box):
    """Refused while the directory is read, even when the count in the file says one."""
    path = make_zip(box / "x.zip", {f"set/{i}": b"" for i in range(1000)})
    data = bytearray(path.read_bytes())
    data[-14:-10] = struct.pack("<HH", 1, 1)
    path.write_bytes(data)
    refused(box, path, match="more than 500 members", max_members=500)
    (box / "x.zip").unlink()
    refused(box, make_zip(box / "y.zip", {f"set/{i}": b"" for i in range(1000)}), max_members=1000)


@pytest.mark.parametrize("name, mode", [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tar.bz2", "w:bz2"),
                                        ("x.tar.xz", "w:xz")])
def test_too_many_bytes_in_a_tar(box, name, mode):
    refused(box, make_tar(box / name, [entry(f"set/{i}", bytes(400_000)) for i in range(3)], mode),
            match="1000000 bytes", max_bytes=10**6)


def test_bomb_keeps_memory_flat(box):
    """A gigabyte of zeros in a megabyte of gz, in one member whose header claims it all."""
    info = tarfile.TarInfo("set/zeros")
    info.size = 2**40
    path = box / "x.tar.gz"
    part = gzip.compress(bytes(2**22), 9)
    with open(path, "wb") as f:
        f.write(gzip.compress(info.tobuf()))
        f.writelines(part for _ in range(256))
    tracemalloc.start()
    refused(box, path, max_bytes=10**6)
    refused(box, path, match="cut off", error=DataError, max_bytes=2**41)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 2**20


def test_bomb_in_an_extended_header(box):
    info = tarfile.TarInfo("set/a")
    info.type, info.size = tarfile.XHDTYPE, 2**32
    path = box / "x.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf() + bytes(2**20)))
    refused(box, path, match="extended header")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 0
    path.write_bytes(gzip.compress(info.tobuf() * 100_000))
    refused(box, path, match="extended headers")


def test_bomb_in_a_zip(box):
    path = make_zip(box / "x.zip", {"set/zeros": bytes(2 * 10**6)})
    refused(box, path, match="1000000 bytes", max_bytes=10**6)


@pytest.mark.parametrize("claim", [10, 3 * 10**6])
def test_zip_sizes_that_lie(box, claim):
    """Both headers claim another size than the 2 000 000 bytes that come out."""
    path = make_zip(box / "x.zip", {"set/zeros": bytes(2 * 10**6)})
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 2 * 10**6), struct.pack("<I", claim)))
    refused(box, path, error=DataError)


def test_zip_directory_that_claims_to_be_huge(box, monkeypatch):
    monkeypatch.setattr(archive, "DIRECTORY_BYTES", 10_000)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 20_000, 4, 0)
    (box / "x.zip").write_bytes(b"PK\3\4" + bytes(20_000) + end)
    refused(box, box / "x.zip", match="directory of 20000 bytes")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_methods_that_cannot_be_bounded(box, method):
    refused(box, make_zip(box / "x.zip", FILES, method), error=DataError, match="packed with method")


def test_encrypted_zip(box):
    path = make_zip(box / "x.zip", {"set/a": b"1"})
    data = path.read_bytes()
    at = data.index(b"PK\1\2") + 8
    path.write_bytes(data[:at] + b"\1" + data[at + 1:])
    refused(box, path, error=DataError, match="encrypted")


# ---------------------------------------------------------------------------------------------- what is damaged

@pytest.mark.parametrize("name, mode", [("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tar.bz2", "w:bz2"),
                                        ("x.tar.xz", "w:xz"), ("x.zip", None)])
def test_cut_off_anywhere(box, name, mode):
    noise = {"set/a": random.Random(0).randbytes(3000), "set/b": b"", "set/c": b"1"}
    path = (make_tar(box / name, [entry(n, d) for n, d in noise.items()], mode) if mode
            else make_zip(box / name, noise))
    whole = path.read_bytes()
    # after the last member's only byte a plain tar has its padding and the end mark, and then zeros that nobody needs
    end = len(whole) if name != "x.tar" else whole.rindex(b"1") + 2 * archive.BLOCK
    for size in [*range(0, end, 97), end - 1]:
        path.write_bytes(whole[:size])
        refused(box, path, error=DataError)


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"PK\3\4", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", b"x" * 600,
                                  bytes(10240), gzip.compress(b"no tar in here", mtime=0)])
def test_not_an_archive(box, data):
    path = box / "x.tar.gz"
    path.write_bytes(data)
    refused(box, path, error=DataError)


def test_header_flipped_in_the_middle(box):
    """The standard reader takes a bad header after the first member for the end."""
    path = make_tar(box / "x.tar", [entry(f"set/{i}", b"1") for i in range(3)])
    data = bytearray(path.read_bytes())
    data[2 * archive.BLOCK] ^= 1
    path.write_bytes(data)
    refused(box, path, error=DataError)


def test_checksum_of_the_compressed_stream(box):
    path = make_tar(box / "x.tar.gz", [entry("set/a", b"1")], "w:gz")
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    refused(box, path, error=DataError)


def test_checksum_of_a_zip_member(box):
    path = make_zip(box / "x.zip", {"set/a": b"abcdefgh"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abcdefgX"))
    refused(box, path, error=DataError)


def test_negative_size(box):
    info, _ = entry("set/a")
    info.size = -512
    (box / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    refused(box, box / "x.tar", error=DataError)


def test_xz_that_wants_too_much_memory(box):
    """A dictionary of 256 MiB, where `xz -9` has 64."""
    path = make_tar(box / "x.tar", [entry("set/a", b"1")])
    big = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**28, "preset": 0}]
    path.write_bytes(lzma.compress(path.read_bytes(), filters=big))
    refused(box, path, error=DataError, match="[Mm]emory")


def test_random_damage_never_escapes(box):
    """Any single byte changed: the archive is refused in one line, or comes out with every file in its place."""
    entries = [entry("set/a", b"1"), entry("set/" + "n" * 120, b"22"), entry("set/d", kind=tarfile.DIRTYPE)]
    rng = random.Random(0)
    for number, form in enumerate([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, None]):
        path = box / f"x{number}"
        if form is None:
            make_zip(path, FILES)
        else:
            make_tar(path, entries, format=form)
        whole = path.read_bytes()[:8192]
        for _ in range(150):
            data = bytearray(whole)
            data[rng.randrange(len(data))] = rng.randrange(256)
            path.write_bytes(data)
            target = box / "out"
            try:
                unpack(path, target)
            except DataError as e:
                assert "\n" not in str(e)
            else:
                shutil.rmtree(target)
            assert os.listdir(box) == [path.name] and sorted(os.listdir(box.parent)) == ["box", "canary"]
        path.unlink()


# ---------------------------------------------------------------------------------------------- the rest

def test_missing(tmp_path):
    with pytest.raises(DataMissing, match="x.tar.gz: not found"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "set")
    assert os.listdir(tmp_path) == []


def test_a_folder_is_no_archive(tmp_path):
    (tmp_path / "x.tar").mkdir()
    with pytest.raises(DataError, match="x.tar: damaged"):
        unpack(tmp_path / "x.tar", tmp_path / "set")


def test_other_sha256(box):
    refused(box, make_tar(box / "x.tar", [entry("set/a", b"1")]), error=DataError, match="sha256", sha256="0" * 64)


def test_full_disk_is_named(box, monkeypatch):
    path = make_tar(box / "x.tar", [entry("set/a", b"1")])

    def full(member, folder):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(archive, "_write", full)
    with pytest.raises(NoSpace):
        unpack(path, box / "set")
    assert os.listdir(box) == ["x.tar"]


def test_interrupted_in_the_middle(box, monkeypatch):
    path = make_tar(box / "x.tar", [entry(n, d) for n, d in FILES.items()])
    write = archive._write

    def interrupt(member, folder: Path):
        write(member, folder)
        if "deep" in member.path:
            raise KeyboardInterrupt

    monkeypatch.setattr(archive, "_write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        unpack(path, box / "set")
    assert os.listdir(box) == ["x.tar"]
