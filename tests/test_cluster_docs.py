"""docs/cluster.md: its commands are commands, its options exist, its settings are settings, its links lead somewhere."""
import re
import shlex

import pytest
import typer
from conftest import ROOT

from snnseg import config, errors
from snnseg.cli import main

TEXT = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
BLOCKS = [line for block in re.findall(r"^```\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
INLINE = re.findall(r"`([^`\n]+)`", re.sub(r"^```\n.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL))
SNNSEG = [c for c in [*BLOCKS, *INLINE] if c.startswith("snnseg ")]
RAY = [c for c in [*BLOCKS, *INLINE] if c.startswith("ray ")]
ELSE = {". .venv/bin/activate", "export RAY_AUTH_MODE=token", "chmod 600 ~/.ray/auth_token", "export RAY_JOB_START_TIMEOUT_SECONDS=604800"}


def parsed(words: list[str]) -> None:
    """See that the command line takes these words; what submit hands on, too."""
    command, name = typer.main.get_command(main.app), "snnseg"
    while hasattr(command, "commands") and words and words[0] in command.commands:
        name, command, words = words[0], command.commands[words[0]], words[1:]
    given = command.make_context(name, words).params
    assert name != "snnseg"
    if name == "submit":
        parsed(given["arguments"])
    config.load(ROOT / "params.yaml", given.get("experiment"), given.get("set") or [])


@pytest.mark.parametrize("command", SNNSEG)
def test_a_command_of_ours(command):
    parsed(shlex.split(command)[1:])


@pytest.mark.filterwarnings("ignore")      # ray's own
@pytest.mark.parametrize("command", RAY)
def test_a_command_of_ray(command):
    from ray.scripts.scripts import cli

    name, *words = shlex.split(command)[1:]
    if words or name not in {"start", "up", "down"}:
        cli.commands[name].make_context(name, words)


def test_nothing_else_is_typed():
    assert {line for line in BLOCKS if line not in SNNSEG + RAY} == ELSE and len(SNNSEG) >= 10 and len(RAY) >= 5


@pytest.mark.filterwarnings("ignore")      # ray's own
def test_options_for_a_firewall_are_ray_s():
    from ray.scripts.scripts import cli

    known = {name for p in cli.commands["start"].params for name in p.opts}
    named = {c.split()[0] for c in INLINE if c.startswith("--")} - {"--set", "--address", "--"}
    assert len(named) >= 7 and named <= known, named - known


def test_settings_and_exit_codes_are_ours():
    known = {f"{section}.{key}" for section, model in config.Sections.model_fields.items() for key in model.annotation.model_fields}
    named = {m for c in INLINE for m in re.findall(r"\b(?:cluster|train|data|track)\.[a-z_]+\b", c)}
    assert len(named) >= 8 and named <= known, named - known
    assert {int(code) for code in re.findall(r"exit code (\d+)", TEXT)} <= {kind.exit_code for kind in vars(errors).values() if hasattr(kind, "exit_code")}


def test_links_and_files_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (ROOT / "docs" / target).exists(), target
    for named in re.findall(r"`((?:tests|deploy)/[\w./]+)`", TEXT):
        assert (ROOT / named).exists(), named
