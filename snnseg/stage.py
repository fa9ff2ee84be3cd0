"""The door of every command and stage: what a user can cause ends with one line and its exit code, no traceback."""
from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snnseg.errors import SnnsegError, Unusable
from snnseg.seal import no_space_named

UNUSABLE_ERRNOS = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}


def _terminated(signum: int, frame: object) -> None:
    """SIGTERM ends a command as Ctrl-C does: what is open is cleared up on the way out."""
    raise KeyboardInterrupt


def run(main: Callable[..., None], *arguments: Any, **named: Any) -> None:
    """Call `main`, which may raise any SnnsegError, meet a place it cannot write, run out of disk or be interrupted."""
    # torch's threads wait for their next work without sleeping, 5 ms or so, on the cores that the compiled neuron needs: a tenth of that is enough
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    with contextlib.suppress(ValueError):       # not in the main thread
        signal.signal(signal.SIGTERM, _terminated)
    try:
        try:
            with no_space_named(Path(".")):
                main(*arguments, **named)
        except OSError as e:
            if isinstance(e, SnnsegError) or e.errno not in UNUSABLE_ERRNOS:
                raise
            raise Unusable(e.filename or "a place", e.strerror) from e
    except SnnsegError as e:
        print(f"snnseg: {e}", file=sys.stderr)
        raise SystemExit(e.exit_code) from None
    except KeyboardInterrupt:
        print("snnseg: interrupted. What is finished is kept, nothing half written is; run the same command again.", file=sys.stderr)
        raise SystemExit(130) from None


def guarded(main: Callable[..., None]) -> Callable[..., None]:
    """`main` behind the door, with its own arguments."""
    @functools.wraps(main)
    def through(*arguments: Any, **named: Any) -> None:
        run(main, *arguments, **named)

    return through
