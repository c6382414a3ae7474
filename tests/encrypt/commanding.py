"""Running `tenantguard encrypt` on a vault, as an operator does."""

from __future__ import annotations

import json
import re
import sys
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result

from tenantguard.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest
    from sqlalchemy import URL, Engine
    from vault import Vault

    from tenantguard import TenantGuard

MODULE = "cli_encrypt_guard"


def serve(monkeypatch: pytest.MonkeyPatch, **guards: TenantGuard) -> None:
    """Let the commands find *guards*."""
    module = ModuleType(MODULE)
    vars(module).update(guards)
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setattr(sys, "path", list(sys.path))


class Command:
    """Runs the command as a superuser, or at *url*."""

    def __init__(self, admin: Engine) -> None:
        self.admin = admin

    def __call__(self, *arguments: str, url: URL | None = None, guard: str = "guard") -> Result:
        address = (url or self.admin.url).render_as_string(hide_password=False)
        return CliRunner().invoke(
            main,
            ["encrypt", *arguments, "--guard", f"{MODULE}:{guard}"],
            env={"TENANTGUARD_ADMIN_URL": address},
        )

    def json(self, *arguments: str, code: int = 0, **options: Any) -> dict[str, Any]:
        result = self(*arguments, "--format", "json", **options)
        assert result.exit_code == code, (result.output, result.exception)
        document: dict[str, Any] = json.loads(result.stdout)
        assert document["version"] == 1
        return document


@contextmanager
def without_check(vault: Vault, table: str, name: str) -> Iterator[None]:
    """Take a check of *table* away inside the block; the rows must fulfil it at its end."""
    [[definition]] = vault.run(
        f"SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = '{name}'"
    )
    vault.run(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    try:
        yield
    finally:
        vault.run(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}")


def assert_could_not_look(result: Result, pattern: str) -> None:
    """One line on stderr that says what to do, and 2."""
    assert result.exit_code == 2, result.output
    assert re.fullmatch(rf"tenantguard: .*{pattern}.*\n", result.stderr), result.stderr
