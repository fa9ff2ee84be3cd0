"""Raw files to a sealed store, shard by shard on all cores.

A task is one shard; it depends on the config alone, so that the store is byte-identical for any number of processes.
"""
from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from snnseg import lock, seal
from snnseg.data import mnist_cifar, store
from snnseg.errors import DataError
from snnseg.sections import Config

# background black, then colours told apart by most eyes (Okabe and Ito, 2008), repeated lighter
PALETTE = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999", "#FFC95E", "#A6DCF7"]


@dataclass(frozen=True)
class Task:
    """One shard of one split."""

    config: Config
    folder: Path
    split: str
    start: int
    stop: int


class Progress(NamedTuple):
    done: int
    total: int


@functools.lru_cache(maxsize=2)
def _pool(source: str, raw: Path, split: str, seed: int) -> mnist_cifar.Pool:
    return mnist_cifar.pool(source, raw, split, seed)


def run_task(task: Task) -> int:
    """Make and write one shard; return the number of its pictures."""
    data = task.config.data
    pool = _pool(data.source, task.config.raw, task.split, data.seed)
    items = mnist_cifar.make(pool, data.mnist_cifar.classes, data.size, data.seed, task.split, task.start, task.stop)
    with seal.no_space_named(task.config.store):
        store.write(task.folder, task.split, task.start, items)
    return task.stop - task.start


def _about(config: Config, split: str) -> dict[str, Any]:
    classes = mnist_cifar.CLASSES[config.data.mnist_cifar.classes]
    return {"dataset": config.data.dataset, "protocol": config.protocol, "source": config.data.source, "split": split,
            "classes": list(classes), "palette": PALETTE[: len(classes)], "params": config.store_params}


def _results(tasks: list[Task], workers: int) -> Iterator[int]:
    if workers == 1:
        yield from map(run_task, tasks)
        return
    # spawn: forking a process that already runs zarr's threads is not safe
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            for future in as_completed([pool.submit(run_task, t) for t in tasks]):
                yield future.result()
        except BrokenProcessPool as e:
            raise DataError(tasks[0].folder, "a process that was writing a shard ended",
                            "Run the same command again; with little memory set data.workers=1") from e
        finally:
            pool.shutdown(cancel_futures=True)


def prepare(config: Config) -> Iterator[Progress]:
    """Make the store of `config` anew, yielding progress in pictures. Raises DataMissing, DataError, Busy, NoSpace."""
    counts = {"train": config.data.mnist_cifar.train, "test": config.data.mnist_cifar.test}
    size, total, done = config.data.size, sum(counts.values()), 0
    with lock.held(config.store, "preparing"), seal.publish(config.store) as folder:
        for split, count in counts.items():
            _pool(config.data.source, config.raw, split, config.data.seed)     # a bad raw file is named before any work
            store.create(folder, split, count, {"image": ((size, size, 3), "uint8"), "mask": ((size, size), "uint8"),
                                                "digit": ((), "int32"), "photo": ((), "int32")}, _about(config, split))
        tasks = [Task(config, folder, split, *span) for split, count in counts.items() for span in store.shards(count)]
        workers = min(config.data.workers or os.cpu_count() or 1, len(tasks))
        for made in _results(tasks, workers):
            done += made
            yield Progress(done, total)
