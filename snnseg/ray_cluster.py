"""The way to a Ray cluster: knock, connect, see what it has, wait for more, and let go of it. Ray is imported where it is used, and kept quiet."""
from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from snnseg.errors import ClusterError

Resources = dict[str, float]        # `CPU`, `GPU`, ...: of a cluster, or of what is to run on it

KNOCK_S = 5.0
LOOK_S = 1.0
CONNECT_S = 12.0            # for a cluster that was there before; one of our own may take longer to start
STORE_BYTES = 128 * 2**20   # of a cluster of our own for objects, of which there are few and small ones
REMEDY = "Start one with `ray start --head`, or set cluster.address=null"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_TRAIN_METRICS_ENABLED": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
         "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def knock(address: str) -> None:
    """See that somebody listens: where nobody does, Ray ends the whole process. Raises OSError, ValueError."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """What Ray's own core writes to stderr while it tries to connect is not for people; what comes of it is raised."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def connect(address: str) -> None:
    """Connect to the cluster at `address` (HOST:PORT, auto), or start one of this process alone (local). Raises ClusterError."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    own = {"include_dashboard": False, "object_store_memory": STORE_BYTES} if address == "local" else {}
    failed: list[BaseException] = []

    def join() -> None:
        try:
            ray.init(address, log_to_driver=False, logging_level="error", configure_logging=False, **own)
        except (OSError, ValueError, RuntimeError) as e:
            failed.append(e)

    try:
        knock(address)
        if own:
            join()
        else:       # what listens there may be no Ray, which Ray waits for
            thread = threading.Thread(target=join, daemon=True)
            with _silenced():
                thread.start()
                thread.join(CONNECT_S)
            if thread.is_alive():
                raise OSError(f"no answer within {CONNECT_S:.0f} s")
        if failed:
            raise failed[0]
    except (OSError, ValueError, RuntimeError) as e:
        first = str(e).strip().splitlines()[0][:200] if str(e).strip() else type(e).__name__
        raise ClusterError(address, f"no Ray cluster answers ({first})", REMEDY) from e


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """Be connected while the block runs; one that was found connected stays so. Raises ClusterError."""
    import ray

    before = ray.is_initialized()
    connect(address)
    try:
        yield
    finally:
        if not before:
            ray.shutdown()


def has() -> Resources:
    """What all machines of the connected cluster have together, in use or not."""
    import ray

    return ray.cluster_resources()


def _ask(bundles: list[Resources]) -> None:
    """Tell the cluster's autoscaler, if it has one, to bring machines for all of `bundles`; none takes that back."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=bundles)


def waited(missing: Callable[[Resources], list[Resources]], seconds: float, stop: Callable[[], bool], say: Callable[[str], None]) -> Resources:
    """What the cluster has once nothing is `missing`, or after `seconds`, or on `stop`.

    `missing` tells of what there is whether it is too little: then all that is needed, machine by machine, else nothing. An autoscaler is asked
    for that while this waits.
    """
    deadline, asked = time.monotonic() + seconds, None
    try:
        while True:
            there = has()
            needed = missing(there)
            if not needed or time.monotonic() >= deadline or stop():
                return there
            if needed != asked:
                asked = needed
                name = "GPU" if "GPU" in needed[0] else "CPU"
                say(f"the cluster has {there.get(name, 0):.0f} {name}s of {sum(one[name] for one in needed):.0f}; waiting {seconds:.0f} s at most for machines")
                _ask(needed)
            time.sleep(LOOK_S)
    finally:
        if asked:
            _ask([])
