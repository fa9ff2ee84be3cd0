"""Commands as jobs on a real cluster of this machine: started as docs/cluster.md says, entered with its token, left clean."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path

import mlflow
import psutil
import pytest
from conftest import ROOT, TINY

from snnseg import config
from snnseg.tracking import database

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="looks for sockets as Linux shows them"), pytest.mark.filterwarnings("ignore")]
SETS = [word for text in TINY for word in ("--set", text)]
DOC = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")


def free_ports(number: int) -> list[int]:
    """Ports that nobody has now, below those that the kernel gives away by itself."""
    found, port = [], 20_000 + os.getpid() % 10_000
    while len(found) < number:
        port += 1
        with socket.socket() as listening:
            try:
                listening.bind(("", port))
                found.append(port)
            except OSError:
                continue
    return found


class Cluster:
    """`ray start --head` of the docs, on ports of its own, with a token of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder, token = folder, "0123456789abcdef" * 4
        (folder / "token").write_text(token)
        (folder / "token").chmod(0o600)
        gcs, dashboard, client = free_ports(3)
        self.url, self.gcs, self.port = f"http://127.0.0.1:{dashboard}", gcs, dashboard
        self.environment = environment | {"RAY_AUTH_TOKEN_PATH": str(folder / "token"), "RAY_AUTH_MODE": "token"}
        command = re.search(r"^ray start --head .*$", DOC, re.MULTILINE).group().replace("--port 6379", f"--port {gcs}")
        assert f"--port {gcs}" in command and "--dashboard-host 127.0.0.1" in command
        with open(folder / "log", "w") as log:
            self.process = subprocess.Popen([*command.split(), "--block", "--num-cpus", "1", "--object-store-memory", "100000000", "--dashboard-port", str(dashboard),
                                             "--ray-client-server-port", str(client), "--dashboard-agent-listen-port", "0", "--temp-dir", str(folder / "ray")],
                                            env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        self.nodes = lambda: json.loads(self.get("/nodes?view=summary", token))["data"]["summary"]

    def ready(self) -> None:
        """Wait until it takes jobs; what Ray wrote is told where it does not."""
        deadline = time.monotonic() + 90
        while not self.up():
            if self.process.poll() is not None or time.monotonic() > deadline:
                logs = [self.folder / "log", *(self.folder / "ray" / "session_latest" / "logs").glob("dashboard*.[el]*")]
                raise AssertionError("\n".join(f"{path}\n{path.read_text()[-3000:]}" for path in logs))
            time.sleep(0.3)

    def get(self, path: str, token: str) -> str:
        with urllib.request.urlopen(urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {token}"}), timeout=10) as answer:
            return answer.read().decode()

    def up(self) -> bool:
        """Whether the machine has joined its own head and takes jobs."""
        try:
            return bool(self.nodes()) and any(ip not in ("::", "0.0.0.0") for ip, _ in self.listening()["DashboardAgent"])   # where it is asked for jobs
        except (OSError, KeyError, psutil.Error, urllib.error.URLError):
            return False

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def listening(self) -> dict[str, set[tuple[str, int]]]:
        """Address and port of each socket, by what opened it, in the words of the docs."""
        kinds = ("gcs_server", "raylet", "DashboardAgent", "RuntimeEnvAgent", "monitor.py", "ray.util.client.server", "dashboard.py")
        found = defaultdict(set)
        for process in self.processes():
            words = f"{process.name()} {' '.join(process.cmdline())}"
            first = process.name() if process.name() in ("gcs_server", "raylet") else next((k for k in kinds if k in words), "worker")
            found[first] |= {(c.laddr.ip.removeprefix("::ffff:"), c.laddr.port) for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
        return found

    def end(self) -> None:
        mine = self.processes()
        self.process.terminate()
        try:
            self.process.wait(40)
        finally:
            _, left = psutil.wait_procs(mine, 10)
            for process in [*left, *([self.process] if self.process.poll() is None else [])]:
                process.kill()
        assert not left, f"Ray left {left}"


@pytest.fixture(scope="module")
def cluster():
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    for name in ("PYTHONPATH", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN"):
        environment.pop(name, None)
    folder = Path(tempfile.mkdtemp(prefix="ray"))       # short: a socket's name has 107 characters at most
    try:
        running = Cluster(folder, environment)
        try:
            yield running
        finally:
            running.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def project(cluster, tmp_path_factory) -> Path:
    """A project with its own copy of the code, so that it is seen to travel, and a store."""
    root = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "params.yaml", root)
    shutil.copytree(ROOT / "snnseg", root / "snnseg", ignore=shutil.ignore_patterns("__pycache__"))
    with open(root / "snnseg" / "cli" / "app.py", "a") as f:
        f.write("\nimport sys as _sys\nprint('the code that travelled:', __file__, file=_sys.stderr)\n")
    done = subprocess.run([sys.executable, "-m", "snnseg", "prepare", *SETS], cwd=root, env=cluster.environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    cluster.ready()
    return root


def begin(cluster: Cluster, project: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "snnseg", *arguments], cwd=project, env=cluster.environment | more, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, out, "".join(line for line in err.splitlines(True) if not line.startswith("the code that travelled"))


def test_a_training_as_a_job_leaves_all_of_it_in_the_project(cluster, project):
    """Run, model and metrics are where a local training puts them; the code is the one that travelled; all cores work."""
    code, out, err = ended(begin(cluster, project, "submit", "--address", cluster.url, "--", "train", "ann_fcn", *SETS))
    assert code == 0, out + err
    name, first = out.splitlines()[0], re.search(r"the code that travelled: (\S+)", out).group(1)
    assert err.startswith(f"{name}: succeeded after ") and "working_dir_files" in first and not Path(first).is_relative_to(project)
    run, = (project / "data" / "run").glob("mnist_cifar-ann_fcn-*/model")
    about = json.loads((run / "about.json").read_text())
    assert about["device"].endswith(f" x{os.cpu_count()}") or "cuda" in about["device"].lower() or os.environ.get("OMP_NUM_THREADS")
    client = mlflow.MlflowClient(database.store_uri(config.load(project / "params.yaml").root))
    tracked, = client.search_runs([client.get_experiment_by_name("snnseg").experiment_id])
    assert tracked.info.status == "FINISHED" and tracked.data.metrics["test/miou"] > 0 and tracked.info.artifact_uri.startswith((project / "data" / "mlflow").as_uri())
    assert len(client.get_metric_history(tracked.info.run_id, "train/loss")) == 6       # 48 items, batches of 8, 2 epochs, each second step


def test_a_job_that_fails_tells_its_first_error_and_its_code(cluster, project):
    """One whose store is missing, and one whose machine does not see the data; side by side, as jobs are."""
    submit = ["submit", "--address", cluster.url]
    both = [begin(cluster, project, *submit, "--", "train", "voc/ann_fcn"), begin(cluster, project, *submit, "--set", "cluster.data=/nowhere/data", "--", "report")]
    (code, out, err), (other_code, _, other_err) = map(ended, both)
    name = out.splitlines()[0]
    assert code == 5 and err.count("\n") == 1, err
    assert err.startswith(f"snnseg: {name}: failed with exit code 5: {project.resolve()}/data/store/voc: not found. ")
    assert other_code == 9 and "/nowhere/data: this machine does not see the project's data folder" in other_err and "cluster.data" in other_err


def test_ctrl_c_back_and_stop(cluster, project):
    """The first Ctrl-C leaves the job running; its log is followed again from the beginning; a stop lets it save."""
    process = begin(cluster, project, "submit", "--address", cluster.url, "--", "train", "ann_fcn", *SETS, "--set", "train.epochs=100000", "--set", "train.validate_every=0")
    name = process.stdout.readline().strip()
    for line in process.stdout:
        if "epoch" in line:
            break
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 130 and err.startswith(f"snnseg: {name} goes on without this terminal") and f"snnseg jobs logs {name}" in err, err
    back = begin(cluster, project, "jobs", "logs", name, "--follow", "--address", cluster.url)
    assert any("epoch" in line for line in back.stdout), "the log from its beginning, while the job runs"
    code, out, err = ended(begin(cluster, project, "jobs", "stop", name, "--address", cluster.url))
    assert code == 0 and out.startswith(f"{name}: stopped after "), err
    code, out, err = ended(back)
    assert code == 130 and f"snnseg: {name}: was stopped" in err and "is saved" in out, out


def test_a_wrong_or_no_token_is_one_line(cluster, project, tmp_path):
    (tmp_path / "wrong").write_text("f" * 64)
    code, out, err = ended(begin(cluster, project, "jobs", "--address", cluster.url, RAY_AUTH_TOKEN_PATH=str(tmp_path / "wrong")))
    assert (code, out) == (9, "") and err.count("\n") == 1 and f"does not take the token from {tmp_path / 'wrong'}" in err
    code, out, err = ended(begin(cluster, project, "jobs", "--address", cluster.url, RAY_AUTH_TOKEN_PATH="", HOME=str(tmp_path)))
    assert (code, out) == (9, "") and err.count("\n") == 1 and "asks for a token, and none was found here" in err


def test_what_listens_is_what_the_docs_say(cluster):
    """Sockets that Ray opens beyond this machine, by process, and that those which take orders ask for the token."""
    cluster.ready()
    table = {cells[0].split("`")[1]: cells for line in DOC.splitlines() if line.startswith("| `") and len(cells := [c.strip() for c in line.strip("|").split("|")]) == 4
             and ("token" in cells[3] or "firewall" in cells[3])}
    found = cluster.listening()
    print(*(f"{kind}: {sorted(places)}" for kind, places in sorted(found.items()) if places), sep="\n")
    names = {"ray.util.client.server": "client_server", "dashboard.py": "dashboard", "monitor.py": "metrics"}
    for kind, places in found.items():
        assert not places or names.get(kind, kind) in table, f"{kind} listens at {places}: not in docs/cluster.md"
    assert {ip for ip, port in found["dashboard.py"] if port == cluster.port} == {"127.0.0.1"}
    open_to_all = {kind for kind, places in found.items() if any(ip in ("::", "0.0.0.0") for ip, _ in places)}
    assert {"gcs_server", "raylet", "DashboardAgent"} <= open_to_all, "Ray no longer listens on all addresses: the docs may be made shorter"
    asked = 0
    for kind, ip, port in [("dashboard.py", "127.0.0.1", cluster.port), *(("DashboardAgent", ip, port) for ip, port in found["DashboardAgent"] if ip not in ("::", "0.0.0.0")),
                           *(("RuntimeEnvAgent", *place) for place in found["RuntimeEnvAgent"])]:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{ip}:{port}/api/job_agent/jobs/", timeout=5)
        asked += 1
        assert kind
    assert asked >= 3
