"""README, docs and the examples of --help: every command in them is one, with options and settings that there are."""
import re
import shlex

import pytest
import typer
import yaml
from conftest import ROOT
from test_cluster_docs import parsed

from snnseg.cli import main, nets, project, stores, sweeps

PAGES = ["README.md", "CONTRIBUTING.md", "data/raw/README.md", "models/README.md", *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md") if p.stem != "cluster")]
STANDS_FOR = {"BENCHMARK/EXPERIMENT": "mnist_cifar/ann_fcn", "BENCHMARK": "voc", "OUT.safetensors": "x.safetensors", "STORE": "mnist_cifar", "NAME": "paper", "JOB": "x", "N": "3", "FOLDER": "x",
              "VERB ...": "report"}


def commands() -> list[str]:
    """Each once, from blocks and from within lines, without its comment; what is optional in it is given."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        found += [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
        found += re.findall(r"`([^`\n]+)`", re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    for module in (nets, project, stores, sweeps):
        found += [line.strip() for line in (ROOT / "snnseg" / "cli" / f"{module.__name__.rpartition('.')[2]}.py").read_text().splitlines() if line.startswith("      snnseg ")]
    found = [re.sub(r"^\.venv/bin/", "", text) for text in found]
    for word, given in STANDS_FOR.items():
        found = [re.sub(rf"(?<![\w./-]){re.escape(word)}(?![\w/])", given, text) for text in found]
    found = [re.sub(r"(\w+)(\|\w+)+", r"\1", re.sub(r" \[([^]=]+)\]", r" \1", text)) for text in found]
    return list(dict.fromkeys(text for text in found if re.match(r"(snnseg|dvc|make|python -m|torchrun) \S", text)))


ALL = commands()


def of(*begins: str) -> list[str]:
    return [text for text in ALL if text.startswith(begins)]


def test_the_docs_have_commands_of_each_kind():
    assert len(of("snnseg ")) > 40 and len(of("python -m ", "torchrun ")) > 8 and len(of("make ")) >= 5 and len(of("dvc ")) >= 3


@pytest.mark.parametrize("command", of("snnseg "))
def test_ours(command):
    words = shlex.split(command)[1:]
    if len(words) == 1:         # a verb by its name
        assert words[0] in typer.main.get_command(main.app).commands
    else:
        parsed(words)


@pytest.mark.parametrize("command", of("make "))
def test_make(command):
    for target in command.split()[1:]:
        assert "=" in target or re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), command


@pytest.mark.parametrize("command", of("dvc "))
def test_dvc(command):
    verb, *words = command.split()[1:]
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert verb in {"repro", "metrics", "plots", "status"} and all(w in {"show", "diff"} if verb != "repro" else w in stages for w in words), command


@pytest.mark.parametrize("command", of("python -m ", "torchrun "))
def test_modules(command):
    module = re.search(r"-m (\S+)", command)[1]
    if module != "pytest":
        text = "".join(p.read_text() for p in (ROOT / "benchmarks").glob("*.py"))
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
        for option in re.findall(r" (--\w+)", command.partition(module)[2]):
            assert f'"{option}"' in text or f'"{option[2:]}"' in text, option
