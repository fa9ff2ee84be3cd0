"""Memory that this process has and keeps for the next step, and memory that runs out, as one line that names what to lower."""
from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from snnseg.errors import OutOfMemory, SnnsegError
from snnseg.sections import Config, Train

LARGE = 2**22           # bytes of a tensor that goes back to the system at once, where memory is short


def set_up(train: Train) -> None:
    """Have this process treat freed memory as a training asks for."""
    (give_back if train.gives_back else keep_freed)()


def keep_freed() -> None:
    """Let this process keep the main memory it frees.

    Otherwise each large tensor comes from the system page by page and goes back at once: at T = 20 a fifth of a training step. What is
    kept lies in pieces that the next tensor may not fit: the peak is half as large again as what is in use.
    """
    _allocating(trim_threshold=-1, mapped_at_most=0)


def give_back() -> None:
    """Let each large tensor have memory of its own, which goes back to the system with it: the least peak. It comes in huge pages where Linux has them:
    page by page, the system's zeroing made a step half as long again.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")      # read by torch at its first tensor
    _allocating(trim_threshold=LARGE, mapped_from=LARGE, mapped_at_most=2**16)


def _allocating(**asked: int) -> None:
    """Set malloc up so; where the C library is not GNU's, nothing happens."""
    numbers = {"trim_threshold": -1, "mapped_from": -3, "mapped_at_most": -4}
    with contextlib.suppress(OSError, AttributeError):
        c = ctypes.CDLL(None)
        c.gnu_get_libc_version()        # absent elsewhere, where these numbers mean other things or nothing
        for name, value in asked.items():
            c.mallopt(numbers[name], value)


def resident() -> int:
    """Bytes of main memory that this process has now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@contextlib.contextmanager
def shortage_named(config: Config, knob: str, batch: int, predicted: Callable[[], object] = lambda: "") -> Iterator[None]:
    """Turn an allocation that failed on the device or the machine into OutOfMemory; `knob` is the setting to lower.

    `predicted` is asked only then how much would have been needed.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as e:       # torch.OutOfMemoryError is a RuntimeError
        short = (type(e).__name__ == "OutOfMemoryError" or isinstance(e, MemoryError) or "can't allocate memory" in str(e)
                 or getattr(e, "errno", None) == errno.ENOMEM)
        if isinstance(e, SnnsegError) or not short:
            raise
        raise OutOfMemory(f"out of memory with {knob} {batch}, {config.timesteps} time steps, data.size {config.data.size}, "
                          f"model.width {config.model.width}{_told(predicted)}. Lower {knob} first.") from e


def _told(predicted: Callable[[], object]) -> str:
    try:
        return f": {text}" if (text := str(predicted())) else ""
    except (MemoryError, RuntimeError):     # there was too little left to find out
        return ""
