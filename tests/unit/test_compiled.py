"""What a protected engine makes of a statement, before any database is asked."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Event
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    create_engine,
    exists,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import SAWarning
from sqlalchemy.orm import registry

from tenantguard import CrossTenantError, TenantGuard, tenant_context
from tenantguard.scoping import forget_compiled

A, B = uuid.UUID(int=1), uuid.UUID(int=2)


def _table(name: str, *columns: Column[Any]) -> Table:
    return Table(name, METADATA, Column("id", Integer, primary_key=True), *columns)


def _owned(name: str) -> Table:
    tenant: Column[Any] = Column("tenant_id", ForeignKey("tenants.id"), nullable=False)
    return _table(name, tenant, Column("name", String))


METADATA = MetaData()
Table("tenants", METADATA, Column("id", Uuid, primary_key=True))
documents, tags, notes = _owned("documents"), _owned("tags"), _owned("notes")
lines = _table("lines", Column("document_id", ForeignKey("documents.id"), nullable=False))


class Note:
    """A mapped class."""


registry().map_imperatively(Note, notes)


@pytest.fixture(scope="module")
def engine() -> Engine:
    """An engine that never connects."""
    engine = create_engine("postgresql+psycopg://")
    TenantGuard(METADATA, tenants="tenants").protect(engine)
    return engine


@pytest.mark.parametrize("statement", [insert(lines), update(lines), update(tags)])
def test_without_values_a_statement_takes_none(engine: Engine, statement: Any) -> None:
    """SQLAlchemy would take any column as a parameter, by which rows are checked too."""
    compiled = statement.compile(engine)
    assert not {"document_id", "tenant_id", "name"} & set(compiled.binds)


@pytest.mark.parametrize("statement", [insert(tags), update(tags)])
def test_whose_tenant_is_another_is_named(engine: Engine, statement: Any) -> None:
    """The error says which table's row was given another tenant."""
    compiled = statement.values(tenant_id=B).compile(engine)
    with tenant_context(A), pytest.raises(CrossTenantError, match="A row of 'tags' was given"):
        compiled.params  # noqa: B018


def test_a_reference_in_an_order_is_checked(engine: Engine) -> None:
    """SQLAlchemy 2.0 keeps what is given in an order apart from other values."""
    ordered = update(lines).ordered_values((lines.c.id, 1), (lines.c.document_id, 2))
    assert "document_id=(SELECT CASE" in str(ordered.compile(engine))


def test_values_may_stand_in_the_text(engine: Engine) -> None:
    """The tenant is no parameter then, and is not known where the text is made."""
    with pytest.warns(SAWarning, match="rendering literal NULL"):
        compiled = select(tags.c.id).compile(engine, compile_kwargs={"literal_binds": True})
    assert "tags.tenant_id = NULL" in str(compiled)
    with tenant_context(A):
        assert compiled.params == {}


def _full(left: Any, right: Any) -> Any:
    return left.join(right, left.c.id == right.c.id, full=True)


ONCE: dict[str, tuple[Any, int]] = {
    "join": (select(tags.c.id).join(notes, notes.c.id == tags.c.id), 2),
    "left join under a full join": (
        select(tags.c.id).select_from(
            documents.join(
                tags.outerjoin(notes, notes.c.id == tags.c.id),
                tags.c.id == documents.c.id,
                full=True,
            )
        ),
        3,
    ),
    "full join, then plainly": (
        select(documents.c.id).where(
            exists(select(tags.c.id).select_from(_full(tags, notes))),
            exists(select(tags.c.id)),
        ),
        4,
    ),
}


@pytest.mark.parametrize("name", ONCE)
def test_the_predicate_stands_once_for_each_table(engine: Engine, name: str) -> None:
    """Twice would find the same rows, and cost the planner more."""
    statement, tables = ONCE[name]
    assert str(statement.compile(engine)).count("tenant_id = ") == tables


def test_an_upsert_keeps_its_tenant(engine: Engine) -> None:
    """What DO UPDATE sets is compared as what is inserted."""
    upsert = postgresql.insert(tags).values(id=1)
    changed = upsert.on_conflict_do_update(index_elements=["id"], set_={"tenant_id": B})
    compiled: Any = changed.compile(engine)
    with tenant_context(A), pytest.raises(CrossTenantError, match="A row of 'tags' was given"):
        compiled.params  # noqa: B018


@pytest.mark.usefixtures("hasty")
def test_caches_are_emptied_while_threads_add_to_them() -> None:
    """An engine is protected while others execute: each adds what it compiled to the caches."""
    engine, mapper = create_engine("postgresql+psycopg://"), inspect(Note)
    caches = [engine._compiled_cache, mapper._compiled_cache]
    done = Event()

    def add(cache: Any) -> None:
        for each in count():
            cache["compiled", each] = each
            if done.is_set():
                break

    with ThreadPoolExecutor() as pool:
        added = [pool.submit(add, cache) for cache in caches]
        try:
            for _ in range(2000):
                forget_compiled(engine)
        finally:
            done.set()
        for each in added:
            each.result()
    forget_compiled(engine)
    assert [list(cache or ()) for cache in caches] == [[], []]
