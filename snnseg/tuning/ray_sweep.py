"""The trials of a sweep on Ray Tune: which one is next, when one is stopped, how many at a time.

Ray is given a searcher that asks the sweep for the next trial, and ASHA, whose rungs are filled from the ledger first: a
sweep that goes on decides as if it had never stopped. Ray's own files are of no use afterwards and are removed.
"""
from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from snnseg import ray_cluster
from snnseg.errors import ClusterError, SnnsegError
from snnseg.ray_cluster import Resources
from snnseg.sections import Config
from snnseg.training import places
from snnseg.tuning import ledger
from snnseg.tuning.ledger import Trial
from snnseg.tuning.trial import several

QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_CHDIR_TO_TRIAL_DIR": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0",
         "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1", "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
         "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0", "RAY_TUNE_DISABLE_STORAGE_WARNING": "1"}


class Sweep(Protocol):
    """What Ray's side needs of a sweep. Trials are named by their number."""

    config: Config
    folder: Path

    def next(self) -> Trial | None: ...

    def job(self, trial: Trial) -> dict[str, Any]: ...

    def heard(self, number: int, epoch: int, miou: float) -> None: ...

    def again(self, number: int) -> bool: ...

    def settle(self, number: int, outcome: dict[str, Any]) -> None: ...


@contextlib.contextmanager
def _set(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """A Ray to run on: the one that is connected, the one at `address`, or one of this machine alone.

    A local one listens for its own token only, which it gets from the environment: none is written to the home directory.
    Raises ClusterError.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "token")
    own = address is None and mode == "token" and not os.environ.get("RAY_AUTH_TOKEN")
    with _set(QUIET | ({"RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": secrets.token_hex(32)} if own else {})):
        import ray

        before = ray.is_initialized()
        handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            if address:
                ray_cluster.connect(address)
            elif not before:
                ray.init("local", num_cpus=os.cpu_count(), include_dashboard=False, log_to_driver=False, logging_level="error", configure_logging=False,
                         object_store_memory=ray_cluster.STORE_BYTES)
            with contextlib.suppress(ValueError):       # not in the main thread; Ray takes SIGTERM for itself
                for s, handler in handlers.items():
                    signal.signal(s, handler)
            yield
        finally:
            if not before:
                ray.shutdown()


def share(config: Config, say: Callable[[str], None]) -> tuple[Resources, int]:
    """What Ray reserves for a trial's process, and how many trials run at a time; waits `cluster.wait_s` for the first machine.

    Where several workers train each net, Ray Train reserves what these need, and the process that starts them runs beside the head, for next to nothing.
    Raises ClusterError where not even one trial fits.
    """
    t, workers = config.tune, several(config)

    def bundles(has: Resources) -> list[Resources]:
        """What a trial needs, each on one machine."""
        if workers:
            return [{places.of(config, has)[0]: 1}] * config.train.workers
        return [{"CPU": t.cpus_per_trial} | ({"GPU": t.gpus_per_trial} if has.get("GPU") else {})]

    def needs(has: Resources) -> Resources:
        return {name: sum(one[name] for one in bundles(has)) for name in bundles(has)[0]}

    def fit(has: Resources) -> int:
        return int(min(has.get(name, 0) / n for name, n in needs(has).items()))

    has = ray_cluster.waited(lambda has: [] if fit(has) else bundles(has), config.cluster.wait_s, lambda: False, say)
    if not fit(has):
        told = " and ".join(f"{n} {name}" for name, n in needs(has).items())
        raise ClusterError(config.cluster.address or "local", f"a trial needs {told}, there are {has.get('CPU', 0):.0f} CPU and {has.get('GPU', 0):.0f} GPU",
                           f"Lower {'train.workers' if workers else 'tune.cpus_per_trial or tune.gpus_per_trial'}, or wait for machines: cluster.wait_s")
    at_a_time = t.concurrency or fit(has)
    if not config.cluster.wait_s:       # else trials that wait for a place are what brings machines
        at_a_time = min(fit(has), at_a_time)
    return {"node:__internal_head__": 0.001} if workers else needs(has), at_a_time


def halving(config: Config, trials: list[Trial]) -> Any:
    """ASHA on mIoU with what the ledger knows in its rungs; None where there is nothing to halve.

    A trial is not stopped after its last epoch, and none is where energy counts too: a net of few spikes and less mIoU may be on the front.
    """
    t = config.tune
    if len(t.objectives) > 1 or t.grace >= t.epochs:
        return None
    from ray.tune.schedulers import ASHAScheduler

    asha = ASHAScheduler(time_attr="epoch", metric="miou", mode="max", max_t=t.epochs - 1, grace_period=t.grace, reduction_factor=t.reduction,
                         stop_last_trials=False)
    for trial in trials:
        before = SimpleNamespace(trial_id=f"before-{trial.number}")
        asha.on_trial_add(None, before)
        for epoch, miou in trial.curve:
            asha.on_trial_result(None, before, {"epoch": epoch, "miou": miou})
    return asha


def run(sweep: Sweep, trials: list[Trial], worker: type | None = None) -> None:
    """Run trials until `sweep.next` has none left. Raises ClusterError, NoSpace, and what a trial met that is no fault of its
    numbers, as a store that was altered; that trial stays open. An interrupt ends it, and what is saved stays.

    `worker` is the trainable, `ray_trial.Worker` if not given.
    """
    scratch = sweep.folder / ".ray"
    shutil.rmtree(scratch, ignore_errors=True)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), cluster(sweep.config.cluster.address):      # Ray tells there who died
        from ray import tune
        from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig, TuneConfig, Tuner
        from ray.tune.search import Searcher

        from snnseg.tuning.ray_trial import Worker

        needs, at_a_time = share(sweep.config, lambda text: print(f"{sweep.config.name}: {text}", file=sys.stderr))
        live: set[int] = set()
        trouble: list[SnnsegError] = []     # of the sweep itself, as a full disk: Ray would take it for the trial's

        def settle(number: int, outcome: dict[str, Any]) -> None:
            live.discard(number)
            try:
                sweep.settle(number, outcome)
            except SnnsegError as e:
                trouble.append(e)

        class Asking(Searcher):
            """Asks the sweep for a trial when there is room for one."""

            def suggest(self, trial_id: str) -> Any:
                if len(live) >= at_a_time:
                    return None
                try:
                    trial = None if trouble else sweep.next()
                except SnnsegError as e:
                    trouble.append(e)
                    trial = None
                if trial is None:       # one of those that run may have to be given again
                    return None if live and not trouble else Searcher.FINISHED
                live.add(trial.number)
                return sweep.job(trial)

            def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
                pass

            def save(self, checkpoint_path: str) -> None:
                Path(checkpoint_path).touch()       # the ledger has it

            def __reduce__(self) -> tuple:
                return Searcher, ()

        class Telling(Callback):
            """Tells the sweep what became of its trials."""

            def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any) -> None:
                if result.get("miou") is not None and "outcome" not in result:
                    sweep.heard(result["number"], result["epoch"], result["miou"])

            def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
                if told := trial.last_result.get("trouble"):
                    live.discard(trial.config["number"])
                    trouble.append(_error(*told))
                else:
                    settle(trial.config["number"], trial.last_result.get("outcome") or {"state": ledger.STOPPED})

            def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
                why = _why(trial.error_file)
                if _lost_machine(trial.error_file) and sweep.again(trial.config["number"]):
                    live.discard(trial.config["number"])
                    return
                settle(trial.config["number"], {"state": ledger.OUT_OF_MEMORY if "OutOfMemoryError" in why else ledger.CRASHED, "why": why})

            def __reduce__(self) -> tuple:
                return Callback, ()

        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)       # the ledger tells what became of each trial
        try:
            Tuner(tune.with_resources(worker or Worker, tune.PlacementGroupFactory([needs])),
                  tune_config=TuneConfig(search_alg=Asking(), scheduler=halving(sweep.config, trials), num_samples=-1, reuse_actors=True,
                                         trial_name_creator=lambda t: t.trial_id, trial_dirname_creator=lambda t: t.trial_id),
                  run_config=RunConfig(name=".ray", storage_path=str(sweep.folder), callbacks=[Telling()], verbose=0,
                                       checkpoint_config=CheckpointConfig(checkpoint_at_end=False), failure_config=FailureConfig(max_failures=0))).fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if trouble:
            raise trouble[0]


def _error(message: str, exit_code: int) -> SnnsegError:
    error = SnnsegError(message)
    error.exit_code = exit_code
    return error


def _lost_machine(error_file: str | None) -> bool:
    """Whether not a trial's process ended but its machine: at first it does not answer, then the cluster knows that it is gone."""
    told = Path(error_file).read_text(encoding="utf-8") if error_file else ""
    return any(sign in told for sign in ("The actor is temporarily unavailable", "its node has died", "node was preempted"))


def _why(error_file: str | None) -> str:
    """What Ray wrote of a trial whose process ended, in one line and without its guesses."""
    lines = [line.strip() for line in (Path(error_file).read_text(encoding="utf-8") if error_file else "").splitlines() if line.strip()]
    named = [line for line in lines if line.startswith(("ray.exceptions.", "ray.tune.error."))]
    return (named or lines[-1:] or ["its process ended"])[0].partition(" Some common causes")[0][:300]
