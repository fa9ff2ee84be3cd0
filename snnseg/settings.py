"""Named settings: files below settings/ that hold the numbers params.yaml takes on with one command.

`sample` is small and needs no download; `paper` is the paper's full setting (section 5.1.2); `integer` the recipe of one time step of
integer spikes; `variants` has the sample's numbers and other experiments: codings and neurons. Switching changes the values in
params.yaml and nothing else in it, so DVC sees an ordinary parameter change.
"""
from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from ruamel.yaml.nodes import MappingNode

from snnseg import config, seal
from snnseg.errors import ConfigError
from snnseg.section import flat


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
    file = config.read(params)
    for key, there in (("repro.benchmarks", file.benchmarks), *((f"repro.{kind}", file.experiments) for kind in ("experiments", *config.PART))):     # likewise
        if isinstance(wanted.get(key), list):
            wanted[key] = [one for one in wanted[key] if isinstance(one, str) and one in there] or ([] if key.endswith(tuple(config.PART)) else now[key])
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
        old, new = text[places[key]], f"[{', '.join(changes[key][1])}]" if key.startswith("repro.") else setting[source[key]]
        new = new if old else f" {new}"                                         # `key:` without a value
        text = text[:places[key].start] + new + _aligned(text[places[key].stop:], len(new) - len(old))
    _replace(params, before, text)
    return changes


def _spelled(value: Any) -> str:
    """A value as YAML in one line; of a mapping with its braces."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_spelled(below)}" for key, below in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def _put(text: str, key: str, value: Any) -> str:
    """`text` with a value at a dotted key, whose first part is there: exchanged, or added to the deepest mapping that is there."""
    nodes = config.nodes(text)
    if key in nodes:
        node = nodes[key][1]
        new = _spelled(value) if node.end_mark.index > node.start_mark.index else f" {_spelled(value)}"
        rest = _aligned(text[node.end_mark.index:], len(new) - (node.end_mark.index - node.start_mark.index))
        return text[:node.start_mark.index] + new + rest
    parts = key.split(".")
    depth = next(k for k in range(len(parts) - 1, 0, -1) if ".".join(parts[:k]) in nodes)
    for name in reversed(parts[depth + 1:]):
        value = {name: value}
    node, added = nodes[".".join(parts[:depth])][1], f"{parts[depth]}: {_spelled(value)}"
    if not isinstance(node, MappingNode) or not node.value:     # `{}`, or nothing
        return text[:node.start_mark.index] + f"{' ' * (node.start_mark.index == node.end_mark.index)}{{{added}}}" + text[node.end_mark.index:]
    if node.flow_style:
        end = node.value[-1][1].end_mark.index
        return f"{text[:end]}, {added}{text[end:]}"
    first = node.value[0][0].start_mark
    line_end = "\r\n" if "\r\n" in text else "\n"
    return f"{text[:first.index]}{added}{line_end}{' ' * first.column}{text[first.index:]}"


def give(params: Path, name: str, numbers: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Write numbers into the changes of the experiment of `voc/ann_fcn`, `section.key` -> value; return what it had and has.

    An experiment's changes are laid over all others, so they take effect, on every benchmark and no other experiment. Every
    other byte stays.
    Raises ConfigError and leaves params.yaml as it was.
    """
    def now() -> dict[str, Any]:
        return flat(config.load(params, name).about["config"])

    experiment = config.read(params).find(name)[1]
    had, before = now(), config.read_text(params)
    changes = {key: (had[key], value) for key, value in numbers.items() if had[key] != value}
    text = before
    for key, (_, value) in changes.items():
        text = _put(text, f"experiments.{experiment}.{key}", value)
    if changes:
        _replace(params, before, text)
        found = now()
        if wrong := [key for key, (_, value) in changes.items() if found[key] != value]:
            _replace(params, text, before)
            raise ConfigError(f"{params}: experiments.{experiment}: {wrong[0]} could not be written there. Write it by hand.")
    return changes


def _replace(params: Path, before: str, text: str) -> None:
    """Write params.yaml anew, with its mode, through a link; as it was if the new one does not fit. Raises ConfigError."""
    file, mode = params.resolve(), params.stat().st_mode
    try:
        seal.write_file(file, text)
        config.read(params)
    except ConfigError:
        seal.write_file(file, before)
        raise
    finally:
        file.chmod(mode)
