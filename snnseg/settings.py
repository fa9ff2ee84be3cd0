"""Named settings: files below settings/ that hold the numbers params.yaml takes on with one command.

`sample` is small and needs no download; `paper` is the paper's full setting (section 5.1.2). Switching changes the
values in params.yaml and nothing else in it, so DVC sees an ordinary parameter change.
"""
from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from snnseg import config, seal
from snnseg.errors import ConfigError


def flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as `section.key` -> value."""
    out: dict[str, Any] = {}
    for key, value in section.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return out


def names(root: Path) -> list[str]:
    return sorted(p.stem for p in (root / "settings").glob("*.yaml"))


def differences(params: Path, name: str) -> dict[str, tuple[Any, Any]]:
    """What `name` would change: key -> (value in params.yaml, value of the setting). Raises ConfigError."""
    if name not in names(params.parent):
        raise ConfigError(f"no setting is named {name!r}. Known: {', '.join(names(params.parent))}.")
    wanted = flat(config.read_yaml(params.parent / "settings" / f"{name}.yaml")[0])
    now = flat(config.read_yaml(params)[0])
    if unknown := sorted(wanted.keys() - now.keys()):
        raise ConfigError(f"settings/{name}.yaml: {unknown[0]}: unknown key. Remove it.")
    return {k: (now[k], v) for k, v in wanted.items() if now[k] != v}


def switch(params: Path, name: str) -> dict[str, tuple[Any, Any]]:
    """Make params.yaml take on the setting `name`, comments kept; return what changed. Raises ConfigError."""
    config.load(params)
    changes = differences(params, name)
    yaml = YAML()
    yaml.width = 200
    document = yaml.load(params.read_text(encoding="utf-8"))
    for key, (_, value) in changes.items():
        *sections, last = key.split(".")
        place = document
        for section in sections:
            place = place[section]
        place[last] = value
    out = io.StringIO()
    yaml.dump(document, out)
    seal.write_file(params, out.getvalue())
    config.load(params)
    return changes
