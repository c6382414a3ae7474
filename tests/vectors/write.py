"""Write the known answers of the installed version: `python tests/vectors/write.py v2`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from frozen import HERE, KINDS, Vector, Version, read, search_of, written

from tenantguard.columns import normalize
from tenantguard.columns.field import Field
from tenantguard.crypto.format import PLAIN, SEARCHABLE, FieldContext, keyset_context
from tenantguard.crypto.keysets import new_data_keyset, new_index_keyset, new_kek, read_kek

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tenantguard.crypto.tenant_keys import TenantKeys

TENANTS = ("0c5f7a1e-8d34-4b6a-9f02-1e7d3c5b9a84", "Zahnärzte am Markt 12")
ENVIRONMENT = "vectors"

TEXTS = (
    "",
    "Müller",
    "MÜLLER",
    "Mu\u0308ller",
    "Straße",
    "\u0130stanbul Is\u0131k",
    "ΣΊΣΥΦΟΣ Σίσυφος",
    " Anna.Muster@Example.ORG ",
    "+49 (0)30 / 123-456",
    "\u0663\u0660 \u0967",
    "no digits",
    "👩🏽\u200d⚕️ e\u0301\u0323",
    "\x00\x7f\r\n\t",
    "9e54",
    "lang " * 60,
)
VALUES: dict[str, tuple[str, ...]] = {
    "str": TEXTS,
    "bytes": ("", "00", "ff", "9e540100", "9e540101" + "00" * 40, "c3a4" * 100),
    "int": (
        *("0", "1", "-1", "127", "128", "-128", "-129", "255", "256", "32767", "32768"),
        *map(str, (2**31, 2**63 - 1, -(2**63), 2**64, -(2**70), 10**300)),
    ),
    "decimal": (
        *("0", "-0", "0.00", "0E+3", "1.1", "1.10", "-1.10", "1E+3", "1000", "1E-7", "0.0000001"),
        *("12345678901234567890123456789012345678901234567890.123", "1E+999", "-9.99E-999"),
    ),
    "date": ("0001-01-01", "1969-12-31", "2000-02-29", "2026-11-22", "9999-12-31"),
    "datetime": (
        "0001-01-01T00:00:00",
        "9999-12-31T23:59:59.999999",
        "2026-11-22T12:30:00",
        "2026-11-22T12:30:00.000001",
        "0001-01-01T00:00:00+00:00",
        "9999-12-31T23:59:59.999999+00:00",
        "2026-11-22T12:30:00+00:00",
        "2026-11-22T18:00:00+05:30",
        "1890-01-01T00:00:00.5+00:53:28",
    ),
    "bool": ("true", "false"),
    "uuid": (
        "00000000-0000-0000-0000-000000000000",
        "0c5f7a1e-8d34-4b6a-9f02-1e7d3c5b9a84",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
    ),
    "json": (
        *("{}", "[]", "null", "true", '""', "0", "-1.5", "1e+300", "18446744073709551616"),
        r'{"b": [1, {"a": null}], "a": "\u00e4\ud83d\ude00", "": "\u0000\""}',
    ),
}
LABELS = {
    "str": ("patients", "name"),
    "bytes": ("Röntgen.Aufnahmen", "Bild"),
    "int": ("a", "b.c"),
    "decimal": ("a.b", "c"),
}


def searches(kind: str) -> tuple[str | None, ...]:
    if kind == "str":
        return (None, "exact", *sorted(normalize._NORMALIZERS))
    return (None,) if kind == "json" else (None, "exact")


def vectors(tenants: dict[str, TenantKeys]) -> Iterator[Vector]:
    for tenant, keys in tenants.items():
        for kind, texts in VALUES.items():
            for search in searches(kind):
                for text in texts:
                    yield vector(tenant, keys, kind, search, text)


def vector(tenant: str, keys: TenantKeys, kind: str, search: str | None, text: str) -> Vector:
    table, column = LABELS.get(kind, ("records", kind))
    context = FieldContext(table, column)
    field = Field(KINDS[kind], search=search_of(search), label=None)
    field.attach(table, column)
    stored = field.seal(keys, read(kind, text))
    header = PLAIN if search is None else SEARCHABLE
    return Vector(
        tenant=tenant,
        kind=kind,
        search=search,
        table=table,
        column=column,
        given=text,
        opens_as=written(kind, field.open(keys, stored)),
        packed=keys.open(context, stored).hex(),
        associated_data=context.associated_data(tenant.encode(), header).hex(),
        stored=stored.hex(),
        index=None if search is None else field.index(keys, read(kind, text)).hex(),
    )


def new_keys() -> dict[str, Any]:
    kek = new_kek()
    tenants: dict[str, Any] = {}
    for tenant in TENANTS:
        tenants[tenant] = {}
        for purpose, make in (("data", new_data_keyset), ("index", new_index_keyset)):
            context = keyset_context(ENVIRONMENT, tenant.encode(), purpose)
            wrapped, check = make(read_kek(kek), context)
            tenants[tenant][purpose] = {"wrapped": wrapped.hex(), "check_value": check.hex()}
    return {"environment": ENVIRONMENT, "kek": json.loads(kek), "tenants": tenants}


def write(directory: Path) -> None:
    """Write known answers with new keys to *directory*, which must not exist."""
    try:
        directory.mkdir()
    except FileExistsError:
        message = f"{directory.name} exists: known answers are never changed. Name a new version."
        raise SystemExit(message) from None
    keys = new_keys()
    values = [asdict(each) for each in vectors(Version(keys, []).tenants())]
    for name, document in (("keys", keys), ("values", values)):
        text = json.dumps(document, indent=1, ensure_ascii=True) + "\n"
        (directory / f"{name}.json").write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/vectors/write.py VERSION")
    write(HERE / sys.argv[1])
