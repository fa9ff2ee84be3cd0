"""The only reader of params.yaml.

params.yaml holds every number, `sections` their types and rules, and nothing a default. A benchmark (a data set with the
numbers that go with it) and an experiment are sets of changes to the sections. Whatever does not fit is refused before
anything heavy is imported, with file, line, key, what was found and what is expected.
"""
from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event, ScalarEvent
from ruamel.yaml.nodes import MappingNode, Node
from ruamel.yaml.parser import Parser

from snnseg.errors import ClusterError, ConfigError
from snnseg.sections import DATA, Config, Sections

PARAMS = "params.yaml"
LIMIT_BYTES = 2**20     # a params file of a megabyte is not one
LIMIT_DEPTH = 10        # nor one that is nested deeper; params.yaml has four levels
LIMIT_CHARS = 1000      # of one value
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")   # becomes a folder, a stage name and an argument


class _Strict(Parser):
    """Refuses what a params file has no use for, before any of it is built."""

    def __init__(self, place: str, loader: YAML):
        self.place, self.depth = place, 0
        super().__init__(loader)

    def get_event(self) -> Event:
        """The next part of the text. Raises ConfigError with `place` and line."""
        event = super().get_event()
        self.depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        value = event.value if isinstance(event, ScalarEvent) else ""
        for refused, told in (
            (isinstance(event, AliasEvent) or getattr(event, "anchor", None), "YAML anchors and aliases are not allowed. Write the value twice."),
            (getattr(event, "tag", None), "YAML tags are not allowed. Write the plain value."),
            (value == "<<" and not event.style, "YAML merge keys are not allowed. Write the values out."),
            (self.depth > LIMIT_DEPTH, f"nested deeper than {LIMIT_DEPTH} levels. Write sections, keys and values."),
            (len(value) > LIMIT_CHARS, f"a value of {len(value)} characters, expected at most {LIMIT_CHARS}. Write a shorter one."),
        ):
            if refused:
                raise ConfigError(f"{self.place}:{event.start_mark.line + 1}: {told}" if self.place else told)
        return event


def _parse(text: str, place: str = "") -> tuple[Any, dict[str, tuple[Node, Node]]]:
    """YAML text, gone through once, as plain values and as the nodes of its dotted keys. Raises ConfigError with `place` and line, YAMLError, ValueError."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Parser = partial(_Strict, place)
    top = yaml.compose(text)
    plain = None if top is None else yaml.constructor.construct_document(top)
    found: dict[str, tuple[Node, Node]] = {}

    def walk(section: Node, prefix: str) -> None:
        for key, value in section.value:
            if not key.tag.endswith(":str"):
                raise MarkedYAMLError(problem=f"the key {str(key.value)[:20]!r} is not a name", problem_mark=key.start_mark)
            found[prefix + key.value] = key, value
            if isinstance(value, MappingNode):
                walk(value, f"{prefix}{key.value}.")

    if isinstance(top, MappingNode):
        walk(top, "")
    return plain, found


def read_text(path: Path) -> str:
    """The text of a params file, line ends as they are. Raises ConfigError."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: not a regular file. Name a params file: --params {PARAMS}")
        with open(path, "rb") as f:
            data = f.read(LIMIT_BYTES + 1)
        if len(data) > LIMIT_BYTES:
            raise ConfigError(f"{path}: larger than {LIMIT_BYTES} bytes, so not a params file. Restore it: git checkout {path}")
        return data.decode("utf-8")
    except FileNotFoundError as e:
        raise ConfigError(f"{path}: not found. Run snnseg in the project's folder, or restore it: git checkout {path}") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: not UTF-8 text at byte {e.start}. Save it as UTF-8.") from e
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror}). Check that it is a readable file.") from e


@dataclass(frozen=True)
class _Text:
    """The text of a params file, and where a fault in it is told to be. The same text is the same file, wherever it lies."""

    text: str
    source: Path = field(compare=False)


@lru_cache(maxsize=8)       # who changes a file reads it several times; nobody alters what it holds
def _yaml(found: _Text) -> tuple[dict[str, Any], dict[str, tuple[Node, Node]]]:
    path = found.source
    try:
        plain, places = _parse(found.text, str(path))
        if not isinstance(plain, dict):
            raise ConfigError(f"{path}: holds no sections. Restore it: git checkout {path}")
        return plain, places
    except (YAMLError, ValueError) as e:
        if isinstance(e, ConfigError):
            raise
        mark = getattr(e, "problem_mark", None)
        fact = " ".join(str(getattr(e, "problem", None) or e).split()).partition(" To suppress")[0]
        raise ConfigError(f"{path}{f':{mark.line + 1}' if mark else ''}: not valid YAML ({fact[:200]}). Correct this line.") from e


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """A YAML file of plain values, and the line of each dotted key. Raises ConfigError."""
    plain, places = _yaml(_Text(read_text(path), path))
    return dict(plain), {name: key.start_mark.line + 1 for name, (key, _) in places.items()}


def nodes(text: str) -> dict[str, tuple[Node, Node]]:
    """Key and value node of each dotted key of a params file's text: they know where they stand in it. Raises ConfigError."""
    return _yaml(_Text(text, Path(PARAMS)))[1]


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, section by section; neither is altered."""
    out = dict(base)
    for key, value in changes.items():
        out[key] = merge(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def parse_set(text: str) -> dict[str, Any]:
    """`section.key=value` as a nested mapping; the value is read as YAML would read it. Raises ConfigError."""
    key, equals, value = text.partition("=")
    names = key.strip().split(".")
    if not equals or len(names) < 2 or not all(names):
        raise ConfigError(f"--set {text[:200]}: expected section.key=value, for example --set train.epochs=3")
    try:
        parsed, = _parse(f"v: {value}\n")[0].values()
    except (YAMLError, ValueError) as e:
        fact = f"{e}" if isinstance(e, ConfigError) else "the value is not plain YAML"
        raise ConfigError(f"--set {text[:200]}: {fact.rstrip('.')}. Expected for example --set train.epochs=3") from e
    for name in reversed(names):
        parsed = {name: parsed}
    return parsed


def _known(names: list[str]) -> list[str]:
    """The keys of the section at `names`; none where no section is."""
    fields = Sections.model_fields
    for name in names:
        fields = getattr(fields[name].annotation, "model_fields", {}) if name in fields else {}
    return list(fields)


def _shown(value: Any) -> str:
    """A value as params.yaml would have it: text in quotes, true, null, [1, 2]."""
    return json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)[:80]


def _listed(names: list[str]) -> str:
    """The first names of many; all of few."""
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:8])} and {len(names) - 8} more"


def _explain(error: dict[str, Any], places: dict[str, str], changes: str) -> str:
    """One pydantic error as one line: file and line or the `--set`, key, fact, remedy."""
    names = [str(n) for n in error["loc"] if not str(n).startswith("function-")]
    place = next(places[d] for k in range(len(names), -1, -1) if (d := ".".join(names[:k])) in places)
    key = ".".join([changes] * bool(changes) + names)[:200]
    place += f": {key}" if key else ""
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(names[-1][:80], known := _known(names[:-1]), 1, 0.65)
        return f"{place}: unknown key. " + (f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(known)}.")
    if error["type"] == "missing":
        return f"{place}: missing. Add it, or restore the file: git checkout {PARAMS}"
    if error["type"] == "value_error" and not names:
        return f"{place}: {error['ctx']['error']}. Change one of them."
    if error["type"] == "model_type":
        return f"{place}: expected keys below it ({', '.join(_known(names))}), found {_shown(error['input'])}."
    expected = error["msg"].removeprefix("Value error, ")
    choices = str(error.get("ctx", {}).get("expected", "")).replace("'", " ").split()       # of a literal
    near = difflib.get_close_matches(str(error["input"])[:80], choices, 1, 0.5)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{place}: {expected[0].lower()}{expected[1:]}, found {_shown(error['input'])}.{hint}"


def _checked(numbers: dict[str, Any], places: dict[str, str], changes: str = "") -> Sections:
    """The sections of `numbers`; `places` tells where each key was written, `changes` names the group of changes at fault."""
    try:
        return Sections.model_validate(numbers)
    except ValidationError as e:
        first, *others = sorted(e.errors(include_url=False), key=lambda error: error["type"] != "extra_forbidden")
        raise ConfigError(_explain(first, places, changes) + f" ({len(others)} more)" * bool(others)) from e


def _overridden(numbers: dict[str, Any], overrides: list[str] | tuple[str, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """`numbers` with the overrides laid over them, and which `--set` each key comes from. Raises ConfigError."""
    places = {"": " ".join(f"--set {text}" for text in overrides)}
    for text in overrides:
        numbers = merge(numbers, parse_set(text))
        names = text.partition("=")[0].strip().split(".")
        places |= {".".join(names[:k]): f"--set {text[:200]}" for k in range(1, len(names) + 1)}
    return numbers, places


@dataclass(frozen=True)
class File:
    """A params file: the sections, and the named groups of changes to them, all of them checked."""

    path: Path
    sections: dict[str, Any]
    benchmarks: dict[str, dict[str, Any]]
    experiments: dict[str, dict[str, Any]]
    repro: dict[str, list[str]]         # names of both that `dvc repro` makes

    def find(self, name: str | None) -> tuple[str, str]:
        """Benchmark and experiment of `voc/ann_fcn`, `voc` or `ann_fcn`; the first benchmark and no experiment if not named.

        Raises ConfigError.
        """
        first = next(iter(self.benchmarks))
        if name is None:
            return first, ""
        benchmark, slash, experiment = name.partition("/")
        if not slash:
            asked = [(name, "benchmark or experiment", [*self.benchmarks, *self.experiments])]
        else:
            asked = [(benchmark, "benchmark", list(self.benchmarks)), (experiment, "experiment", list(self.experiments))]
        for part, kind, known in asked:
            if part not in known:
                near = difflib.get_close_matches(part[:80], known, 1, 0.5)
                hint = f"Did you mean {near[0]}?" if near else f"Known: {_listed(known)}."
                raise ConfigError(f"{self.path}: no {kind} is named {part[:80]!r}. {hint}")
        return (benchmark, experiment) if slash else (name, "") if name in self.benchmarks else (first, name)

    def numbers(self, benchmark: str, experiment: str) -> dict[str, Any]:
        """The sections with the benchmark's changes laid over them, then the experiment's."""
        return merge(merge(self.sections, self.benchmarks[benchmark]), self.experiments[experiment] if experiment else {})


def _groups(numbers: dict[str, Any], kind: str, source: Path, places: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The named sets of changes below `kind`, taken out of `numbers`. Raises ConfigError."""
    groups = numbers.pop(kind, None)
    if not isinstance(groups, dict) or not groups:
        raise ConfigError(f"{places.get(kind, source)}: {kind}: expected names with their changes, found {_shown(groups)}.")
    for name, changes in groups.items():
        key = f"{kind}.{name}"
        if not NAME.fullmatch(name):
            raise ConfigError(f"{places[key]}: {key[:60]}: a name has up to 40 letters, digits, '_' and '-', and starts with none of the last two.")
        if not isinstance(changes, dict):
            raise ConfigError(f"{places[key]}: {key}: expected changes to sections, found {_shown(changes)}.")
    return groups


PART = ["convert", "timesteps", "activations"]      # stages that take some of repro.experiments


def _repro(numbers: dict[str, Any], source: Path, places: dict[str, str], known: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """The names that `dvc repro` makes, taken out of `numbers`; `known` are the groups that they are of. Raises ConfigError."""
    found = numbers.pop("repro", None)
    if not isinstance(found, dict) or found.keys() != known.keys() | set(PART):
        raise ConfigError(f"{places.get('repro', source)}: repro: expected lists of benchmarks and experiments, and of those for {_listed(PART)}; "
                          f"found {_shown(found)}.")
    for kind, asked in found.items():
        place = f"{places[f'repro.{kind}']}: repro.{kind}"
        if not isinstance(asked, list) or not (asked or kind in PART) or not all(isinstance(name, str) for name in asked) or len(set(asked)) < len(asked):
            raise ConfigError(f"{place}: expected a list of names, each once, found {_shown(asked)}.")
        there, of = (found["experiments"], "repro.experiments") if kind in PART else (known[kind], kind)
        if unknown := [name for name in asked if name not in there]:
            near = difflib.get_close_matches(unknown[0][:80], there, 1, 0.5)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {_listed(list(there))}."
            raise ConfigError(f"{place}: none of {of} is named {unknown[0][:80]!r}. {hint}")
    return found


def read(params: Path | str = PARAMS) -> File:
    """All of a params file. Every benchmark and experiment is checked, alone and together. Raises ConfigError."""
    path = Path(params)
    text = read_text(path)
    return replace(_read(_Text(text, path)), path=path)


@lru_cache(maxsize=4)       # who loads all experiments of a file, one by one, has it read once; nobody alters what it holds
def _read(found: _Text) -> File:
    source, (plain, lines) = found.source, _yaml(found)
    numbers = dict(plain)
    places = {"": str(source)} | {name: f"{source}:{key.start_mark.line + 1}" for name, (key, _) in lines.items()}
    benchmarks, experiments = (_groups(numbers, kind, source, places) for kind in ("benchmarks", "experiments"))
    file = File(source, numbers, benchmarks, experiments, _repro(numbers, source, places, {"benchmarks": benchmarks, "experiments": experiments}))
    _checked(numbers, places)

    def within(key: str) -> dict[str, str]:
        return {"": places[key]} | {k.removeprefix(f"{key}."): v for k, v in places.items() if k.startswith(f"{key}.")}

    for benchmark, changes in benchmarks.items():
        key = f"benchmarks.{benchmark}"
        _checked(file.numbers(benchmark, ""), within(key), key)
        if "dataset" not in changes.get("data", {}):
            raise ConfigError(f"{places[key]}: {key}.data.dataset: missing. A benchmark names its data set, for example data: {{dataset: voc}}.")
    for experiment, changes in experiments.items():
        key = f"experiments.{experiment}"
        if experiment in benchmarks:
            raise ConfigError(f"{places[key]}: {key}: a benchmark has the same name. Change one of them.")
        for benchmark in benchmarks:
            _checked(file.numbers(benchmark, experiment), within(key), key)
        if "data" in changes:
            raise ConfigError(f"{within(key)['data']}: {key}.data: experiments share the stores, they cannot change one. "
                              "Change the section data or a benchmark, or use --set.")
    return file


def load(params: Path | str = PARAMS, name: str | None = None, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """The config of `voc/ann_fcn`: sections, the benchmark's changes, the experiment's, then `section.key=value` overrides.

    `ann_fcn` alone is that experiment on the first benchmark. Data that is changed by an override gets a store of its own
    beside the benchmark's. Raises ConfigError, and ClusterError in a job whose machine does not see the project's data.
    """
    file = read(params)
    if (place := os.environ.get(DATA)) and not os.path.isdir(place):
        raise ClusterError(place, "this machine does not see the project's data folder, so results would be lost with the job",
                           "Name a folder that the cluster's machines share: cluster.data in params.yaml (docs/cluster.md)")
    benchmark, experiment = file.find(name)
    numbers = file.numbers(benchmark, experiment)

    def config(sections: Sections, store_name: str) -> Config:
        return Config(benchmark=benchmark, experiment=experiment, store_name=store_name, root=file.path.absolute().parent,
                      **{k: getattr(sections, k) for k in Sections.model_fields})

    usual = config(_checked(numbers, {"": str(file.path)}), benchmark)
    if not overrides:
        return usual
    changed = config(_checked(*_overridden(numbers, overrides)), benchmark)
    if changed.store_params == usual.store_params:
        return changed
    mark = hashlib.sha256(json.dumps(changed.store_params, sort_keys=True).encode()).hexdigest()[:8]
    return changed.model_copy(update={"store_name": f"{benchmark}-{mark}"})


def names(params: Path | str = PARAMS) -> list[str]:
    """All experiments on all benchmarks, `voc/ann_fcn`, in the order of the file."""
    file = read(params)
    return [f"{benchmark}/{experiment}" for benchmark in file.benchmarks for experiment in file.experiments]


def reproduced(params: Path | str = PARAMS) -> list[str]:
    """Those that `dvc repro` makes and the report puts side by side, in the order of their lists."""
    repro = read(params).repro
    return [f"{benchmark}/{experiment}" for benchmark in repro["benchmarks"] for experiment in repro["experiments"]]
