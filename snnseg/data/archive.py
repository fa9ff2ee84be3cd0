"""Archives from outside: tar and zip files are read here and nowhere else.

An archive is looked through twice, by the same code. The first time every name, kind and size is judged and nothing is
written; the second time the bytes go into a partial folder, which takes its final name when the last one is there. Only
regular files and folders are accepted, and no link is ever made, so no name can lead out of that folder.

The standard library parses single headers and decompresses; `extract` and `extractall` are not used, because their
filters let links through and their memory grows with what the headers claim.
"""
from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from snnseg.errors import DataError, DataMissing, SnnsegError, UnsafeArchive
from snnseg.seal import PARTIAL, file_sha256, no_space_named

CHUNK = 2**16               # bytes read, decompressed and written at a time
BLOCK = 512                 # bytes; a tar is made of these
NAME_BYTES = 255            # longest path of a member
HEADER_BYTES = 2**16        # longest extended header of a tar member
HEADERS = 8                 # most extended headers in front of one tar member
DIRECTORY_BYTES = 2**26     # longest central directory of a zip
XZ_MEMORY = 2**27           # bytes; `xz -9` needs 65 MiB

DOWNLOAD = "Download it again from the data set's site and put it there."
UNPACKED_NOTHING = "Nothing was unpacked. Download the official archive from the data set's site."
DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, struct.error, ValueError,
          NotImplementedError)


def unpack(archive: Path, target: Path, *, sha256: str | None = None,
           max_members: int = 300_000, max_bytes: int = 64 * 2**30) -> None:
    """Make the folder `target` from a tar (plain, gz, bz2, xz) or zip; which one, its first bytes tell.

    If all members lie below one folder of `target`'s name, that folder becomes `target`; otherwise `target` holds the
    members. `max_members` counts files and folders, `max_bytes` what really comes out of the decompressor. Modes,
    owners and times are not taken over. After any error neither `target` nor a part of it is there.

    Raises DataMissing, UnsafeArchive, DataError (damaged, other sha256, `target` already holds something), NoSpace.
    """
    if not archive.exists():
        raise DataMissing(archive, "Download it from the data set's site and put it there.")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise DataError(target, "already there", f"Move it away to unpack {archive.name} anew.")
    if sha256 is not None:
        with _damage_named(archive):
            found = file_sha256(archive)
        if found != sha256.lower():
            raise DataError(archive, f"sha256 is {found}, not {sha256}", DOWNLOAD)

    files = sum(not member.is_folder for member in _members(archive, max_members, max_bytes))
    if files == 0:
        raise DataError(archive, "holds no file", DOWNLOAD)

    partial = target.with_name(f"{PARTIAL}{uuid.uuid4().hex[:8]}-{target.name}")
    with no_space_named(target):
        try:
            partial.mkdir(parents=True)
            for member in _members(archive, max_members, max_bytes):
                _write(member, partial)
            inner = partial / target.name
            is_wrapped = inner.is_dir() and len(os.listdir(partial)) == 1
            os.rename(inner if is_wrapped else partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


class _Member(NamedTuple):
    """A file or folder that was found safe. `chunks` are to be taken before the next member is asked for."""

    path: str
    is_folder: bool
    chunks: Iterator[bytes]


def _write(member: _Member, folder: Path) -> None:
    place = folder / member.path
    if member.is_folder:
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place, "xb") as f:          # x: never through or over something that is there
        for chunk in member.chunks:
            f.write(chunk)


def _members(archive: Path, max_members: int, max_bytes: int) -> Iterator[_Member]:
    names = _Names(archive, max_members)
    budget = _Budget(archive, max_bytes)
    with contextlib.ExitStack() as stack:
        with _damage_named(archive):
            f = stack.enter_context(open(archive, "rb"))
            magic = f.read(6)
            f.seek(0)
        if magic.startswith(b"PK"):
            yield from _zip_members(archive, names, budget)
            return
        if magic.startswith(b"\x1f\x8b"):
            f = stack.enter_context(gzip.GzipFile(fileobj=f))
        elif magic.startswith(b"BZh"):
            f = stack.enter_context(bz2.BZ2File(f))
        elif magic == b"\xfd7zXZ\0":
            f = _Xz(f)
        yield from _tar_members(_Stream(archive, f, budget), names)


# ---------------------------------------------------------------------------------------- what is refused

@contextlib.contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    """Turn whatever a reader says about bad bytes into one DataError."""
    try:
        yield
    except SnnsegError:
        raise
    except DAMAGE as e:
        reason = str(e)[:200] or type(e).__name__
        raise DataError(archive, f"damaged, cut off or not an archive ({reason})", DOWNLOAD) from e


def _unsafe(archive: Path, name: str, fact: str) -> UnsafeArchive:
    shown = name if len(name) <= 80 else name[:80] + "..."
    return UnsafeArchive(archive, f"member {shown!r} {fact}", UNPACKED_NOTHING)


class _Budget:
    """Bytes that may still come out of the decompressor."""

    def __init__(self, archive: Path, max_bytes: int):
        self.archive, self.max_bytes, self.taken = archive, max_bytes, 0

    def take(self, n: int, name: str) -> None:
        self.taken += n
        if self.taken > self.max_bytes:
            raise _unsafe(self.archive, name, f"goes beyond {self.max_bytes} bytes in all")


class _Names:
    """The paths that an archive has brought so far, folders between included. A folder may be listed again."""

    def __init__(self, archive: Path, max_members: int):
        self.archive, self.max_members = archive, max_members
        self.seen: dict[str, tuple[str, bool]] = {}      # folded path -> path, is it a folder

    def path(self, name: str, is_folder: bool) -> str:
        """`name` as a path below the target ("" is the target itself). Raises UnsafeArchive."""
        fault = _fault(name, is_folder)
        if fault:
            raise _unsafe(self.archive, name, fault)
        parts = [part for part in name.split("/") if part not in ("", ".")]
        for depth in range(1, len(parts)):
            self._add("/".join(parts[:depth]), True, name)
        path = "/".join(parts)
        if path:
            self._add(path, is_folder, name)
        elif not is_folder:
            raise _unsafe(self.archive, name, "has no name")
        return path

    def _add(self, path: str, is_folder: bool, name: str) -> None:
        # two names that differ in case, or in how an accent is encoded, are one file on some disks
        folded = unicodedata.normalize("NFC", path).casefold()
        before = self.seen.get(folded)
        if before is None:
            if len(self.seen) == self.max_members:
                raise _unsafe(self.archive, name, f"comes after {self.max_members} others, the most allowed")
            self.seen[folded] = (path, is_folder)
        elif before != (path, True) or not is_folder:
            raise _unsafe(self.archive, name, f"clashes with {before[0]!r}, which came before")


def _fault(name: str, is_folder: bool) -> str | None:
    """What is wrong with a member's name by itself, or None."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    if size > NAME_BYTES:
        return f"has a name of {size} bytes, more than {NAME_BYTES}"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "has an absolute name"
    if "\\" in name or "\0" in name:
        return "has a backslash or NUL in its name"
    if ".." in name.split("/"):
        return "points out of the archive"
    if name.endswith("/") and not is_folder:
        return "is a file with the name of a folder"
    return None


# ---------------------------------------------------------------------------------------- tar

class _Xz:
    """Decompressed bytes of an xz file, with bounded memory (`lzma.open` lets the file choose up to 4 GiB)."""

    def __init__(self, f: BinaryIO):
        self.f, self.data, self.decoder = f, b"", self._new()

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)

    def read(self, n: int) -> bytes:
        """1 to n bytes; none at the end. Raises lzma.LZMAError, EOFError."""
        while True:
            if self.decoder.eof:                       # several streams may follow each other
                self.data = self.decoder.unused_data or self.f.read(CHUNK)
                if not self.data:
                    return b""
                self.decoder = self._new()
            elif self.decoder.needs_input and not self.data:
                self.data = self.f.read(CHUNK)
                if not self.data:
                    raise EOFError("ends inside a compressed stream")
            data, self.data = self.data, b""
            decompressed = self.decoder.decompress(data, n)
            if decompressed:
                return decompressed


class _Stream:
    """The bytes of a tar in their order, counted as they leave the decompressor."""

    def __init__(self, archive: Path, f: BinaryIO | _Xz, budget: _Budget):
        self.archive, self.f, self.budget = archive, f, budget
        self.member = ""

    def _some(self, n: int) -> bytes:
        with _damage_named(self.archive):
            chunk = self.f.read(min(n, CHUNK))
        self.budget.take(len(chunk), self.member)
        return chunk

    def chunks(self, n: int) -> Iterator[bytes]:
        """The next n bytes."""
        while n:
            chunk = self._some(n)
            if not chunk:
                raise DataError(self.archive, f"cut off near member {self.member[:80]!r}", DOWNLOAD)
            n -= len(chunk)
            yield chunk

    def read(self, n: int) -> bytes:
        return b"".join(self.chunks(n))

    def finish(self) -> None:
        """Read what follows the end mark, so that the checksum of the compressed stream is looked at."""
        while self._some(CHUNK):
            pass


def _tar_members(stream: _Stream, names: _Names) -> Iterator[_Member]:
    while (header := _tar_header(stream)) is not None:
        name, size, kind = header
        if kind not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
            raise _unsafe(stream.archive, name, f"is neither a file nor a folder (tar type {kind.decode('latin1')!r})")
        is_folder = kind == tarfile.DIRTYPE
        chunks = stream.chunks(0 if is_folder else size)
        path = names.path(name, is_folder)
        if not is_folder and size > stream.budget.max_bytes:
            raise _unsafe(stream.archive, name, f"has {size} bytes, more than {stream.budget.max_bytes}")
        yield _Member(path, is_folder, chunks)
        for _ in chunks:                               # what the caller did not take
            pass
        if not is_folder:
            stream.read(-size % BLOCK)
    stream.finish()


def _tar_header(stream: _Stream) -> tuple[str, int, bytes] | None:
    """Name, size in bytes and type of the next member, extended headers applied; None at the end mark."""
    name = size = None
    for number in range(HEADERS):
        block = stream.read(BLOCK)
        if block == bytes(BLOCK) and number == 0:
            return None
        with _damage_named(stream.archive):
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            if info.size < 0:
                raise tarfile.HeaderError("negative size")
        stream.member = info.name
        if info.type not in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            return info.name if name is None else name, info.size if size is None else size, info.type

        if info.size > HEADER_BYTES:
            raise _unsafe(stream.archive, info.name, f"has an extended header of {info.size} bytes")
        content = stream.read(info.size)
        stream.read(-info.size % BLOCK)
        if info.type == tarfile.GNUTYPE_LONGNAME:
            name = content.split(b"\0")[0].decode("utf-8", "surrogateescape")
        elif info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE):
            with _damage_named(stream.archive):
                records = _pax_records(content)
                if any(key.startswith(b"GNU.sparse") for key in records):
                    raise _unsafe(stream.archive, info.name, "is sparse")
                if info.type == tarfile.XGLTYPE and records.keys() & {b"path", b"size"}:
                    raise _unsafe(stream.archive, info.name, "renames or resizes all that follow")
                if b"path" in records:
                    name = records[b"path"].decode("utf-8", "surrogateescape")
                if b"size" in records:
                    size = int(records[b"size"])
                    if size < 0:
                        raise tarfile.HeaderError("negative size")
    raise _unsafe(stream.archive, stream.member, f"has more than {HEADERS} extended headers")


def _pax_records(content: bytes) -> dict[bytes, bytes]:
    """`LENGTH KEY=VALUE\\n`, where LENGTH counts the whole record. Raises ValueError."""
    records = {}
    at = 0
    while at < len(content):
        length = content[at:at + 20].split(b" ")[0]
        end = at + int(length)
        key, equals, value = content[at + len(length) + 1:end - 1].partition(b"=")
        if not equals or content[end - 1:end] != b"\n":
            raise ValueError("bad extended header")
        records[key] = value
        at = end
    return records


# ---------------------------------------------------------------------------------------- zip

class _ZipBytes(io.FileIO):
    """A zip file that refuses an oversized central directory before `zipfile` makes objects of it."""

    def __init__(self, archive: Path, max_members: int):
        super().__init__(archive)
        self.archive, self.max_members = archive, max_members

    def read(self, n: int | None = -1) -> bytes:
        if n is not None and n > DIRECTORY_BYTES:
            raise UnsafeArchive(self.archive, f"claims a directory of {n} bytes", UNPACKED_NOTHING)
        data = super().read(n)
        if data.count(b"PK\1\2") > self.max_members:   # each entry starts with these; the count in the file may lie
            raise UnsafeArchive(self.archive, f"holds more than {self.max_members} members", UNPACKED_NOTHING)
        return data


def _zip_members(archive: Path, names: _Names, budget: _Budget) -> Iterator[_Member]:
    with contextlib.ExitStack() as stack:
        with _damage_named(archive):
            f = stack.enter_context(_ZipBytes(archive, names.max_members))
            z = stack.enter_context(zipfile.ZipFile(f))
        claimed = _Budget(archive, budget.max_bytes)   # the first look does not decompress
        for info in z.infolist():
            name = info.orig_filename                  # as written; `filename` is cut at a NUL
            kind = stat.S_IFMT(info.external_attr >> 16)
            is_folder = name.endswith("/")
            if kind not in (0, stat.S_IFDIR if is_folder else stat.S_IFREG):
                raise _unsafe(archive, name, f"is neither a file nor a folder (mode {kind:o})")
            path = names.path(name, is_folder)
            if info.flag_bits & 1:
                raise DataError(archive, f"member {path!r} is encrypted", DOWNLOAD)
            # the decoders of the other methods give all they have at once, however much that is
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(archive, f"member {path!r} is packed with method {info.compress_type}",
                                "Pack it with deflate.")
            if is_folder and info.file_size:
                raise _unsafe(archive, name, "is a folder with bytes")
            claimed.take(info.file_size, name)
            yield _Member(path, is_folder, _zip_chunks(archive, z, info, budget))


def _zip_chunks(archive: Path, z: zipfile.ZipFile, info: zipfile.ZipInfo, budget: _Budget) -> Iterator[bytes]:
    count = 0
    with _damage_named(archive), z.open(info) as f:
        while chunk := f.read(CHUNK):                  # the last one compares the CRC
            count += len(chunk)
            budget.take(len(chunk), info.orig_filename)
            yield chunk
    if count != info.file_size:
        raise _unsafe(archive, info.orig_filename, f"has {count} bytes where its header says {info.file_size}")
