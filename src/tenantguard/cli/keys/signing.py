"""tenantguard keys signing: the file of keys that sign the tenant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tenantguard.cli.options import format_option
from tenantguard.cli.outcome import GuardedCommand
from tenantguard.crypto.signing import (
    add_signing_key,
    make_signing_file,
    promote_signing_key,
    read_signing_file,
    remove_signing_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["signing"]

_VERSION = 1
_file = click.argument("file", type=click.Path(path_type=Path))
_key = click.argument("key", metavar="ID")
_PUSH = "`tenantguard rls signing push`"


@click.group()
def signing() -> None:
    """Keys that sign the tenant for PostgreSQL, and what workers are told in its name."""


def _command(name: str, example: str) -> Callable[[Callable[..., None]], click.Command]:
    examples = [f"tenantguard keys signing {name} {example}"]
    return signing.command(cls=GuardedCommand, name=name, examples=examples)


@_command("init", "/etc/myapp/signing.json --environment production")
@_file
@click.option(
    "--environment",
    metavar="NAME",
    required=True,
    help="Where the application runs, such as production; elsewhere the keys are refused.",
)
@format_option
def init(file: Path, *, environment: str, output: str) -> None:
    """Make a signing key in FILE, which must not exist; only its owner may read it."""
    key = make_signing_file(file, environment=environment)
    where = json.dumps(str(file.absolute()))
    _write(
        output,
        {"file": str(file), "environment": environment, "key": key},
        f"Made {file} with the key {key}. Only the file's owner can read it.\n\n"
        "Next, give it to the guard:\n"
        f'    TenantGuard(…, signing=SigningFile({where}, environment="{environment}"))\n'
        "Jobs are signed now. For PostgreSQL to believe signed tenants only, add "
        "`signed_setting=True`, then run `tenantguard rls apply`, which also puts the key into the "
        "database. Losing the file loses no data: make another one, and push it.",
    )


@_command("add", "/etc/myapp/signing.json")
@_file
@format_option
def add(file: Path, *, output: str) -> None:
    """Add a new key to FILE, one that does not sign yet."""
    key = add_signing_key(file)
    _write(
        output,
        {"file": str(file), "key": key},
        f"Added {key}. Next: {_PUSH}, give the file to every process, then "
        f"`tenantguard keys signing promote {file} {key}`.",
    )


@_command("promote", "/etc/myapp/signing.json 1f2e3d4c")
@_file
@_key
@format_option
def promote(file: Path, key: str, *, output: str) -> None:
    """Let the key ID of FILE sign from now on; the others go on being believed."""
    promote_signing_key(file, key)
    _write(
        output,
        {"file": str(file), "key": key},
        f"{key} signs. Next: give the file to every process; then `tenantguard keys signing "
        f"remove` takes the old key away, and {_PUSH} takes it out of the database.",
    )


@_command("remove", "/etc/myapp/signing.json 4c3d2e1f")
@_file
@_key
@format_option
def remove(file: Path, key: str, *, output: str) -> None:
    """Take the key ID out of FILE, unless it is the one that signs."""
    remove_signing_key(file, key)
    _write(
        output,
        {"file": str(file), "key": key},
        f"Removed {key}. {_PUSH} takes it out of the database; until then it is believed there.",
    )


@_command("list", "/etc/myapp/signing.json --format json")
@_file
@format_option
def list_(file: Path, *, output: str) -> None:
    """Name the keys of FILE, the one that signs first; the keys themselves are never printed."""
    environment, keys = read_signing_file(file)
    listed = [{"id": key.id, "created": key.created} for key in keys.values()]
    lines = [f"{key.id}  made {key.created}" for key in keys.values()]
    _write(
        output,
        {"file": str(file), "environment": environment, "keys": listed},
        "\n".join([f"{lines[0]}  signs", *lines[1:]]),
    )


def _write(output: str, facts: dict[str, Any], text: str) -> None:
    document = json.dumps({"version": _VERSION, **facts}, indent=2)
    click.echo(document if output == "json" else text)
