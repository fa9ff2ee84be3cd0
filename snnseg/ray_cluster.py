"""The way to a Ray cluster: knock, connect, see what it has, and let go of it. Ray is imported where it is used, and kept quiet."""
from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

from snnseg.errors import ClusterError

KNOCK_S = 5.0
CONNECT_S = 12.0            # for a cluster that was there before; one of our own may take longer to start
STORE_BYTES = 128 * 2**20   # of a cluster of our own for objects, of which there are few and small ones
REMEDY = "Start one with `ray start --head`, or set cluster.address=null"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0", "RAY_TRAIN_METRICS_ENABLED": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
         "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


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
def connected(address: str) -> Iterator[dict[str, Any]]:
    """Be connected while the block runs, with what the cluster has (`CPU`, `GPU`, ...); one that was found connected stays so. Raises ClusterError."""
    import ray

    before = ray.is_initialized()
    connect(address)
    try:
        yield ray.cluster_resources()
    finally:
        if not before:
            ray.shutdown()
