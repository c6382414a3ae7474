"""Every command line that help and documentation show is one that the commands take."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from tenantguard.cli import main
from tenantguard.cli.outcome import GuardedCommand

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("src/tenantguard/check/pages/*.md"),
]
PROMPT = re.compile(r"^\s*(?:\$ |- (?:run: )?)?")
SHELL = {">", "|", "||", "&&"}


def _commands(group: click.Group, *names: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from _commands(found, *names, name)
        else:
            yield " ".join((*names, name)), found


COMMANDS = dict(_commands(main))


def _parse(line: str) -> None:
    """Parse *line* as the commands do; run nothing."""
    words = list(takewhile(lambda word: word not in SHELL, shlex.split(line, comments=True)[1:]))
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words.pop(0))
        if found is None:
            raise click.UsageError("There is no such command.")
        command = found
    if not isinstance(command, click.Group):
        command.make_context(command.name, words)


def _shown(page: str) -> Iterator[str]:
    """Yield the command lines of the blocks of *page*, those for CI among them."""
    for block in re.findall(r"```(?:console|sh|yaml)\n(.*?)```", page, re.DOTALL):
        lines = block.replace("\\\n", "").splitlines()
        yield from (line for each in lines if (line := PROMPT.sub("", each)))


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"demo"}))
def test_help_shows_how_a_command_is_typed(name: str) -> None:
    """Each command but the demo has examples, of itself, with options that it has."""
    command = COMMANDS[name]
    assert isinstance(command, GuardedCommand)
    assert command.examples
    for example in command.examples:
        # What stands before it is the environment's.
        line = example[example.index("tenantguard ") :]
        assert line.startswith(f"tenantguard {name}")
        _parse(line)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documentation_shows_commands_that_there_are(page: Path) -> None:
    """In blocks they are whole; in a sentence a command may lack what it needs."""
    text = page.read_text()
    for line in _shown(text):
        if line.startswith("tenantguard "):
            _parse(line)
    sentences = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for line in re.findall(r"`(tenantguard [^`]+)`", sentences):
        with suppress(click.MissingParameter, click.BadOptionUsage):
            _parse(line)


@pytest.mark.parametrize(
    "line",
    [
        "tenantguard rls down",
        "tenantguard keys rotate --everything",
        "tenantguard encrypt status patients.name",
        "tenantguard keys check --policy pci",
        "tenantguard encrypt verify",
    ],
)
def test_what_there_is_not_is_noticed(line: str) -> None:
    """A command, an option, an argument or a choice that does not exist; one that is missing."""
    with pytest.raises(click.UsageError):
        _parse(line)
