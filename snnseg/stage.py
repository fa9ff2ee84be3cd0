"""The door of every command and stage: what a user can cause ends with one line and its exit code, no traceback."""
from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from snnseg.errors import SnnsegError
from snnseg.seal import no_space_named


def run(main: Callable[..., None], *arguments: str) -> None:
    """Call `main`, which may raise any SnnsegError, run out of disk or be interrupted."""
    try:
        with no_space_named(Path.cwd()):
            main(*arguments)
    except SnnsegError as e:
        print(f"snnseg: {e}", file=sys.stderr)
        raise SystemExit(e.exit_code) from None
    except KeyboardInterrupt:
        print("snnseg: interrupted. Nothing half written was kept; run the same command again.", file=sys.stderr)
        raise SystemExit(130) from None
