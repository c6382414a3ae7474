"""How many values of encrypted columns each key has sealed, read from the stored bytes.

A value's header and the number of its key are not secret and need no key to read. What is no sealed
value may be plaintext: nothing of it leaves the database.
"""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from tenantguard.crypto.format import HEADER_SIZE, INDEX_OFFSET, INDEX_SIZE, PLAIN
from tenantguard.rls.names import plain_literal, qualified, quote, target_of
from tenantguard.rls.values import encrypted_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Column

    from tenantguard.catalog import Catalog, Entry

    Run = Callable[[str], Sequence[Any]]

__all__ = ["Form", "Rows", "counted_tables", "head_sql", "parts_of_head", "rows_by_key"]

_VERSIONED = PLAIN[:-1]
"""Magic and version."""
_TINK = b"\x01"
"""What Tink's ciphertext begins with; the key's number follows."""
_NUMBER_SIZE = 4


class Form(Enum):
    """What an encrypted column holds in a row."""

    SEALED = "sealed"
    NULL = "null"
    OTHER = "not sealed"


@dataclass(frozen=True, slots=True, repr=False)
class Rows:
    """So many rows of one tenant hold in one column what the same key has sealed alike.

    Attributes:
        table: The table's name, with its schema if it has one.
        column: The column's name.
        tenant: The tenant's id as PostgreSQL writes it.
        form: What the column holds there.
        key: The number of the key in its tenant's keyset; None unless *form* is SEALED.
        header: The first bytes of the values, which say what belongs to them; likewise.
        rows: How many.
    """

    table: str
    column: str
    tenant: str
    form: Form
    key: int | None
    header: bytes | None
    rows: int


def rows_by_key(
    run: Run,
    catalog: Catalog,
    *,
    columns: Iterable[Column[Any]] | None = None,
    tenant: str | None = None,
) -> list[Rows]:
    """Count the rows of every encrypted column by tenant and key: one statement a table.

    Args:
        run: Runs SQL without parameters, as a role that sees all rows, and returns what it selects.
        catalog: The application's tables.
        columns: Only these encrypted columns.
        tenant: Only this tenant's rows; the canonical text of its id.
    """
    wanted = None if columns is None else set(columns)
    return [
        rows
        for entry, found in encrypted_tables(catalog)
        if (chosen := [each for each in found if wanted is None or each in wanted])
        for rows in _of_table(run, entry, chosen, tenant)
    ]


def counted_tables(catalog: Catalog) -> set[tuple[str, str]]:
    """Return schema and name of every table that `rows_by_key` reads."""
    return {target_of(entry) for entry, _ in encrypted_tables(catalog)}


def head_sql(value: str) -> str:
    """Return the SQL for *value*'s header, followed by the number of the key that sealed it.

    It is NULL for what is not sealed, and never an error.
    """
    flags = f"get_byte(substring({value}, 1, {HEADER_SIZE}) || '\\x00000000', {HEADER_SIZE - 1})"
    # The lowest bit says that there is an index, the four highest count the further ones.
    tink = f"{INDEX_OFFSET + 1} + {INDEX_SIZE} * (({flags} & 1) + ({flags} >> 4))"
    number = f"substring({value}, {tink} + {len(_TINK)}, {_NUMBER_SIZE})"
    return (
        f"CASE WHEN substring({value}, 1, {len(_VERSIONED)}) = '\\x{_VERSIONED.hex()}'::bytea "
        f"AND substring({value}, {tink}, {len(_TINK)}) = '\\x{_TINK.hex()}'::bytea "
        f"AND length({number}) = {_NUMBER_SIZE} "
        f"THEN substring({value}, 1, {HEADER_SIZE}) || {number} END"
    )


def _of_table(
    run: Run, entry: Entry, columns: Sequence[Column[Any]], tenant: str | None
) -> Iterator[Rows]:
    for name, position, empty, head, rows in run(_question(entry, columns, tenant)):
        form = Form.NULL if empty else Form.OTHER if head is None else Form.SEALED
        header, number = (None, None) if head is None else parts_of_head(head)
        column = columns[position]
        yield Rows(entry.fullname, column.name, name, form, number, header, rows)


def parts_of_head(head: str) -> tuple[bytes, int]:
    """Return the header and the key's number in *head*, what `head_sql` gives in hexadecimal."""
    content = bytes.fromhex(head)
    return content[:HEADER_SIZE], int.from_bytes(content[HEADER_SIZE:], "big")


def _question(entry: Entry, columns: Sequence[Column[Any]], tenant: str | None) -> str:
    own = f"t.{quote(cast('Column[Any]', entry.column).name)}"
    stored = ", ".join(f"({at}, t.{quote(each.name)})" for at, each in enumerate(columns))
    only = "" if tenant is None else f"WHERE {own} = {plain_literal(tenant)} "
    # One scan of the table for all of its columns.
    return (
        f"SELECT {own}::text, v.at, v.stored IS NULL, encode({head_sql('v.stored')}, 'hex'), "
        f"count(*) FROM {qualified(target_of(entry))} t "
        f"CROSS JOIN LATERAL (VALUES {stored}) v(at, stored) {only}"
        "GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
    )
