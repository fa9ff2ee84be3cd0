"""What several test files need: a tiny project of its own in a temporary folder."""
import ast
import contextlib
import faulthandler
import functools
import gc
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
import tables

from snnseg import config, provenance, sections
from snnseg.data import mnist_cifar

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")     # as stage.run sets it: beside other processes, a thread that waits takes the core of one that works

# a net that trains in seconds; everything else as in params.yaml
TINY = ["data.mnist_cifar.train=48", "data.mnist_cifar.test=16", "data.workers=1", "model.width=0.0625", "encode.timesteps=2",
        "train.epochs=2", "train.batch=8", "train.log_every=2", "train.checkpoint_every=4", "evaluate.pictures=4", "evaluate.batch=8",
        "conversion.calibration=6", "conversion.timesteps=[1,4,16]", "time_steps.inference=[1,3]"]
RAY = {"test_ray_train", "test_tune", "test_prepare_ray"}
LONGEST = ["test_ray_train", "test_tune", "test_prepare_ray", "test_fused_triton", "test_pipeline", "test_prepare", "test_prepare_killed", "test_ways", "test_cluster_ray",
           "test_resume", "test_forecast", "test_ranks", "test_benchmarks", "test_tune_verdict", "test_cli"]


# A process writes hundreds of stores: the digest of code stays one of what its files hold, but the same text is parsed once
provenance.ast = SimpleNamespace(parse=bytes, dump=functools.cache(lambda text: ast.dump(ast.parse(text))))
read_pool = mnist_cifar.pool


@functools.cache
def sample_pool(split: str, seed: int) -> mnist_cifar.Pool:
    """What installed packages bring stays the same, so it is cut out once; whoever wrote into it would be refused."""
    made = read_pool("sample", ROOT, split, seed)
    for array in vars(made).values():
        array.flags.writeable = False
    return made


tables.once()
mnist_cifar.pool = lambda source, raw, split, seed: sample_pool(split, seed) if source == "sample" else read_pool(source, raw, split, seed)


def pytest_addoption(parser):
    parser.addoption("--refresh-golden", action="store_true", help="write tests/golden anew instead of comparing")


def pytest_collection_modifyitems(items):
    """The longest files first, so that no process ends with one of them."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_collection_finish():
    """What is loaded by now stays to the end; the garbage collector, looking through it again and again, took a fifth of the tests' time."""
    gc.collect()
    gc.freeze()
    forked.at_first()


def pytest_runtest_setup(item):
    """Beside a cluster of Ray, whose processes wait for one another many times a second, other tests take what it leaves. Those run by hand may take long."""
    if item.get_closest_marker("slow"):
        faulthandler.cancel_dump_traceback_later()
    if "PYTEST_XDIST_WORKER" in os.environ and item.path.stem not in RAY and not os.nice(0):
        os.nice(10)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """A cluster ends with the last test that needs one: its processes ask for one another to the end."""
    if item.path.stem in RAY and (nextitem is None or nextitem.path.stem not in RAY) and "ray" in sys.modules:
        sys.modules["ray"].shutdown()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One more than there are cores: those that wait for a cluster or for a process to end leave theirs."""
    return os.cpu_count() + 1


@pytest.hookimpl(optionalhook=True)     # xdist's; its own groups by mark have no effect from pytest 9.2 on
def pytest_xdist_make_scheduler(config, log):
    """Where several processes share the tests (`make test`): a file stays whole, and those that train through Ray are one after another in one process."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid):
            stem = Path(nodeid.split("::")[0]).stem
            return "ray" if stem in RAY else stem

    config.option.loadscopereorder = False      # the order is ours
    return ByFile(config, log)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with params.yaml and settings/, nothing else."""
    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(ROOT / "params.yaml", root)
    shutil.copytree(ROOT / "settings", root / "settings")
    return root


@pytest.fixture
def tiny(project: Path):
    """Make a tiny config of an experiment: tiny("spiking_fcn", "train.epochs=3")."""
    def make(experiment: str = "spiking_deeplab", *overrides: str) -> config.Config:
        return config.load(project / "params.yaml", experiment, [*TINY, "track.mlflow=false", *overrides])
    return make


SMALL = ["data.ddd17.sample={train: 12, test: 8}", "train.epochs=1"]
SHAPING = tuple(f"{section}." for section in sorted(sections.SHAPING | {"data"}))


@pytest.fixture(scope="session")
def nets(tmp_path_factory):
    """The data folder of a tiny net that is trained and published once in a session, by its name and the numbers that shape it."""
    from snnseg.data import prepare
    from snnseg.training import run

    made = {}

    def of(experiment: str, *shaping: str) -> Path:
        if (experiment, shaping) not in made:
            root = tmp_path_factory.mktemp("net")
            shutil.copy(ROOT / "params.yaml", root)
            numbers = config.load(root / "params.yaml", experiment, [*TINY, *SMALL, *shaping])
            prepare.prepare(numbers)
            run.publish(run.train(numbers), numbers)
            made[experiment, shaping] = root / "data"
        return made[experiment, shaping]

    return of


@pytest.fixture
def trained(tiny, nets):
    """The config of a tiny net whose store, run and model lie in this test's own project: trained("spiking_fcn", "energy.pictures=11")."""
    def make(experiment: str = "spiking_deeplab", *overrides: str) -> config.Config:
        numbers = tiny(experiment, *SMALL, *overrides)
        shutil.copytree(nets(experiment, *(text for text in overrides if text.startswith(SHAPING))), numbers.root / "data", dirs_exist_ok=True)
        return numbers
    return make


@contextlib.contextmanager
def _threads(number: int):
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def two_threads():
    """Sums are made in the order of two threads, whatever the machine and the number of tests at a time."""
    with _threads(2):
        yield


@pytest.fixture(scope="module")
def one_thread():
    """Likewise of one, for the rest of the module."""
    with _threads(1):
        yield


@pytest.fixture
def environment() -> dict[str, str]:
    """For commands."""
    return forked.surroundings()


@pytest.fixture(scope="session")
def ray_cluster():
    """A Ray cluster of this process alone, with four processors by name; what asks for the address `local` finds it."""
    import ray

    from snnseg import ray_cluster as quiet

    # Ray's own niceness is 15, behind all other tests; of two threads sums are added in another order
    os.environ.update(quiet.QUIET | {"RAY_worker_niceness": "0", "OMP_NUM_THREADS": "1"})
    ray.init("local", num_cpus=4, num_gpus=0, object_store_memory=quiet.STORE_BYTES, include_dashboard=False, log_to_driver=False, logging_level="error",
             configure_logging=False)
    yield ray
    ray.shutdown()
