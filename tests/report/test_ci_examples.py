"""What the documentation and the examples tell a CI to run can be run as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from tenantguard.cli import main

ROOT = Path(__file__).parents[2]
FILES = ["docs/check.md", "examples/ci/github-workflow.yml", ".pre-commit-hooks.yaml"]
COMMAND = re.compile(
    r"(?:^|`|\$ |- |run: |entry: )(tenantguard (?:rls|prove|doctor)[^\n`]*)", re.MULTILINE
)
CASES = [
    (name, command)
    for name in FILES
    for command in COMMAND.findall((ROOT / name).read_text("utf-8"))
]


def test_there_are_commands() -> None:
    assert {name for name, _ in CASES} == set(FILES)
    assert len(CASES) > 20


@pytest.mark.parametrize(("name", "command"), CASES)
def test_a_command_takes_its_arguments(name: str, command: str) -> None:
    """Every option is there; nothing is run."""
    words = shlex.split(command.replace("CODE=REASON", "a=b"))[1:]
    group: click.Command = main
    context = click.Context(main)
    while isinstance(group, click.Group):
        found = group.get_command(context, words.pop(0))
        assert found is not None, f"{name}: {command}"
        group = found
    if words[:1] not in (["--accept"], ["BASE"]) and not _is_cut(words):
        group.make_context(command, words, resilient_parsing=False)


def _is_cut(words: list[str]) -> bool:
    """Whether a hook's entry ends with an option whose value stands in its args."""
    return words[-1:] in (["--check"], ["--out"])


def test_the_hooks_run_in_the_applications_environment() -> None:
    """They import its models, which an environment of their own would not have."""
    text = (ROOT / ".pre-commit-hooks.yaml").read_text("utf-8")
    hooks = [each for each in text.split("\n- ") if "id: " in each]
    assert len(hooks) == 2
    assert all("language: system" in each for each in hooks)
    assert all("pass_filenames: false" in each for each in hooks)


def test_the_workflow_puts_nothing_of_a_pull_request_into_a_shell() -> None:
    """A branch may be called anything; what comes from outside is an environment variable."""
    text = (ROOT / "examples/ci/github-workflow.yml").read_text("utf-8")
    runs = re.findall(r"run: (.*)", text)
    assert len(runs) > 8
    assert not any("${{" in each for each in runs)
    assert text.count("security-events: write") == text.count("pull-requests: write") == 1
