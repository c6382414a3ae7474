"""Who the tenant is: contexts, threads, exceptions; and statements compiled once for everybody."""

from __future__ import annotations

import contextvars
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest
from attacking import CROSSED, LOCKS, ROW_SECURITY, SCOPING, Stage, kind
from drivers import SYNC
from practice import UNKNOWN, A, B, Material, Patient, Practice, Tag
from sqlalchemy import Engine, Uuid, bindparam, event, insert, lambda_stmt, literal, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import CompileError, DBAPIError
from sqlalchemy.orm import Session, joinedload

from tenantguard import CrossTenantError, TenantNotSetError, UnknownTenantError, tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ["staging"]

patients: Any = Patient.__table__
LETTERS = {A: "a", B: "b"}


def names(engine: Engine) -> list[str]:
    with Session(engine) as session:
        return sorted(session.scalars(select(Patient.name)))


def owned(tenant: Any) -> list[str]:
    return [f"patient {LETTERS[tenant]}{number}" for number in range(3)]


READS: dict[str, Any] = {
    "patients": select(Patient),
    "price list": select(Material),
    "registry": select(Practice),
    "eager": select(Patient).options(joinedload(Patient.orders)),
    "insert": insert(Tag).values(name="x"),
    "update": update(Tag).values(name="x"),
}


@pytest.mark.parametrize("lock", SCOPING)
@pytest.mark.parametrize("read", READS)
def test_no_tenant_no_data(stage: Stage, read: str, lock: str) -> None:
    """Without a tenant the first lock raises, whatever kind of table is meant."""
    with Session(stage.engine(lock)) as session, pytest.raises(TenantNotSetError):
        session.execute(READS[read])


def test_no_tenant_no_rows(stage: Stage) -> None:
    """Without a tenant the second lock alone shows no row of any tenant."""
    assert names(stage.engine("second_alone")) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_an_unknown_tenant_is_refused(stage: Stage, lock: str) -> None:
    """A tenant that the registry does not have is an error, not an empty practice."""
    with tenant_context(UNKNOWN), pytest.raises(UnknownTenantError):
        names(stage.engine(lock))


@pytest.mark.parametrize("lock", SCOPING)
@pytest.mark.parametrize("given", ["1", "' OR 1=1 --", f"{A}' OR true", 7, f"{A}\0"])
def test_a_malformed_tenant_is_refused(stage: Stage, given: Any, lock: str) -> None:
    """What is not of the registry's type never reaches a statement."""
    with tenant_context(given), pytest.raises(UnknownTenantError):
        names(stage.engine(lock))


@pytest.mark.parametrize("lock", LOCKS)
def test_nested_contexts_return_to_the_outer_tenant(stage: Stage, lock: str) -> None:
    """The inner block is the inner tenant's, also when it is left by an exception."""
    engine = stage.engine(lock)
    with tenant_context(A):
        with suppress(RuntimeError), tenant_context(B):
            assert names(engine) == owned(B)
            raise RuntimeError
        assert names(engine) == owned(A)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_tenant_change_in_an_open_transaction_raises(stage: Stage, lock: str) -> None:
    """A transaction belongs to the tenant it was begun for, on Core connections too."""
    with tenant_context(A), stage.engine(lock).connect() as connection:
        assert len(connection.execute(select(patients)).all()) == 3
        with tenant_context(B), pytest.raises(CrossTenantError):
            connection.execute(select(patients))
        connection.rollback()
        with tenant_context(B):
            assert sorted(connection.scalars(select(patients.c.name))) == owned(B)
            connection.rollback()


@pytest.mark.drivers(*SYNC)
@pytest.mark.parametrize("lock", SCOPING)
def test_a_plain_thread_has_no_tenant(stage: Stage, lock: str) -> None:
    """A thread inherits no tenant; a copied context does."""
    engine = stage.engine(lock)
    with tenant_context(A), ThreadPoolExecutor(1) as pool:
        with pytest.raises(TenantNotSetError):
            pool.submit(names, engine).result()
        assert pool.submit(contextvars.copy_context().run, names, engine).result() == owned(A)


@pytest.mark.drivers(*SYNC)
@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("size", [1, 2])
def test_threads_share_a_small_pool(stage: Stage, lock: str, size: int) -> None:
    """Two tenants' threads that take turns on few connections see their own rows every time."""
    engine = getattr(stage.locks, lock)(pool_size=size, max_overflow=0)
    barrier = Barrier(4)

    def work(tenant: Any) -> bool:
        barrier.wait()
        with tenant_context(tenant):
            return all(names(engine) == owned(tenant) for _ in range(15))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, [A, B, A, B]))


CACHED: dict[str, Callable[[], Any]] = {
    "select": lambda: select(Patient.name),
    "lambda": lambda: lambda_stmt(lambda: select(Patient.name)),
    "bound": lambda: select(Patient.name).where(Patient.id > bindparam("least", 0)),
    "in": lambda: select(Patient.name).where(Patient.id.in_(list(range(1, 20)))),
    "full join": lambda: (
        select(Patient.name)
        .join(Tag, Tag.id == Patient.id, full=True)
        .where(Patient.name.is_not(None))
    ),
    "update": lambda: update(Patient).values(born=None).returning(Patient.name),
    "upsert": lambda: (
        postgresql.insert(Tag)
        .values(name="tag 0")
        .on_conflict_do_update(index_elements=["tenant_id", "name"], set_={"name": "tag 0"})
        .returning(Tag.tenant_id)
    ),
}


def _hits(engine: Engine, work: Callable[[], None]) -> int:
    """Count the statements of *work* that the cache already had."""
    hits = 0

    def count(*args: Any) -> None:
        nonlocal hits
        hits += args[4].cache_hit.name == "CACHE_HIT"

    event.listen(engine, "before_cursor_execute", count)
    try:
        work()
    finally:
        event.remove(engine, "before_cursor_execute", count)
    return hits


@pytest.mark.parametrize("lock", SCOPING)
@pytest.mark.parametrize("shape", CACHED)
def test_a_statement_compiled_for_one_serves_the_other(stage: Stage, shape: str, lock: str) -> None:
    """The second tenant takes the first one's compiled statement from the cache, with own rows."""
    engine = stage.engine(lock)

    def read(tenant: Any) -> list[Any]:
        with tenant_context(tenant), Session(engine) as session:
            return sorted(session.scalars(CACHED[shape]()), key=str)

    def wanted(tenant: Any) -> list[Any]:
        return [tenant] if shape == "upsert" else owned(tenant)

    assert read(A) == wanted(A)

    def again() -> None:
        assert read(B) == wanted(B)
        assert read(A) == wanted(A)

    repeated = _hits(engine, again)
    # SQLAlchemy 2.0 does not cache ON CONFLICT at all.
    assert repeated == 2 or shape == "upsert"


@pytest.mark.parametrize("lock", SCOPING)
def test_a_cache_handed_in_is_no_way_round(stage: Stage, lock: str) -> None:
    """A `compiled_cache` that an unprotected engine filled holds nothing for a protected one."""
    shared: dict[Any, Any] = {}
    for name, tenant, wanted in (
        ("none", A, [*owned(A), *owned(B)]),
        (lock, A, owned(A)),
        (lock, B, owned(B)),
    ):
        with tenant_context(tenant), stage.engine(name).connect() as connection:
            caching = connection.execution_options(compiled_cache=shared)
            assert sorted(caching.scalars(select(patients.c.name))) == wanted


tags: Any = Tag.__table__


def _cte(statement: Any) -> Any:
    return select(statement.returning(tags.c.id).cte("written"))


WRITES: dict[str, Callable[[Any, str], Any]] = {
    "insert": lambda whose, name: insert(tags).values(tenant_id=whose, name=name),
    "insert from select": lambda whose, name: insert(tags).from_select(
        ["tenant_id", "name"], select(literal(whose, Uuid), literal(name))
    ),
    "update": lambda whose, _: update(tags).where(tags.c.name == "loose a").values(tenant_id=whose),
    "insert in a cte": lambda whose, name: _cte(insert(tags).values(tenant_id=whose, name=name)),
    "lambda": lambda whose, _: lambda_stmt(
        lambda: update(tags).where(tags.c.name == "loose a").values(tenant_id=whose)
    ),
}


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("shape", WRITES)
def test_a_cached_write_is_checked_each_time(stage: Stage, shape: str, lock: str) -> None:
    """A statement whose own value passed does not carry a foreign value later."""
    refusal = DBAPIError if lock == "second_alone" else CrossTenantError
    with tenant_context(A), Session(stage.engine(lock)) as session:
        session.execute(WRITES[shape](A, "one"))
        session.execute(WRITES[shape](A, "two"))
        with pytest.raises(refusal) as refused:
            session.execute(WRITES[shape](B, "three"))
    assert kind(refused.value) in {CROSSED, ROW_SECURITY}


BINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "parameter": (select(patients.c.name), {"tenantguard_tenant_1": B, "tenantguard_tenant": B}),
    "stamp": (
        insert(Tag).returning(Tag.tenant_id),
        {"name": "bound", "tenant_id_1": B, "tenantguard_tenant_1": B},
    ),
}


@pytest.mark.parametrize("lock", SCOPING)
@pytest.mark.parametrize("shape", BINDS)
def test_a_parameter_named_like_ours_changes_nothing(stage: Stage, shape: str, lock: str) -> None:
    """The tenant is filled in last; a parameter of the same name cannot overrule it."""
    statement, parameters = BINDS[shape]
    with tenant_context(A), Session(stage.engine(lock)) as session:
        found = set(session.scalars(statement, parameters))
    assert found <= {A, *owned(A)}
    assert found


@pytest.mark.parametrize("lock", SCOPING)
def test_a_bind_named_like_ours_is_no_way_round(stage: Stage, lock: str) -> None:
    """A bind parameter with our name is a conflict that SQLAlchemy refuses, not a replacement."""
    statement = select(patients.c.name).where(
        patients.c.tenant_id == bindparam("tenantguard_tenant_1")
    )
    with (
        tenant_context(A),
        stage.engine(lock).connect() as connection,
        pytest.raises(CompileError, match="conflicts with unique bind parameter"),
    ):
        connection.execute(statement, {"tenantguard_tenant_1": B})
