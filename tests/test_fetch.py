"""Fetching against a server on this machine that does all that servers do; nothing else is asked, and nothing wrong is kept."""
import email.utils
import hashlib
import io
import os
import re
import signal
import ssl
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock
from urllib.error import URLError

import pytest

from snnseg import lock
from snnseg.data import fetch as fetching
from snnseg.data import sources
from snnseg.data.fetch import BLOCK, Patience, fetch
from snnseg.data.sources import Source, unpack
from snnseg.errors import Busy, DataError, DataMissing, NoSpace, UsageError

SIZE = 10 * BLOCK + 12_345
BYTES = hashlib.shake_256(b"an official file").digest(SIZE)
OTHER = hashlib.shake_256(b"its next version").digest(SIZE)
HASTE = Patience(timeout=0.4, tries=4, knocks=2, pause=0.01, longest=2.0)


class Site(ThreadingHTTPServer):
    """Serves `/file`. Each request takes the next fault of `faults`; without one it is served as it should be."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.body, self.tag, self.ranges = BYTES, '"v1"', True
        self.faults, self.asked, self.served, self.waits_for = [], [], [], None
        self.stop = threading.Event()

    def handle_error(self, request, client_address):
        """A client that left, or was killed, is what is tested."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/file"

    @property
    def twice(self):
        """Bytes served more than once."""
        end = count = 0
        for start, stop in sorted(self.served):
            count += max(0, min(end, stop) - start)
            end = max(end, stop)
        return count


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        site, self.close_connection = self.server, True
        asked = {k: self.headers[k] for k in ("Range", "If-Range") if k in self.headers}
        site.asked.append(asked)
        fault = site.faults.pop(0) if site.faults else {}
        body, tag = fault.get("body", site.body), {"ETag": site.tag} if site.tag else {}
        is_part = "Range" in asked and site.ranges and asked.get("If-Range", site.tag) == site.tag
        sent = start = int(asked["Range"][6:-1]) if is_part else 0
        span = {"Content-Range": fault.get("span", f"bytes {start}-{len(body) - 1}/{len(body)}")} if is_part else {}
        length = fault.get("length", len(body) - start)
        if status := fault.get("status"):
            body, length, tag, span = b"", 0, {}, fault.get("headers", {})
        self.send_response(status or (206 if is_part else 200))
        for name, value in (tag | span | ({"Content-Length": length} if length is not None else {})).items():
            self.send_header(name, str(value))
        self.end_headers()
        try:
            while sent < min(len(body), start + fault.get("drops", len(body))):
                piece = body[sent:sent + min(fault.get("trickles", BLOCK // 4), start + fault.get("drops", len(body)) - sent)]
                self.wfile.write(piece)
                sent += len(piece)
                self.keep_step(sent, fault)
            if fault.get("stalls"):
                site.stop.wait(5)
        finally:
            if not status:
                site.served.append((start, sent))

    def keep_step(self, sent, fault):
        """For the count of bytes: never far ahead of what the client has on its disk."""
        if "trickles" in fault:
            self.server.stop.wait(0.05)
        until = time.monotonic() + 0.5
        while (part := self.server.waits_for) and time.monotonic() < until and not (part.exists() and part.stat().st_size >= sent):
            time.sleep(0.001)


@pytest.fixture
def site():
    site = Site()
    thread = threading.Thread(target=site.serve_forever, args=(0.02,))
    thread.start()
    yield site
    site.stop.set()
    site.shutdown()
    thread.join()
    site.server_close()


def table(site, name="file.bin"):
    return {"it": (Source(name, site.url, SIZE, hashlib.md5(BYTES).hexdigest(), hashlib.sha256(BYTES).hexdigest()),)}


def run(site, raw, progress=print, patience=HASTE):
    return fetch("it", raw, progress, table=table(site), patience=patience)


def visible(raw):
    """What is there beside the lock."""
    return sorted(p.name for p in raw.iterdir() if not p.name.startswith(".it.")) if raw.exists() else []


def refused(site, raw, match):
    with pytest.raises(DataError, match=match) as e:
        run(site, raw)
    assert "\n" not in str(e.value) and f"Put file.bin ({SIZE} bytes) from {site.url} into {raw} by hand" in str(e.value)
    assert "file.bin" not in visible(raw)


def test_whole_and_not_again_and_one_at_a_time(site, tmp_path):
    steps, path, part = [], tmp_path / "raw/file.bin", tmp_path / "raw/file.bin.part"

    def progress(*step):
        steps.append(step)
        assert path.exists() or part.stat().st_size == step[0]      # what is reported is out of the process, should it be killed

    site.faults = [{"drops": 5}]
    assert run(site, tmp_path / "raw", progress) == [path]
    assert path.read_bytes() == BYTES and visible(tmp_path / "raw") == ["file.bin"]
    assert steps[-1] == (SIZE, SIZE) and steps == sorted(steps) and len(steps) >= SIZE // BLOCK
    assert run(site, tmp_path / "raw") == [path] and [a.get("Range") for a in site.asked] == [None, "bytes=5-"] and site.twice == 0
    with lock.held(tmp_path / "raw/it", "fetching it"), pytest.raises(Busy, match=f"process {os.getpid()} is fetching it here"):
        run(site, tmp_path / "raw")


@pytest.mark.parametrize(("content", "match"), [(OTHER, "sha256 is "), (BYTES[:-1], f"{SIZE - 1} bytes, the official file has {SIZE}")])
def test_a_file_of_somebody_else_is_not_touched(site, tmp_path, content, match):
    (tmp_path / "file.bin").write_bytes(content)
    with pytest.raises(DataError, match=f"file.bin: {match}.*Move it away"):
        run(site, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == content and site.asked == []


def test_several_files_and_one_count(site, tmp_path):
    two, steps = {"it": table(site, name="a/x")["it"] + table(site, name="a/y")["it"]}, []
    assert fetch("it", tmp_path, lambda *s: steps.append(s), table=two, patience=HASTE) == [tmp_path / "a/x", tmp_path / "a/y"]
    assert steps[-1] == (2 * SIZE, 2 * SIZE) and steps == sorted(steps)


def test_md5_alone_where_no_more_is_known(site, tmp_path):
    known, site.faults = {"it": (Source("f", site.url, SIZE, md5=hashlib.md5(BYTES).hexdigest()),)}, [{"body": OTHER}]
    with pytest.raises(DataError, match="gave wrong bytes, which were deleted: md5 is"):
        fetch("it", tmp_path, print, table=known, patience=HASTE)
    assert visible(tmp_path) == [] and fetch("it", tmp_path, print, table=known, patience=HASTE) == [tmp_path / "f"]


def test_archives_become_the_folders_that_the_readers_look_for(tmp_path):
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("Folder/in/empty.txt"), io.BytesIO())
    data = (tmp_path / "set.tar").read_bytes()
    known = {"it": (Source("set.tar", "", len(data), sha256=hashlib.sha256(data).hexdigest(), unpacks_to="Folder"), Source("f", "", 1))}
    (tmp_path / "set.tar").write_bytes(data[:-1] + b"x")
    with pytest.raises(DataError, match="set.tar: sha256 is "):
        unpack("it", tmp_path, known)
    (tmp_path / "set.tar").write_bytes(data)
    assert unpack("it", tmp_path, known) == unpack("it", tmp_path, known) == [tmp_path / "Folder"]
    assert (tmp_path / "Folder/in/empty.txt").is_file()


PASSING = {
    "drops once": [{"drops": 3 * BLOCK + 7}],
    "drops five times": [{"drops": BLOCK + 1}] * 5,
    "drops at once": [{"drops": 0}, {"drops": 1}],
    "stalls": [{"drops": 2 * BLOCK, "stalls": True}],
    "trickles": [{"drops": BLOCK - 1, "trickles": 100}],
    "500, 503, 429": [{"status": 500}, {"status": 503}, {"status": 429, "headers": {"Retry-After": "0"}}],
    "drops, 502, 408": [{"drops": 5 * BLOCK}, {"status": 502}, {"status": 408}],
    "416": [{"drops": BLOCK}, {"status": 416}],
    "length is not a number": [{"length": "many"}],
    "length is missing, and drops": [{"length": None, "drops": BLOCK}],
    "redirects": [{"status": 302, "headers": {"Location": "/file?again"}}] * 4 + [{"status": 308, "headers": {"Location": "file"}}],
}


@pytest.mark.parametrize("faults", PASSING.values(), ids=PASSING)
def test_passing_faults(site, tmp_path, faults):
    site.faults = list(faults)
    began = time.monotonic()
    run(site, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == BYTES and visible(tmp_path) == ["file.bin"]
    assert site.twice <= BLOCK and site.faults == [] and time.monotonic() - began < 2.5
    assert all(a["If-Range"] == '"v1"' for a in site.asked if a)


def test_a_server_that_ignores_range_starts_anew_but_not_for_ever(site, tmp_path):
    site.ranges, site.faults = False, [{"drops": 4 * BLOCK}] * 20
    refused(site, tmp_path, f"ended after {4 * BLOCK} of {SIZE} bytes")
    assert len(site.asked) == HASTE.tries
    site.faults = []
    run(site, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == BYTES


@pytest.mark.parametrize(("old", "new", "asked"), [('"v1"', '"v2"', 1), ('"v1"', 'W/"v1"', 1), ('"v1"', "", 1), ("", "", 2), ('W/"v1"', 'W/"v1"', 2)])
def test_two_versions_are_not_glued(site, tmp_path, old, new, asked):
    """The first half is of an older version of the same size. Where neither has a name, their sum tells them apart."""
    site.body, site.tag, site.faults = OTHER, old, [{"drops": 4 * BLOCK}, {"status": 404}]
    refused(site, tmp_path, "404")
    assert visible(tmp_path) == ["file.bin.part", "file.bin.part.tag"]
    site.body, site.tag, site.asked = BYTES, new, []
    run(site, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == BYTES and len(site.asked) == asked
    assert all(a.get("If-Range") in (None, '"v1"') for a in site.asked)


@pytest.mark.parametrize("span", ["bytes 0-9/10", "bytes 5-100/*", f"bytes 7-{SIZE - 1}/{SIZE}", "pages 1-2/3", "bytes -1", ""])
def test_a_lie_about_the_range_is_not_glued(site, tmp_path, span):
    site.faults = [{"drops": 4 * BLOCK}, {"span": span}]
    if span.endswith("/10"):
        refused(site, tmp_path, f"the server's file has 10 bytes, the official one {SIZE}")
    else:
        run(site, tmp_path)
        assert (tmp_path / "file.bin").read_bytes() == BYTES and site.asked[-1] == {}


@pytest.mark.parametrize(("part", "asked"), [
    (BYTES, []), (BYTES[:9], ["bytes=9-"]), (BYTES + b"x", [None]), (OTHER, [None]), (OTHER[:BLOCK], [f"bytes={BLOCK}-", None]),
], ids=["complete", "begun", "too long", "damaged", "begun, damaged"])
def test_a_part_that_lies_there(site, tmp_path, part, asked):
    """One that the disk damaged is worth one fresh try."""
    (tmp_path / "file.bin.part").write_bytes(part)
    run(site, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == BYTES and [a.get("Range") for a in site.asked] == asked


def test_pauses_double_with_jitter_or_are_as_asked_for(site, tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(fetching.time, "sleep", pauses.append)
    site.faults = [{"status": 429, "headers": {"Retry-After": " 30 "}}, {"status": 503, "headers": {"Retry-After": "soon"}}] + [{"status": 500}] * 6
    run(site, tmp_path, patience=Patience(timeout=1, tries=9, pause=1, longest=40))
    assert pauses.pop(0) == 30
    shares = [pause / most for pause, most in zip(pauses, (2, 4, 8, 16, 32, 40, 40), strict=True)]
    assert min(shares) >= 0.5 and max(shares) <= 1 and len(set(shares)) == 7
    assert 50 < fetching._retry_after(email.utils.formatdate(time.time() + 60, usegmt=True)) <= 60
    assert [fetching._retry_after(text) for text in ("", "never", "-5", "Thu, 01 Jan 1970 00:00:00 GMT")] == [0, 0, 0, 0]


STAYING = {
    "404": ([{"status": 404}], "the server says 404", 1),
    "304": ([{"status": 304}], "the server says 304", 1),
    "moved nowhere": ([{"status": 301}], "the server says 301", 1),
    "500 for ever": ([{"status": 500}] * 9, "the server says 500", HASTE.tries),
    "asks for too much patience": ([{"status": 429, "headers": {"Retry-After": "3600"}}], "429.*asks to wait 3600 s", 1),
    "stalls for ever": ([{"drops": 0, "stalls": True}] * 9, "broke off", HASTE.tries),
    "wrong bytes": ([{"body": OTHER}], "gave wrong bytes, which were deleted: sha256 is ", 1),
    "wrong bytes, in two pieces": ([{"body": OTHER, "drops": BLOCK}, {"body": OTHER}, {"body": OTHER}], "wrong bytes", 3),
    "a page instead of the file": ([{"body": b"<html>Please log in</html>"}], f"the server's file has 26 bytes, the official one {SIZE}", 1),
    "a page of unknown length": ([{"body": b"<html>", "length": None}] * 9, f"the server's file has 6 bytes, the official one {SIZE}", 2),
    "says less than it has": ([{"length": SIZE - 1}], f"the server's file has {SIZE - 1} bytes", 1),
    "says more than it has": ([{"length": SIZE + 1}], f"the server's file has {SIZE + 1} bytes", 1),
    "gives more than it says": ([{"body": BYTES + OTHER, "length": None}], f"gives more than the {SIZE} bytes", 1),
    "redirects for ever": ([{"status": 302, "headers": {"Location": "/file"}}] * 9, "more than 5 redirects", 6),
    "redirects to a file": ([{"status": 302, "headers": {"Location": "file:///etc/passwd"}}], "redirects to file:///etc/passwd, which is not https", 1),
    "redirects to plain http": ([{"status": 302, "headers": {"Location": "http://192.0.2.1/file"}}], "to http://192.0.2.1/file, which is not https", 1),
    "redirects to nonsense": ([{"status": 302, "headers": {"Location": "https://[::1/file"}}], "redirects to https://", 1),
}


@pytest.mark.parametrize(("faults", "match", "asked"), STAYING.values(), ids=STAYING)
def test_staying_faults(site, tmp_path, faults, match, asked):
    site.faults = list(faults)
    refused(site, tmp_path, match)
    assert len(site.asked) == asked
    if "wrong" in match or "more than the" in match:
        assert visible(tmp_path) == []
    site.faults = []
    run(site, tmp_path)                          # and the next day all is well
    assert (tmp_path / "file.bin").read_bytes() == BYTES


def test_no_internet(site, tmp_path):
    site.shutdown()
    site.server_close()                          # nobody listens here any more
    refused(site, tmp_path, "cannot be reached")
    assert visible(tmp_path) == []


@pytest.fixture
def wire(monkeypatch):
    """Instead of the network."""
    wire = Mock()
    monkeypatch.setattr(fetching.urllib.request.OpenerDirector, "open", wire)
    return wire


def test_a_name_that_nobody_knows(tmp_path, wire):
    wire.side_effect = URLError(OSError(-3, "Temporary failure in name resolution"))
    with pytest.raises(DataError, match="name resolution") as e:
        fetch("mnist", tmp_path, print, patience=HASTE)
    assert "\n" not in str(e.value) and f"into {tmp_path / 'mnist'} by hand" in str(e.value) and wire.call_count == HASTE.knocks
    assert all(f"{Path(s.file).name} ({s.size} bytes) from https://" in str(e.value) for s in sources.TABLE["mnist"])


def test_a_certificate_that_is_not_trusted_is_not_asked_again(tmp_path, wire):
    error = ssl.SSLCertVerificationError()
    error.verify_message, wire.side_effect = "self-signed certificate", URLError(error)
    with pytest.raises(DataError, match="not trusted .self-signed certificate"):
        fetch("cifar10", tmp_path, print, patience=HASTE)
    assert wire.call_count == 1


def test_https_never_becomes_http_on_the_way(site, tmp_path, wire):
    """A safe server that sends to the plain one, with the right file: it is not asked."""
    wire.return_value = Mock(status=302, headers={"Location": site.url})
    with pytest.raises(DataError, match="redirects to http://127.0.0.1.*not followed"):
        fetch("cifar10", tmp_path, print, patience=HASTE)
    assert wire.call_args.args[0].full_url == sources.TABLE["cifar10"][0].url and wire.call_count == 1 and site.asked == []


@pytest.mark.parametrize("url", ["http://example.org/f", "file:///etc/passwd", "ftp://example.org/f", "https:///f", "//example.org/f", "", "f",
                                 "data:,x", "http://127.0.0.1.example.org/f", "http://localhost.example.org/", "https://[::1/f"])
def test_addresses_that_are_not_asked(tmp_path, url):
    with pytest.raises(DataError, match="not an https address"):
        fetch("it", tmp_path, print, table={"it": (Source("f", url, 1, "0" * 32),)}, patience=HASTE)


@pytest.mark.parametrize(("url", "location", "leads"), [
    ("https://a.org/x/f", "https://b.org/g", "https://b.org/g"),
    ("https://a.org/x/f", "g", "https://a.org/x/g"),
    ("https://a.org/x/f", "//b.org/g", "https://b.org/g"),
    ("http://127.0.0.1:8/f", "https://b.org/g", "https://b.org/g"),
    ("http://127.0.0.1:8/f", "/g", "http://127.0.0.1:8/g"),
    ("http://[::1]:8/f", "http://localhost/g", "http://localhost/g"),
    ("https://a.org/f", "http://a.org/f", None), ("HTTPS://a.org/f", "http://127.0.0.1/f", None), ("https://a.org/f", "HTTP://localhost/f", None),
    ("https://a.org/f", "file:///etc/passwd", None), ("https://a.org/f", "javascript:1", None), ("http://127.0.0.1/f", "http://a.org/f", None),
])
def test_where_a_redirect_leads(url, location, leads):
    if leads:
        assert sources.redirected(url, location, "") == leads
    else:
        with pytest.raises(DataError, match="which is not https and was not followed"):
            sources.redirected(url, location, "")


SCRIPT = textwrap.dedent("""
    import resource, sys
    from pathlib import Path
    from snnseg.data.fetch import Patience, fetch
    from snnseg.data.sources import Source
    url, size, sha256, raw, limit = sys.argv[1:]
    if int(limit):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    table = {"it": (Source("file.bin", url, int(size), sha256=sha256),)}
    fetch("it", Path(raw), lambda done, total: print(done, flush=True), table=table, patience=Patience(timeout=5, pause=0.01))
""")


def start(site, raw, environment, limit=0):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, site.url, str(SIZE), hashlib.sha256(BYTES).hexdigest(), str(raw), str(limit)],
                            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_at_five_moments(site, tmp_path, environment):
    """kill -9, and the same command again: it goes on behind the last byte on the disk."""
    site.waits_for = tmp_path / "file.bin.part"
    for moment in range(1, 6):
        with start(site, tmp_path, environment) as process:
            for line in process.stdout:
                if int(line) >= moment * 2 * BLOCK - 20_000:
                    break
            process.send_signal(signal.SIGKILL)
            last = max([int(line), *map(int, process.stdout.read().split())])
        assert process.returncode == -signal.SIGKILL and "file.bin" not in visible(tmp_path)
        assert last <= site.waits_for.stat().st_size <= last + BLOCK
    run(site, tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == BYTES and visible(tmp_path) == ["file.bin"]
    assert len(site.asked) == 6 and all("Range" in a for a in site.asked[1:])
    assert site.twice <= 5 * BLOCK, site.served


def test_file_size_limit(site, tmp_path, environment):
    """The disk is full in the midst of it: named, what is there is kept, and the next run needs only the rest."""
    with start(site, tmp_path, environment, limit=3 * BLOCK) as process:
        told = process.communicate()[1]
    assert "NoSpace" in told.splitlines()[-1] and "no space left" in told and visible(tmp_path) == ["file.bin.part", "file.bin.part.tag"]
    run(site, tmp_path)
    assert visible(tmp_path) == ["file.bin"] and site.asked[1]["Range"] == f"bytes={3 * BLOCK}-"


def test_too_little_space_is_seen_before_a_byte_is_asked_for(site, tmp_path, monkeypatch):
    usage = fetching.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage._replace(free=SIZE - 1))
    with pytest.raises(NoSpace, match=r"0\.6 MiB free"):
        run(site, tmp_path)
    assert site.asked == []


def test_an_error_of_the_caller_keeps_what_is_there(site, tmp_path):
    def stop(done, _):
        if done > 3 * BLOCK:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(site, tmp_path, stop)
    run(site, tmp_path)
    assert len(site.asked) == 2 and int(site.asked[1]["Range"][6:-1]) > 3 * BLOCK


def test_the_table(tmp_path):
    with pytest.raises(UsageError, match="imagenet: no such data set. Take one of cifar10, ddd17, mnist, sbd, voc"):
        fetch("imagenet", tmp_path, print)
    assert sources.TABLE.keys() == {"voc", "sbd", "mnist", "cifar10"}
    places = [s.file for files in sources.TABLE.values() for s in files]
    assert len(places) == len(set(places)) == 7
    for source in (s for files in sources.TABLE.values() for s in files):
        assert source.url.startswith("https://") and source.url.endswith("/" + Path(source.file).name) and source.size > 0
        assert re.fullmatch("[0-9a-f]{32}", source.md5) and re.fullmatch("[0-9a-f]{64}", source.sha256)


def superblock(version, end):
    """The first 96 bytes of an HDF5 file, by its format's manual."""
    settings = bytes([version, 0, 0, 0, 0, 8, 8, 0, 4, 0, 16, 0]) + bytes(4 + 4 * version) if version < 2 else bytes([version, 8, 8, 0])
    return (sources.HDF5 + settings + bytes(8) + b"\xff" * 8 + end.to_bytes(8, "little")).ljust(96, b"\0")


def test_ddd17_says_what_to_get_where(tmp_path):
    with pytest.raises(DataMissing) as e:
        fetch("ddd17", tmp_path, print)
    assert "\n" not in str(e.value) and all(text in str(e.value) for text in sources.DDD17) and str(tmp_path / "ddd17") in str(e.value)


@pytest.mark.parametrize("version", range(4))
def test_ddd17_recordings(tmp_path, version):
    path = tmp_path / "ddd17/run3/rec1487417411.hdf5"
    path.parent.mkdir(parents=True)
    path.write_bytes(superblock(version, 96))
    assert sources.check_ddd17(tmp_path) == [path]
    path.write_bytes(superblock(version, 97))
    with pytest.raises(DataError, match="rec1487417411.hdf5: cut off after 96 of 97 bytes"):
        sources.check_ddd17(tmp_path)
    for damaged in (b"", superblock(version, 96)[:40], b"<html>".ljust(96), superblock(9, 96)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="HDF5"):
            sources.check_ddd17(tmp_path)


@pytest.mark.parametrize("order", ["{kind}/{split}", "{split}/{kind}"])
def test_ddd17_frames(tmp_path, monkeypatch, order):
    monkeypatch.setattr(sources, "EV_SEGNET", {"train": 2, "test": 1})
    frames = [("train", 0), ("train", 1), ("test", 0)]
    for kind, end in (("events", "npy"), ("labels", "png"), ("images", "png")):
        for split, k in frames:
            path = tmp_path / "ddd17" / order.format(kind=kind, split=split) / f"rec1_export_{k}.{end}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    folders = [tmp_path / "ddd17" / order.format(kind="events", split=split) for split in ("train", "test")]
    assert sources.check_ddd17(tmp_path) == sorted(folders)
    label = tmp_path / "ddd17" / order.format(kind="labels", split="train") / "rec1_export_1.png"
    label.rename(label.with_name("rec1_export_2.png"))
    with pytest.raises(DataError, match="rec1_export_1.npy: has no label picture"):
        sources.check_ddd17(tmp_path)
    (folders[0] / "rec1_export_1.npy").unlink()
    with pytest.raises(DataError, match="holds 1 of 2 train frames"):
        sources.check_ddd17(tmp_path)
    (folders[1] / "rec1_export_0.npy").write_bytes(b"")
    with pytest.raises(DataError, match="rec1_export_0.npy: empty"):
        sources.check_ddd17(tmp_path)


def test_ddd17_of_ess(tmp_path):
    folder = tmp_path / "ddd17/ddd17_seg/dir0"
    (folder / "segmentation_masks").mkdir(parents=True)
    (folder / "events.dat.t").write_bytes(bytes(8 * 5))
    with pytest.raises(DataMissing, match="events.dat.xyp"):
        sources.check_ddd17(tmp_path)
    (folder / "events.dat.xyp").write_bytes(bytes(6 * 5))
    assert sources.check_ddd17(tmp_path) == [folder]
    (folder / "events.dat.xyp").write_bytes(bytes(6 * 5 - 1))
    with pytest.raises(DataError, match="40 bytes do not go with the 29 bytes"):
        sources.check_ddd17(tmp_path)
