"""Reads through Core: tables, light tables and other MetaData, wherever they are executed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from attacking import LOCKS, Stage
from practice import A, Base, Migration, Order, Patient
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    alias,
    any_,
    bindparam,
    column,
    delete,
    exists,
    func,
    insert,
    literal,
    outerjoin,
    select,
    table,
    tablesample,
    text,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.orm import Session

from tenantguard import UnscopedStatementError, tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

pytest_plugins = ["staging"]

patients: Any = Patient.__table__
orders: Any = Order.__table__
MINE = ["patient a0", "patient a1", "patient a2"]
ALL = [*MINE, "patient b0", "patient b1", "patient b2"]

elsewhere = MetaData()
copied = Table(
    "patients", elsewhere, Column("id", Integer, primary_key=True), Column("name", String)
)
keyed = Table(
    "patients",
    MetaData(),
    Column("id", Integer, primary_key=True, key="number"),
    Column("tenant_id", Uuid, key="owner"),
    Column("name", String, key="label"),
)
light = table("patients", column("id"), column("name"))
again = patients.alias("again")
twice = patients.alias("inner").alias("outer")
cte = select(patients).cte("c")
nested = select(cte.c.name).cte("d")
tree = select(patients.c.id, patients.c.name).cte("tree", recursive=True)
tree = tree.union_all(select(again.c.id, again.c.name).where(again.c.referred_by_id == tree.c.id))
sub = select(patients.c.name, patients.c.id).where(patients.c.id > 0).subquery()
side = select(orders.c.id).where(orders.c.patient_id == patients.c.id).lateral("side")
sampled = tablesample(again, func.system(100))
changed = update(patients).values(born=None).returning(patients.c.name).cte("changed")
removed = delete(orders).where(orders.c.id < 0).returning(orders.c.id).cte("removed")

SELECTS: dict[str, Any] = {
    "table": select(patients.c.name),
    "every column": select(patients).with_only_columns(patients.c.name),
    "another MetaData": select(copied.c.name),
    "other keys": select(keyed.c.label),
    "light table": select(light.c.name),
    "light table's alias": select(alias(light, "l").c.name),
    "alias": select(again.c.name),
    "alias of alias": select(twice.c.name),
    "alias named like another table": select(patients.alias("orders").c.name),
    "cte named like its table": select(select(patients).cte("patients").c.name),
    "subquery": select(sub.c.name),
    "cte": select(cte.c.name),
    "cte of cte": select(nested.c.name),
    "recursive": select(tree.c.name),
    "join": select(patients.c.name).join(orders, orders.c.patient_id == patients.c.id),
    "join's subquery": select(
        patients.join(orders, orders.c.patient_id == patients.c.id)
        .select()
        .with_only_columns(patients.c.name)
        .subquery()
        .c.name
    ),
    "outer join": select(again.c.name).distinct().select_from(outerjoin(orders, again, true())),
    "right of two outer joins": select(again.c.name)
    .distinct()
    .select_from(outerjoin(patients, outerjoin(orders, again, true()), true())),
    "full join": select(patients.c.name).select_from(
        patients.join(orders, orders.c.patient_id == patients.c.id, full=True)
    ),
    "outer join of a full join": select(again.c.name)
    .distinct()
    .select_from(
        outerjoin(
            patients, again.join(orders, again.c.id == orders.c.patient_id, full=True), true()
        )
    )
    .where(again.c.id.is_not(None)),
    "lateral": select(patients.c.name).join(side, true()),
    "tablesample of alias": select(sampled.c.name),
    "union all": union_all(
        select(patients.c.name).where(patients.c.id % 2 == 0),
        select(again.c.name).where(again.c.id % 2 == 1),
    ),
    "compound subquery": select(
        union_all(select(patients.c.name), select(again.c.name).where(again.c.id < 0))
        .subquery()
        .c.name
    ),
    "exists": select(patients.c.name).where(exists(select(orders.c.id).where(orders.c.id > 0))),
    "in tuple": select(patients.c.name).where(
        tuple_(patients.c.id, patients.c.tenant_id).in_(select(again.c.id, again.c.tenant_id))
    ),
    "any": select(patients.c.name).where(
        patients.c.id == any_(select(again.c.id).scalar_subquery())
    ),
    "window": select(func.max(patients.c.name).over(partition_by=patients.c.id)),
    "group by key": select(patients.c.name).group_by(patients.c.id).order_by(patients.c.id),
    "having": select(patients.c.name).group_by(patients.c.name).having(func.count() == 1),
    "for update": select(patients.c.name).with_for_update(of=patients, skip_locked=True),
    "row as value": select(
        func.json_extract_path_text(func.to_json(patients.table_valued()), "name")
    ),
    "unnest": select(func.unnest(select(func.array_agg(patients.c.name)).scalar_subquery())),
    "from a function": select(
        func.unnest(select(func.array_agg(patients.c.name)).scalar_subquery()).column_valued("n")
    ),
    "dml cte's returning": select(changed.c.name),
    "beside a dml cte": select(patients.c.name).add_cte(removed),
    "harmless words": select(patients.c.name).order_by(text("name desc nulls last")),
    "bind": select(patients.c.name).where(patients.c.id > bindparam("id", 0)),
}


def _on_session(stage: Stage, lock: str, statement: Any) -> Iterable[str]:
    with Session(stage.engine(lock)) as session:
        return session.scalars(statement).all()


def _on_connection(stage: Stage, lock: str, statement: Any) -> Iterable[str]:
    with stage.engine(lock).connect() as connection:
        return connection.scalars(statement).all()


def _on_child_engine(stage: Stage, lock: str, statement: Any) -> Iterable[str]:
    child = stage.engine(lock).execution_options(compiled_cache=None)
    with child.connect() as connection:
        return connection.scalars(statement).all()


def _on_server_cursor(stage: Stage, lock: str, statement: Any) -> Iterable[str]:
    with stage.engine(lock).connect() as connection:
        streaming = connection.execution_options(stream_results=True)
        with streaming.scalars(statement) as result:
            return result.all()


WAYS: dict[str, Callable[[Stage, str, Any], Iterable[str]]] = {
    "session": _on_session,
    "connection": _on_connection,
    "child engine": _on_child_engine,
    "server cursor": _on_server_cursor,
}


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("shape", SELECTS)
def test_a_core_read_returns_own_rows_only(stage: Stage, shape: str, lock: str) -> None:
    """Whatever the construct, a tenant gets its own rows, all of them, and nobody else's."""
    with tenant_context(A):
        assert sorted(_on_connection(stage, lock, SELECTS[shape])) == MINE


@pytest.mark.parametrize("shape", SELECTS)
def test_without_locks_the_core_read_sees_everybody(stage: Stage, shape: str) -> None:
    """Negative control: each of these constructs reads all tenants when nothing stops it."""
    assert sorted(_on_connection(stage, "none", SELECTS[shape])) == ALL


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("way", WAYS)
def test_it_does_not_matter_where_a_read_is_executed(stage: Stage, way: str, lock: str) -> None:
    """A session, a connection, a derived engine and a server-side cursor are scoped alike."""
    with tenant_context(A):
        assert sorted(WAYS[way](stage, lock, SELECTS["table"])) == MINE
    assert sorted(WAYS[way](stage, "none", SELECTS["table"])) == ALL


REFUSED: dict[str, Any] = {
    "unknown table": select(table("audit_trail", column("id")).c.id),
    "unknown alias": select(table("audit_trail", column("id")).alias().c.id),
    "untenanted": select(Migration.version),
    "untenanted in exists": select(patients.c.id).where(exists(select(Migration.version))),
    "another schema": select(table("patients", column("name"), schema="public").c.name),
    "write the registry": update(Base.metadata.tables["practices"]).values(name="mine"),
    "write the price list": insert(Base.metadata.tables["materials"]).values(name="gold"),
    "write the catalog": update(table("pg_class", column("relname"), schema="pg_catalog"))
    .values(relname="mine")
    .where(literal(1) == 2),
}


@pytest.mark.parametrize("shape", REFUSED)
def test_a_table_that_is_nobodys_is_refused(stage: Stage, shape: str) -> None:
    """What is not the tenant's to touch is refused by the first lock before it is sent."""
    with (
        tenant_context(A),
        stage.engine("first_alone").connect() as connection,
        pytest.raises(UnscopedStatementError),
    ):
        connection.execute(REFUSED[shape])


def test_a_system_schema_cannot_be_translated_away(stage: Stage) -> None:
    """The catalog's schema is open to read; mapped to another schema it is refused."""
    catalog = MetaData()
    spoofed = Table("patients", catalog, Column("name", String), schema="pg_catalog")
    genuine = Table("pg_type", catalog, Column("typname", String), schema="pg_catalog")
    with tenant_context(A), stage.engine("first_alone").connect() as connection:
        assert "bool" in connection.scalars(select(genuine.c.typname)).all()
        translated = connection.execution_options(schema_translate_map={"pg_catalog": "public"})
        with pytest.raises(UnscopedStatementError):
            translated.execute(select(spoofed.c.name))


@pytest.mark.parametrize("lock", LOCKS)
def test_a_translated_schema_is_scoped(stage: Stage, lock: str) -> None:
    """`schema_translate_map` changes where the table is, not whose rows are read."""
    with tenant_context(A), stage.engine(lock).connect() as connection:
        translated = connection.execution_options(schema_translate_map={None: "public"})
        assert sorted(translated.scalars(SELECTS["outer join"])) == MINE
        assert sorted(translated.scalars(SELECTS["alias"])) == MINE
