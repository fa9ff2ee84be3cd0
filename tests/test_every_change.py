"""A command that is ended before any one of its changes of files, and given again, ends as an undisturbed one. By hand: python -m pytest -m slow -s tests/test_every_change.py"""
import json
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import forked
import pytest

SMALL = "--set data.mnist_cifar.train=32 --set data.mnist_cifar.test=8 --set data.workers=1".split()
TRAIN = ["train", "mnist_cifar/ann_deeplab", *SMALL[:4],
         *"--set train.epochs=2 --set train.checkpoint_every=1 --set train.keep=1 --set track.mlflow=false --set model.width=0.0625".split()]
PREPARE = ["prepare", "mnist_cifar", *SMALL]
VOC = ["prepare", "voc", *"--set data.size=32 --set data.voc.sample.train=6 --set data.voc.sample.test=2 --set data.workers=1".split()]
BEFORE = {"train": [PREPARE]}
COMMANDS = {"prepare": PREPARE, "voc": VOC, "train": TRAIN}
OF_TIME = re.compile("second|per_s|uid")        # names of numbers that differ from run to run


def bare(told: Any) -> Any:
    """Without what differs from run to run."""
    if isinstance(told, dict):
        return {name: bare(value) for name, value in told.items() if not OF_TIME.search(name)}
    return [bare(value) for value in told] if isinstance(told, list) else told


def content(path: Path) -> Any:
    if path.suffix == ".jsonl":
        return [bare(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".json":
        told = bare(json.loads(path.read_text()))
        return sorted(told["files"]) if path.name == "seal.json" and "store" not in path.parts else told     # state.json and about.json tell times
    return path.read_bytes()


def tree(folder: Path) -> dict[str, Any]:
    return {path.relative_to(folder).as_posix(): content(path) for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_ended_before_any_change(name, project, environment, tmp_path):
    def run(folder: Path, last: int | None, arguments: list[str]) -> subprocess.CompletedProcess:
        command = ["-m", "snnseg", *arguments] if last is None else ["-m", "tests.killed_at", str(last), *arguments]
        return forked.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, start_new_session=True)

    for arguments in BEFORE.get(name, []):
        assert run(project, None, arguments).returncode == 0
    calm = tmp_path / "calm"
    shutil.copytree(project, calm)
    done = run(calm, 0, COMMANDS[name])
    assert done.returncode == 0, done.stderr
    changes = [line for line in done.stdout.splitlines() if re.match(r"(open|os\.\w+) ", line)]
    expected = tree(calm)

    def faults(k: int) -> list[str]:
        folder = tmp_path / f"{k}"
        shutil.copytree(project, folder)
        killed, again = run(folder, k, COMMANDS[name]), run(folder, None, COMMANDS[name])
        found = tree(folder)
        shutil.rmtree(folder)
        where = f"before change {k}, {changes[k - 1]}: "
        if killed.returncode != -signal.SIGKILL or again.returncode:
            return [f"{where}ended {killed.returncode}, again {again.returncode}: {again.stderr[-300:]}"]
        return [f"{where}{path} differs" for path in sorted(expected.keys() | found.keys()) if expected.get(path) != found.get(path)]

    with ThreadPoolExecutor(2) as threads:
        told = [fault for some in threads.map(faults, range(1, len(changes) + 1)) for fault in some]
    print(f"{name}: {len(changes)} changes")
    assert len(changes) > 50 and not told, "\n".join(told)
