"""A store whose making is ended at any moment: the same command goes on with what is missing, to the same bytes."""
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
from test_prepare import DDD17, load, sets

from snnseg import seal
from snnseg.data.prepare import prepare

FEW = {"mnist_cifar": ["data.mnist_cifar.train=1100", "data.mnist_cifar.test=20"],        # three shards
       "ddd17": ["data.size=32", "data.ddd17.sample.train=6", "data.ddd17.sample.test=4"]}      # two
MANY = ["data.mnist_cifar.train=2100", "data.mnist_cifar.test=20"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> str:
    """The seal of the small VOC store."""
    c = load(tmp_path_factory.mktemp("undisturbed"), "voc", "data.workers=1")
    prepare(c)
    return seal.verify(c.store, "")


@pytest.mark.parametrize(("benchmark", "overrides", "workers", "kills"), [
    ("mnist_cifar", FEW["mnist_cifar"], 1, 3), ("ddd17", FEW["ddd17"], 2, 2), pytest.param("mnist_cifar", MANY, 1, 5, marks=pytest.mark.slow),
    pytest.param("mnist_cifar", MANY, 2, 5, marks=pytest.mark.slow), pytest.param("ddd17", DDD17, 2, 5, marks=pytest.mark.slow)])
def test_kill_at_random_moments(benchmark, overrides, workers, kills, tmp_path, environment):
    """Some times kill -9, every other one once one more shard is there, then to the end: the bytes of an undisturbed store of one process, and no
    finished shard made again."""
    calm = load(tmp_path / "calm", benchmark, *overrides, "data.workers=1")
    prepare(calm)
    forked.server()
    numbers = [*overrides, f"data.workers={workers}"]
    command = [sys.executable, "-m", "snnseg", "prepare", benchmark, *sets(numbers)]
    c = load(tmp_path / "killed", benchmark, *numbers)
    work = c.store.with_name(f".work-{c.store.name}")
    moments, finished, interrupted, length = random.Random(4), {}, 0, 0.0
    for k in range(kills):
        start = time.monotonic()
        process = forked.Popen(command, cwd=tmp_path / "killed", env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   start_new_session=True)
        if k % 2:
            time.sleep(moments.uniform(0.1, 0.9) * length)
        else:
            while process.poll() is None and len(list(work.glob("done/*"))) <= len(finished):
                time.sleep(0.002)
            length = length or time.monotonic() - start      # about as long as to the next shard
        with contextlib.suppress(ProcessLookupError):       # the last ones have little left to do
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = {p: p.stat().st_mtime_ns for p in work.glob("done/*")} if work.exists() else {}
        assert all(now[p] == when for p, when in finished.items() if p in now), "a finished shard was made again"
        finished, interrupted = now, interrupted + bool(now)
        assert not any(p.is_dir() and not p.name.startswith(".") for p in c.store.parent.glob("*")) or seal.is_sealed(c.store)
    assert interrupted, "a part was done when it was ended"
    prepare(c)
    assert seal.verify(c.store, "") == seal.verify(calm.store, "")
    assert not work.exists()


@pytest.mark.parametrize("what", ["c/0/0/0", "zarr.json"], ids=["a shard", "attributes"])
def test_ended_between_a_file_and_its_name(what, undisturbed, tmp_path, monkeypatch):
    """zarr writes beside and renames: killed between the two, it leaves a file that must not be sealed with the rest."""
    c = load(tmp_path, "voc", "data.workers=1")
    rename, work = Path.replace, c.store.with_name(f".work-{c.store.name}")

    class Killed(BaseException):
        """Nothing of the library expects it, as nothing expects SIGKILL."""

    def ended(path, target):
        if str(target).endswith(what) and (work / "layout.json").exists():
            raise Killed
        return rename(path, target)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", ended)
        prepare(c)
    assert list(work.glob("*.zarr/**/*.partial"))
    prepare(c)
    assert seal.verify(c.store, "") == undisturbed


def test_ended_while_it_is_sealed(undisturbed, tmp_path, monkeypatch):
    """The shards are already in the folder that is sealed: what is left of them is made again, not missed."""
    c = load(tmp_path, "voc", "data.workers=1")

    def ended(folder):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(seal, "seal", ended)
        prepare(c)
    assert not c.store.exists()
    prepare(c)
    assert seal.verify(c.store, "") == undisturbed


def test_workers_end_with_their_parent(tmp_path, environment):
    """kill -9 of the command alone: a moment later nobody writes in its folder any more."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("no /proc")
    load(tmp_path, "mnist_cifar")
    mark = f"HOME={tmp_path}"       # in the environment of the workers
    command = [sys.executable, "-m", "snnseg", "prepare", "mnist_cifar", "--set", "data.mnist_cifar.train=300000", "--set", "data.workers=2"]
    process = forked.Popen(command, cwd=tmp_path, env=environment | dict([mark.split("=")]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not list((tmp_path / "data").glob("store/.work-*/done/*")) and time.monotonic() < until:
        time.sleep(0.1)

    def alive() -> list[str]:
        found = []
        for told in Path("/proc").glob("[0-9]*/environ"):
            try:
                found += [told.parent.name] if mark.encode() in told.read_bytes() else []
            except OSError:
                pass
        return found
    assert len(alive()) >= 2
    process.kill()
    process.wait()
    until = time.monotonic() + 20
    while alive() and time.monotonic() < until:
        time.sleep(0.2)
    assert alive() == []
