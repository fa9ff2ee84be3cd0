"""`python -m tests.killed_at K ARGUMENTS`: snnseg with these arguments, ended by SIGKILL just before its K-th change of files below the folder it runs in.

A change is a file opened to be written, a name given, taken or changed, a folder made or removed; also those of other threads, not those of
other processes. With K = 0 it runs to its end and prints them, a line each.
"""
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
NAMES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}


class Changes:
    """Notes them, as an audit hook."""

    def __init__(self, last: int):
        self.last, self.made, self.process, self.root, self.turn = last, [], os.getpid(), f"{Path.cwd()}{os.sep}", threading.Lock()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in NAMES and not (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES):
            return
        if not isinstance(arguments[0], str | bytes | os.PathLike) or os.getpid() != self.process:
            return
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if not path.startswith(self.root) or "__pycache__" in path:
            return
        with self.turn:
            self.made.append(f"{event} {path.removeprefix(self.root)}")
            if len(self.made) == self.last:
                os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    changes = Changes(int(sys.argv[1]))
    sys.argv[:2] = ["snnseg"]
    from snnseg.cli.main import main

    sys.addaudithook(changes)
    try:
        main()
    finally:
        if not changes.last:
            print("\n".join(changes.made))
