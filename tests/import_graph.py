"""Which modules of the project a file needs, read from its source: imports at any depth, none under TYPE_CHECKING."""
import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _file_of(module: str) -> Path | None:
    place = ROOT / module.replace(".", "/")
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None


def _statements(node: ast.AST):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and getattr(child.test, "id", None) == "TYPE_CHECKING":
            continue
        yield child
        yield from _statements(child)


def imported(path: Path) -> set[Path]:
    """Files of the package that `path` imports, with the `__init__` of every package on the way."""
    names = set()
    for node in _statements(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
    out = set()
    for name in (n for n in names if n.split(".")[0] == "snnseg"):
        parts = name.split(".")
        out |= {f for k in range(1, len(parts) + 1) if (f := _file_of(".".join(parts[:k])))}
    return out


def closure(path: Path) -> set[Path]:
    """`path` and all it needs, directly or not."""
    seen, waiting = set(), [path]
    while waiting:
        if (now := waiting.pop()) not in seen:
            seen.add(now)
            waiting += imported(now)
    return seen


if __name__ == "__main__":
    for stage in sorted((ROOT / "pipelines").glob("*.py")):
        print(stage.stem, *("  - " + p.relative_to(ROOT).as_posix() for p in sorted(closure(stage))), sep="\n")
