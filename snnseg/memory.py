"""Memory that runs out, as one line that names what to lower."""
from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from snnseg.errors import OutOfMemory, SnnsegError
from snnseg.sections import Config


@contextlib.contextmanager
def shortage_named(config: Config, knob: str, batch: int) -> Iterator[None]:
    """Turn an allocation that failed on the device or the machine into OutOfMemory; `knob` is the setting to lower."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as e:       # torch.OutOfMemoryError is a RuntimeError
        short = (type(e).__name__ == "OutOfMemoryError" or isinstance(e, MemoryError) or "can't allocate memory" in str(e)
                 or getattr(e, "errno", None) == errno.ENOMEM)
        if isinstance(e, SnnsegError) or not short:
            raise
        raise OutOfMemory(f"out of memory with {knob} {batch}, {config.timesteps} time steps, data.size {config.data.size}, "
                          f"model.width {config.model.width}. Lower {knob} first.") from e
