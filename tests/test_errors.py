"""What can go wrong for a user ends with one line and its exit code; what nobody foresaw keeps its traceback."""
import builtins
import errno
import inspect
import os
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from snnseg import errors, stage

CODES = {"UsageError": 2, "ConfigError": 3, "CheckpointMismatch": 3, "DataError": 4, "DataMissing": 4, "UnsafeArchive": 4, "StoreError": 5,
         "StoreMissing": 5, "StoreAltered": 5, "Busy": 5, "Unusable": 5, "NoSpace": 6, "NotFinite": 7, "OutOfMemory": 8,
         "ClusterError": 9, "JobFailed": 9, "TrackingError": 10, "Interrupted": 130}
BUILTINS = {"UsageError": ValueError, "ConfigError": ValueError, "CheckpointMismatch": ValueError, "DataError": ValueError,
            "DataMissing": FileNotFoundError, "UnsafeArchive": ValueError, "StoreError": OSError, "StoreMissing": FileNotFoundError,
            "StoreAltered": OSError, "Busy": OSError, "Unusable": PermissionError, "NoSpace": OSError, "NotFinite": ArithmeticError, "OutOfMemory": MemoryError,
            "ClusterError": ConnectionError, "JobFailed": ChildProcessError, "TrackingError": RuntimeError, "Interrupted": KeyboardInterrupt}
KINDS = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, errors.SnnsegError) and name != "SnnsegError"}


def example(kind: type[errors.SnnsegError]) -> errors.SnnsegError:
    """An error of this class, its words told from one another."""
    from pathlib import Path
    given = {"checkpoint": Path("run/step-1"), "found": "f" * 64, "expected": "e" * 64, "file": "a file", "address": "an address", "store": "a store", "place": "a place",
             "fact": "a fact", "remedy": "A remedy.", "free": 2**20, "message": "a message", "job": "a job", "code": 9}
    return kind(*[given[name] for name in inspect.signature(kind).parameters])


def raising(kind_name: str) -> None:
    raise example(KINDS[kind_name])


def test_the_table_is_complete_and_documented():
    assert {name: kind.exit_code for name, kind in KINDS.items()} == CODES
    told = errors.__doc__
    documented = {2: "usage", 3: "config", 4: "data", 5: "store or checkpoint", 6: "no space", 7: "not finite", 8: "out of memory",
                  9: "cluster", 10: "tracking", 130: "interrupted"}
    assert all(f"{code} {what}" in told for code, what in documented.items())
    assert set(CODES.values()) <= documented.keys()


@pytest.mark.parametrize("name", CODES)
def test_every_error_is_also_a_builtin(name):
    assert issubclass(KINDS[name], BUILTINS[name]) and getattr(builtins, BUILTINS[name].__name__) is BUILTINS[name]


@pytest.mark.parametrize("name", CODES)
def test_the_door_prints_one_line_and_ends_with_the_code(name, capsys):
    with pytest.raises(SystemExit) as ended:
        stage.run(raising, name)
    out, err = capsys.readouterr()
    assert ended.value.code == CODES[name] and out == ""
    assert err == f"snnseg: {example(KINDS[name])}\n" and err.count("\n") == 1 and len(err) > 15
    assert ended.value.__suppress_context__, "a traceback would be shown"


@pytest.mark.parametrize("name", CODES)
def test_an_error_comes_back_from_another_process_as_it_was(name):
    before = example(KINDS[name])
    after = pickle.loads(pickle.dumps(before))
    assert type(after) is type(before) and str(after) == str(before) and after.exit_code == before.exit_code


@pytest.mark.parametrize("name", ["StoreAltered", "NoSpace"])
def test_a_worker_process_hands_its_error_over(name):
    """Not the BrokenProcessPool that an error which cannot be unpickled leads to."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, pytest.raises(KINDS[name], match="a (store: a fact|place: no space)"):
        pool.submit(raising, name).result(timeout=120)


@pytest.mark.parametrize("kind", [errors.ConfigError, errors.UsageError, errors.TrackingError])
def test_line_breaks_and_escape_codes_are_shown_not_obeyed(kind):
    assert str(kind("a\nb\r\x1b[31m\0\u2028ü 🎉 \\")) == "a\\nb\\r\\x1b[31m\\x00\\u2028ü 🎉 \\"
    assert "\n" not in str(errors.StoreAltered("a\nstore", "f\n", "r\n")) and "\n" not in str(errors.DataMissing("a\nfile", "r"))


def test_a_failed_job_has_the_exit_code_of_the_job():
    failed = pickle.loads(pickle.dumps(errors.JobFailed("train-1", 5, "exit code 5", "See the log")))
    assert failed.exit_code == 5 and errors.JobFailed.exit_code == 9 and str(failed) == "train-1: exit code 5. See the log"


def test_messages_have_fact_place_and_remedy():
    assert str(errors.DataError("data/raw/x", "is cut off", "Load it again.")) == "data/raw/x: is cut off. Load it again."
    assert str(errors.StoreMissing("data/store/x", "not found", "Run dvc repro")) == "data/store/x: not found. Run dvc repro"
    assert str(errors.NoSpace("x", 3 * 2**20)) == "x: no space left to write (3.0 MiB free). Free some space and run the same command again."


def test_a_plain_interrupt_is_130(capsys):
    def main():
        raise KeyboardInterrupt
    with pytest.raises(SystemExit) as ended:
        stage.run(main)
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith("snnseg: interrupted.")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_6_and_tells_what_is_free(number, capsys):
    def main():
        raise OSError(number, os.strerror(number))
    with pytest.raises(SystemExit) as ended:
        stage.run(main)
    err = capsys.readouterr().err
    assert ended.value.code == 6 and "no space left to write" in err and "MiB free" in err and err.count("\n") == 1


def test_a_place_that_cannot_be_written_is_5_and_named(tmp_path, capsys):
    (tmp_path / "data").write_text("a file where a folder should be")
    with pytest.raises(SystemExit) as ended:
        stage.run((tmp_path / "data" / "store").mkdir)
    err = capsys.readouterr().err
    assert ended.value.code == 5 and f"{tmp_path / 'data' / 'store'}: Not a directory" in err and err.count("\n") == 1


@pytest.mark.parametrize("unexpected", [RuntimeError("a bug"), OSError(errno.EIO, "broken"), KeyError("x"), AssertionError()])
def test_what_nobody_foresaw_is_not_swallowed(unexpected, capsys):
    def main():
        raise unexpected
    with pytest.raises(type(unexpected)) as caught:
        stage.run(main)
    assert caught.value is unexpected and capsys.readouterr().err == ""


def test_what_nobody_foresaw_shows_its_traceback_to_the_user():
    done = subprocess.run([sys.executable, "-c", "from snnseg import stage\ndef main(): raise RuntimeError('a bug')\nstage.run(main)"],
                          capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr and "RuntimeError: a bug" in done.stderr


def test_the_door_passes_arguments_on_and_returns():
    got = []
    assert stage.run(lambda *arguments: got.append(arguments), "a", "b") is None
    assert got == [("a", "b")]
