"""A fork is the process that it stands for: arguments, folder, environment, output, session, signals and end."""
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import forked
import pytest

TELL = """
import json, os, signal, sys, threading
print(json.dumps([__name__, sys.argv, sys.orig_argv[1:], sys.path[0], os.getcwd(), dict(os.environ), os.getsid(0) == os.getpid(), threading.active_count(), sys.stdout.isatty(),
                  signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
                  sorted(os.listdir('/proc/self/fd')) if os.path.exists('/proc/self/fd') else 0]))
print('so', file=sys.stderr)
if sys.argv[1:] == ['wait']:
    sys.stdout.flush()
    signal.pause()
if sys.argv[1:] == ['fail']:
    raise ValueError('a bug')
sys.exit(int(sys.argv[1]) if sys.argv[1:] else None)
"""


@pytest.fixture
def command(tmp_path):
    (tmp_path / "tell.py").write_text(TELL)
    return [sys.executable, "-m", "tell"]


@pytest.mark.parametrize("arguments", [[], ["7"], ["fail"]])
@pytest.mark.parametrize("session", [False, True])
def test_it_sees_and_tells_what_a_process_would(command, arguments, session, tmp_path, environment):
    options = {"cwd": tmp_path, "env": environment | {"RAY_ADDRESS": "x"}, "capture_output": True, "text": True, "start_new_session": session}
    fork, process = forked.run([*command, *arguments], **options), subprocess.run([*command, *arguments], **options)
    assert (fork.returncode, fork.stderr.splitlines()[-1]) == (process.returncode, process.stderr.splitlines()[-1])
    told, expected = json.loads(fork.stdout), json.loads(process.stdout)
    for seen in (told, expected):
        for name in ("_MLFLOW_TELEMETRY_SESSION_ID", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "LC_CTYPE"):      # set by imports, and by Python where the locale is C
            seen[5].pop(name, None)
    assert told[:-1] == expected[:-1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, *([signal.SIGINT] if signal.getsignal(signal.SIGINT) is signal.default_int_handler else [])])
def test_it_ends_by_signals(command, number, tmp_path, environment):
    with forked.Popen([*command, "wait"], cwd=tmp_path, env=forked.at_first(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True) as fork:
        assert fork.forked and fork.stdout.readline() and fork.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            fork.wait(timeout=0.01)
        os.killpg(fork.pid, number)
        assert fork.wait(timeout=20) == -number == fork.poll()
        fork.kill()         # no harm


@pytest.mark.parametrize("change", [{"LC_ALL": "C"}, {"PYTHONHASHSEED": "7"}, {"OMP_NUM_THREADS": "77"}, {"TORCH_LOGS": ""}, {"PATH": ""}], ids=str)
def test_another_environment_is_another_process(change, command, tmp_path, environment):
    with forked.Popen(command, cwd=tmp_path, env=environment | change, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        assert not process.forked
    assert process.returncode == 0


def test_no_thread_is_missing_in_a_fork():
    """A fork has the thread that forked, and jemalloc (pyarrow's) begins its own anew."""
    tasks = Path(f"/proc/{forked.server().process.pid}/task")
    if not tasks.exists():
        pytest.skip("no /proc")
    assert len([task for task in tasks.iterdir() if (task / "comm").read_text().strip() != "jemalloc_bg_thd"]) == 1
