"""How the known answers are written down, so that one can read them without this library."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from tenantguard.columns import kinds
from tenantguard.columns.compound_kind import compound_of
from tenantguard.columns.field import Field
from tenantguard.columns.search import Exact, Last, Prefix
from tenantguard.crypto.format import keyset_context
from tenantguard.crypto.keysets import open_data_keyset, open_index_keyset, read_kek
from tenantguard.crypto.tenant_keys import TenantKeys

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenantguard.columns.kinds import Kind
    from tenantguard.columns.search import Search
    from tenantguard.crypto.padding import Padding

HERE = Path(__file__).parent

Severity = Enum("Severity", {"MILD": 1, "SO_BAD": "so bad", "GRÖSSE": None})

KINDS: dict[str, Kind] = {
    "str": kinds.STR,
    "bytes": kinds.BYTES,
    "int": kinds.INT,
    "decimal": kinds.DECIMAL,
    "date": kinds.DATE,
    "datetime": kinds.DATETIME,
    "bool": kinds.BOOL,
    "uuid": kinds.UUID_,
    "json": kinds.JSON,
    "float": kinds.FLOAT,
    "time": kinds.TIME,
    "enum": kinds.member_of(Severity),
    "dict": kinds.DICT,
    "list": kinds.LIST,
    "compound": compound_of(
        ("name", "born", "insured"),
        ("nfc-casefold", None, "digits-v1"),
        (kinds.STR, kinds.DATE, kinds.STR),
    ),
    "compound as it is": compound_of(("first", "last"), (None, None), (kinds.STR, kinds.DECIMAL)),
}
_PARTS = {"compound": ("str", "date", "str"), "compound as it is": ("str", "decimal")}
"""The kinds of the parts; of a compound the parts' texts are a list in JSON."""

_READ: dict[str, Callable[[Any], Any]] = {
    "str": str,
    "bytes": bytes.fromhex,
    "int": int,
    "decimal": Decimal,
    "date": date.fromisoformat,
    "datetime": datetime.fromisoformat,
    "bool": lambda text: {"true": True, "false": False}[text],
    "uuid": UUID,
    "json": json.loads,
    "float": float.fromhex,
    "time": time.fromisoformat,
    "enum": Severity.__getitem__,
    "dict": json.loads,
    "list": json.loads,
}
_WRITTEN: dict[str, Callable[[Any], str]] = {
    "bytes": bytes.hex,
    "date": date.isoformat,
    "datetime": datetime.isoformat,
    "bool": lambda value: "true" if value else "false",
    "float": float.hex,
    "time": time.isoformat,
    "enum": lambda value: str(value.name),
    **dict.fromkeys(("json", "dict", "list"), lambda value: json.dumps(value, sort_keys=True)),
}


def read(kind: str, text: str) -> Any:
    if kind in _PARTS:
        return tuple(map(read, _PARTS[kind], json.loads(text)))
    return _READ[kind](text)


def written(kind: str, value: Any) -> str:
    if kind in _PARTS:
        return json.dumps(list(map(written, _PARTS[kind], value)), ensure_ascii=False)
    return _WRITTEN.get(kind, str)(value)


@dataclass(frozen=True, slots=True)
class Vector:
    """One known answer.

    Attributes:
        tenant: The tenant's id as text.
        kind: The name of the value's type.
        search: How the column is searched: no, "exact", or the name of a normaliser; of a part of
            the value that after "last4:" or "prefix3:"; several with "+" between them.
        table: The label of the table.
        column: The label of the column.
        given: The value that was sealed, as text.
        opens_as: The value that it opens as, as text.
        packed: The plaintext inside of the ciphertext.
        associated_data: What is authenticated with it, without the blind index.
        stored: What stands in the database.
        index: The blind indexes, one after the other; None if the column is not searched.
        padding: How the plaintext is padded; None if it is not.
    """

    tenant: str
    kind: str
    search: str | None
    table: str
    column: str
    given: str
    opens_as: str
    packed: str
    associated_data: str
    stored: str
    index: str | None
    padding: Padding | None = None

    def field(self) -> Field:
        field = Field(KINDS[self.kind], search=searches_of(self.search), padding=self.padding)
        field.attach(self.table, self.column)
        return field


def searches_of(text: str | None) -> list[Search] | None:
    """Return what *text* says of how a column is searched; the first has no name if it can."""
    if text is None:
        return None
    return [_search(part, number) for number, part in enumerate(text.split("+"))]


def _search(text: str, number: int) -> Search:
    found = re.fullmatch(r"(?:(last|prefix)(\d+):)?(.+)", text)
    assert found is not None
    kind, digits, named = found.groups()
    options: dict[str, Any] = {
        "normalize": None if named == "exact" else named,
        "few_values": "these are known answers",
        "name": f"search{number}" if number or kind else None,
    }
    if kind is None:
        return Exact(**options)
    return (Last if kind == "last" else Prefix)(int(digits), **options)


@dataclass(frozen=True, slots=True)
class Version:
    """The known answers of one release of the stored format."""

    keys: dict[str, Any]
    vectors: list[Vector]

    def tenants(self) -> dict[str, TenantKeys]:
        """Return each tenant's keys, unwrapped by the installed version."""
        kek = read_kek(json.dumps(self.keys["kek"]))
        opened = {}
        for tenant, rows in self.keys["tenants"].items():
            parts = {}
            for purpose, row in rows.items():
                wrapped, check = bytes.fromhex(row["wrapped"]), bytes.fromhex(row["check_value"])
                context = keyset_context(self.keys["environment"], tenant.encode(), purpose)
                parts[purpose] = wrapped, check, kek, context
            data, searching = open_data_keyset(*parts["data"]), open_index_keyset(*parts["index"])
            opened[tenant] = TenantKeys(tenant.encode(), data=data, searching=searching)
        return opened


def load(name: str) -> Version:
    keys = json.loads((HERE / name / "keys.json").read_text())
    # values.json first: what was added to the version follows.
    files = sorted((HERE / name).glob("values*.json"))
    vectors = [Vector(**each) for file in files for each in json.loads(file.read_text())]
    return Version(keys, vectors)
