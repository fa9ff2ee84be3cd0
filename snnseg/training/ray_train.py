"""The training loop on several processes of a Ray cluster: `loop.fit` on each, started, watched and started again by Ray Train.

The machines see the same files. The first rank writes metrics.jsonl and checkpoints, as in place; this process follows the journal for
the console and MLflow. Checkpoints of ours are the truth, so each attempt has a name of its own and Ray keeps nothing to resume from.
"""
from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import torch

from snnseg import memory, provenance, ranks, ray_cluster
from snnseg.errors import ClusterError, Interrupted, StoreAltered
from snnseg.models import zoo
from snnseg.sections import Config
from snnseg.training import checkpoint, loop, optim, places
from snnseg.training.attempt import Attempt
from snnseg.training.report import Journal, Reporter, Reporters

POLL_S = 0.2
WRITER_S = 60.0         # for the first rank of an attempt before to be gone
NOTICE_S = 10.0         # for workers that may be about to begin to notice a stop


def _end_with(pid: int, host: str) -> None:
    """In a worker: end when the process that started the training is gone, as far as this machine can see it."""
    def watch() -> None:
        while True:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                os._exit(1)
            time.sleep(0.5)

    if socket.gethostname() == host:
        threading.Thread(target=watch, daemon=True).start()


def _work(told: dict[str, Any]) -> None:
    """What each worker does. Its error, if any, is on the disk before Ray ends the others."""
    from ray.train import get_context
    from ray.train.torch import get_device

    config, folder, attempt = told["config"], told["folder"], Attempt(told["folder"])
    rank = get_context().get_world_rank()
    _end_with(*told["starter"])
    try:
        device = get_device()
        if device.type == "cuda":
            torch.cuda.set_device(device)
        mine = ranks.here()
        memory.set_up(config.train)
        attempt.joined(rank, device=provenance.device_name(device.type), way=zoo.way(config, device) if config.spiking else None)
        with filelock.FileLock(folder.with_name(f".{folder.name}.writer.lock"), timeout=WRITER_S) if mine.first else contextlib.nullcontext():
            data = told["load"](config)
            if data.digest != told["digest"]:
                raise StoreAltered(config.store, "not the one that this training began with", "Run the same command again")
            report = Reporters([told["journal"](folder / "metrics.jsonl"), attempt, *told["reporters"]])
            with memory.shortage_named(config, "train.batch", config.train.batch):
                _, state = loop.fit(config, data, folder, report, attempt.asked_to_stop, device, told["fingerprint"], mine)
            if mine.first:
                attempt.done(seconds=state.seconds, step=state.step)
    except Exception as e:
        attempt.failed(rank, e)
        raise


class _Follower:
    """The journal and the checkpoints of a run, as another process writes them, told to reporters once each."""

    def __init__(self, run: Path, report: Reporter):
        self.run, self.report = run, report
        self.last, self.at, self.inode, self.checkpoint, self.begun = -1, 0, None, -1, False

    def look(self, attempt: Attempt) -> None:
        """Tell what is new."""
        if not self.begun:
            if (told := attempt.read("begun.json")) is None:
                return
            self.begun, self.last = True, max(self.last, told["step"])
            self.report.begin(**told)
        for line in self._lines():
            step = line.pop("step")
            if step > self.last:        # those that come again after a restart were told
                self.last = step
                self.report.numbers(step, line)
        if (steps := checkpoint.all_steps(self.run)) and steps[-1] > self.checkpoint:
            self.checkpoint = steps[-1]
            self.report.saved(steps[-1], checkpoint.folder_of(self.run, steps[-1]))

    def _lines(self) -> Iterator[dict[str, Any]]:
        try:
            with open(self.run / "metrics.jsonl", encoding="utf-8") as file:
                if os.fstat(file.fileno()).st_ino != self.inode:        # begun anew
                    self.inode, self.at = os.fstat(file.fileno()).st_ino, 0
                file.seek(self.at)
                while (text := file.readline()).endswith("\n"):
                    self.at = file.tell()
                    yield json.loads(text)
        except FileNotFoundError:
            return


def _attempted(told: dict[str, Any], workers: int, on_gpus: bool, follower: _Follower, stop: Callable[[], bool]) -> BaseException | None:
    """One group of workers from its start to its end, and what Ray says of it; reporters are told meanwhile."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    attempt, ended = Attempt(told["folder"]), []
    trainer = TorchTrainer(
        _work, train_loop_config=told, torch_config=TorchConfig(backend=None if on_gpus else "gloo", timeout_s=ranks.TIMEOUT_S),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=on_gpus),
        run_config=RunConfig(name=uuid.uuid4().hex, storage_path=str(attempt.folder / "ray"),
                             failure_config=FailureConfig(max_failures=0, controller_failure_limit=0)))

    def run() -> None:
        try:
            trainer.fit()
        except Exception as e:      # raised below, or what a lost worker looks like from here
            ended.append(e)

    thread = threading.Thread(target=run, name="ray-train", daemon=True)        # beside the main thread, whose signals Ray would take
    thread.start()
    asked = 0.0
    while thread.is_alive():
        thread.join(POLL_S)
        follower.look(attempt)
        if stop() and not asked:
            attempt.ask_to_stop()
            asked = time.monotonic()
        if asked and time.monotonic() > asked + NOTICE_S and not attempt.begun():
            raise Interrupted("interrupted before a worker began. The same command goes on")
    follower.look(attempt)
    if ended and not isinstance(ended[0], ray.exceptions.RayError | ray.train.TrainingFailedError):
        raise ended[0]
    return ended[0] if ended else None


def _found_no_place(error: BaseException | None) -> bool:
    """Whether a group ended since Ray had waited long enough for its places (RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S)."""
    return type(getattr(error, "controller_failure", None)).__name__ == "WorkerGroupStartupTimeoutError"


def _judged(attempt: Attempt, workers: int, address: str) -> None:
    """Raise the first real error of a group that failed; nothing if a worker was lost."""
    failures = [failure for failure in attempt.failures() if not failure.echo]
    for failure in failures:
        if failure.error:
            raise failure.error
    if failures:
        first = failures[0]
        raise ClusterError(address, f"worker {first.rank + 1} of {workers} failed ({first.kind}: {first.message.strip().partition(chr(10))[0][:300]})",
                           f"Its traceback is in {attempt.folder / f'failed-{first.rank}.json'}")


def fit(config: Config, load: Callable[[Config], loop.Loaded], samples: int, digest: str, folder: Path, report: Reporter, stop: Callable[[], bool],
        fingerprint: str, reporters: list[Reporter], say: Callable[[str], None], journal: Callable[[Path], Reporter] = Journal) -> dict[str, Any]:
    """Train as `loop.fit` does, and return how it went: `seconds`, `step`, `device`, `workers`. The net is in the newest checkpoint of `folder`.

    Every worker calls `load`; the first one tells `reporters` and its `journal`, this process `report`. A lost worker ends its group,
    and the training goes on from the newest checkpoint, up to `cluster.max_failures` times. Raises what `loop.fit` raises, and ClusterError.
    """
    address, most = config.cluster.address or "local", config.cluster.max_failures
    attempt, follower, lost, waits = Attempt(folder), _Follower(folder, report), 0, False
    # Ray prints what happens to workers to stdout, which belongs to the command's result
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), ray_cluster.connected(address):
        while True:
            workers, on_gpus = places.found(config, samples, address, stop, say, bool(lost))
            attempt.clear()
            follower.begun = False
            told = {"config": config, "load": load, "digest": digest, "folder": folder, "fingerprint": fingerprint, "reporters": reporters,
                    "journal": journal, "starter": (os.getpid(), socket.gethostname())}
            error = _attempted(told, workers, on_gpus, follower, stop)
            if (done := attempt.read("done.json")) and error is None:
                return done | {"workers": workers, "device": (attempt.read("rank-0.json") or {}).get("device", "")}
            _judged(attempt, workers, address)
            last = (str(error).strip().splitlines() or ["no word of why"])[-1].strip()[:300] if error else "no word of why"
            if not attempt.begun():
                if _found_no_place(error):      # all are taken, or a machine is gone that the cluster did not miss yet
                    if not waits:
                        say(f"waiting until {workers} places are free on the cluster")
                    waits = True
                    continue
                raise ClusterError(address, f"no worker could begin ({last})", "All machines need the same files, and this package where Python finds it")
            newest, lost = (checkpoint.all_steps(folder) or [0])[-1], lost + 1
            if lost > most:
                raise ClusterError(address, f"workers were lost {lost} times, the last time after step {newest} ({last})",
                                   "The same command goes on from there")
            say(f"a worker was lost; the training goes on from step {newest} (restart {lost} of {most})")


def saved_net(config: Config, folder: Path, fingerprint: str) -> torch.nn.Module:
    """The net of the newest checkpoint, in main memory."""
    model = zoo.build(config.anywhere)
    checkpoint.restore(checkpoint.folder_of(folder, checkpoint.all_steps(folder)[-1]), model, optim.build(config.optim, model), fingerprint)
    return model
