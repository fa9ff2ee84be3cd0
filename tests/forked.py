"""`python -m NAME ...` as a fork of one process that has the libraries loaded: a command begins in 0.1 s instead of 2 to 4 s of a core.

`run` and `Popen` take the place of subprocess's. The fork has its own arguments, folder, environment, output, session and pid, and comes to its end as a
command does; what it is spared is Python's start and the imports of LIBRARIES. Of snnseg it has the config's
model and the verbs before, which keep nothing. Where the environment asks for something that is
fixed with the start (all but FREE), or there is more to do than a module's name (another program, `preexec_fn`, ...), a real process is started: so tests
of the start itself (what is loaded, how soon, locale, hash seed) take subprocess.
"""
import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import tables

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ["numpy", "torch", "numba", "zarr", "pydantic", "typer", "rich.console", "ruamel.yaml", "safetensors.torch", "PIL.Image", "mlflow.store.tracking.sqlalchemy_store", "sklearn.datasets",
             "snnseg.config", "snnseg.cli.main"]
# what none of LIBRARIES reads while it is imported, but for zarr's settings in HOME, and what commands and imports set by themselves
FREE = {"PYTEST_CURRENT_TEST", "HOME", "GOMP_SPINCOUNT", "THP_MEM_ALLOC_ENABLE", "_MLFLOW_TELEMETRY_SESSION_ID", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK",
        "TORCHINDUCTOR_CACHE_DIR", "PYTHONBREAKPOINT",     # the last is set by Ray where a process begins a cluster
        "TRITON_INTERPRET", "PYTEST_DISABLE_PLUGIN_AUTOLOAD"}
ALIKE = "executable preexec_fn pass_fds startupinfo creationflags shell gid gids uid umask".split()


def surroundings() -> dict[str, str]:
    """The environment of commands: this interpreter's programs first on the path, this checkout's package first on the imports."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}


def fixed(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name not in FREE and not name.startswith("RAY_")}


@functools.cache
def at_first() -> dict[str, str]:
    """As it is when the tests are collected, whatever one of them sets later."""
    return fixed(surroundings())


class Server:
    """The process with the libraries, and what it has told: how forks by pid have ended. It ends with the tests."""

    def __init__(self):
        self.begun, self.ended, self.rest, self.turn = None, {}, b"", threading.Lock()
        self.door, inside = socket.socketpair()
        with inside:
            self.process = subprocess.Popen([sys.executable, __file__, str(inside.fileno())], pass_fds=[inside.fileno()],
                                            env={"HOME": os.path.expanduser("~"), **at_first(), "GOMP_SPINCOUNT": "1000"},     # as stage.run sets it before torch is loaded
                                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def begin(self, asked: dict[str, Any], out: int, err: int) -> int:
        """The pid of a new fork that writes to these two."""
        with self.turn:
            self.begun = None
            socket.send_fds(self.door, [json.dumps(asked).encode() + b"\n"], [out, err])
            while self.begun is None:
                self._listen()
            return self.begun

    def status(self, pid: int, patient: bool) -> int | None:
        """How the fork ended, as os.waitpid tells it; None if it has not."""
        with self.turn:
            while pid not in self.ended and (patient or select.select([self.door], [], [], 0)[0]):
                self._listen()
            return self.ended.get(pid)

    def _listen(self) -> None:
        if not (heard := self.door.recv(2**16)):
            raise RuntimeError(f"{__file__}: its process ended, code {self.process.wait()}")
        *lines, self.rest = (self.rest + heard).split(b"\n")
        for told in map(json.loads, lines):
            if "begun" in told:
                self.begun = told["begun"]
                self.ended.pop(self.begun, None)        # another one's, long ago
            else:
                self.ended[told["pid"]] = told["status"]

    def close(self) -> None:
        self.door.close()
        self.process.wait()


@functools.cache
def server() -> Server:
    found = Server()
    atexit.register(found.close)
    return found


class Popen(subprocess.Popen):
    """A fork where that is the same as a process, else a process."""

    forked = False

    def __init__(self, args: list[str], **options: Any):
        env = options.get("env") or dict(os.environ)
        self.asked = {"arguments": args[2:], "folder": str(options.get("cwd") or os.getcwd()), "environment": env, "session": options.get("start_new_session", False)}
        self.forked = args[:2] == [sys.executable, "-m"] and not any(options.get(name) for name in ALIKE) and fixed(env) == at_first()
        super().__init__(args, **options)

    def _execute_child(self, *asked):
        if not self.forked:
            return super()._execute_child(*asked)
        pipes = asked[10:16]
        out, err = pipes[3], pipes[5]
        self.pid = server().begin(self.asked, 1 if out == -1 else out, 2 if err == -1 else err)
        self._child_created = True
        self._close_pipe_fds(*pipes)

    def _try_wait(self, flags):
        if not self.forked:
            return super()._try_wait(flags)
        status = server().status(self.pid, patient=not flags & os.WNOHANG)
        return (0, 0) if status is None else (self.pid, status)

    def _internal_poll(self, *known, **more):
        if not self.forked:
            return super()._internal_poll(*known, **more)
        if self.returncode is None:
            pid, status = self._try_wait(os.WNOHANG)
            if pid:
                self._handle_exitstatus(status)
        return self.returncode


def run(args: list[str], *, capture_output: bool = False, check: bool = False, timeout: float | None = None, **options: Any) -> subprocess.CompletedProcess:
    """As subprocess.run."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(args, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


# ------------------------------------------------------------------------------------------------ in the process with the libraries

def serve(door: socket.socket) -> dict[str, Any]:
    """Fork for each line that comes and tell how forks ended. Returns in each fork, with what was asked of it; ends where the tests do."""
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)      # Ctrl-C is for the tests and the commands
    before = dict(os.environ)
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.modules["numba"].cfunc("void()")(lambda: None)      # loads what is to be known of any loop
    tables.once()
    added = {name: value for name, value in os.environ.items() if name not in before}
    assert threading.active_count() == 1, "a thread would be missing in the forks"
    gc.collect()
    gc.freeze()
    waking, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([door, waking], [], [])
        if waking in ready:
            os.read(waking, 4096)
            try:
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    door.sendall(json.dumps({"pid": ended[0], "status": ended[1]}).encode() + b"\n")
            except (ChildProcessError, BrokenPipeError):       # none is left; the tests are over
                pass
        if door in ready:
            line, outputs, _, _ = socket.recv_fds(door, 2**16, 2)
            while line and not line.endswith(b"\n"):
                line += door.recv(2**16)
            if not line:
                os._exit(0)
            if not (pid := os.fork()):
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, interrupted)
                door.close()
                for number, output in enumerate(outputs, 1):
                    os.dup2(output, number)
                for place in (waking, woken, *outputs):
                    os.close(place)
                asked = json.loads(line)
                return asked | {"environment": added | asked["environment"]}
            for output in outputs:
                os.close(output)
            door.sendall(json.dumps({"begun": pid}).encode() + b"\n")


if __name__ == "__main__":
    asked = serve(socket.socket(fileno=int(sys.argv[1])))
    if asked["session"]:
        os.setsid()
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    name, *sys.argv[1:] = asked["arguments"]
    sys.orig_argv[1:] = ["-m", *asked["arguments"]]
    sys.path[0] = asked["folder"]
    code = 0
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as e:
        if not isinstance(code := e.code or 0, int):
            raise
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)          # as multiprocessing ends its forks: to take the libraries apart would copy all their memory first, half a second
