"""Known answers of values that are bound to their row: `python tests/vectors/rows.py v1`.

It writes `rows.json` into a version that has none, with the version's keys.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from frozen import HERE, KINDS, load, read, searches_of
from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text, Uuid

from tenantguard.columns.field import Field
from tenantguard.columns.row_keys import RowKey
from tenantguard.crypto.format import HEADER_SIZE, INDEX_SIZE, FieldContext, bound_to

if TYPE_CHECKING:
    from tenantguard.crypto.padding import Padding
    from tenantguard.crypto.tenant_keys import TenantKeys

TYPES: dict[str, Any] = {
    "uuid": Uuid(),
    "integer": Integer(),
    "bigint": BigInteger(),
    "text": Text(),
    "varchar(40)": String(40),
}
VALUES = {
    "str": "Müller 🦷",
    "bytes": "00ff9e54",
    "int": "-340282366920938463463374607431768211456",
    "decimal": "-12.50",
    "date": "2026-11-22",
    "datetime": "2026-11-22T12:30:00+00:00",
    "bool": "true",
    "uuid": "0c5f7a1e-8d34-4b6a-9f02-1e7d3c5b9a84",
    "json": '{"a": [1, null]}',
}
KEYS: list[list[tuple[str, str | int]]] = [
    [("uuid", "0c5f7a1e-8d34-4b6a-9f02-1e7d3c5b9a84")],
    [("integer", 0)],
    [("integer", -1)],
    [("bigint", 2**63 - 1)],
    [("text", "")],
    [("text", "Straße e\u0301 🦷 '\\")],
    [("uuid", "ffffffff-ffff-ffff-ffff-ffffffffffff"), ("varchar(40)", "Raum 1"), ("integer", 7)],
    [("text", "a"), ("text", "\x01")],
]
FORMS: list[tuple[str | None, Padding | None]] = [
    (None, None),
    ("exact", None),
    ("exact+last2:exact", 16),
]


@dataclass(frozen=True, slots=True)
class Bound:
    """One known answer.

    Attributes:
        tenant: The tenant's id as text.
        kind: The name of the value's type.
        search: How the column is searched, as `Vector` has it.
        padding: How the plaintext is padded; None if it is not.
        table: The label of the table.
        column: The label of the column.
        given: The value that was sealed, as text.
        key: The row's primary key: the type and the value of each column.
        row: The bytes of the key.
        associated_data: What is authenticated with the value, the blind indexes included.
        stored: What stands in the database.
    """

    tenant: str
    kind: str
    search: str | None
    padding: Padding | None
    table: str
    column: str
    given: str
    key: list[tuple[str, str | int]]
    row: str
    associated_data: str
    stored: str

    def field(self) -> Field:
        search = searches_of(self.search)
        field = Field(KINDS[self.kind], search=search, padding=self.padding, bind="row")
        field.attach(self.table, self.column)
        return field


def row_key(key: list[Any]) -> RowKey:
    """Return the primary key of a table whose rows have a *key* of such types."""
    columns = [Column(f"k{n}", TYPES[type_], primary_key=True) for n, (type_, _) in enumerate(key)]
    return RowKey(Table("t", MetaData(), *columns), "name")


def packed(key: list[Any]) -> bytes:
    """Return the bytes that the installed version makes of *key*."""
    values = [UUID(value) if type_ == "uuid" else value for type_, value in key]
    return row_key(key).pack(values)


def authenticated(tenant: str, table: str, column: str, row: bytes, stored: bytes) -> bytes:
    """Return what the installed version authenticates with *stored*."""
    size = INDEX_SIZE * ((stored[3] & 1) + (stored[3] >> 4))
    prefix = FieldContext(table, column).associated_data(tenant.encode(), stored[:HEADER_SIZE])
    return prefix + bound_to(row) + stored[HEADER_SIZE : HEADER_SIZE + size]


def answers(tenants: dict[str, TenantKeys]) -> list[Bound]:
    places = [("str", "str", "patients", key, *form) for key in KEYS for form in FORMS]
    kinds = [(kind, kind, "Röntgen.Aufnahmen", KEYS[0], None, None) for kind in VALUES]
    return [
        answer(tenant, tenants[tenant], *place) for tenant in tenants for place in places + kinds
    ]


def answer(tenant: str, keys: TenantKeys, kind: str, column: str, table: str, *how: Any) -> Bound:
    key, search, padding = how
    empty = Bound(tenant, kind, search, padding, table, column, VALUES[kind], key, "", "", "")
    row = packed(key)
    stored = empty.field().seal(keys, read(kind, VALUES[kind]), row)
    data = authenticated(tenant, table, column, row, stored)
    made = {"row": row.hex(), "associated_data": data.hex(), "stored": stored.hex()}
    return Bound(**{**asdict(empty), **made})


def bound(name: str) -> list[Bound]:
    return [Bound(**each) for each in json.loads((HERE / name / "rows.json").read_text())]


def write(name: str) -> None:
    """Write known answers with the keys of the version *name*, which must have none yet."""
    made = [asdict(each) for each in answers(load(name).tenants())]
    with (HERE / name / "rows.json").open("x") as file:
        file.write(json.dumps(made, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/vectors/rows.py VERSION")
    write(sys.argv[1])
