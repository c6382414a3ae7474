"""Sign-in asks one question, of the right function, and gets one user or none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from locks import unique_roles
from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    insert,
)

from tenantguard import ConfigurationError, TenantGuard, rls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Engine

LONG = "a_table_whose_name_is_already_quite_long_for_sql"
metadata = MetaData()
Table("tenants", metadata, Column("id", Integer, primary_key=True))


def users(name: str, schema: str | None = None, *extra: Any) -> Table:
    return Table(
        name,
        metadata,
        Column("Id", Integer, primary_key=True),
        Column("tenant_id", ForeignKey("tenants.id")),
        Column("Email", String, unique=True),
        Column("employee_mail", String, unique=True),
        Column("employee_nick", String, unique=True),
        Column("secret", String),
        *extra,
        schema=schema,
    )


long = users(LONG)
mixed = users("UserAccounts")
in_sales = users("accounts", "sales")


@pytest.fixture(scope="module")
def asked(admin_url: URL) -> Iterator[tuple[TenantGuard, Engine, dict[str, Any]]]:
    admin = create_engine(admin_url)
    with admin.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA sales")
        metadata.create_all(connection)
        connection.execute(insert(metadata.tables["tenants"]), [{"id": 1}, {"id": 2}])
        for table in (long, mixed, in_sales):
            for tenant in (1, 2):
                # The second user's nick is the first one's address.
                row = {
                    "tenant_id": tenant,
                    "Email": f"{tenant}@x",
                    "employee_mail": f"{tenant}@x",
                    "employee_nick": f"{3 - tenant}@x",
                    "secret": f"hash {tenant}",
                }
                connection.execute(insert(table).values(row))
    guard = TenantGuard(metadata, tenants="tenants", roles=unique_roles())
    lookups = {
        "mail": guard.identity_lookup(long, by="employee_mail", secret="secret"),
        "nick": guard.identity_lookup(long, by="employee_nick", secret="secret"),
        "mixed case": guard.identity_lookup(mixed, by="Email", secret="secret"),
        "schema": guard.identity_lookup(in_sales, by="Email", secret="secret"),
    }
    rls.apply(admin, guard.catalog, guard.roles, create_roles=True)
    engine = create_engine(admin_url.set(username=guard.roles.application))
    guard.protect(engine)
    yield guard, engine, lookups
    engine.dispose()
    admin.dispose()


@pytest.mark.parametrize(
    ("name", "tenant"), [("mail", 1), ("nick", 2), ("mixed case", 1), ("schema", 1)]
)
def test_each_lookup_asks_its_own_function(asked: Any, name: str, tenant: int) -> None:
    """Long, mixed-case and schema-qualified names lead to the function that was declared."""
    _, engine, lookups = asked
    with engine.connect() as connection:
        found = lookups[name](connection, "1@x")
    assert found is not None
    assert (found.tenant, found.secret) == (tenant, f"hash {tenant}")


def test_lookups_are_applied_once(asked: Any, admin_url: URL) -> None:
    """A second apply finds nothing to do, with several lookups on one table."""
    guard = asked[0]
    admin = create_engine(admin_url)
    assert rls.apply(admin, guard.catalog, guard.roles) == []
    admin.dispose()


def test_lookups_take_an_engine(asked: Any) -> None:
    """Without a connection at hand, the lookup takes one of the engine's."""
    _, engine, lookups = asked
    assert lookups["mail"](engine, "2@x").secret == "hash 2"
    assert lookups["mail"](engine, "nobody@x") is None


def test_a_partial_unique_index_is_not_enough() -> None:
    """Unique among some rows is not unique over all tenants."""
    partial = Table(
        "partial",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", ForeignKey("tenants.id")),
        Column("email", String),
        Column("secret", String),
    )
    Index("only_active", partial.c.email, unique=True, postgresql_where=partial.c.id > 0)
    guard = TenantGuard(metadata, tenants="tenants")
    with pytest.raises(ConfigurationError, match="unique constraint"):
        guard.identity_lookup(partial, by="email", secret="secret")
    partial.append_constraint(UniqueConstraint("email"))
    assert guard.identity_lookup(partial, by="email", secret="secret") is not None
    metadata.remove(partial)


def test_a_schema_that_cannot_be_called_is_refused() -> None:
    """SQLAlchemy renders a function's schema without quotes."""
    odd = MetaData()
    Table("tenants", odd, Column("id", Integer, primary_key=True))
    table = Table(
        "users",
        odd,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", Integer),
        Column("email", String, unique=True),
        Column("secret", String),
        schema="Sales",
    )
    guard = TenantGuard(odd, tenants="tenants")
    with pytest.raises(ConfigurationError, match="whose name needs quoting"):
        guard.identity_lookup(table, by="email", secret="secret")
