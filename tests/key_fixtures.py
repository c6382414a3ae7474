"""Fixtures for tests of keys: tenants, the commands on a vault, logins, and time that passes."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest
from key_commands import Keys, Process, serve
from vault import A, B

from tenantguard import keystore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL
    from vault import Vault


@pytest.fixture
def tenant(vault: Vault) -> Iterator[UUID]:
    """A tenant of its own, without keys yet; nothing of it is left."""
    made = uuid4()
    vault.run("INSERT INTO practices (id) VALUES (:id)", id=made)
    yield made
    vault.run("DELETE FROM patients WHERE tenant_id = :id", id=made)
    vault.run("DELETE FROM tenantguard_keys WHERE tenant_id = :id", id=made)
    vault.run("DELETE FROM practices WHERE id = :id", id=made)


@pytest.fixture
def keys(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keys]:
    """The commands on a vault with the tenants A and B and no keysets."""
    vault.run("DELETE FROM tenantguard_keys")
    serve(monkeypatch, guard=vault.another_guard())
    yield Keys(vault)
    vault.run("DELETE FROM patients")
    vault.run("DELETE FROM tenantguard_keys")
    vault.run("DELETE FROM practices WHERE id NOT IN (:a, :b)", a=A, b=B)


@pytest.fixture
def login(keys: Keys) -> Iterator[Callable[..., URL]]:
    """Makes a login that is granted roles; returns its address."""
    url, made = keys.vault.admin.url, f"{keys.vault.admin.url.database}_login"

    def make(*granted: str) -> URL:
        keys.vault.run(f'CREATE ROLE "{made}" LOGIN')
        for role in granted:
            keys.vault.run(f'GRANT "{role}" TO "{made}"')
        return url.set(username=made)

    yield make
    me = url.username or ""
    keys.vault.run(f'REASSIGN OWNED BY "{made}" TO "{me}"')
    keys.vault.run(f'DROP OWNED BY "{made}"')
    keys.vault.run(f'DROP ROLE "{made}"')


@pytest.fixture
def rotating(keys: Keys) -> Keys:
    """Two tenants with a value each."""
    keys("create")
    Process(keys, A).write("a")
    Process(keys, B).write("b")
    return keys


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch, rotating: Keys) -> Callable[[float], None]:
    """Lets seconds pass, for the database's rows and for the processes' caches."""
    passed = [0.0]
    monkeypatch.setattr(keystore, "monotonic", lambda: monotonic() + passed[0])

    def pass_(seconds: float) -> None:
        passed[0] += seconds
        rotating.vault.run(
            "UPDATE tenantguard_keys SET rotated_at = rotated_at - make_interval(secs => :s), "
            "created_at = created_at - make_interval(secs => :s)",
            s=seconds,
        )

    return pass_
