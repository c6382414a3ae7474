"""Roles and the second lock itself: nobody whom the policies do not hold, nobody who moves them."""

from __future__ import annotations

import psycopg
import pytest
from attacking import Stage, kind
from practice import A, Base
from sqlalchemy import create_engine, event, inspect, text

from tenantguard import (
    ConfigurationError,
    UnsafeRoleError,
    UnscopedStatementError,
    tenant_context,
)

pytest_plugins = ["staging"]

NAMES = "SELECT name FROM patients ORDER BY name"


def test_the_schema_is_not_changed_in_a_tenants_name(stage: Stage) -> None:
    """DDL on a protected engine is refused; inspection for a tenant works."""
    with tenant_context(A):
        assert "patients" in inspect(stage.engine("both")).get_table_names()
        with pytest.raises(UnscopedStatementError):
            Base.metadata.tables["tags"].drop(stage.engine("both"))
        with stage.engine("second_alone").begin() as connection:
            with pytest.raises(Exception, match="must be owner") as refusal:
                connection.execute(text("DROP TABLE order_tags"))
            assert kind(refusal.value) == "42501"


WEAKENING = [
    "TRUNCATE order_tags",
    "ALTER TABLE tags DISABLE ROW LEVEL SECURITY",
    "DROP POLICY tenantguard_application ON tags",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
]


@pytest.mark.parametrize("command", WEAKENING)
def test_the_login_may_not_weaken_the_second_lock(stage: Stage, command: str) -> None:
    """The application's login cannot truncate, change policies or become somebody else."""
    with tenant_context(A), stage.engine("second_alone").connect() as connection:
        with pytest.raises(Exception, match=r"permission|must be owner") as refusal:
            connection.exec_driver_sql(command)
        assert kind(refusal.value) == "42501"


def test_row_security_off_is_an_error(stage: Stage) -> None:
    """`SET row_security = off` makes a scoped read fail; it does not show foreign rows."""
    with tenant_context(A), stage.engine("second_alone").connect() as connection:
        connection.exec_driver_sql("SET row_security = off")
        with pytest.raises(Exception, match="row-level security"):
            connection.exec_driver_sql(NAMES)


ROLES = {
    "superuser": None,
    "bypasses": "LOGIN BYPASSRLS",
    "owner": "LOGIN IN ROLE {owner}",
    "maintenance": "LOGIN IN ROLE {maintenance}",
    "owner, not inherited": "LOGIN NOINHERIT IN ROLE {owner}",
}


@pytest.mark.parametrize("role", ROLES)
def test_an_unsafe_role_is_refused_at_first_connect(stage: Stage, role: str) -> None:
    """protect() lets no connection through whose role the policies do not hold."""
    url = stage.world.admin.url
    options = ROLES[role]
    name = f"unsafe_{stage.world.guard.roles.application}"
    with stage.world.admin.begin() as admin:
        if options:
            roles = stage.world.guard.roles
            made = options.format(owner=roles.owner, maintenance=roles.maintenance)
            admin.execute(text(f'CREATE ROLE "{name}" {made}'))
    engine = create_engine(url.set(username=name) if options else url)
    try:
        stage.world.guard.protect(engine)
        with tenant_context(A), pytest.raises(UnsafeRoleError, match="Mend"):
            engine.connect()
    finally:
        engine.dispose()
        with stage.world.admin.begin() as admin:
            admin.execute(text(f'DROP ROLE IF EXISTS "{name}"'))


def test_a_connection_of_somebody_elses_is_refused(stage: Stage) -> None:
    """A `creator` that opens connections itself cannot slip an unbound one into the pool."""
    url = stage.world.app_url
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    engine = create_engine(url, creator=lambda: psycopg.connect(dsn))
    stage.world.guard.protect(engine)
    with tenant_context(A), pytest.raises(ConfigurationError):
        engine.connect()
    engine.dispose()


def test_a_listener_that_connects_is_refused(stage: Stage) -> None:
    """A `do_connect` listener that runs before ours cannot return an unbound connection."""
    url = stage.world.app_url
    engine = create_engine(url)
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    event.listen(engine, "do_connect", lambda *_: psycopg.connect(dsn))
    stage.world.guard.protect(engine)
    with tenant_context(A), pytest.raises(ConfigurationError):
        engine.connect()
    engine.dispose()
