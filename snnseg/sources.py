"""Which files a module of the project needs, read from the text: imports at any depth, none under TYPE_CHECKING, and data files beside what names them."""
from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = "snnseg"


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and getattr(child.test, "id", None) == "TYPE_CHECKING":
            continue
        yield child
        yield from _statements(child)


def _file_of(module: str, root: Path) -> Path | None:
    place = root / module.replace(".", "/")
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


@cache
def _read(path: Path) -> tuple[str, frozenset[str], frozenset[str]]:
    """Of a file: its digest, the modules it may import, its words."""
    if path.suffix != ".py":
        return hashlib.sha256(path.read_bytes()).hexdigest(), frozenset(), frozenset()
    tree, modules, words = ast.parse(path.read_bytes()), set(), set()
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            modules |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules |= {node.module} | {f"{node.module}.{a.name}" for a in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), frozenset(modules), frozenset(words)


def imported(path: Path, root: Path) -> set[Path]:
    """Modules of the package below `root` that `path` imports, with the `__init__` of every package on the way."""
    parts = [name.split(".") for name in _read(path)[1] if name.split(".")[0] == PACKAGE]
    return {f for p in parts for k in range(1, len(p) + 1) if (f := _file_of(".".join(p[:k]), root))}


def named(path: Path) -> set[Path]:
    """Files beside a module, no code themselves, whose names are among its words."""
    return {p for p in path.parent.iterdir() if p.name in _read(path)[2] and p.suffix != ".py" and p.is_file()}


def needed(path: Path, root: Path) -> set[Path]:
    """`path` and all that it needs, directly or not."""
    seen, waiting = set[Path](), [path]
    while waiting:
        if (now := waiting.pop()) not in seen:
            seen.add(now)
            waiting += imported(now, root) | named(now)
    return seen


def told(path: Path, root: Path) -> str:
    """All that `path` needs as lines of a sha256 and a name; comments and layout of code leave them as they are."""
    return "".join(f"{_read(file)[0]}  {file.relative_to(root).as_posix()}\n" for file in sorted(needed(path, root)))
