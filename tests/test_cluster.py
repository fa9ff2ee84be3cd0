"""Commands as jobs, without a cluster: where they may go, what travels, and what is made of a cluster's answers."""
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import forked
import pytest
from aiohttp import web

from snnseg import config, provenance, sections
from snnseg.cluster import address, job
from snnseg.errors import ClusterError, UsageError

COMMAND = [sys.executable, "-m", "snnseg"]
TOKEN = "a-token-of-this-test"


@pytest.fixture(autouse=True)
def no_token(monkeypatch, tmp_path):
    """No token but a test's own, and no address but the one given."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "no_proxy", "NO_PROXY", sections.DATA,
                 provenance.COMMIT):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def with_token(monkeypatch, home: Path, token: str = TOKEN) -> None:
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text(token)


@pytest.mark.parametrize(("url", "clean"), [("http://127.0.0.1:8265", "http://127.0.0.1:8265"), ("https://ray.example.org/", "https://ray.example.org"),
                                            ("http://[::1]:8265/", "http://[::1]:8265")])
def test_an_address_is_a_dashboard(url, clean):
    assert address.checked(url) == clean


@pytest.mark.parametrize("url", ["127.0.0.1:8265", "ray://head:10001", "head:6379", "auto", "http://", "http://head:port", "http://head:8265/api", "http://head?x=1",
                                 "http://[::1", "", "file:///etc/passwd"])
def test_what_is_no_dashboard_is_refused(url):
    with pytest.raises(UsageError, match=r"expected the dashboard of a Ray cluster, for example http://127\.0\.0\.1:8265"):
        address.checked(url)


def test_a_password_in_an_address_is_not_repeated():
    with pytest.raises(UsageError) as caught:
        address.checked("http://me:canary@head:8265")
    assert "canary" not in str(caught.value) and "token" in str(caught.value)


@pytest.mark.parametrize(("url", "here"), [("http://127.0.0.1:8265", True), ("http://127.8.8.8", True), ("http://localhost:1", True), ("http://[::1]:8265", True),
                                           ("http://0.0.0.0:8265", False), ("http://192.0.2.1:8265", False), ("http://127.0.0.1.example.org", False),
                                           ("http://localhost.example.org", False), ("http://[::ffff:192.0.2.1]:80", False)])
def test_what_this_machine_is(url, here):
    assert address.is_loopback(url) is here


def test_beyond_this_machine_a_token_is_needed(monkeypatch, tmp_path, capsys):
    for mode in ("", "disabled"):
        monkeypatch.setenv("RAY_AUTH_MODE", mode) if mode else monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        if mode:
            with_token(monkeypatch, tmp_path / "home")
        with pytest.raises(ClusterError, match="CVE-2023-48022.*RAY_AUTH_MODE=token") as caught:
            address.permit("https://ray.example.org")
        assert ("turns tokens off" in str(caught.value)) is bool(mode) and caught.value.exit_code == 9
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert address.permit("https://ray.example.org") == "~/.ray/auth_token" and os.environ["RAY_AUTH_MODE"] == "token" and capsys.readouterr().err == ""
    assert address.permit("http://ray.example.org") and "unencrypted" in capsys.readouterr().err


def test_the_token_is_taken_as_ray_takes_it(monkeypatch, tmp_path):
    assert address.token_place() is None
    with_token(monkeypatch, tmp_path / "home", "\n")
    assert address.token_place() is None
    (tmp_path / "home" / ".ray" / "auth_token").write_text(TOKEN)
    assert address.token_place() == "~/.ray/auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="holds no token"):
        address.token_place()
    (tmp_path / "none").write_text(TOKEN)
    assert address.token_place() == str(tmp_path / "none")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert address.token_place() == "RAY_AUTH_TOKEN"


def test_ray_s_own_variables_do_not_lead_elsewhere(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere.example.org:8265")
    monkeypatch.setenv("no_proxy", "example.org")
    assert address.permit("http://127.0.0.1:8265") is None
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://127.0.0.1:8265"
    assert os.environ["no_proxy"] == "example.org,127.0.0.1" and os.environ["NO_PROXY"] == "127.0.0.1" and "RAY_AUTH_MODE" not in os.environ


def test_an_order_is_the_command_with_its_data(project):
    numbers = config.load(project / "params.yaml", None, ["cluster.job_gpus=1"])
    asked = job.order(["train", "voc/ann_fcn", "--set", "track.experiment=a b;rm"], numbers)
    assert asked.entrypoint == "env -u OMP_NUM_THREADS python -m snnseg train voc/ann_fcn --set 'track.experiment=a b;rm'"
    assert asked.command == "train voc/ann_fcn --set 'track.experiment=a b;rm'" and asked.job.startswith("train-") and asked.gpus == 1
    assert asked.variables == {"SNNSEG_DATA": str(project.resolve() / "data"), "SNNSEG_COMMIT": "unknown", "RAY_JOB_STOP_WAIT_TIME_S": "60"}
    shared = job.order(["report"], config.load(project / "params.yaml", None, ["cluster.data=/shared/snnseg/data"]))
    assert shared.variables["SNNSEG_DATA"] == "/shared/snnseg/data" and shared.job != asked.job


@pytest.mark.filterwarnings("ignore")      # ray's own
def test_the_code_travels_and_nothing_else(project, tmp_path):
    """What Ray packs of a project that has everything in it: snnseg/data is code, data is not."""
    stays = ["data/store/voc/x", "data/raw/big.tar", ".venv/bin/python", ".git/config", ".dvc/config.local", ".env", "snnseg/__pycache__/a.pyc", "x.egg-info/PKG",
             ".pytest_cache/x", ".hypothesis/x", "notes/own.txt"]
    goes = ["snnseg/data/store.py", "snnseg/__init__.py", "docs/data/x.md"]
    for name in [*stays, *goes]:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("x")
    (project / ".rayignore").write_text("/notes\n")
    from ray._private.runtime_env import packaging

    told = job.runtime_env(job.order(["report"], config.load(project / "params.yaml")))
    packaging.create_package(told["working_dir"], tmp_path / "package.zip", include_gitignore=True, excludes=told["excludes"])
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        names = {n for n in package.namelist() if not n.endswith("/")}
    assert names == {*goes, "params.yaml", "settings/integer.yaml", "settings/paper.yaml", "settings/sample.yaml", "settings/variants.yaml", ".rayignore"}


def test_a_job_uses_the_data_folder_that_it_was_told_of(project, tmp_path, monkeypatch):
    from snnseg.tracking import database

    here = config.load(project / "params.yaml", "ann_fcn")
    assert here.store == project / "data" / "store" / "mnist_cifar"
    monkeypatch.setenv("SNNSEG_DATA", str(tmp_path / "shared"))
    with pytest.raises(ClusterError, match=r"shared: this machine does not see .*cluster\.data"):
        config.load(project / "params.yaml", "ann_fcn")
    (tmp_path / "shared").mkdir()
    there = config.load(project / "params.yaml", "ann_fcn")
    places = [there.store, there.raw, there.model_folder, there.result_folder, there.report]
    assert all(p.is_relative_to(tmp_path / "shared") for p in places) and database.store_uri(there.root) == f"sqlite:///{tmp_path}/shared/mlflow/mlflow.db"
    monkeypatch.setenv("SNNSEG_COMMIT", "abc+")
    assert provenance.commit(there.root) == "abc+"


def test_no_module_names_the_data_folder_past_its_door():
    """`root / "data"` would be lost with a job's copy of the project."""
    root = Path(config.__file__).parent
    found = [p.name for p in root.rglob("*.py") if 'root / "data"' in p.read_text(encoding="utf-8")]
    assert found == ["sections.py"]


TRACE = "a\nTraceback (most recent call last):\n  File x\n    y\nValueError: wrong\n\nDuring handling ...\nTraceback (most recent call last):\n  z\nKeyError: 1\n"


@pytest.mark.parametrize(("log", "first"), [
    ("", ""), ("Running entrypoint for job x: python\n", ""), ("a\nb\n", "b"), (TRACE, "ValueError: wrong"),
    ("epoch 1\nsnnseg: no space. Free some.\nsnnseg: x\n", "no space. Free some."), (TRACE + "snnseg: fact\n", "fact"), ("Traceback (most recent call last):\n", "Traceback (most recent call last):"),
])
def test_the_first_error_of_a_log(log, first):
    assert job.first_error(log) == first


def told(status: str, code: int | None = None, message: str = "", **more) -> job.Told:
    return job.Told(**{"job": "train-1", "status": status, "command": "train x", "began": 100.0, "ended": None, "code": code, "message": message, **more})


@pytest.mark.parametrize(("status", "code", "exit_code"), [("SUCCEEDED", 0, 0), ("FAILED", 5, 5), ("FAILED", 137, 137), ("FAILED", -9, 137), ("FAILED", None, 9), ("STOPPED", None, 130)])
def test_the_exit_code_is_the_job_s(status, code, exit_code):
    assert told(status, code).exit_code == exit_code and told(status).over and not told("PENDING").over


def test_why_a_job_failed():
    assert job.why_failed(told("FAILED", 5), "snnseg: x: not found. Make it.\n") == ("failed with exit code 5: x: not found. Make it", "The whole log: snnseg jobs logs train-1")
    assert job.why_failed(told("FAILED", None, "Runtime env setup failed\nmore"), "")[0] == "failed with exit code 9: Runtime env setup failed"
    assert job.why_failed(told("FAILED", 9), "")[0].endswith("it left no log")
    assert "whose `python` has snnseg's packages" in job.why_failed(told("FAILED", 127), "/bin/sh: 1: python: not found\n")[1]
    assert "Submit the same command again" in job.why_failed(told("STOPPED"), "")[1]


def test_how_long_a_job_ran():
    assert told("RUNNING").seconds(130.0) == 30.0 and told("FAILED", ended=110.0).seconds(130.0) == 10.0
    assert told("PENDING", began=None).seconds(130.0) is None and told("RUNNING").seconds(99.0) == 0.0


class Fake:
    """The few endpoints of Ray's Jobs API that are used, on this machine. `breaks` connections of a log end in its middle."""

    def __init__(self, log: str = "one\ntwo\n", status: str = "SUCCEEDED", code: int | None = 0, token: str | None = TOKEN, breaks: int = 0, hangs: bool = False):
        self.log, self.status, self.code, self.token, self.breaks, self.hangs = log, status, code, token, breaks, hangs
        self.jobs: dict[str, dict] = {}
        self.asked: list[str] = []
        self.packages: list[str] = []

    @web.middleware
    async def door(self, request: web.Request, handler):
        self.asked.append(request.path)
        given = request.headers.get("Authorization")
        if self.token and request.path != "/api/authentication_mode" and given != f"Bearer {self.token}":
            return web.Response(status=403 if given else 401, text="no")
        return await handler(request)

    async def version(self, request):
        return web.json_response({"version": "4", "ray_version": "2.60.0", "ray_commit": "x", "session_name": "s"})

    async def mode(self, request):
        return web.json_response({"authentication_mode": "token" if self.token else "disabled"})

    async def package(self, request):
        if request.method == "PUT":
            self.packages.append(request.path)
            await request.read()
            return web.json_response({})
        return web.Response(status=404)

    async def submit(self, request):
        asked = await request.json()
        self.jobs[asked["submission_id"]] = {"type": "SUBMISSION", "submission_id": asked["submission_id"], "status": "RUNNING", "entrypoint": asked["entrypoint"],
                                             "start_time": 1_700_000_000_000, "metadata": asked["metadata"], "runtime_env": asked["runtime_env"]}
        return web.json_response({"job_id": asked["submission_id"], "submission_id": asked["submission_id"]})

    def known(self, request) -> dict:
        if request.match_info["job"] not in self.jobs:
            raise web.HTTPNotFound(text=f"Job {request.match_info['job']} does not exist")
        return self.jobs[request.match_info["job"]]

    async def info(self, request):
        return web.json_response(self.known(request))

    async def all(self, request):
        return web.json_response(list(self.jobs.values()))

    async def logs(self, request):
        self.known(request)
        return web.json_response({"logs": self.log})

    def end(self, known: dict, status: str, code: int | None) -> None:
        known |= {"status": status, "end_time": 1_700_000_007_000, "driver_exit_code": code}

    async def tail(self, request):
        known = self.known(request)
        stream = web.WebSocketResponse()
        await stream.prepare(request)
        half = len(self.log) // 2
        await stream.send_str(self.log[:half])
        if self.breaks:
            self.breaks -= 1
            request.transport.abort()
            return stream
        while self.hangs and known["status"] == "RUNNING":
            await asyncio.sleep(0.05)
        await stream.send_str(self.log[half:])
        if not self.hangs:
            self.end(known, self.status, self.code)
        return stream

    async def stop(self, request):
        known = self.known(request)
        self.end(known, "STOPPED", None)
        return web.json_response({"stopped": True})

    @contextmanager
    def serving(self):
        """Its address, for as long as it listens."""
        app = web.Application(middlewares=[self.door])
        app.add_routes([web.get("/api/version", self.version), web.get("/api/authentication_mode", self.mode), web.route("*", "/api/packages/{p:.*}", self.package),
                        web.post("/api/jobs/", self.submit), web.get("/api/jobs/", self.all), web.get("/api/jobs/{job}", self.info), web.get("/api/jobs/{job}/logs", self.logs),
                        web.get("/api/jobs/{job}/logs/tail", self.tail), web.post("/api/jobs/{job}/stop", self.stop)])
        loop, ready, place = asyncio.new_event_loop(), threading.Event(), []

        async def begin() -> web.AppRunner:
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            place.append(f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}")
            ready.set()
            return runner

        def serve() -> None:
            runner = loop.run_until_complete(begin())
            loop.run_forever()
            loop.run_until_complete(runner.cleanup())
            loop.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            assert ready.wait(20)
            yield place[0]
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(20)


def run(url: str, *arguments: str, cwd: Path, env: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    verb = [*arguments[:2], "--address", url, *arguments[2:]] if arguments[0] == "jobs" and len(arguments) > 1 and not arguments[1].startswith("-") else \
        [arguments[0], "--address", url, *arguments[1:]]
    return forked.run([*COMMAND, *verb], cwd=cwd, env=env | {"RAY_AUTH_TOKEN": TOKEN} | more, capture_output=True, text=True, timeout=60)


def test_a_job_from_the_command_line(project, environment):
    """Its name, its log and its end; where to come back to it; a broken connection loses and doubles nothing."""
    with (fake := Fake(log="one\ntwo\nthree\n", breaks=2)).serving() as url:
        done = run(url, "submit", "--", "report", cwd=project, env=environment, RAY_ADDRESS="http://192.0.2.1:8265")
        name, = fake.jobs
        assert (done.returncode, done.stdout) == (0, f"{name}\none\ntwo\nthree\n"), done.stderr
        assert done.stderr == f"{name}: succeeded after 0:00:07\n" and (project / "data").is_dir() and len(fake.packages) == 1
        asked = fake.jobs[name]
        assert asked["entrypoint"].endswith("python -m snnseg report") and asked["runtime_env"]["env_vars"]["SNNSEG_DATA"] == str(project / "data")
        left = run(url, "submit", "--no-wait", "report", cwd=project, env=environment)
        assert left.returncode == 0 and left.stdout.strip() in fake.jobs and left.stdout.count("\n") == 1
        rows = json.loads(run(url, "jobs", "--json", cwd=project, env=environment).stdout)
        assert rows[0] == {"job": name, "status": "SUCCEEDED", "command": "report", "since": "2023-11-14T22:13:20Z", "seconds": 7.0} and len(rows) == 2
        table = run(url, "jobs", cwd=project, env=environment).stdout.splitlines()
        assert table[0].split() == ["JOB", "STATUS", "SINCE", "DURATION", "COMMAND"] and table[1].split()[:2] == [name, "succeeded"] and "0:00:07" in table[1]
        assert run(url, "jobs", "logs", name, cwd=project, env=environment).stdout == "one\ntwo\nthree\n"
        stopped = run(url, "jobs", "stop", left.stdout.strip(), cwd=project, env=environment)
        assert (stopped.returncode, stopped.stdout) == (0, f"{left.stdout.strip()}: stopped after 0:00:07\n")
        one_line(run(url, "jobs", "logs", "nope", cwd=project, env=environment), 9, "nope: ", "knows no job", "snnseg jobs")
        one_line(run(url, "jobs", "stop", "nope", cwd=project, env=environment), 9, "nope: ", "knows no job", "snnseg jobs")


def one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("snnseg: ") and done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize(("status", "code", "log", "exit_code", "words"), [
    ("FAILED", 5, "begun\nsnnseg: store: not found. Make it.\n", 5, ["failed with exit code 5: store: not found. Make it. The whole log"]),
    ("FAILED", 1, TRACE, 1, ["exit code 1: ValueError: wrong"]), ("FAILED", -15, "x\n", 143, ["exit code 143"]), ("FAILED", None, "x\n", 9, ["exit code 9"]),
    ("STOPPED", None, "x\n", 130, ["was stopped", "go on"])])
def test_a_job_that_fails_ends_the_command_as_the_job(status, code, log, exit_code, words, project, environment):
    with (fake := Fake(log, status, code)).serving() as url:
        done = run(url, "submit", "--", "report", cwd=project, env=environment)
    name, = fake.jobs
    assert done.stdout == f"{name}\n{log}"
    one_line(done, exit_code, f"snnseg: {name}: ", *words)


def test_a_log_that_cannot_be_had_hides_nothing(project, environment):
    """A job that failed before it had a machine has no log; Ray's message tells why."""
    with Fake("", "FAILED", None).serving() as url:
        done = run(url, "submit", "--", "report", cwd=project, env=environment)
    warning, error = done.stderr.splitlines()
    assert done.returncode == 9 and "does not give its log" in warning and "failed with exit code 9: it left no log" in error


def test_a_job_that_waits_is_asked_to_end_and_not_waited_for(project, environment):
    with (fake := Fake()).serving() as url:
        fake.end = lambda known, status, code: known.update(status="PENDING")
        name = run(url, "submit", "--no-wait", "--", "report", cwd=project, env=environment).stdout.strip()
        start = time.monotonic()
        done = run(url, "jobs", "stop", name, cwd=project, env=environment)
    assert done.returncode == 0 and done.stdout.startswith(f"{name}: pending, asked to end after ") and time.monotonic() - start < 20


def test_ctrl_c_leaves_the_job_running(project, environment):
    with (fake := Fake(hangs=True)).serving() as url:
        process = subprocess.Popen([*COMMAND, "submit", "--address", url, "--", "report"], cwd=project, env=environment | {"RAY_AUTH_TOKEN": TOKEN}, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
        name = process.stdout.readline().strip()
        assert process.stdout.readline() == "one\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert fake.jobs[name]["status"] == "RUNNING" and not [p for p in fake.asked if p.endswith("/stop")]
    assert process.returncode == 130 and err.count("\n") == 1, err
    assert f"snnseg: {name} goes on" in err and f"snnseg jobs logs {name} --follow" in err and f"snnseg jobs stop {name}" in err


@pytest.mark.parametrize(("token", "words"), [("wrong", ["it does not take the token from RAY_AUTH_TOKEN", "ray get-auth-token"]), ("", ["it asks for a token, and none was found here"])])
def test_a_wrong_or_missing_token_is_one_line(token, words, project, environment):
    with (fake := Fake()).serving() as url:
        one_line(run(url, "submit", "--", "report", cwd=project, env=environment, RAY_AUTH_TOKEN=token), 9, url, *words)
    assert not fake.jobs and not fake.packages


def test_a_cluster_without_a_token_is_warned_of(project, environment):
    with Fake(token=None).serving() as url:
        done = run(url, "jobs", "--json", cwd=project, env=environment, RAY_AUTH_TOKEN="")
    assert done.returncode == 0 and json.loads(done.stdout) == [] and "warning: " in done.stderr and "asks for no token" in done.stderr


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.mark.parametrize("verb", [["submit", "--", "report"], ["jobs"], ["jobs", "logs", "x", "--follow"], ["jobs", "stop", "x"]], ids=" ".join)
def test_nobody_there_is_one_line_in_time(verb, project, environment):
    url = f"http://127.0.0.1:{free_port()}"
    start = time.monotonic()
    one_line(run(url, *verb, cwd=project, env=environment), 9, url, "no Ray dashboard answers", "docs/cluster.md")
    assert time.monotonic() - start < 20


def test_a_machine_that_does_not_answer_is_one_line_in_time(project, environment):
    """The queue of a socket that nobody accepts from is full: a connection is neither taken nor refused."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(silent.getsockname())
        start = time.monotonic()
        done = run(f"http://127.0.0.1:{silent.getsockname()[1]}", "jobs", cwd=project, env=environment)
        seconds = time.monotonic() - start
        for one in waiting:
            one.close()
    one_line(done, 9, "no Ray dashboard answers", "Timeout")
    assert seconds < 20


def test_another_service_is_no_dashboard(project, environment):
    async def page(request):
        return web.Response(text="<html>")

    fake = Fake(token=None)
    fake.version = page
    with fake.serving() as url:
        one_line(run(url, "jobs", cwd=project, env=environment), 9, url, "no Ray dashboard")


def test_beyond_this_machine_without_a_token_nothing_is_sent(project, environment):
    start = time.monotonic()
    one_line(run("http://192.0.2.1:8265", "submit", "--", "report", cwd=project, env=environment, RAY_AUTH_TOKEN=""), 9, "http://192.0.2.1:8265", "ShadowRay", "nothing was sent")
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(("arguments", "code", "told"), [
    (["nope"], 2, "No such command"), (["train"], 2, "Missing argument"), (["train", "ann_fcn", "--nope"], 2, "No such option"), (["jobs"], 2, "is for this machine"),
    (["submit", "--", "report"], 2, "is for this machine"), (["ui"], 2, "is for this machine"), (["setting", "paper"], 2, "is for this machine"), (["data"], 2, "fetch, check"),
    (["train", "ann_fnc"], 3, "Did you mean ann_fcn"), (["train", "voc"], 3, "is a benchmark"), (["train", "ann_fcn", "--set", "train.epoch=3"], 3, "Did you mean epochs"),
    (["data", "check", "--set", "a"], 3, "expected section.key=value"), (["report", "--params", "other.yaml"], 2, "Give it to submit")])
def test_a_slip_in_the_command_shows_before_anything_is_sent(arguments, code, told, project, environment):
    """Nobody listens at the address: it is not even tried."""
    done = run("http://127.0.0.1:1", "submit", "--", *arguments, cwd=project, env=environment)
    assert done.returncode == code and told in done.stderr and "Traceback" not in done.stderr and done.stdout == ""
