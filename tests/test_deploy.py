"""What deploy/ holds: read by the tools that will read it where they are here, run with stand-ins where they are not."""
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

from snnseg.cluster import job

DEPLOY = ROOT / "deploy"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
PINNED = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").split())
ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b[\w-]+\.(?:internal|local|lan|corp|cluster|com|net)\b")


def read(name: str) -> dict:
    return YAML(typ="safe").load((DEPLOY / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", sorted(DEPLOY.iterdir()), ids=lambda p: p.name)
def test_no_host_of_anybody_is_named(path):
    found = set(ADDRESS.findall(path.read_text(encoding="utf-8"))) - {"127.0.0.1", "nvidia.com"}
    assert not found, found


@pytest.mark.filterwarnings("ignore")      # ray's own
@pytest.mark.parametrize("name", ["ray-up-aws.yaml", "ray-up-machines.yaml"])
def test_ray_up_takes_the_file(name):
    """Ray's own checks, and a fault that they find."""
    import jsonschema
    from ray.autoscaler._private.local.config import prepare_local
    from ray.autoscaler._private.util import validate_config

    told = read(name)
    if told["provider"]["type"] == "local":
        told, _ = prepare_local(told)
    told |= {"cluster_synced_files": [], "file_mounts_sync_continuously": False}
    validate_config(told)
    with pytest.raises(jsonschema.ValidationError, match="idle"):
        validate_config(told | {"idle_minutes": 5})


@pytest.mark.parametrize("name", ["ray-up-aws.yaml", "ray-up-machines.yaml"])
def test_machines_are_started_with_a_token_and_the_tested_versions(name):
    told = read(name)
    starts = [c for key in ("head_start_ray_commands", "worker_start_ray_commands") for c in told[key] if "ray start" in c]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token " in c and "activate" in c for c in starts) and "RAY_JOB_START_TIMEOUT_SECONDS=" in starts[0]
    assert "--dashboard-host 127.0.0.1" in starts[0] and "--autoscaling-config" in starts[0] and "$RAY_HEAD_IP:6379" in starts[1]
    assert told["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token" and "chmod 600 ~/.ray/auth_token" in told["setup_commands"]
    assert any("pip install --quiet --constraint constraints.txt -e ." in c for c in told["setup_commands"]) and {"/data", "/.venv", "/.git"} <= set(told["rsync_exclude"])


def test_the_cloud_s_machines_go_when_they_are_idle():
    told = read("ray-up-aws.yaml")
    assert told["idle_timeout_minutes"] <= 10 and all(kind["min_workers"] == 0 for kind in told["available_node_types"].values())
    assert told["available_node_types"][told["head_node_type"]]["resources"] == {"CPU": 0}


def test_the_job_of_kuberay():
    told = read("rayjob.yaml")
    assert (told["apiVersion"], told["kind"]) == ("ray.io/v1", "RayJob")
    spec, cluster = told["spec"], told["spec"]["rayClusterSpec"]
    assert spec["shutdownAfterJobFinishes"] is True and spec["ttlSecondsAfterFinished"] > 0 and spec["submissionMode"] == "K8sJobMode"
    assert cluster["authOptions"] == {"mode": "token"} and cluster["rayVersion"] == PINNED["ray"]
    assert spec["entrypoint"].startswith("env -u OMP_NUM_THREADS python -m snnseg train ")
    variables = YAML(typ="safe").load(spec["runtimeEnvYAML"])["env_vars"]
    assert variables == {"RAY_JOB_STOP_WAIT_TIME_S": str(job.STOP_WAIT_S)}
    worker, = cluster["workerGroupSpecs"]
    for group in (cluster["headGroupSpec"], worker):
        pod = group["template"]["spec"]
        container, = pod["containers"]
        assert pod["securityContext"] == {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000} and container["image"] == "IMAGE"
        places = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
        assert places == {"data": "/snnseg/data", "shm": "/dev/shm"} and {v["name"] for v in pod["volumes"]} == places.keys()
        assert container["resources"]["limits"].keys() == container["resources"]["requests"].keys() >= {"cpu", "memory"}
        assert all(isinstance(v, str) for v in group["rayStartParams"].values())
    assert worker["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1" and worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]
    assert "python -m snnseg" in spec["entrypoint"] and "--params /snnseg/params.yaml" in spec["entrypoint"]


def test_the_image_is_built_as_the_makefile_does_it():
    """Same Python, same versions, an environment in the same place; nothing as root but what needs it; nothing copied that is data."""
    least = re.search(r"sys\.version_info < \((\d+), (\d+)\)", MAKEFILE).groups()
    assert re.search(r"^FROM python:(\d+)\.(\d+)-slim$", DOCKERFILE, re.MULTILINE).groups() == least
    wanted = re.search(r"\$\(VENV\)/bin/pip (install --quiet --constraint constraints\.txt -e) '\.\[dev\]'", MAKEFILE).group(1)
    lines = re.sub(r"\\\n", " ", DOCKERFILE).splitlines()
    install = next(line for line in lines if "pip install" in line)
    assert "python3 -m venv .venv" in install and f".venv/bin/pip {wanted.replace('install', 'install', 1)} ." in install.replace(" --no-cache-dir", "")
    assert "VENV   := .venv" in MAKEFILE and "ENV PATH=/snnseg/.venv/bin:$PATH RAY_AUTH_MODE=token" in DOCKERFILE
    user = lines.index("USER snnseg")
    assert user < lines.index(install) and not any(line.startswith("USER") for line in lines[user + 1:]) and "--uid 1000" in DOCKERFILE
    copied = [word for line in lines if line.startswith("COPY") for word in line.split()[2:-1]]
    assert all((ROOT / name).exists() for name in copied) and not {"data", "."} & set(copied) and {"snnseg", "params.yaml", "constraints.txt", "settings"} <= set(copied)


STAND_INS = {
    "scontrol": 'printf "one\\ntwo\\nthree\\n"',
    "srun": 'echo "srun $*" >> "$LOG"; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "ray": 'if [[ $1 == status ]]; then grep -q "^ray start --head" "$LOG"; exit; fi; echo "ray $* mode=$RAY_AUTH_MODE token=$(stat -c %a "$RAY_AUTH_TOKEN_PATH")/$(wc -c < "$RAY_AUTH_TOKEN_PATH")" >> "$LOG"\n'
           'trap \'kill $!; echo "ray ended" >> "$LOG"; exit 0\' TERM; sleep 60 & wait',
    "snnseg": 'echo "snnseg $* at=$RAY_ADDRESS" >> "$LOG"; trap \'kill $!; sleep 0.3; echo saved >> "$LOG"; exit 130\' TERM\n'
              'until grep -q "^ray start --block --address" "$LOG"; do sleep 0.05; done\n'
              '[[ $1 != train ]] || { echo ready >> "$LOG"; sleep 60 & wait; }; exit "${CODE:-0}"',
}


@pytest.fixture
def slurm(tmp_path):
    """Begin deploy/slurm.sh with its arguments where Slurm and Ray are stand-ins that write down how they were called."""
    programs, project = tmp_path / "bin", tmp_path / "project"
    programs.mkdir()
    project.mkdir()
    for name, script in STAND_INS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (programs / name).chmod(0o755)
    begun = []

    def begin(*arguments: str, **more: str) -> tuple[subprocess.Popen[str], Path, Path]:
        environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "LOG": str(tmp_path / "log"), "SLURM_SUBMIT_DIR": str(project),
                                    "SLURM_JOB_ID": "123456", "SLURM_JOB_NODELIST": "n[1-3]", "SLURM_CPUS_PER_TASK": "8"} | more
        begun.append(subprocess.Popen(["bash", str(DEPLOY / "slurm.sh"), *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                      start_new_session=True))
        return begun[-1], tmp_path / "log", project

    yield begin
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_the_slurm_script_is_bash():
    assert subprocess.run(["bash", "-n", str(DEPLOY / "slurm.sh")], capture_output=True, text=True).stderr == ""
    assert (DEPLOY / "slurm.sh").stat().st_mode & stat.S_IXUSR and shutil.which("bash")


@pytest.mark.parametrize("code", [0, 5])
def test_slurm_starts_ray_with_a_token_and_ends_it(slurm, code):
    process, log, project = slurm("report", "--set", "a=b c", CODE=str(code))
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    lines = log.read_text().splitlines()
    port = 20_000 + 123_456 % 20_000
    head, = (line for line in lines if line.startswith("ray start --head"))
    workers, = (line for line in lines if line.startswith("ray start --block --address"))
    assert f"--port {port} --dashboard-host 127.0.0.1 --num-cpus 8" in head and f"--address one:{port} " in workers
    assert all(line.endswith("mode=token token=600/65") for line in (head, workers)), "a token of 64 characters that nobody else reads"
    assert any(line.startswith("srun --nodes=1 --ntasks=1 --nodelist=one ") for line in lines) and any("--ntasks=2 --nodelist=two,three " in line for line in lines)
    assert f"snnseg report --set a=b c at=one:{port}" in lines and lines.count("ray ended") == 2
    assert not list((project / "data").iterdir()), "the token is left behind"


def test_slurm_lets_a_command_save_before_the_time_is_up(slurm):
    process, log, project = slurm("train", "voc/ann_fcn")
    deadline = time.monotonic() + 30
    while not (log.exists() and "ready" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    process.communicate(timeout=60)
    lines = log.read_text().splitlines()
    assert process.returncode == 130 and lines.index("saved") < min(k for k, line in enumerate(lines) if line.startswith("ray") and line.endswith("ended"))
    assert not list((project / "data").iterdir())


def test_slurm_without_a_command_or_outside_slurm_says_so(slurm):
    process, _, _ = slurm()
    assert "usage: sbatch deploy/slurm.sh VERB" in process.communicate(timeout=20)[1] and process.returncode == 2
    process, _, project = slurm("report", SLURM_SUBMIT_DIR="")
    assert "run it with sbatch" in process.communicate(timeout=20)[1] and process.returncode != 0 and not list(project.iterdir())
