"""Official files over HTTP: resumed where they broke off, and verified before they have their name.

    NAME.part, NAME.part.tag -> size, sha256, md5 -> NAME

The part grows by blocks of 64 KiB; the tag is the server's name for its version (ETag), so that two versions are not
glued. Nothing that a server says is believed: sizes and sums are those of the table, https never becomes http, and no
more than the size of the table is written. What a killed fetch left goes on with the next one.
"""
from __future__ import annotations

import contextlib
import email.utils
import functools
import http.client
import os
import random
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from snnseg import lock, seal
from snnseg.data import sources
from snnseg.errors import DataError, NoSpace, UsageError

BLOCK = 2**16           # bytes; the most that is fetched twice after a fault, if the server knows Range
REDIRECTS = 5
PASSING = {408, 425, 429}       # of the 4xx, those that another try may cure; and all 5xx


class Patience(NamedTuple):
    """How long a server is waited for, in seconds, and how often it is asked."""

    timeout: float = 30.0       # for a connection, and for each block
    tries: int = 6              # in a row without a new block
    knocks: int = 2             # as long as nothing ever answered: there is no internet, and waiting brings none
    pause: float = 1.0          # after the first fault; doubles with each
    longest: float = 120.0      # pause; a server that asks for more is left alone


PATIENCE = Patience()


class _Passing(Exception):
    """A fault that may pass. `wait` is what the server asks for; `answered` whether there was a server at all."""

    def __init__(self, fact: str, wait: float = 0.0, answered: bool = True):
        super().__init__(fact[:200])
        self.wait, self.answered = wait, answered


def fetch(name: str, raw: Path, progress: Callable[[int, int | None], None], *,
          table: dict[str, tuple[sources.Source, ...]] = sources.TABLE, patience: Patience = PATIENCE) -> list[Path]:
    """The official files of a data set below `raw`, each verified; what is there already is not fetched again.

    `progress(done, total)` gets bytes of the whole data set, after each block; `done` falls where a server starts anew.
    DDD17 has no direct links: it is checked where it lies, or the error says what to get where.

    Raises UsageError, Busy, DataMissing, DataError (with what to put where by hand), NoSpace.
    """
    if name == "ddd17":
        return sources.check_ddd17(raw)
    if name not in table:
        raise UsageError(f"{name}: no such data set. Take one of {', '.join(sorted([*table, 'ddd17']))}.")
    files, done, total = table[name], 0, sum(s.size for s in table[name])
    with lock.held(raw / name, f"fetching {name}"):
        for source in files:
            remedy = sources.by_hand(files, raw)
            report = functools.partial(lambda before, have: progress(before + have, total), done)
            _file(source, raw / source.file, report, remedy, patience)
            progress(done := done + source.size, total)
    return [raw / source.file for source in files]


def _file(source: sources.Source, path: Path, report: Callable[[int], None], remedy: str, patience: Patience) -> None:
    if os.path.lexists(path):
        # it may be somebody's own: looked at, never replaced
        if fault := sources.fault(path, source):
            raise DataError(path, fault, "Move it away and run the same command again.")
        return
    part = path.with_name(f"{path.name}.part")
    with seal.no_space_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for again in (True, False):
            is_glued = _download(source, part, report, remedy, patience)
            fault = sources.fault(part, source)
            if fault is None:
                break
            _discard(part)
            # what an earlier answer left may be what is wrong: worth one try that takes all from one answer
            if not (again and is_glued):
                raise DataError(source.url, f"gave wrong bytes, which were deleted: {fault}", remedy)
        seal.fsync(part)
        os.replace(part, path)
        _tag_of(part).unlink(missing_ok=True)
        seal.fsync(path.parent)


def _download(source: sources.Source, part: Path, report: Callable[[int], None], remedy: str, patience: Patience) -> bool:
    """Fill `part` to the size of the table, answer after answer. Whether it came from more than one."""
    if _have(part) > source.size:
        _discard(part)
    most = _have(part)
    if (free := shutil.disk_usage(part.parent).free) < source.size - most:
        raise NoSpace(part, free)
    is_glued, has_answered, failures = most > 0, False, 0
    while (have := _have(part)) < source.size:
        is_glued |= have > 0
        try:
            _ask(source, part, have, report, remedy, patience)
        except _Passing as e:
            has_answered |= e.answered
            # only bytes that were never there before count as progress, or a server that starts anew could go on for ever
            failures = 1 if _have(part) >= most + BLOCK else failures + 1
            most = max(most, _have(part))
            if failures >= (patience.tries if has_answered else patience.knocks):
                raise DataError(source.url, f"{e} ({failures} tries)", remedy) from e
            if e.wait > patience.longest:
                raise DataError(source.url, f"{e}, and asks to wait {e.wait:.0f} s", remedy) from e
            pause = min(patience.longest, patience.pause * 2 ** (failures - 1))
            # many clients that were cut off together should not come back together
            time.sleep(max(e.wait, pause * random.SystemRandom().uniform(0.5, 1)))
    return is_glued


def _ask(source: sources.Source, part: Path, have: int, report: Callable[[int], None], remedy: str, patience: Patience) -> None:
    """One request, from byte `have` on. Returns when the part is full. Raises _Passing, DataError."""
    tag = _tag_of(part).read_text(encoding="latin-1") if have and _tag_of(part).exists() else ""
    headers = {"Range": f"bytes={have}-"} | ({"If-Range": tag} if tag else {}) if have else {}
    with _answer(source.url, headers, patience.timeout, remedy) as answer:
        # a weak ETag (W/"...") says only that two versions mean the same
        etag = answer.headers.get("ETag", "")
        now = etag if etag.startswith('"') else answer.headers.get("Last-Modified", "")
        start = _start(answer, source, have, remedy)
        if start is None or start and tag and now and now != tag:
            _discard(part)
            raise _Passing("gave another range, or another version, than asked for")
        # opened first: whoever is killed between the two lines leaves an empty part, which needs no tag
        with open(part, "r+b" if start else "wb") as f:
            if not start:
                _tag_of(part).write_text(now, encoding="latin-1")
            f.seek(start)
            for block in _blocks(answer, patience.timeout):
                start += len(block)
                if start > source.size:
                    _discard(part)
                    raise DataError(source.url, f"gives more than the {source.size} bytes of the official file", remedy)
                f.write(block)
                f.flush()
                report(start)
    if start < source.size:
        raise _Passing(f"ended after {start} of {source.size} bytes")


def _start(answer: http.client.HTTPResponse, source: sources.Source, have: int, remedy: str) -> int | None:
    """Where in the file the body begins: at `have`, or at 0 if the server starts anew. None if it is of no use."""
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", answer.headers.get("Content-Range", "").strip())
    if answer.status == 416 or answer.status == 206 and not match:
        return None
    total = match[2] if answer.status == 206 else answer.headers.get("Content-Length", "")
    if re.fullmatch(r"\d{1,18}", total) and int(total) != source.size:
        raise DataError(source.url, f"the server's file has {int(total)} bytes, the official one {source.size}", remedy)
    if answer.status == 200:
        return 0
    return have if int(match[1]) == have else None


def _blocks(answer: http.client.HTTPResponse, timeout: float) -> Iterator[bytes]:
    """The body as it comes. A server that stops, or trickles, is noticed after `timeout`."""
    since, count = time.monotonic(), 0
    while True:
        try:
            block = answer.read1(BLOCK)          # what is there, without waiting for a full block
        except (OSError, http.client.HTTPException) as e:
            raise _Passing(f"broke off ({str(e) or type(e).__name__})") from e
        if not block:
            return
        yield block
        count += len(block)
        if count >= BLOCK:
            since, count = time.monotonic(), 0
        elif time.monotonic() - since > timeout:
            raise _Passing(f"gave less than {BLOCK} bytes in {timeout:g} s")


@contextlib.contextmanager
def _answer(url: str, headers: dict[str, str], timeout: float, remedy: str) -> Iterator[http.client.HTTPResponse]:
    """The answer of the server that has the file: 200, 206 or 416. Raises _Passing, DataError."""
    if not sources.is_fit(url):
        raise DataError(url, "not an https address", remedy)
    for _ in range(REDIRECTS + 1):
        with contextlib.closing(_open(url, headers, timeout, remedy)) as answer:
            if answer.status in (200, 206, 416):
                yield answer
                return
            fact = f"the server says {answer.status} {answer.reason}"[:200]
            if answer.status in PASSING or answer.status >= 500:
                raise _Passing(fact, wait=_retry_after(answer.headers.get("Retry-After", "")))
            location = answer.headers.get("Location")
            if answer.status // 100 != 3 or not location:
                raise DataError(url, fact, remedy)
        url = sources.redirected(url, location, remedy)
    raise DataError(url, f"more than {REDIRECTS} redirects", remedy)


def _open(url: str, headers: dict[str, str], timeout: float, remedy: str) -> http.client.HTTPResponse:
    """Any answer whatever its status. The opener knows http and https alone, and follows nothing by itself."""
    opener = urllib.request.OpenerDirector()
    proxies = urllib.request.ProxyHandler({} if sources.is_loopback(url) else None)
    for handler in (proxies, urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()):
        opener.add_handler(handler)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "snnseg", "Accept-Encoding": "identity"} | headers)
        return opener.open(request, timeout=timeout)
    except urllib.error.URLError as e:
        if isinstance(e.reason, ssl.SSLCertVerificationError):
            raise DataError(url, f"the server's certificate is not trusted ({e.reason.verify_message})", remedy) from e
        raise _Passing(f"cannot be reached ({e.reason})", answered=False) from e
    except (http.client.InvalidURL, ValueError) as e:
        raise DataError(url, f"cannot be asked for ({e})", remedy) from e
    except (OSError, http.client.HTTPException) as e:
        raise _Passing(f"gave no answer ({str(e) or type(e).__name__})") from e


def _retry_after(text: str) -> float:
    """Seconds, given as such or as a date; 0 if it is neither."""
    if re.fullmatch(r"\d{1,9}", text.strip()):
        return float(text)
    with contextlib.suppress(ValueError):
        return max(0.0, (email.utils.parsedate_to_datetime(text).astimezone(UTC) - datetime.now(UTC)).total_seconds())
    return 0.0


def _tag_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.tag")


def _have(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _tag_of(part).unlink(missing_ok=True)
