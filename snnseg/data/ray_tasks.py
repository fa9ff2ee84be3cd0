"""The tasks of `parallel` on a Ray cluster whose machines see the same files."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from snnseg import ray_cluster
from snnseg.errors import ClusterError, SnnsegError

RETRIES = 3     # of a task whose machine was lost; a task that raises is not tried again


def results(function: Callable[[Any], Any], arguments: Sequence[Any], address: str) -> Iterator[Any]:
    """What `function` returns for each of the arguments, in the order they are done, one core each.

    Stays connected to a cluster that it found connected. Raises ClusterError, and what `function` raises.
    """
    import ray

    before = ray.is_initialized()
    ray_cluster.connect(address)
    waiting: list[Any] = []
    try:
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(function)
        waiting = [task.remote(argument) for argument in arguments]
        while waiting:
            (ready,), waiting = ray.wait(waiting, num_returns=1)
            yield ray.get(ready)
    except ray.exceptions.RayTaskError as e:
        if isinstance(e.cause, SnnsegError):
            raise e.cause from None
        raise
    except ray.exceptions.RayError as e:
        raise ClusterError(address, f"a task was lost ({str(e).strip().splitlines()[0][:200]})", "Run the same command again: what is finished is kept") from e
    finally:
        for left in waiting:
            ray.cancel(left, force=True)
        if not before:
            ray.shutdown()
