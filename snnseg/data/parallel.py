"""A function over many arguments: in this process, on all cores, or on a Ray cluster."""
from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from snnseg.errors import DataError
from snnseg.sections import Config


def _end_with(parent: int) -> None:
    """In a worker: end when the process that asked for it is gone, so that nothing is written behind the back of the next one."""
    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def results(function: Callable[[Any], Any], arguments: Sequence[Any], config: Config) -> Iterator[Any]:
    """What `function` returns for each of the arguments, in the order they are done.

    Uses `data.workers` processes (0 = one a core), or the cluster of `cluster.address`. The first error ends all of it.
    Raises what `function` raises, DataError when a process dies, ClusterError.
    """
    if config.cluster.address is not None:
        from snnseg.data import ray_tasks

        yield from ray_tasks.results(function, arguments, config.cluster.address)
        return
    workers = min(config.data.workers or os.cpu_count() or 1, len(arguments))
    # one worker is a thread: an interrupt then waits for the shard's end. Processes are spawned, since forking one that
    # already runs zarr's threads is not safe
    with ThreadPoolExecutor(1) if workers <= 1 else ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), _end_with, (os.getpid(),)) as pool:
        try:
            for future in as_completed([pool.submit(function, argument) for argument in arguments]):
                yield future.result()
        except BrokenProcessPool as e:
            raise DataError(config.store, "a process that was writing a shard ended",
                            "Run the same command again; with little memory set data.workers=1") from e
        finally:
            pool.shutdown(cancel_futures=True)
