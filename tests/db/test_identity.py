"""Before the tenant is known, one question each: who signs in, and which tenant a name means."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
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
    select,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tenantguard import ConfigurationError, CrossTenantError, TenantGuard, rls, tenant_context
from tenantguard.resolvers import checked, session_key, subdomain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Engine

LONG = "a_table_whose_name_is_already_quite_long_for_sql"
metadata = MetaData()
tenants = Table(
    "tenants",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("Slug", String, unique=True),
    Column("plan", String),
)


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
TENANTS = [{"id": 1, "Slug": "north", "plan": "large"}, {"id": 2, "Slug": "south", "plan": "small"}]
mixed = users("UserAccounts")
in_sales = users("accounts", "sales")


@pytest.fixture(scope="module")
def asked(admin_url: URL) -> Iterator[tuple[TenantGuard, Engine, dict[str, Any]]]:
    admin = create_engine(admin_url)
    with admin.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA sales")
        metadata.create_all(connection)
        connection.execute(insert(metadata.tables["tenants"]), TENANTS)
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
        "tenant": guard.tenant_lookup(tenants, by="Slug"),
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


# -- which tenant a name means ----------------------------------------------------------------


def test_tenant_lookup_answers_one_name(asked: Any) -> None:
    """A name leads to its tenant, any other to none, whatever asks; each question is counted."""
    guard, engine, lookups = asked
    find = lookups["tenant"]
    before = guard.counts["tenant_lookup"]
    with engine.connect() as connection, Session(engine) as session:
        assert [find(by, "south") for by in (engine, connection, session)] == [2, 2, 2]
    assert [find(engine, name) for name in ("nobody", "", "SOUTH", "%", None)] == [None] * 5
    assert guard.counts["tenant_lookup"] - before == 8


def test_tenant_lookup_returns_the_id_only(asked: Any) -> None:
    """The function has one column, and the registry itself shows nobody without a tenant."""
    guard, engine, _ = asked
    function = next(each.function for each in guard.catalog.lookups if each.table is tenants)
    call = f"FROM public.\"{function}\"('south')"
    second_lock_alone = create_engine(engine.url)
    with second_lock_alone.connect() as connection:
        answer = connection.execute(text(f"SELECT * {call}"))
        assert (list(answer.keys()), answer.all()) == (["tenant"], [(2,)])
        assert connection.execute(text("SELECT * FROM tenants")).all() == []
        with pytest.raises(DBAPIError, match=r'column "plan" does not exist'):
            connection.execute(text(f"SELECT plan {call}"))
    second_lock_alone.dispose()


def test_tenant_lookup_in_the_request_session_is_refused_later(asked: Any) -> None:
    """A transaction that began without a tenant does not go on with one."""
    _, engine, lookups = asked
    with Session(engine) as session:
        tenant = lookups["tenant"](session, "north")
        with tenant_context(tenant), pytest.raises(CrossTenantError):
            session.execute(select(long.c.tenant_id))


@pytest.mark.parametrize(
    ("model", "by", "message"),
    [
        (mixed, "Email", "'UserAccounts' is not the registry. Name the model of 'tenants'"),
        (tenants, "name", "table 'tenants' has no column 'name'"),
        (tenants, "plan", "tenants.plan needs a unique constraint .* means one tenant"),
        ("tenants", "Slug", "takes a mapped class or a Table"),
    ],
)
def test_tenant_lookup_refuses(model: Any, by: str, message: str) -> None:
    """Only a unique column of the registry can be asked for; nothing is declared otherwise."""
    guard = TenantGuard(metadata, tenants="tenants")
    with pytest.raises(ConfigurationError, match=message):
        guard.tenant_lookup(model, by=by)
    assert guard.catalog.lookups == []


def test_lookups_from_asynchronous_code(asked: Any) -> None:
    """`run_sync` asks from an AsyncConnection and an AsyncSession of a protected engine."""
    guard, engine, lookups = asked

    async def ask() -> list[Any]:
        own = create_async_engine(engine.url.set(drivername="postgresql+psycopg"))
        guard.protect(own)
        async with own.connect() as connection, AsyncSession(own) as session:
            tenant = await connection.run_sync(lookups["tenant"], "south")
            found = await connection.run_sync(lookups["mail"], "1@x")
            again = await session.run_sync(lookups["tenant"], "north")
        await own.dispose()
        return [tenant, found.secret, again]

    assert asyncio.run(ask()) == [2, "hash 1", 1]


def test_tenant_lookup_resolves_a_subdomain(asked: Any) -> None:
    """A resolver asks it with the engine, or from asynchronous code, before a tenant is active."""
    guard, engine, lookups = asked
    find = lookups["tenant"]
    view: Any = SimpleNamespace(host="North.portal.example", session={"tenant_id": 1})

    async def resolve() -> Any:
        own = create_async_engine(engine.url.set(drivername="postgresql+psycopg"))
        guard.protect(own)

        async def tenant_of(label: str) -> Any:
            async with own.connect() as connection:
                return await connection.run_sync(find, label)

        by_name = subdomain("portal.example", lookup=tenant_of)
        answer: Any = checked(by_name, against=session_key())(view)
        found = await answer
        await own.dispose()
        return found

    by_name = subdomain("portal.example", lookup=partial(find, engine))
    assert checked(by_name, against=session_key())(view) == 1
    assert asyncio.run(resolve()) == 1
