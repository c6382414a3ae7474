"""Verification as the application's role: faults are found, and a clean database is clean."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from rls_world import A, World, make_world
from sqlalchemy import make_url

from tenantguard import rls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL


SELECT_ONLY = (
    "DROP POLICY tenantguard_application ON users; "
    "CREATE POLICY tenantguard_application ON users FOR SELECT TO {app} USING (true)"
)


@pytest.fixture
def world(new_database: Callable[[], URL]) -> Iterator[World]:
    with make_world(new_database()) as made:
        rls.apply(made.owner, made.catalog, made.roles)
        yield made


def verify(world: World, *, autocommit: bool = False) -> list[rls.Finding]:
    with world.as_application(autocommit=autocommit) as connection:
        return rls.verify(connection, world.catalog, world.roles)


def codes(findings: list[rls.Finding]) -> set[tuple[str, str | None]]:
    return {(finding.code, finding.object) for finding in findings}


class Counting:
    """A DBAPI connection that counts the statements of its cursors."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.sent: list[str] = []
        self.autocommit = connection.autocommit

    def cursor(self) -> Counting:
        self._cursor = self._connection.cursor()
        return self

    def execute(self, statement: str) -> None:
        self.sent.append(statement)
        self._cursor.execute(statement)

    def __getattr__(self, name: str) -> Any:
        owner = self._cursor if name in {"fetchall", "description"} else self._connection
        return getattr(owner, name)

    def close(self) -> None:
        self._cursor.close()


@pytest.mark.parametrize("autocommit", [False, True])
def test_clean_database_has_no_findings(world: World, autocommit: bool) -> None:  # noqa: FBT001
    """What apply has made verifies, and the connection is left idle with nothing in it."""
    with world.as_application(autocommit=autocommit) as connection:
        before = connection.execute("SHOW search_path").fetchone()
        connection.rollback()
        assert rls.verify(connection, world.catalog, world.roles) == []
        assert rls.verify_role(connection, world.catalog, world.roles) == []
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        left = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()"
        ).fetchone()
        assert left == (0,)
        assert connection.execute("SHOW search_path").fetchone() == before


def test_four_statements_and_one(world: World) -> None:
    """The whole verification is four statements, and the role's part is one."""
    with world.as_application() as connection:
        counting = Counting(connection)
        assert rls.verify(counting, world.catalog, world.roles) == []
        assert len(counting.sent) == 4
        counting.sent.clear()
        assert rls.verify_role(counting, world.catalog, world.roles) == []
        assert len(counting.sent) == 1


@pytest.mark.parametrize(
    ("damage", "code", "table"),
    [
        ("ALTER ROLE {app} SUPERUSER", "role-superuser", None),
        ("ALTER ROLE {app} BYPASSRLS", "role-bypassrls", None),
        ("GRANT {maintenance} TO {app}", "role-reaches", None),
        ("ALTER ROLE {app} NOINHERIT; GRANT {backup} TO {app}", "role-reaches", None),
        ("GRANT {owner} TO {app}", "role-reaches", None),
        ("GRANT postgres TO {app}", "role-reaches", None),
        ("GRANT {maintenance} TO {support}; GRANT {support} TO {app}", "role-reaches", None),
        ("GRANT pg_execute_server_program TO {app}", "role-reaches", None),
        ('ALTER TABLE "order" OWNER TO {app}', "role-owns-table", "public.order"),
        ("ALTER ROLE {app} REPLICATION", "role-replication", None),
        ("ALTER ROLE {support} REPLICATION; GRANT {support} TO {app}", "role-replication", None),
        ("ALTER DATABASE {db} OWNER TO {app}", "role-owns-database", None),
        ('ALTER SCHEMA "Oth er" OWNER TO {app}', "role-owns-schema", None),
        (
            "ALTER SCHEMA public OWNER TO {support}; GRANT {support} TO {app}",
            "role-owns-schema",
            None,
        ),
        ("ALTER ROLE {app} SET tenantguard.tenant = '1'", "setting-default", None),
        ("ALTER DATABASE {db} SET tenantguard.tenant = '1'", "setting-default", None),
        ("ALTER ROLE {app} IN DATABASE {db} SET TenantGuard.tenant = '1'", "setting-default", None),
        ("ALTER ROLE ALL IN DATABASE {db} SET tenantguard.tenant = '1'", "setting-bound", None),
        ('ALTER TABLE "order" DISABLE ROW LEVEL SECURITY', "rls-not-enabled", "public.order"),
        ('ALTER TABLE "order" NO FORCE ROW LEVEL SECURITY', "rls-not-forced", "public.order"),
        ('DROP POLICY tenantguard_application ON "order"', "policy-missing", "public.order"),
        ('DROP POLICY tenantguard_application_floor ON "order"', "policy-missing", "public.order"),
        (
            'ALTER POLICY tenantguard_application ON "order" USING (true) WITH CHECK (true)',
            "policy-changed",
            "public.order",
        ),
        (
            'ALTER POLICY tenantguard_application_floor ON "order" TO {support}',
            "policy-changed",
            "public.order",
        ),
        (
            SELECT_ONLY,
            "policy-changed",
            "public.users",
        ),
        ('CREATE POLICY mine ON "order" USING (true)', "policy-extra", "public.order"),
        ('CREATE POLICY mine ON "order" TO {app} USING (true)', "policy-extra", "public.order"),
        ('DROP TABLE "Oth er"."Li""n%e"', "table-missing", 'Oth er.Li"n%e'),
        ("ALTER TABLE users DROP tenant_id CASCADE", "column-missing", "public.users"),
        ("GRANT TRUNCATE ON users TO {app}", "privilege-excess", "public.users"),
        ("GRANT REFERENCES (id) ON users TO PUBLIC", "privilege-excess", "public.users"),
        ("GRANT TRIGGER ON users TO {app}", "privilege-excess", "public.users"),
        ("GRANT UPDATE (name) ON practices TO {app}", "privilege-excess", "public.practices"),
        ("GRANT INSERT ON materials TO PUBLIC", "privilege-excess", "public.materials"),
        ("GRANT SELECT ON jobs TO {app}", "privilege-excess", "public.jobs"),
        ("REVOKE TEMP ON DATABASE {db} FROM PUBLIC", "could-not-compare", None),
        (
            "ALTER ROLE {app} SET default_transaction_read_only = on",
            "could-not-compare",
            None,
        ),
    ],
)
def test_planted_fault_is_found(world: World, damage: str, code: str, table: str | None) -> None:
    """Each way past the policies is found by the application's own role, and says what mends it."""
    roles = world.roles
    names = {
        "{app}": roles.application,
        "{owner}": roles.owner,
        "{maintenance}": roles.maintenance,
        "{support}": roles.support,
        "{backup}": roles.backup,
        "{db}": world.url.database or "",
    }
    for placeholder, name in names.items():
        damage = damage.replace(placeholder, f'"{name}"')
    world.run(damage)
    try:
        findings = verify(world)
    finally:
        world.run(
            f'ALTER ROLE "{roles.application}" NOSUPERUSER NOREPLICATION;'
            f'ALTER DATABASE "{world.url.database}" OWNER TO CURRENT_USER'
        )
    assert (code, table) in codes(findings)
    assert all(finding.mend for finding in findings)


@pytest.mark.parametrize(
    "code", ["rls-not-forced", "policy-missing", "policy-changed", "privilege-excess"]
)
def test_apply_mends_what_it_says_it_mends(world: World, code: str) -> None:
    """Where the finding names `tenantguard rls apply`, that command leaves a clean database."""
    world.run(
        {
            "rls-not-forced": "ALTER TABLE users NO FORCE ROW LEVEL SECURITY",
            "policy-missing": "DROP POLICY tenantguard_application ON users",
            "policy-changed": "ALTER POLICY tenantguard_application ON users USING (true)",
            "privilege-excess": f'GRANT ALL ON practices, jobs TO "{world.roles.application}"',
        }[code]
    )
    findings = verify(world)
    assert {finding.code for finding in findings} == {code}
    assert all("tenantguard rls apply" in finding.mend for finding in findings)
    rls.apply(world.owner, world.catalog, world.roles)
    assert verify(world) == []


def test_default_of_the_setting_is_a_finding_for_later_connections(world: World) -> None:
    """The cheap check finds it too, because a role can be changed after the first connection."""
    world.run(f"ALTER ROLE \"{world.roles.application}\" SET tenantguard.tenant = '{A}'")
    with world.as_application() as connection:
        findings = rls.verify_role(connection, world.catalog, world.roles)
    assert {finding.code for finding in findings} == {"setting-default", "setting-bound"}
    assert not any(str(A) in str(finding) for finding in findings)


def test_replication_is_a_finding_for_later_connections(world: World) -> None:
    """The cheap check finds what opens the write-ahead log, and who owns around the tables."""
    app, database = world.roles.application, world.url.database
    world.run(
        f'ALTER ROLE "{app}" REPLICATION; ALTER SCHEMA public OWNER TO "{app}";'
        f'ALTER DATABASE "{database}" OWNER TO "{app}"'
    )
    with world.as_application() as connection:
        findings = rls.verify_role(connection, world.catalog, world.roles)
    world.run(f'ALTER DATABASE "{database}" OWNER TO CURRENT_USER')
    assert {finding.code for finding in findings} == {
        "role-replication",
        "role-owns-schema",
        "role-owns-database",
    }


def test_a_schema_without_guarded_tables_may_be_the_applications(world: World) -> None:
    """Who owns a place for scratch tables owns none of the protected ones."""
    world.run(f'CREATE SCHEMA scratch AUTHORIZATION "{world.roles.application}"')
    assert verify(world) == []


def test_another_role_is_not_the_application(world: World) -> None:
    """A login outside the application's role is told so; a member of it is fine."""
    login = f"{world.url.database}_r_login"
    world.run(f'CREATE ROLE "{login}" LOGIN')
    try:
        with connect(world, login) as connection:
            found = rls.verify(connection, world.catalog, world.roles)
        assert ("role-not-application", None) in codes(found)
        world.run(f'GRANT "{world.roles.application}" TO "{login}"')
        with connect(world, login) as connection:
            assert rls.verify(connection, world.catalog, world.roles) == []
    finally:
        world.run(f'DROP ROLE "{login}"')


def test_session_user_counts(world: World) -> None:
    """A superuser who has only SET ROLE to the application can RESET it, and is found."""
    url = world.url.set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        connection.execute(f'SET ROLE "{world.roles.application}"')
        connection.commit()
        found = rls.verify_role(connection, world.catalog, world.roles)
    assert "role-superuser" in {finding.code for finding in found}


def test_other_type_in_the_database_cannot_be_compared(world: World) -> None:
    """A tenant column of another type is reported as not compared, and others still are."""
    policies = ["application", "application_floor", "support", "support_floor"]
    world.run(
        "".join(f"DROP POLICY tenantguard_{name} ON users;" for name in policies)
        + "ALTER TABLE users DROP CONSTRAINT users_tenant_id_fkey;"
        "ALTER TABLE users ALTER tenant_id DROP DEFAULT, ALTER tenant_id TYPE text;"
        'DROP POLICY tenantguard_application ON "order"'
    )
    assert codes(verify(world)) == {
        ("could-not-compare", "public.users"),
        ("policy-missing", "public.order"),
    }


@contextmanager
def connect(world: World, login: str) -> Iterator[psycopg.Connection[Any]]:
    url = make_url(world.url).set(username=login, drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
        yield connection


def test_lost_connection_is_not_a_finding(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ends the connection while it is verified says nothing of the policies."""

    def lost(*_: Any) -> None:
        raise psycopg.OperationalError("the connection is closed")

    module = import_module("tenantguard.rls.verify")
    monkeypatch.setattr(module, "stored_forms", lost)
    with pytest.raises(psycopg.OperationalError, match="closed"):
        verify(world)
