"""A result that is still being fetched gives its rows to the tenant that asked, or to nobody."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from attacking import SCOPING, Stage
from practice import A, B, Order, Patient
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session, joinedload, selectinload

from tenantguard import CrossTenantError, TenantNotSetError, tenant_context
from tenantguard.context import no_tenant

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ["staging"]

OWN = ["patient a0", "patient a1", "patient a2"]
STREAM = {"stream_results": True}
CHUNKS = {"yield_per": 2}
NAMES = "SELECT name FROM patients ORDER BY name"
patients: Any = Patient.__table__
BY_NAME = select(patients.c.name).order_by(patients.c.name)
NAMED = select(Patient.name).order_by(Patient.name)
OBJECTS = select(Patient).order_by(Patient.name)
EAGER = OBJECTS.options(selectinload(Patient.orders))
WITH_PARENT = select(Order).options(joinedload(Order.patient)).order_by(Order.what)
FROM_TEXT = select(Patient).from_statement(text("SELECT * FROM patients ORDER BY name"))


def _core(session: Session, options: dict[str, Any] = STREAM) -> Any:
    return session.connection().execute(BY_NAME, execution_options=options)


OPENED: dict[str, Callable[[Session], Any]] = {
    "rows": _core,
    "rows in chunks": lambda s: _core(s, CHUNKS),
    "scalars": lambda s: _core(s).scalars(),
    "mappings": lambda s: _core(s).mappings(),
    "columns": lambda s: _core(s).columns(0),
    "unique": lambda s: _core(s).unique(),
    "yield_per later": lambda s: _core(s).yield_per(1),
    "objects": lambda s: s.scalars(OBJECTS, execution_options=CHUNKS),
    "objects at once": lambda s: s.scalars(OBJECTS, execution_options=STREAM),
    "objects as rows": lambda s: s.execute(OBJECTS, execution_options=CHUNKS),
    "attributes": lambda s: s.scalars(NAMED, execution_options=CHUNKS),
    "eager": lambda s: s.scalars(EAGER, execution_options=CHUNKS),
    "joined": lambda s: s.scalars(WITH_PARENT, execution_options=CHUNKS),
    "legacy query": lambda s: s.query(Patient).order_by(Patient.name).yield_per(2)._iter(),
}
OTHERS: dict[str, Callable[[Session], Any]] = {
    "merged": lambda s: s.execute(OBJECTS, execution_options=CHUNKS).merge(
        s.execute(OBJECTS.where(Patient.id < 0))
    ),
    "driver's text": lambda s: s.connection().exec_driver_sql(NAMES, execution_options=STREAM),
    "text": lambda s: s.execute(text(NAMES), execution_options=STREAM),
    "objects of a text": lambda s: s.scalars(FROM_TEXT, execution_options=CHUNKS),
}
READ: dict[str, Callable[[Any], list[Any]]] = {
    "next": lambda result: [next(iter(result))],
    "for": list,
    "fetchone": lambda result: [_one(result)],
    "fetchmany": lambda result: result.fetchmany(1),
    "all": lambda result: result.all(),
    "partitions": lambda result: [row for rows in result.partitions(1) for row in rows],
    "first": lambda result: [result.first()],
}


SIZED = ("fetchmany", "partitions")
WHOLE = ("for", "all", "partitions")


def _one(result: Any) -> Any:
    return result.fetchone() if hasattr(result, "fetchone") else next(result)


def _name(row: Any) -> str:
    """The patient's name in *row*: a name, an object, a row or a mapping."""
    if isinstance(row, str):
        return row
    if isinstance(row, Order):
        return row.patient.name
    if isinstance(row, Patient):
        return row.name
    return _name(next(iter(row.values() if hasattr(row, "values") else row)))


def _refused(read: Callable[[Any], Any], result: Any) -> None:
    """Assert that neither B nor nobody gets a row of *result* by *read*."""
    with tenant_context(B), pytest.raises(CrossTenantError, match="streamed result"):
        read(result)
    with no_tenant(), pytest.raises(TenantNotSetError, match="fetch all rows"):
        read(result)


@pytest.mark.parametrize("lock", SCOPING)
@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("opened", OPENED)
def test_a_stream_does_not_change_hands(stage: Stage, opened: str, read: str, lock: str) -> None:
    """Rows that wait in memory are refused to another tenant and to none, however they are read.

    Nothing is lost by the refusal: the stream's own tenant then gets all rows.
    """
    with (
        Session(stage.engine(lock)) as session,
        tenant_context(A),
        closing(OPENED[opened](session)) as result,
    ):
        # SQLAlchemy drops the chunk that waits when the size of chunks changes.
        held = [] if read in SIZED else [next(iter(result))]
        _refused(READ[read], result)
        found = [_name(row) for row in (*held, *READ[read](result))]
        assert found == (OWN if read in WHOLE else OWN[: len(held) + 1])


@pytest.mark.parametrize("opened", OTHERS)
def test_no_way_to_open_a_stream_is_left_out(stage: Stage, opened: str) -> None:
    """What SQL text reads, and what several streams are merged into, is under the same rule."""
    with (
        Session(stage.engine("both")) as session,
        tenant_context(A),
        closing(OTHERS[opened](session)) as result,
    ):
        held = [next(iter(result))]
        _refused(list, result)
        assert [_name(row) for row in (*held, *result)] == OWN


@pytest.mark.parametrize("lock", SCOPING)
def test_a_stream_may_be_closed_by_anybody(stage: Stage, lock: str) -> None:
    """Closing gives no row away: a finally or a garbage collector may do it anywhere."""
    for other in (tenant_context(B), no_tenant()):
        with Session(stage.engine(lock)) as session, tenant_context(A):
            result = session.scalars(OBJECTS, execution_options=CHUNKS)
            assert next(result).tenant_id == A
            with other:
                result.close()


@pytest.mark.parametrize("lock", SCOPING)
def test_a_stream_goes_on_in_another_block_of_its_tenant(stage: Stage, lock: str) -> None:
    """The tenant counts, not the block: a generator may enter its tenant again."""
    with Session(stage.engine(lock)) as session:
        with tenant_context(A):
            result = session.scalars(OBJECTS, execution_options=CHUNKS)
            held = [next(result).name]
        with tenant_context(str(A).upper()):
            assert [*held, *(row.name for row in result)] == OWN


@pytest.mark.parametrize("lock", SCOPING)
def test_what_asked_for_no_tenants_rows_is_streamed_without_one(stage: Stage, lock: str) -> None:
    """A statement that needs no tenant may be streamed without one, and stays without."""
    with stage.engine(lock).connect() as connection:
        result = connection.execution_options(**STREAM).execute(select(func.generate_series(1, 3)))
        assert next(result) == (1,)
        with tenant_context(A), pytest.raises(CrossTenantError, match="executed for none"):
            next(result)
        assert list(result) == [(2,), (3,)]


@pytest.mark.parametrize("lock", SCOPING)
def test_what_is_fetched_whole_stays_with_who_has_it(stage: Stage, lock: str) -> None:
    """Rows that were fetched whole may be read after the block, like a list: they are in memory."""
    with Session(stage.engine(lock)) as session:
        with tenant_context(A):
            plain = session.scalars(select(Patient.name).order_by(Patient.name))
            chunked = session.scalars(select(Patient.name)).yield_per(1)
        assert list(plain) == OWN
        assert sorted(chunked) == OWN
