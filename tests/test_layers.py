"""The house's rules, read from the source: who may import whom, what no module may do, and that all of it is described."""
import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from conftest import ROOT

from snnseg.sources import imported

PACKAGE = ROOT / "snnseg"
MODULES = sorted(PACKAGE.rglob("*.py"))
SOURCES = [*MODULES, *sorted((ROOT / "pipelines").glob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]

# floor by floor; a module imports from its own floor and those below it
FLOORS = [
    {"__init__", "errors", "seeds", "ranks", "ray_cluster", "seal", "lock", "memory", "ranges", "section", "data_sections", "sections", "config", "settings", "provenance", "sources", "stage"},
    {"data", "spiking"},
    {"models"},
    {"evaluation"},
    {"training"},
    {"tracking", "report", "cluster", "doctor"},
    {"tuning"},
    {"cli", "__main__"},
]
LEAVES = {"cli", "__main__", "pipelines", "benchmarks"}       # nobody imports these, but __main__ the cli


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room(path: Path) -> str:
    """`data` for snnseg/data/store.py, `seal` for snnseg/seal.py, `pipelines` for a stage."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "snnseg" else parts[0]


def floor(path: Path) -> int:
    return next((k for k, rooms in enumerate(FLOORS) if room(path) in rooms), len(FLOORS) if room(path) in LEAVES else -1)


@functools.cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def outside(path: Path, anywhere: bool = True) -> frozenset[str]:
    """Top-level packages that a module imports: anywhere in it, or only when it is imported itself."""
    found = set()
    tree = syntax(path)
    for node in ast.walk(tree) if anywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno}: relative import"
            found.add(node.module.split(".")[0])
    return frozenset(found)


def test_every_room_has_its_floor_and_imports_point_down():
    for path in SOURCES:
        assert floor(path) >= 0, f"{name(path)}: on no floor. Put {room(path)} into FLOORS"
        up = [name(p) for p in imported(path, ROOT) if floor(p) > floor(path)]
        assert not up, f"{name(path)} imports from above: {up}"
        beside = [name(p) for p in imported(path, ROOT) if floor(p) == floor(path) and room(p) != room(path)]
        assert floor(path) in (0, 5, 7) or not beside, f"{name(path)} imports a room of its own floor: {beside}"


def test_no_import_goes_round():
    """The modules can be sorted so that each comes after all it imports; an `__init__` holds no imports."""
    waiting = {p: {q for q in imported(p, ROOT) if q != p and q.name != "__init__.py"} for p in MODULES}
    while waiting:
        free = {p for p, needs in waiting.items() if not needs & waiting.keys()}
        assert free, f"these import one another: {sorted(map(name, waiting))}"
        waiting = {p: needs for p, needs in waiting.items() if p not in free}
    assert all(not imported(p, ROOT) for p in MODULES if p.name == "__init__.py")


def test_what_lies_on_the_ground_is_light():
    """Config, errors and the door are there before anything heavy."""
    heavy = {"torch", "ray", "mlflow", "zarr", "numcodecs", "safetensors", "PIL", "sklearn", "rich", "dvc"}
    for path in MODULES:
        if floor(path) == 0:
            assert not outside(path, anywhere=False) & heavy, name(path)
    assert not outside(PACKAGE / "errors.py") - sys.stdlib_module_names
    assert outside(PACKAGE / "config.py") - sys.stdlib_module_names == {"pydantic", "ruamel", "snnseg"}


def test_data_is_numpy_only_and_spiking_torch_but_for_its_kernels():
    for path in MODULES:
        if room(path) == "data":
            assert not outside(path) & {"torch", "mlflow", "dvc"}, name(path)       # Ray has its own door, below
        if room(path) == "spiking":
            kernels = {"numpy", "numba", "llvmlite", "filelock"} if "cpu" in path.stem else {"triton"} if "triton" in path.stem else set()
            assert outside(path) - sys.stdlib_module_names <= {"torch", "snnseg"} | kernels, name(path)
            assert all(room(p) in {"spiking", "__init__"} for p in imported(path, ROOT)), name(path)
        if room(path) == "training":
            doors = {"ray"} if name(path) == "snnseg/training/ray_train.py" else set()
            assert not outside(path) & {"mlflow", "ray", "dvc"} - doors, f"{name(path)}: the loop knows neither MLflow nor Ray"


def test_mlflow_and_ray_have_one_door_each():
    for path in SOURCES:
        assert "mlflow" not in outside(path) or room(path) == "tracking", name(path)
        assert "ray" not in outside(path) or path.stem.startswith("ray_"), name(path)
        assert "dvc" not in outside(path), name(path)
        assert "jinja2" not in outside(path) or name(path) == "snnseg/report/page/index.py", name(path)


def test_tracking_imports_mlflow_only_when_it_tracks():
    for path in MODULES:
        assert "mlflow" not in outside(path, anywhere=False), name(path)


def test_modules_are_small_and_named_for_what_they_hold():
    for path in [*SOURCES, *sorted((ROOT / "tests").glob("*.py"))]:
        assert len(path.read_text(encoding="utf-8").splitlines()) < (400 if path in SOURCES else 500), name(path)
        assert not set(path.relative_to(ROOT).with_suffix("").parts) & {"utils", "util", "helpers", "common", "misc", "base", "core", "tools"}, name(path)


def public(tree: ast.Module) -> Iterator[ast.ClassDef | ast.FunctionDef]:
    """Functions and classes of a module that others may use."""
    yield from (n for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and not n.name.startswith("_"))


def plain(node: ast.ClassDef | ast.FunctionDef) -> bool:
    """Speaks for itself: one statement, or nothing but typed fields."""
    return len(node.body) <= 1 or isinstance(node, ast.ClassDef) and all(isinstance(n, ast.AnnAssign) for n in node.body)


def test_modules_classes_and_functions_say_what_they_are():
    """A function of one statement, a class of typed fields and a stage's `main` may speak for themselves."""
    for path in SOURCES:
        tree = syntax(path)
        told = ast.get_docstring(tree)
        assert told and len(told.splitlines()) <= 12 and told.splitlines()[0].strip(), f"{name(path)}: module docstring"
        missing = [n.name for n in public(tree) if not ast.get_docstring(n) and not plain(n) and n.name != "main"]
        assert not missing, f"{name(path)}: no docstring: {missing}"


FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}


def test_nothing_runs_code_that_came_as_data():
    """No pickle, no shell, no unsafe YAML, no archive written as it asks, no bare except: checked in the syntax, not the text."""
    for path in SOURCES:
        for node in ast.walk(syntax(path)):
            where = f"{name(path)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{where}: bare except"
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            options = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            assert called not in FORBIDDEN_CALLS, f"{where}: {called}"
            assert called not in {"pickle.load", "pickle.loads", "pickle.Unpickler", "os.system", "os.popen", "yaml.full_load", "yaml.unsafe_load"}, where
            assert not called.endswith((".extractall", ".unpack_archive")), where
            assert options.get("weights_only") is not False and options.get("allow_pickle") is not True and options.get("shell") is not True, where
            if called == "torch.load":
                assert options.get("weights_only") is True, f"{where}: torch.load without weights_only=True"
            if called in {"np.load", "numpy.load"}:
                assert options.get("allow_pickle") in (False, None), where
            if called == "YAML":
                assert options.get("typ", "rt") in {"rt", "safe"}, f"{where}: unsafe YAML"


def test_errors_are_not_swallowed():
    """`except Exception: pass` hides faults; so does catching BaseException without raising it again."""
    for path in SOURCES:
        for node in ast.walk(syntax(path)):
            if isinstance(node, ast.ExceptHandler) and node.type is not None and ast.unparse(node.type) in {"Exception", "BaseException"}:
                silent = all(isinstance(n, ast.Pass | ast.Continue) for n in node.body)
                assert not silent, f"{name(path)}:{node.lineno}"


def tracked() -> list[Path]:
    """All files that a commit would hold, or, where git is not, all sources."""
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    found = [ROOT / line for line in done.stdout.splitlines()] if done.returncode == 0 else SOURCES
    return [p for p in found if p.is_file() and p.suffix not in {".png", ".npz", ".safetensors"}]


MACHINE = re.compile(r"(?<![\w.$<>}])/(?:work|tmp|root|home|mnt|opt|Users)/\w")
INDEX = re.compile(r"https?://[^\s\"')]*(?:simple|pypi|artifactory|nexus|mirror)[^\s\"')]*|--(?:extra-)?index-url|--trusted-host|--find-links", re.IGNORECASE)


def test_no_file_names_a_machine_or_a_package_index():
    for path in tracked():
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not MACHINE.search(line), f"{name(path)}:{number}: a path of one machine: {line.strip()[:100]}"
            assert not INDEX.search(line), f"{name(path)}:{number}: a package index: {line.strip()[:100]}"


def test_tracked_files_are_small():
    assert all(p.stat().st_size < 500_000 for p in tracked())
