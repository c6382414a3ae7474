"""`tenantguard keys` against a database, for the tests of its commands."""

from __future__ import annotations

import json
import re
import sys
import uuid
from types import ModuleType
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner, Result
from sqlalchemy import select
from sqlalchemy.orm import Session
from vault import A, B, Patient

from tenantguard.cli import main

if TYPE_CHECKING:
    import pytest
    from sqlalchemy import URL, Engine
    from vault import Vault

    from tenantguard import TenantGuard

MODULE = "cli_vault_guard"
C = uuid.UUID("cccccccc-0000-4000-8000-00000000000c")
IDS = re.compile("|".join(map(str, (A, B, C))))


def serve(monkeypatch: pytest.MonkeyPatch, **guards: TenantGuard) -> None:
    """Let the commands find *guards*."""
    module = ModuleType(MODULE)
    vars(module).update(guards)
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setattr(sys, "path", list(sys.path))


class Keys:
    """Runs the commands as a superuser, or as *login*."""

    def __init__(self, vault: Vault) -> None:
        self.vault = vault

    def __call__(self, *arguments: str, url: URL | None = None) -> Result:
        address = (url or self.vault.admin.url).render_as_string(hide_password=False)
        return CliRunner().invoke(
            main,
            ["keys", *arguments, "--guard", f"{MODULE}:guard"],
            env={"TENANTGUARD_ADMIN_URL": address},
        )

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        result = self(*arguments, "--format", "json")
        assert result.exit_code == code, result.output
        document: dict[str, Any] = json.loads(result.stdout)
        assert document["version"] == 1
        return document

    def rows(self) -> list[tuple[Any, ...]]:
        return [
            tuple(map(str, row))
            for row in self.vault.run(
                "SELECT tenant_id, purpose, kek_uri, encode(wrapped, 'hex') FROM tenantguard_keys "
                "ORDER BY 1, 2"
            )
        ]

    def add_tenant(self, tenant: uuid.UUID) -> None:
        self.vault.run("INSERT INTO practices VALUES (:id)", id=tenant)


def assert_could_not_look(result: Result, pattern: str) -> None:
    """One line on stderr that says what to do, and 2."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert re.fullmatch(rf"tenantguard: .*{pattern}.*\n", result.stderr), result.stderr


class Process:
    """A process of the application, with a cache of keys of its own."""

    def __init__(self, keys: Keys, tenant: uuid.UUID = A) -> None:
        self.guard = keys.vault.another_guard()
        self.engine: Engine = keys.vault.protected_by(self.guard)
        self.tenant = tenant

    def write(self, note: str) -> None:
        with self.guard.tenant_context(self.tenant), Session(self.engine) as session:
            session.add(Patient(name=note, notes=note))
            session.commit()

    def read(self) -> set[str | None]:
        """Open all values, and find each by its index."""
        with self.guard.tenant_context(self.tenant), Session(self.engine) as session:
            found = set(session.scalars(select(Patient.notes)))
            for note in found:
                assert session.scalars(select(Patient.notes).where(Patient.name == note)).all()
            return found

    @property
    def keystore(self) -> Any:
        context: Any = self.engine.dialect.execution_ctx_cls
        return context.keys.__self__
