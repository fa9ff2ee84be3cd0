"""What can go wrong for a user, one class a situation.

Each message says the fact, the place and the remedy, in that order; each class is a built-in exception too, so that
`except FileNotFoundError` still works, and carries the exit code that the command line ends with:

    2 usage   3 config   4 data   5 store or checkpoint   6 no space   7 not finite
    8 out of memory   9 cluster   10 tracking   130 interrupted
"""
from __future__ import annotations

import errno
from pathlib import Path

NO_SPACE_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class SnnsegError(Exception):
    """Anything a user can cause. The command line prints its message, without a traceback."""

    exit_code = 1

    def __init__(self, message: str):
        """One line whatever is in it: a line break or escape code of a file name or key is shown, not obeyed."""
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))

    def __reduce__(self) -> tuple:
        """Comes back from another process as it was, though the classes below take other arguments."""
        return _again, (type(self), str(self)), vars(self)


def _again(kind: type[SnnsegError], message: str) -> SnnsegError:
    error = kind.__base__.__new__(kind)     # of the base that gives the layout: OSError, or Exception
    SnnsegError.__init__(error, message)
    return error


class UsageError(SnnsegError, ValueError):
    """A command that does not make sense as typed."""

    exit_code = 2


class ConfigError(SnnsegError, ValueError):
    """params.yaml or a `--set` that does not fit the config."""

    exit_code = 3


class CheckpointMismatch(ConfigError):
    """A checkpoint that was written under another config."""

    def __init__(self, checkpoint: Path, found: str, expected: str):
        super().__init__(
            f"{checkpoint}: written under config {found[:12]}, this is config {expected[:12]}. "
            f"Move {checkpoint.parent} away to start anew, or set the parameters that it was made with."
        )


class DataError(SnnsegError, ValueError):
    """A raw file that is not what its format says."""

    exit_code = 4

    def __init__(self, file: Path | str, fact: str, remedy: str):
        super().__init__(f"{file}: {fact}. {remedy}")


class DataMissing(SnnsegError, FileNotFoundError):
    """A raw file that is not there."""

    exit_code = 4

    def __init__(self, file: Path | str, remedy: str):
        super().__init__(f"{file}: not found. {remedy}")


class UnsafeArchive(DataError):
    """An archive that holds something else than plain files and directories inside its own folder."""


class StoreError(SnnsegError, OSError):
    """A sealed folder (store, model) that cannot be used."""

    exit_code = 5

    def __init__(self, store: Path | str, fact: str, remedy: str):
        super().__init__(f"{store}: {fact}. {remedy}")


class StoreMissing(StoreError, FileNotFoundError):
    """No sealed store at this place."""


class StoreAltered(StoreError):
    """A sealed folder whose bytes are not the ones that were sealed."""


class Busy(StoreError):
    """Another process is at work in this folder."""


class Unusable(SnnsegError, PermissionError):
    """A place that cannot be read or written as it is."""

    exit_code = 5

    def __init__(self, place: Path | str, fact: str):
        super().__init__(f"{place}: {fact}. Check that it is there, may be written, and that nothing else is in its place.")


class NoSpace(SnnsegError, OSError):
    """The disk, the quota or the file size limit is used up."""

    exit_code = 6

    def __init__(self, place: Path | str, free: int | None = None):
        left = "" if free is None else f" ({free / 2**20:.1f} MiB free)"
        super().__init__(f"{place}: no space left to write{left}. Free some space and run the same command again.")


class NotFinite(SnnsegError, ArithmeticError):
    """A loss or gradient that is NaN or infinite; the update was not made."""

    exit_code = 7


class OutOfMemory(SnnsegError, MemoryError):
    """The device or the machine has too little memory for this setting."""

    exit_code = 8


class ClusterError(SnnsegError, ConnectionError):
    """A Ray cluster that does not answer, or lost what it was given."""

    exit_code = 9

    def __init__(self, address: str, fact: str, remedy: str):
        super().__init__(f"{address}: {fact}. {remedy}")


class JobFailed(SnnsegError, ChildProcessError):
    """A job on a cluster that ended with an error; its exit code, where there is one, is the job's."""

    exit_code = 9

    def __init__(self, job: str, code: int, fact: str, remedy: str):
        super().__init__(f"{job}: {fact}. {remedy}")
        self.exit_code = code


class TrackingError(SnnsegError, RuntimeError):
    """MLflow has nothing to show or cannot be used."""

    exit_code = 10


class Interrupted(SnnsegError, KeyboardInterrupt):
    """A signal asked the training to end; the step was finished and saved."""

    exit_code = 130
