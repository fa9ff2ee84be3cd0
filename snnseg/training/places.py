"""How many workers of a training a Ray cluster has places for, and the wait for machines that are to come, or to come back."""
from __future__ import annotations

from collections.abc import Callable

from snnseg import ray_cluster
from snnseg.errors import ClusterError, ConfigError, Interrupted
from snnseg.ranks import Ranks
from snnseg.ray_cluster import Resources
from snnseg.sections import Config


def of(config: Config, has: Resources) -> tuple[str, int]:
    """What a worker takes one of, GPU or CPU, and how many of these there are."""
    gpus = config.cluster.gpus_per_worker
    name = "GPU" if (has.get("GPU", 0) if gpus is None else gpus) else "CPU"
    return name, int(has.get(name, 0))


def _bears(samples: int, batch: int, workers: int) -> bool:
    """Whether each worker has a picture of each batch."""
    try:
        Ranks(0, workers).check(samples, batch)
    except ConfigError:
        return False
    return True


def found(config: Config, samples: int, address: str, stop: Callable[[], bool], say: Callable[[str], None], lost: bool = False) -> tuple[int, bool]:
    """How many workers to begin with, and whether each has a GPU.

    `train.workers` if it is a number, else as many as there are places for. Where there are fewer, waits `cluster.wait_s` for machines, and
    asks the cluster's autoscaler for them. A training that `lost` a worker then goes on with as many as there are places for, if its numbers are
    the same for any number of workers. Raises ClusterError where there are fewer places, ConfigError as `Ranks.check`, Interrupted on `stop`.
    """
    fixed = None if config.train.workers == "auto" else config.train.workers
    if fixed:
        Ranks(0, fixed).check(samples, config.train.batch)

    def missing(has: Resources) -> list[Resources]:
        name, places = of(config, has)
        return [] if places >= (fixed or 1) else [{name: 1}] * (fixed or 1)

    has = ray_cluster.waited(missing, config.cluster.wait_s, stop, say)
    if stop():
        raise Interrupted("interrupted while it waited for machines. The same command goes on")
    name, places = of(config, has)
    kind = f"{'GPU' if name == 'GPU' else 'processor'}{'s' * (places != 1)}"
    most = next((workers for workers in range(min(places, fixed or places), 0, -1) if _bears(samples, config.train.batch, workers)), 0)
    if most and (most == fixed or not fixed):
        return most, name == "GPU"
    if most and lost and config.same_on_any_number:
        say(f"the cluster is left with {places} {kind}, so {most} of {fixed} workers go on")
        return most, name == "GPU"
    waited = f" after {config.cluster.wait_s} s" if config.cluster.wait_s else ""
    remedy = f"Set train.workers to {places} or less, or add machines" if places else "Set cluster.gpus_per_worker=0, or add machines with GPUs" \
        if name == "GPU" else "Add machines"
    raise ClusterError(address, f"it has {places} {kind}{waited}, train.workers asks for {fixed or 'one'}", f"{remedy}, or wait for them: cluster.wait_s")
