"""Ray's Jobs API: hand a job over, follow its log, see how it ended. Every answer is waited for a limited time."""
from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from snnseg.cluster import address, job
from snnseg.cluster.job import Order, Told
from snnseg.errors import ClusterError, SnnsegError

CONNECT_S, ANSWER_S, TAKE_S = 5.0, 12.0, 60.0       # to be let in, to be answered, to have something taken
QUIET_S = 30.0          # a log that says nothing for so long: is the cluster still there?
TRIES, PAUSE_S = 5, 2.0     # to take up a log again whose connection broke
START = "Start one there with `ray start --head` (docs/cluster.md), or see that this machine reaches it"
TALKATIVE = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env.packaging",
             "ray._private.runtime_env.working_dir")


@contextlib.contextmanager
def _named(url: str, of: str | None = None, token: str | None = None) -> Iterator[None]:
    """What Ray and its transports raise, as the ClusterError of `url`, or of the job `of` that the cluster does not know."""
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError

    try:
        yield
    except SnnsegError:
        raise
    except AuthenticationError as e:
        if token is None:
            raise ClusterError(url, "it asks for a token, and none was found here", address.OFF_REMEDY) from e
        raise ClusterError(url, f"it does not take the token from {token}", "Copy the token of its head there: ray get-auth-token") from e
    except requests.exceptions.JSONDecodeError as e:
        raise ClusterError(url, "what answers there is no Ray dashboard", START) from e
    except (requests.exceptions.RequestException, aiohttp.ClientError, OSError) as e:
        raise ClusterError(url, f"no Ray dashboard answers ({type(e.__context__ or e).__name__})", START) from e
    except (RuntimeError, ValueError, KeyError) as e:
        first = next(iter(str(e).strip().splitlines()), type(e).__name__)[:300]
        if of and "status code 404" in first:
            raise ClusterError(of, f"{url} knows no job of this name", "List them: snnseg jobs") from e
        if "exceeds the maximum size" in str(e):
            raise ClusterError(url, "the project's folder is too large to travel", "Name what is no code in .rayignore; data belongs into data/") from e
        raise ClusterError(url, f"it could not be asked ({first})", START) from e


def _told(details: Any) -> Told:
    def seconds(milliseconds: int | None) -> float | None:
        return milliseconds / 1000 if milliseconds else None

    return Told(details.submission_id, str(getattr(details.status, "value", details.status)), (details.metadata or {}).get(job.COMMAND, details.entrypoint),
                seconds(details.start_time), seconds(details.end_time), details.driver_exit_code, details.message or "")


class Jobs:
    """The jobs of the cluster at `url`. Raises ClusterError where it does not answer, here as in every method."""

    def __init__(self, url: str):
        self.url = url
        self.token = address.permit(url)
        from ray.job_submission import JobSubmissionClient

        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)

        class Client(JobSubmissionClient):
            """Ray's own waits for an answer for ever."""

            def _do_request(self, method: str, *arguments: Any, **named: Any) -> Any:
                return super()._do_request(method, *arguments, **{"timeout": (CONNECT_S, ANSWER_S if method == "GET" else TAKE_S), **named})

        with _named(url, token=self.token):
            self.client = Client(url)
            mode = self.client._do_request("GET", "/api/authentication_mode")
            if mode.status_code == 200 and mode.json().get("authentication_mode") == "disabled":
                print(f"warning: {url}: this cluster asks for no token, so whoever reaches it runs what he likes. {address.OFF_REMEDY}.", file=sys.stderr)

    def _asked(self, of: str | None = None) -> contextlib.AbstractContextManager[None]:
        return _named(self.url, of, self.token)

    def submit(self, asked: Order) -> None:
        """Send the project's code, and have the job begin as soon as there is room."""
        with self._asked():
            self.client.submit_job(entrypoint=asked.entrypoint, submission_id=asked.job, runtime_env=job.runtime_env(asked),
                                   metadata={job.COMMAND: asked.command}, entrypoint_num_gpus=asked.gpus or None)

    def told(self, name: str) -> Told:
        with self._asked(name):
            return _told(self.client.get_job_info(name))

    def all(self) -> list[Told]:
        """All jobs that were submitted to the cluster since it began, the oldest first."""
        with self._asked():
            found = [_told(details) for details in self.client.list_jobs() if details.submission_id]
        return sorted(found, key=lambda told: told.began or float("inf"))

    def log(self, name: str) -> str:
        with self._asked(name):
            return self.client.get_job_logs(name)

    def follow(self, name: str, write: Callable[[str], Any]) -> Told:
        """Hand the job's log to `write`, piece by piece and each once, until the job has ended; then tell of it."""
        seen = 0

        async def tail() -> None:
            nonlocal seen
            position = 0        # of this connection: each begins with the log's first line
            pieces = self.client.tail_job_logs(name)
            while True:
                piece = asyncio.ensure_future(anext(pieces, None))
                while not (await asyncio.wait({piece}, timeout=QUIET_S))[0]:
                    self.told(name)         # raises where the cluster is gone: its machine may have no time to say so
                if piece.result() is None:
                    return
                write(piece.result()[max(0, seen - position):])
                position += len(piece.result())
                seen = max(seen, position)

        self.told(name)
        left = TRIES
        while True:
            before = seen
            try:
                with self._asked(name):
                    asyncio.run(tail())
                    if (now := self.told(name)).over:
                        return now
            except ClusterError:
                left = TRIES if seen > before else left - 1
                if left <= 0:
                    raise
            time.sleep(PAUSE_S)

    def stop(self, name: str) -> Told:
        """Ask the job to end and wait until it has, as long as it may take to save. One that has not begun ends when it has a machine."""
        with self._asked(name):
            self.client.stop_job(name)
        until = time.monotonic() + job.STOP_WAIT_S + 15
        while not (now := self.told(name)).over and now.status != "PENDING" and time.monotonic() < until:
            time.sleep(0.5)
        return now
