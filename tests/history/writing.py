"""The ways to write: each writes down, before it does, which version of which row it makes."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from entries import Entry
from entries import Mark as EntryMark
from ledger import Mark
from reading import read_text
from sqlalchemy import delete, insert, text, update

if TYPE_CHECKING:
    from desk import Desk

_COLUMNS = "id, tenant_id, owner, writer, seq"
_MOST = 6
"""Entries that a worker has for one tenant before it deletes."""


def add(desk: Desk) -> None:
    if desk.session is None:
        insert_core(desk)
        return
    entry = Entry(**desk.added(desk.new_id()))
    for _ in range(desk.rng.randrange(3)):
        entry.marks.append(EntryMark(**desk.marked(str(entry.id), desk.new_id())))
    desk.session.add(entry)
    desk.session.flush()


def insert_core(desk: Desk) -> None:
    desk.connection.execute(insert(Entry).values(**desk.added(desk.new_id())))


def insert_many(desk: Desk) -> None:
    rows = [desk.added(desk.new_id()) for _ in range(2)]
    desk.connection.execute(insert(Entry), rows)
    if desk.rng.random() < 0.5:
        entry = rows[0]["id"]
        marks = [desk.marked(str(entry), desk.new_id()) for _ in range(2)]
        desk.connection.execute(insert(EntryMark), [{**mark, "entry_id": entry} for mark in marks])


def insert_text(desk: Desk) -> None:
    row = desk.added(desk.new_id())
    desk.connection.execute(
        text(
            f"INSERT INTO entries ({_COLUMNS}) VALUES ('{row['id']}', '{desk.tenant}', "
            f"'{row['owner']}', {row['writer']}, {row['seq']})"
        )
    )


def change(desk: Desk) -> None:
    entry, connection = desk.rng.choice(sorted(desk.entries)), desk.connection
    way = desk.rng.randrange(3)
    if way == 0 and desk.session is not None:
        found = desk.session.get_one(Entry, uuid.UUID(entry))
        found.seq = desk.changed(entry)
        desk.session.flush()
    elif way == 1:
        new = text(f"UPDATE entries SET seq = {desk.changed(entry)} WHERE id = '{entry}'")
        connection.execute(new)
    else:
        own = update(Entry).where(Entry.id == uuid.UUID(entry))
        connection.execute(own.values(seq=desk.changed(entry)))


def remove(desk: Desk) -> None:
    entry = desk.rng.choice(sorted(desk.entries))
    way = desk.rng.randrange(3)
    if way == 0 and desk.session is not None:
        found = desk.session.get_one(Entry, uuid.UUID(entry), populate_existing=True)
        desk.deleted(entry)
        desk.session.delete(found)
        desk.session.flush()
        return
    desk.deleted(entry)
    if way == 1:
        desk.connection.execute(text(f"DELETE FROM entries WHERE id = '{entry}'"))
    else:
        desk.connection.execute(delete(Entry).where(Entry.id == uuid.UUID(entry)))


def write(desk: Desk) -> None:
    """Write in one way or another."""
    if len(desk.entries) >= _MOST:
        remove(desk)
    elif desk.entries and desk.rng.random() < 0.5:
        desk.rng.choice((change, change, remove))(desk)
    else:
        desk.rng.choice((add, add, insert_core, insert_many, insert_text))(desk)


def savepoint(desk: Desk) -> None:
    """Write inside a savepoint, which is then released or undone."""
    before = {entry: list(marks) for entry, marks in desk.entries.items()}
    with (desk.session or desk.connection).begin_nested() as point:
        desk.mark(Mark.SET)
        write(desk)
        read_text(desk)
        released = desk.rng.random() < 0.5
        if not released:
            point.rollback()
    desk.mark(Mark.RELEASED if released else Mark.UNDONE)
    if not released:
        desk.entries.clear()
        desk.entries.update(before)
