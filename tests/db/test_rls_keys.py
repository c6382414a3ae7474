"""The table of keys under the second lock: who adds and reads them, and that none is lost."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from rls_patients import INDEXED, INSERT_KEY, KEYS, missing, patients_world
from rls_world import A, B, World
from sqlalchemy.exc import DBAPIError

from tenantguard import TenantGuard, rls
from tenantguard.cli import main
from tenantguard.errors import CrossTenantError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL


@pytest.fixture
def applied(new_database: Callable[[], URL]) -> Iterator[World]:
    with patients_world(new_database()) as made:
        rls.apply(made.owner, made.catalog, made.roles)
        yield made


@pytest.fixture
def guarded(applied: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The same, with a guard that the commands find."""
    module: Any = ModuleType("encrypted_app")
    module.guard = TenantGuard(
        applied.metadata,
        tenants="practices",
        shared=applied.catalog.shared,
        untenanted=applied.catalog.untenanted,
        roles=applied.roles,
    )
    module.guard.catalog.lookups.extend(applied.catalog.lookups)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return applied


def command(world: World, *arguments: str) -> Result:
    env = {
        "TENANTGUARD_ADMIN_URL": world.url.render_as_string(hide_password=False),
        "TENANTGUARD_DATABASE_URL": world.url.set(
            username=world.roles.application
        ).render_as_string(hide_password=False),
    }
    return CliRunner().invoke(
        main, [*arguments, "--guard", "encrypted_app:guard", "--format", "json"], env=env
    )


def test_application_adds_its_tenants_key_and_changes_none(applied: World) -> None:
    """It reads and inserts its own tenant's rows, and may neither change nor remove any."""
    app, roles = applied.roles.application, applied.roles
    assert applied.run_as(app, A, INSERT_KEY.format(A)) == [(1, "active")]
    with pytest.raises(DBAPIError, match="row-level security"):
        applied.run_as(app, A, INSERT_KEY.format(B))
    with pytest.raises(DBAPIError, match="duplicate key"):
        applied.run_as(app, A, INSERT_KEY.format(A))
    again = INSERT_KEY.replace("RETURNING", "ON CONFLICT DO NOTHING RETURNING")
    assert applied.run_as(app, A, again.format(A)) == []
    count = "SELECT count(*) FROM tenantguard_keys"
    assert [applied.run_as(app, tenant, count) for tenant in (A, B, None)] == [
        [(1,)],
        [(0,)],
        [(0,)],
    ]
    for change in (
        "UPDATE tenantguard_keys SET wrapped = 'x'",
        "DELETE FROM tenantguard_keys",
        "TRUNCATE tenantguard_keys",
    ):
        with pytest.raises(DBAPIError, match="permission denied"):
            applied.run_as(app, A, change)
    assert applied.run_as(roles.maintenance, None, count) == [(1,)]
    assert applied.run_as(roles.backup, None, count) == [(1,)]
    assert applied.run_as(roles.owner, A, count) == [(0,)]
    changed = "UPDATE tenantguard_keys SET generation = 2 RETURNING generation"
    assert applied.run_as(roles.maintenance, None, changed) == [(2,)]


def test_support_and_strangers_never_read_keys(applied: World) -> None:
    """Support acts for a tenant and has neither privilege nor policy; PUBLIC has nothing."""
    applied.run(INSERT_KEY.format(A))
    stranger = f"{applied.url.database}_r_stranger"
    applied.run(f'CREATE ROLE "{stranger}"')
    try:
        for role in (applied.roles.support, stranger):
            with pytest.raises(DBAPIError, match="permission denied"):
                applied.run_as(role, A, "SELECT wrapped FROM tenantguard_keys")
    finally:
        applied.run(f'DROP ROLE "{stranger}"')
    policies = applied.run(
        f"SELECT polname FROM pg_policy WHERE polrelid = '{KEYS}'::regclass ORDER BY 1"
    )
    assert [name for (name,) in policies] == [
        "tenantguard_application",
        "tenantguard_application_floor",
        "tenantguard_maintenance",
    ]
    applied.run(f'GRANT SELECT ON tenantguard_keys TO "{applied.roles.support}"')
    rows = applied.run_as(applied.roles.support, A, "SELECT * FROM tenantguard_keys")
    assert rows == []


def test_key_of_an_unknown_tenant_is_refused(applied: World) -> None:
    """A key belongs to a tenant of the registry; one that does not stops the run."""
    unknown = "00000000-0000-0000-0000-0000000000ff"
    with pytest.raises(DBAPIError, match="foreign key constraint"):
        applied.run(INSERT_KEY.format(unknown))
    with pytest.raises(DBAPIError, match="foreign key constraint"):
        applied.run(f"{INSERT_KEY.format(B)}; DELETE FROM practices WHERE id = '{B}'")
    [[name]] = applied.run(
        f"SELECT conname FROM pg_constraint WHERE conrelid = '{KEYS}'::regclass AND contype = 'f'"
    )
    applied.run(f'ALTER TABLE {KEYS} DROP CONSTRAINT "{name}"; {INSERT_KEY.format(unknown)}')
    with pytest.raises(CrossTenantError, match="tenants that the registry does not have"):
        rls.apply(applied.owner, applied.catalog, applied.roles)


def test_down_keeps_the_keys_out_of_reach(applied: World) -> None:
    """Taking the lock off drops neither keys nor what is derived, and opens them to nobody."""
    applied.run(INSERT_KEY.format(A))
    applied.run(f"INSERT INTO patients VALUES (1, '{A}', {INDEXED}, DEFAULT, NULL)")
    script = rls.down_sql(applied.catalog, applied.roles)
    with applied.owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(script, execution_options={"no_parameters": True})
    assert applied.run("SELECT count(*) FROM tenantguard_keys") == [(1,)]
    assert applied.run("SELECT name_bidx IS NOT NULL FROM patients") == [(True,)]
    for role in (applied.roles.application, applied.roles.support):
        with pytest.raises(DBAPIError, match="permission denied"):
            applied.run_as(role, A, "SELECT * FROM tenantguard_keys")
    rls.apply(applied.owner, applied.catalog, applied.roles)
    assert missing(applied) == []


def test_tables_lists_the_keys(guarded: World) -> None:
    """`tenantguard tables` says what the table of keys is, and its tenant column."""
    result = command(guarded, "tables")
    assert result.exit_code == 0
    [listed] = [each for each in json.loads(result.stdout)["tables"] if each["kind"] == "keys"]
    assert (listed["table"], listed["column"]) == ("tenantguard_keys", "tenant_id")


def test_doctor_looks_at_the_keys(guarded: World) -> None:
    """The doctor counts the table of keys with the others, and finds keys of no tenant."""
    assert not examined(guarded)
    [[name]] = guarded.run(
        f"SELECT conname FROM pg_constraint WHERE conrelid = '{KEYS}'::regclass AND contype = 'f'"
    )
    unknown = "00000000-0000-0000-0000-0000000000ff"
    guarded.run(
        f'ALTER TABLE {KEYS} DROP CONSTRAINT "{name}"; {INSERT_KEY.format(unknown)};'
        f'ALTER TABLE {KEYS} ADD CONSTRAINT "{name}" FOREIGN KEY (tenant_id) '
        "REFERENCES practices NOT VALID"
    )
    findings = examined(guarded)
    assert {each["code"] for each in findings} == {"key-crossed", "key-not-valid"}
    assert unknown not in str(findings)


def examined(world: World) -> list[dict[str, Any]]:
    """What the doctor finds on the table of keys, at which it could look."""
    document = json.loads(command(world, "doctor").stdout)
    assert KEYS not in str(document["not_looked_at"])
    return [each for each in document["findings"] if each["object"] == KEYS]
