"""Several engines, servers and connections: each is the active tenant's, or nobody's."""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from attacking import BINDING, LOCKS, SCOPING, Stage
from locks import Locks, fill
from practice import A, B, Base, Patient, Tag
from proxy import Proxy
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session

from tenantguard import (
    CrossTenantError,
    PolicyDriftError,
    UnsafeRoleError,
    rls,
    tenant_context,
)
from tenantguard.demo.server import embedded_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL, Engine

pytest_plugins = ["staging"]

patients: Any = Patient.__table__
NAMES = select(patients.c.name).order_by(patients.c.name)
ONE = {"pool_size": 1, "max_overflow": 0}
OWN = {letter: [f"patient {letter}{number}" for number in range(3)] for letter in "ab"}


def _engines(stage: Stage, lock: str) -> tuple[Engine, Engine]:
    make = getattr(stage.locks, lock)
    return make(**ONE), make(**ONE)


@pytest.mark.parametrize("lock", LOCKS)
def test_two_engines_serve_two_tenants_at_a_time(stage: Stage, lock: str) -> None:
    """With a transaction open on each, each engine answers for its own tenant, in any order."""
    one, two = _engines(stage, lock)
    with tenant_context(A), one.connect() as first:
        assert first.scalars(NAMES).all() == OWN["a"]
        with tenant_context(B), two.connect() as second:
            assert second.scalars(NAMES).all() == OWN["b"]
            with pytest.raises(CrossTenantError):
                first.execute(NAMES)
        assert first.scalars(NAMES).all() == OWN["a"]


@pytest.mark.parametrize("lock", SCOPING)
def test_a_session_on_two_engines_is_one_tenants(stage: Stage, lock: str) -> None:
    """A session whose second engine was not used yet does not take another tenant there."""
    one, two = _engines(stage, lock)
    with tenant_context(A), Session(binds={Patient: one, Tag: two}) as session:
        assert len(session.scalars(select(Patient.id)).all()) == 3
        with tenant_context(B), pytest.raises(CrossTenantError):
            session.scalars(select(Tag.id)).all()
        assert {tag.tenant_id for tag in session.scalars(select(Tag))} == {A}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_connection_checked_out_for_one_serves_a_session_of_another(
    stage: Stage, lock: str
) -> None:
    """It is the transaction that has a tenant; a session joined to another's is refused."""
    with tenant_context(B):
        connection = stage.engine(lock).connect()
    with connection:
        with tenant_context(A), Session(bind=connection) as session:
            assert session.scalars(NAMES).all() == OWN["a"]
            with (
                tenant_context(B),
                Session(bind=connection) as other,
                pytest.raises(CrossTenantError),
            ):
                other.scalars(NAMES).all()
            session.rollback()
        with tenant_context(B), Session(bind=connection) as session:
            assert session.scalars(NAMES).all() == OWN["b"]


@pytest.mark.parametrize("lock", ["second_alone"])
def test_an_engine_that_nobody_protects_shows_nothing(stage: Stage, lock: str) -> None:
    """The application's login through another engine has no tenant, and so no row of anybody."""
    engine = stage.locks._engine(stage.world.app_url, {})
    with tenant_context(A), engine.connect() as connection:
        assert connection.scalars(NAMES).all() == []
    with tenant_context(A), stage.engine(lock).connect() as connection:
        assert connection.scalars(NAMES).all() == OWN["a"]


def _used_up(connection: Any) -> None:
    with pytest.raises(Exception, match="syntax error"):
        connection.exec_driver_sql("SELEC 1")


def _nested_rollback(connection: Any) -> None:
    savepoint = connection.begin_nested()
    _used_up(connection)
    savepoint.rollback()


def _set_role_and_back(connection: Any) -> None:
    savepoint = connection.begin_nested()
    connection.exec_driver_sql("SET LOCAL ROLE none")
    connection.exec_driver_sql("SET LOCAL search_path = pg_temp, public")
    savepoint.rollback()


def _released(connection: Any) -> None:
    savepoint = connection.begin_nested()
    connection.exec_driver_sql("SELECT 1")
    savepoint.commit()


SAVEPOINTS = [_nested_rollback, _set_role_and_back, _released]


@pytest.mark.parametrize("lock", BINDING)
@pytest.mark.parametrize("end", SAVEPOINTS)
def test_after_a_savepoint_the_query_is_the_tenants(
    stage: Stage, end: Callable[[Any], None], lock: str
) -> None:
    """Rolled back after an error, with settings changed in it, or released: the tenant stays."""
    with tenant_context(A), stage.engine(lock).connect() as connection:
        end(connection)
        found = connection.exec_driver_sql("SELECT name FROM patients ORDER BY name")
        assert list(found.scalars()) == OWN["a"]


@pytest.mark.parametrize("lock", BINDING)
def test_a_two_phase_transaction_leaves_no_tenant(stage: Stage, lock: str) -> None:
    """What was prepared and then rolled back leaves the connection to the next tenant, clean."""
    engine = getattr(stage.locks, lock)(**ONE)
    with tenant_context(A), engine.connect() as connection:
        prepared = connection.begin_twophase()
        assert connection.scalars(NAMES).all() == OWN["a"]
        prepared.prepare()
        prepared.rollback()
        with tenant_context(B):
            assert connection.scalars(NAMES).all() == OWN["b"]
    with tenant_context(B), engine.connect() as connection:
        assert connection.scalars(NAMES).all() == OWN["b"]


class Failover(Proxy):
    """A proxy that can be led to another server, which ends what is connected."""

    def lead_to(self, url: URL) -> None:
        self._directory = str(url.query["host"])
        self._port = url.port or 5432
        for each in self._sockets[1:]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def standby() -> Iterator[URL]:
    """A second server of its own."""
    with embedded_server() as running:
        yield running.url()


@contextmanager
def _stand_in(stage: Stage, standby: URL) -> Iterator[Engine]:
    """Give the second server the first one's database, rows and roles; yield its superuser."""
    name = str(stage.world.app_url.database)
    janitor = create_engine(standby, isolation_level="AUTOCOMMIT")
    with janitor.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    admin = create_engine(standby.set(database=name))
    Base.metadata.create_all(admin)
    fill(admin)
    rls.apply(admin, stage.world.guard.catalog, stage.world.guard.roles, create_roles=True)
    try:
        yield admin
    finally:
        admin.dispose()
        with janitor.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
        janitor.dispose()


@contextmanager
def _through(stage: Stage, lock: str) -> Iterator[tuple[Failover, Engine]]:
    """Yield a proxy in front of the first server, and an engine on it that A has used."""
    between = Failover(stage.world.app_url, 0.0)
    locks = Locks(
        replace(stage.world, app_url=between.url(stage.world.app_url)), stage.locks.driver
    )
    engine = getattr(locks, lock)(**ONE, pool_pre_ping=True)
    try:
        with tenant_context(A), engine.connect() as connection:
            assert connection.scalars(NAMES).all() == OWN["a"]
        yield between, engine
    finally:
        locks.dispose()
        between.close()


@pytest.mark.parametrize("lock", BINDING)
def test_after_a_failover_the_new_server_is_bound(stage: Stage, standby: URL, lock: str) -> None:
    """The pool's next connection is to another server, and is the next tenant's there."""
    with _stand_in(stage, standby) as admin, _through(stage, lock) as (between, engine):
        with admin.begin() as connection:
            connection.execute(text("UPDATE patients SET name = name || ' there'"))
        between.lead_to(standby)
        for tenant, letter in ((B, "b"), (A, "a")):
            with tenant_context(tenant), engine.connect() as connection:
                wanted = [f"{name} there" for name in OWN[letter]]
                assert connection.scalars(NAMES).all() == wanted


OPENED = {
    "row-level security is off": "ALTER TABLE patients DISABLE ROW LEVEL SECURITY",
    "it is not forced": "ALTER TABLE patients NO FORCE ROW LEVEL SECURITY",
    "the login is a superuser": 'ALTER ROLE "{app}" SUPERUSER',
    "the login bypasses": 'ALTER ROLE "{app}" BYPASSRLS',
    "the setting has a default": "ALTER ROLE \"{app}\" SET tenantguard.tenant = '{tenant}'",
}


@pytest.mark.parametrize("lock", BINDING)
@pytest.mark.parametrize("opened", OPENED)
def test_a_new_server_without_the_policies_is_refused(
    stage: Stage, standby: URL, opened: str, lock: str
) -> None:
    """Each new connection asks again, so a failover to an open server hands nothing out."""
    application = stage.world.guard.roles.application
    damage = OPENED[opened].format(app=application, tenant=B)
    with _stand_in(stage, standby) as admin, _through(stage, lock) as (between, engine):
        with admin.begin() as connection:
            connection.execute(text(damage))
        between.lead_to(standby)
        try:
            with tenant_context(A), pytest.raises((PolicyDriftError, UnsafeRoleError)):
                engine.connect()
        finally:
            with admin.begin() as connection:
                connection.execute(text(f'ALTER ROLE "{application}" NOSUPERUSER NOBYPASSRLS'))
                connection.execute(text(f'ALTER ROLE "{application}" RESET ALL'))
