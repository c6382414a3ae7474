"""The ways to read: each writes down whose rows it saw."""

from __future__ import annotations

import uuid
from asyncio import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from entries import Entry
from entries import Mark as EntryMark
from ledger import ENTRIES, MARKS
from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import selectinload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from desk import Desk
    from sqlalchemy import Connection

_TABLES = {ENTRIES: Entry.__table__, MARKS: EntryMark.__table__}
_COLUMNS = "id, tenant_id, owner, writer, seq"


def columns(table: str) -> list[Any]:
    return [_TABLES[table].c[name] for name in _COLUMNS.split(", ")]


def condition(desk: Desk) -> tuple[str, bool]:
    """Return a condition that knows no tenant, and whether it asks for all own rows."""
    if desk.rng.random() < 0.5:
        return f"writer = {desk.record.worker}", True
    return f"id >= '{desk.new_id()}' ORDER BY id LIMIT 12", False


def read_core(desk: Desk) -> None:
    table = desk.rng.choice((ENTRIES, MARKS))
    query = select(*columns(table)).where(_TABLES[table].c.writer == desk.record.worker)
    desk.read(table, desk.connection.execute(query).all(), whole=True, by="Core")


def read_core_of_all(desk: Desk) -> None:
    table = desk.rng.choice((ENTRIES, MARKS))
    where = _TABLES[table].c.id >= desk.new_id()
    query = select(*columns(table)).where(where).order_by(_TABLES[table].c.id).limit(12)
    desk.read(table, desk.connection.execute(query).all(), whole=False, by="Core")


def read_orm(desk: Desk) -> None:
    if desk.session is None:
        read_core(desk)
        return
    query = select(Entry).where(Entry.writer == desk.record.worker)
    query = query.options(selectinload(Entry.marks)).execution_options(populate_existing=True)
    found = desk.session.scalars(query).all()
    marks = [mark for entry in found for mark in entry.marks]
    desk.read(ENTRIES, map(_values, found), whole=True, by="ORM")
    desk.read(MARKS, map(_values, marks), whole=True, by="selectinload")


def read_orm_of_all(desk: Desk) -> None:
    if desk.session is None:
        read_core_of_all(desk)
        return
    query = select(Entry).where(Entry.id >= desk.new_id()).order_by(Entry.id).limit(12)
    found = desk.session.scalars(query.execution_options(populate_existing=True)).all()
    desk.read(ENTRIES, map(_values, found), whole=False, by="ORM")


def _values(row: Any) -> tuple[Any, ...]:
    return (row.id, row.tenant_id, row.owner, row.writer, row.seq)


def read_text(desk: Desk) -> None:
    table, (where, whole) = desk.rng.choice((ENTRIES, MARKS)), condition(desk)
    query = text(f"SELECT {_COLUMNS} FROM {table} WHERE {where}")
    desk.read(table, desk.connection.execute(query).all(), whole=whole, by="text()")


def read_driver(desk: Desk) -> None:
    table, (where, whole) = desk.rng.choice((ENTRIES, MARKS)), condition(desk)
    query = f"SELECT {_COLUMNS} FROM {table} WHERE {where}"
    desk.read(table, desk.connection.exec_driver_sql(query), whole=whole, by="exec_driver_sql")


def read_cursor(desk: Desk) -> None:
    table, (where, whole) = desk.rng.choice((ENTRIES, MARKS)), condition(desk)
    _begin(desk)
    with driven(desk.connection) as cursor:
        cursor.execute(f"SELECT {_COLUMNS} FROM {table} WHERE {where}")
        desk.read(table, cursor.fetchall(), whole=whole, by="cursor")


@contextmanager
def driven(connection: Connection) -> Iterator[Any]:
    """Lend the driver's cursor; of one that was cancelled, SQLAlchemy does not know its state."""
    cursor: Any = connection.connection.cursor()
    try:
        yield cursor
    except CancelledError:
        connection.invalidate()
        raise
    cursor.close()


def _begin(desk: Desk) -> None:
    # Otherwise SQLAlchemy does not know of the driver's transaction, and does not end it.
    if not desk.connection.in_transaction():
        desk.connection.begin()


def read_stream(desk: Desk) -> None:
    table, (where, whole) = desk.rng.choice((ENTRIES, MARKS)), condition(desk)
    query = select(*columns(table)).where(text(where) if whole else _TABLES[table].c.seq > 0)
    options = {"stream_results": True, "yield_per": 4}
    with desk.connection.execute(query, execution_options=options) as result:
        rows = result.fetchmany(9) if not whole else list(result)
    desk.read(table, rows, whole=whole, by="server-side cursor")


def reach(desk: Desk) -> None:
    """Aim at a row that the same worker has for another tenant, by its key."""
    if not desk.others:
        return
    wanted = desk.rng.choice(desk.others)
    way, connection = desk.rng.randrange(5), desk.connection
    if way == 0 and desk.session is not None:
        found = desk.session.get(Entry, uuid.UUID(wanted))
        desk.read(ENTRIES, [_values(found)] if found else [], whole=False, by="get()")
    elif way == 1:
        connection.execute(update(Entry).where(Entry.id == uuid.UUID(wanted)).values(seq=0))
    elif way == 2:
        connection.execute(text(f"UPDATE entries SET seq = 0 WHERE id = '{wanted}'"))
    elif way == 3:
        connection.execute(delete(Entry).where(Entry.id == uuid.UUID(wanted)))
    else:
        query = text(f"SELECT {_COLUMNS} FROM entries WHERE id = '{wanted}'")
        desk.read(ENTRIES, connection.execute(query).all(), whole=False, by="text() by key")
