"""Named settings: files below settings/ that hold the numbers params.yaml takes on with one command.

`sample` is small and needs no download; `paper` is the paper's full setting (section 5.1.2). Switching changes the
values in params.yaml and nothing else in it, so DVC sees an ordinary parameter change.
"""
from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from snnseg import config, seal
from snnseg.errors import ConfigError
from snnseg.sections import flat


def names(root: Path) -> list[str]:
    return sorted(p.stem for p in (root / "settings").glob("*.yaml"))


def differences(params: Path, name: str) -> dict[str, tuple[Any, Any]]:
    """What `name` would change: key -> (value in params.yaml, value of the setting). Raises ConfigError."""
    known = names(params.parent)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}." if known else "Restore them: git checkout settings"
        raise ConfigError(f"{params.parent / 'settings'}: no setting is named {name[:80]!r}. {hint}")
    wanted = flat(config.read_yaml(params.parent / "settings" / f"{name}.yaml")[0])
    now = flat(config.read_yaml(params)[0])
    wanted = {k: v for k, v in wanted.items() if k in now or not k.startswith("benchmarks.")}     # the user took it out: the section's number holds
    if unknown := sorted(wanted.keys() - now.keys()):
        raise ConfigError(f"settings/{name}.yaml: {unknown[0]}: unknown key, {params.name} has none of that name. Remove it.")
    return {k: (now[k], v) for k, v in wanted.items() if now[k] != v}


def _written(text: str) -> dict[str, slice]:
    """Where the value of each dotted key stands in a YAML text."""
    return {key: slice(node.start_mark.index, node.end_mark.index) for key, (_, node) in config.nodes(text).items()}


def _aligned(rest: str, grown: int) -> str:
    """The rest of a line after a value that grew by so many characters, its comment still in its column if there is room."""
    gap = len(rest) - len(rest.lstrip(" "))
    return " " * (gap - grown) + rest[gap:] if rest[gap:gap + 1] == "#" and gap > 1 and gap - grown > 1 else rest


def switch(params: Path, name: str) -> dict[str, tuple[Any, Any]]:
    """Make params.yaml take on the setting `name`; return what changed.

    Values are exchanged as they are spelled and every other byte stays, so that switching back restores the file.
    Raises ConfigError and leaves params.yaml as it was.
    """
    config.load(params)
    changes = differences(params, name)
    before = text = config.read_text(params)
    setting = config.read_text(params.parent / "settings" / f"{name}.yaml")
    places, source = _written(text), _written(setting)
    for key in sorted(changes, key=lambda k: places[k].start, reverse=True):    # from the end: earlier places stay right
        old, new = text[places[key]], setting[source[key]]
        new = new if old else f" {new}"                                         # `key:` without a value
        text = text[:places[key].start] + new + _aligned(text[places[key].stop:], len(new) - len(old))
    file, mode = params.resolve(), params.stat().st_mode
    try:
        seal.write_file(file, text)
        config.load(params)
    except ConfigError:
        seal.write_file(file, before)
        raise
    finally:
        file.chmod(mode)
    return changes
