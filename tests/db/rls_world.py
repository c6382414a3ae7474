"""A small application's tables in a database of their own, with roles of their own."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import (
    URL,
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    create_engine,
    event,
)

from tenantguard.catalog import Catalog, IdentityLookup, Roles

if TYPE_CHECKING:
    from collections.abc import Iterator

A, B = uuid.UUID(int=0xA), uuid.UUID(int=0xB)


def models(line: str = 'Li"n%e') -> MetaData:
    """Tables with every trouble of names: a keyword, a quote, a per cent sign, mixed case."""
    metadata = MetaData()
    Table("practices", metadata, Column("id", Uuid, primary_key=True), Column("name", String))
    Table("materials", metadata, Column("id", Integer, primary_key=True))
    Table("jobs", metadata, Column("id", Integer, primary_key=True))
    Table(
        "users",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", ForeignKey("practices.id"), nullable=False),
        Column("email", String(80), unique=True),
        Column("password_hash", String),
    )
    Table(
        "order",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", ForeignKey("practices.id"), nullable=False, index=True),
        Column("total", Integer),
    )
    Table(
        line,
        metadata,
        Column("Id", Integer, primary_key=True),
        Column("tenant_id", Uuid),
        Column("order", ForeignKey("order.id", ondelete="SET NULL")),
        Column("parent", ForeignKey(f"Oth er.{line}.Id", ondelete="CASCADE")),
        schema="Oth er",
    )
    return metadata


def catalog_of(metadata: MetaData) -> Catalog:
    users = metadata.tables["users"]
    lookup = IdentityLookup(
        users,
        users.c.email,
        users.c.id,
        users.c.tenant_id,
        users.c.password_hash,
        "users_by_email",
    )
    return Catalog(
        metadata,
        "practices",
        shared={"materials": "price list"},
        untenanted={"jobs": "queue", "alembic_version": "migration state"},
        lookups=[lookup],
    )


@dataclass
class World:
    """A database, its catalog, and connections as each role."""

    url: URL
    metadata: MetaData
    catalog: Catalog
    roles: Roles
    admin: Engine
    owner: Engine

    @contextmanager
    def as_application(self, *, autocommit: bool = False) -> Iterator[psycopg.Connection[Any]]:
        url = self.url.set(username=self.roles.application, drivername="postgresql")
        connection = psycopg.connect(
            url.render_as_string(hide_password=False), autocommit=autocommit
        )
        try:
            yield connection
        finally:
            connection.close()

    def run(self, statement: str) -> list[Any]:
        """Run *statement* as superuser."""
        with self.admin.begin() as connection:
            result = connection.exec_driver_sql(
                statement, execution_options={"no_parameters": True}
            )
            return list(result.fetchall()) if result.returns_rows else []

    def run_as(self, role: str, tenant: uuid.UUID | None, statement: str) -> list[Any]:
        """Run *statement* as *role* for *tenant*."""
        options = {"no_parameters": True}
        with self.admin.begin() as connection:
            connection.exec_driver_sql(f'SET LOCAL ROLE "{role}"', execution_options=options)
            connection.exec_driver_sql(
                f"SET LOCAL tenantguard.tenant = '{tenant or ''}'", execution_options=options
            )
            result = connection.exec_driver_sql(statement, execution_options=options)
            return list(result.fetchall()) if result.returns_rows else []


@contextmanager
def make_world(url: URL, metadata: MetaData | None = None) -> Iterator[World]:
    """Create tables owned by an owner who is no superuser; roles are named after the database."""
    metadata = models() if metadata is None else metadata
    prefix = f"{url.database}_r"
    roles = Roles(*(f"{prefix}_{name}" for name in ("app", "owner", "maint", "support", "backup")))
    admin = create_engine(url)
    owner = create_engine(url, connect_args={"options": f"-c role={roles.owner}"})
    world = World(url, metadata, catalog_of(metadata), roles, admin, owner)
    for role in (roles.owner, roles.application, roles.maintenance, roles.support, roles.backup):
        login = "LOGIN" if role == roles.application else "NOLOGIN"
        world.run(f'CREATE ROLE "{role}" {login}')
    world.run(f'ALTER ROLE "{roles.backup}" BYPASSRLS')
    world.run(f'GRANT ALL ON DATABASE "{url.database}" TO "{roles.owner}"')
    world.run(f'ALTER SCHEMA public OWNER TO "{roles.owner}"')
    world.run(f'CREATE SCHEMA "Oth er" AUTHORIZATION "{roles.owner}"')
    # The owner hands the lookup function over to the maintenance role, without its view of all
    # rows: an owner that inherits it would not be restricted by FORCE.
    world.run(f'ALTER ROLE "{roles.owner}" NOINHERIT')
    world.run(f'GRANT "{roles.maintenance}" TO "{roles.owner}"')
    with owner.begin() as connection:
        metadata.create_all(connection)
    try:
        yield world
    finally:
        owner.dispose()
        admin.dispose()
        _drop_roles(url, roles)


def _drop_roles(url: URL, roles: Roles) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for role in (
            roles.application,
            roles.support,
            roles.backup,
            roles.maintenance,
            roles.owner,
        ):
            connection.exec_driver_sql(f'DROP OWNED BY "{role}" CASCADE')
            connection.exec_driver_sql(f'DROP ROLE "{role}"')
    engine.dispose()


def fill(world: World) -> None:
    """Two tenants with an order each, and a line of A's order."""
    world.run(
        f"INSERT INTO practices VALUES ('{A}', 'a'), ('{B}', 'b');"
        f"INSERT INTO \"order\" (tenant_id, total) VALUES ('{A}', 10), ('{B}', 20);"
        f"INSERT INTO users VALUES (1, '{A}', 'a@a', 'hash');"
        f"""INSERT INTO "Oth er"."Li""n%e" VALUES (1, '{A}', 1, NULL)"""
    )


@contextmanager
def statements(engine: Engine) -> Iterator[list[str]]:
    """Collect what *engine* sends."""
    sent: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)
