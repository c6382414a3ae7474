"""Batches of one tenant's rows: read and locked in the order of the key, written if still the same.

A batch is one transaction, so a run that is killed has done whole batches. What is done is no
longer asked for: the next run goes on where the last one stopped.
"""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy.exc import DataError

from tenantguard.errors import ConfigurationError, sqlstate
from tenantguard.rls.names import qualified, quote, target_of, type_sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Column
    from sqlalchemy.types import TypeEngine

    from tenantguard.catalog import Entry
    from tenantguard.crypto.tenant_keys import TenantKeys
    from tenantguard.encrypt.entering import Run

__all__ = ["Batch", "Cell", "Change", "Job", "Row", "Work", "name_sql"]

_ALIAS = "t"
_UNREADABLE = (TypeError, ValueError, LookupError, ArithmeticError)
"""What types raise for what they do not read; the text can show the value."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is read of a row.

    Attributes:
        sql: The expression.
        type: Its type, if the row is written only while the expression has the same value.
        value: What makes of it the value that the application has.
    """

    sql: str
    type: str | None = None
    value: TypeEngine[Any] | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Work:
    """What is done with one tenant's rows.

    Attributes:
        wanted: The condition on the rows that are still to be done.
        made: Returns how many values of a row are made anew, and what to write, given its key and
            cells; raises an `EncryptionError` if a value cannot be opened or sealed.
    """

    wanted: str
    made: Callable[[tuple[str, ...], Sequence[Any]], tuple[int, Sequence[Any]]]


class Job(Protocol):
    """What is done with the rows of a table."""

    @property
    def entry(self) -> Entry:
        """The table."""

    @property
    def cells(self) -> Sequence[Cell]:
        """What is read."""

    @property
    def written(self) -> Sequence[tuple[str, str]]:
        """The names and types of the columns that are written."""

    def with_keys(self, keys: TenantKeys) -> Work:
        """Return what is done for the tenant of *keys*.

        Raises:
            EncryptionError: If the keys are not such that it could be.
        """


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """A row's primary key, and the cells that were read of it."""

    key: tuple[str, ...]
    cells: Sequence[Any]


@dataclass(frozen=True, slots=True, repr=False)
class Change:
    """What is written into a row.

    Attributes:
        key: Its primary key.
        read: The cells that were read.
        written: What is written.
        values: How many values are made anew.
    """

    key: tuple[str, ...]
    read: Sequence[Any]
    written: Sequence[Any]
    values: int


class Batch:
    """The statements for batches of *job*'s rows of one tenant."""

    def __init__(self, job: Job, *, size: int) -> None:
        self.job = job
        self.size = size
        self._table = qualified(target_of(job.entry)).replace(":", "\\:")
        self._tenant = name_sql(cast("Column[Any]", job.entry.column).name)
        self._key = _key(job.entry)

    def read(
        self,
        run: Run,
        tenant: str,
        condition: str,
        after: Sequence[str] | None,
        *,
        locked: bool = True,
    ) -> list[Row]:
        """Return the next rows of *tenant*.

        If they are to be *locked*, rows that others have locked are left out.
        """
        where = f"{self._own()} AND ({condition})"
        values: dict[str, Any] = {"tenant": tenant, "size": self.size}
        names = ", ".join(name for name, _ in self._key)
        if after is not None:
            last = ", ".join(f"CAST(:after{at} AS {type_})" for at, (_, type_) in self._keys())
            where += f" AND ({names}) > ({last})"
            values |= {f"after{at}": value for at, value in enumerate(after)}
        found = ", ".join(
            [*(f"CAST({name} AS text)" for name, _ in self._key), *(c.sql for c in self.job.cells)]
        )
        rows = self._read(
            run,
            f"SELECT {found} FROM {self._table} {_ALIAS} WHERE {where} ORDER BY {names} "
            f"LIMIT :size{' FOR UPDATE SKIP LOCKED' if locked else ''}",
            values,
            [*(None for _ in self._key), *(cell.value for cell in self.job.cells)],
        )
        width = len(self._key)
        return [Row(tuple(row[:width]), [_plain(each) for each in row[width:]]) for row in rows]

    def write(self, run: Run, tenant: str, changes: Sequence[Change]) -> int:
        """Write *changes* into those rows that still hold what was read; return how many do."""
        job = self.job
        compared = [(at, cell) for at, cell in enumerate(job.cells) if cell.type is not None]
        keys = [(f"k{at}", type_) for at, (_, type_) in self._keys()]
        olds = [(f"o{at}", cast("str", cell.type)) for at, cell in compared]
        news = [(f"n{at}", type_) for at, (_, type_) in enumerate(job.written)]
        arrays = ", ".join(_array(name, type_) for name, type_ in (*keys, *olds, *news))
        names = ", ".join(name for name, _ in (*keys, *olds, *news))
        sets = (f"{name_sql(name, of='')} = v.n{at}" for at, (name, _) in enumerate(job.written))
        same = _unchanged(compared)
        at_key = (f"{name} = v.k{at}" for at, (name, _) in self._keys())
        values: dict[str, Any] = {"tenant": tenant}
        values |= {f"k{at}": [each.key[at] for each in changes] for at, _ in self._keys()}
        values |= {
            f"o{at}": _sent([each.read[at] for each in changes], str(cell.type))
            for at, cell in compared
        }
        values |= {
            f"n{at}": _sent([each.written[at] for each in changes], type_)
            for at, (_, type_) in enumerate(job.written)
        }
        return run.count(
            f"UPDATE {self._table} {_ALIAS} SET {', '.join(sets)} "
            f"FROM unnest({arrays}) AS v({names}) "
            f"WHERE {self._own()} AND {' AND '.join((*at_key, *same))}",
            values,
        )

    def _read(
        self,
        run: Run,
        statement: str,
        values: dict[str, Any],
        types: list[TypeEngine[Any] | None],
    ) -> Sequence[Any]:
        try:
            return run(statement, values, types)
        except _UNREADABLE:
            pass
        except DataError as error:
            # The driver's, not the database's: of a date beyond those of Python, for example.
            if sqlstate(error) is not None:
                raise
        # Outside of the block: the cause would show the value.
        raise ConfigurationError(
            f"Table {self.job.entry.fullname} has a value that the column's type in the models "
            "does not read, such as a name that an enumeration does not have, or a date beyond "
            "those of Python. Correct the row or the model; everything before it was done."
        )

    def count(self, run: Run, tenant: str, condition: str) -> int:
        """Return how many rows of *tenant* are still to be done, also those that are locked."""
        counted = f"SELECT count(*) FROM {self._table} {_ALIAS} WHERE {self._own()}"
        return int(run(f"{counted} AND ({condition})", {"tenant": tenant})[0][0])

    def _own(self) -> str:
        type_ = type_sql(cast("Column[Any]", self.job.entry.column))
        return f"{self._tenant} = CAST(:tenant AS {type_})"

    def _keys(self) -> Iterable[tuple[int, tuple[str, str]]]:
        return enumerate(self._key)


def _unchanged(compared: Iterable[tuple[int, Cell]]) -> list[str]:
    """Return the conditions that a row still holds what was read of it."""
    return [f"{cell.sql} IS NOT DISTINCT FROM v.o{at}" for at, cell in compared]


def name_sql(name: str, *, of: str = f"{_ALIAS}.") -> str:
    """Return the column *name* as it stands in a text of SQLAlchemy's, of the table's alias."""
    return of + quote(name).replace(":", "\\:")


def _key(entry: Entry) -> list[tuple[str, str]]:
    table = entry.table
    columns = [] if table is None else list(table.primary_key.columns)
    if not columns:
        raise ConfigurationError(
            f"Table {entry.fullname} has no primary key in the models, so its rows cannot be "
            "worked through in batches. Declare one."
        )
    return [(name_sql(column.name), type_sql(column)) for column in columns]


def _array(name: str, type_: str) -> str:
    # Keys were read as text, so that every driver can send them.
    sent = f"CAST(:{name} AS {'bytea' if type_ == 'bytea' else 'text'}[])"
    return sent if type_ in {"bytea", "text"} else f"CAST({sent} AS {type_}[])"


def _sent(values: list[Any], type_: str) -> Any:
    """Return what is sent for an array of *values*; drivers would escape each byte string."""
    if type_ != "bytea":
        return values
    parts = ("NULL" if each is None else f'"\\\\x{each.hex()}"' for each in values)
    return f"{{{','.join(parts)}}}"


def _plain(value: Any) -> Any:
    # psycopg2 returns a view of memory.
    return bytes(value) if isinstance(value, memoryview) else value
