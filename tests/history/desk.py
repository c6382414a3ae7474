"""The desk: one transaction under way, with what its worker knows of its own rows."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ledger import ENTRIES, MARKS, Mark, Read, Row, Write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

    from disturbing import Disturber
    from ledger import Transaction
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

Entries = dict[str, list[str]]
"""The ids of one worker's entries of one tenant, each with the ids of its marks."""


class Abandoned(Exception):  # noqa: N818  (it is no error: the program wanted it)
    """The transaction's own program gives up."""


def rows_of(table: str, rows: Iterable[Any]) -> tuple[Row, ...]:
    """Return *rows*, tuples of id, tenant_id, owner, writer and seq, as the history has them."""
    return tuple(
        Row(table, str(row[0]), str(row[1]), str(row[2]), int(row[3]), int(row[4])) for row in rows
    )


@dataclass(slots=True)
class Desk:
    """What a transaction's steps work with.

    Attributes:
        tenant: The tenant, from the worker's own knowledge.
        others: The ids of entries that the worker has for other tenants.
        first: Whether this is the first transaction since the check-out.
        soiled: Whether something was left on the connection, so that the check-out has to end.
    """

    rng: Random
    record: Transaction
    tenant: uuid.UUID
    entries: Entries
    others: list[str]
    sequence: Callable[[], int]
    disturber: Disturber | None
    session: Session | None = None
    bare: Connection | None = None
    first: bool = True
    soiled: bool = False
    touched: set[str] = field(default_factory=set)

    @property
    def connection(self) -> Connection:
        """SQLAlchemy's connection, the session's own if there is one."""
        if self.session is not None:
            return self.session.connection()
        assert self.bare is not None
        return self.bare

    def new_id(self) -> uuid.UUID:
        return uuid.UUID(int=self.rng.getrandbits(128))

    def values(self, table: str, row_id: uuid.UUID | str) -> dict[str, Any]:
        """Note that the row gets a new version; return that version's values but the id."""
        seq = self.sequence()
        self.record.ops.append(Write(table, str(row_id), seq))
        return {"owner": str(self.tenant), "writer": self.record.worker, "seq": seq}

    def added(self, entry: uuid.UUID) -> dict[str, Any]:
        """Note a new entry; return its values."""
        self.entries[str(entry)] = []
        self.touched.add(str(entry))
        return {"id": entry, **self.values(ENTRIES, entry)}

    def marked(self, entry: str, mark: uuid.UUID) -> dict[str, Any]:
        """Note a new mark of *entry*; return its values but the entry's id."""
        self.entries[entry].append(str(mark))
        self.touched.add(entry)
        return {"id": mark, **self.values(MARKS, mark)}

    def changed(self, entry: str) -> int:
        """Note a new version of *entry*; return its number."""
        self.touched.add(entry)
        return int(self.values(ENTRIES, entry)["seq"])

    def deleted(self, entry: str) -> None:
        """Note that *entry* goes, and its marks with it."""
        self.touched.add(entry)
        self.record.ops.append(Write(ENTRIES, entry, None))
        for mark in self.entries.pop(entry):
            self.record.ops.append(Write(MARKS, mark, None))

    def read(self, table: str, rows: Iterable[Any], *, whole: bool, by: str) -> None:
        """Note what was read: tuples or objects of id, tenant_id, owner, writer, seq."""
        seen = rows_of(table, rows)
        self.record.ops.append(Read(seen, table if whole else None, by))

    def mark(self, mark: Mark) -> None:
        self.record.ops.append(mark)
