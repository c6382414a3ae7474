"""Write the known answers of the installed version: `python tests/vectors/write.py v2`.

`python tests/vectors/write.py v1 more` adds `values-more.json` to a version, with its keys: for
types, searches and padding that it does not have.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from frozen import HERE, KINDS, Vector, Version, load, read, searches_of, written

from tenantguard.columns import normalize
from tenantguard.columns.field import Field
from tenantguard.crypto.format import HEADER_SIZE, FieldContext, keyset_context
from tenantguard.crypto.keysets import new_data_keyset, new_index_keyset, new_kek, read_kek

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tenantguard.crypto.padding import Padding
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
    "float": (
        *("0x0.0p+0", "-0x0.0p+0", "0x1.999999999999ap-4", "-0x1.8p+1", "0x0.0000000000001p-1022"),
        *("0x1.fffffffffffffp+1023", "inf", "-inf", "nan"),
    ),
    "time": (
        *("00:00:00", "23:59:59.999999", "12:30:00", "12:30:00+00:00", "12:30:00+02:00"),
        *("00:00:00-11:30", "12:30:00.5+00:53:28"),
    ),
    "enum": ("MILD", "SO_BAD", "GRÖSSE"),
    "dict": ("{}", r'{"b": [1, {"a": null}], "a": "\u00e4"}'),
    "list": ("[]", r'[1, {"b": null, "a": "\u00e4"}, "x"]'),
    "compound": (
        '["", "2000-02-29", ""]',
        '["Müller", "1980-01-02", "A 12-3"]',
        '["MU\u0308LLER", "1980-01-02", "123"]',
        '["Stra\u00dfe", "9999-12-31", "\u0663\u0660"]',
    ),
    "compound as it is": ('["", "0"]', '["ab", "1.10"]', '["ab", "1.1"]', '["a", "-9.99E-999"]'),
}
PARTS = "exact+last4:digits-v1+prefix3:nfc-casefold-v1"
SHORT = ("", "Mu\u0308ller", "Straße 12", "+49 (0)30 / 123-456", "x" * 14, "x" * 15)
LABELS = {
    "str": ("patients", "name"),
    "bytes": ("Röntgen.Aufnahmen", "Bild"),
    "int": ("a", "b.c"),
    "decimal": ("a.b", "c"),
}


def searches(kind: str) -> tuple[str | None, ...]:
    if kind == "str":
        return (None, "exact", *sorted(normalize._NORMALIZERS), PARTS, "last2:exact")
    return (None,) if KINDS[kind].equal is None else (None, "exact")


def paddings(kind: str, search: str | None) -> tuple[Padding | None, ...]:
    return (None, 16, "pow2") if kind == "str" and search in (None, PARTS) else (None,)


def vectors(tenants: dict[str, TenantKeys]) -> Iterator[Vector]:
    for tenant, keys in tenants.items():
        for kind, texts in VALUES.items():
            for search in searches(kind):
                for padding in paddings(kind, search):
                    many = search == PARTS or padding or (search or "").startswith("last")
                    for text in SHORT if many else texts:
                        yield vector(tenant, keys, kind, text, search=search, padding=padding)


def vector(
    tenant: str,
    keys: TenantKeys,
    kind: str,
    text: str,
    *,
    search: str | None,
    padding: Padding | None,
) -> Vector:
    table, column = LABELS.get(kind, ("records", kind))
    context = FieldContext(table, column)
    field = Field(KINDS[kind], search=searches_of(search), padding=padding)
    field.attach(table, column)
    stored = field.seal(keys, read(kind, text))
    header = stored[:HEADER_SIZE]
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
        index=None if search is None else field.indexed(keys, read(kind, text)).hex(),
        padding=padding,
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
    _write(directory / "keys.json", keys)
    made = vectors(Version(keys, []).tenants())
    _write(directory / "values.json", [asdict(each) for each in made])


def add(version: str, name: str, directory: Path = HERE) -> None:
    """Add `values-NAME.json` to *version*: what no file of it has, sealed with its keys."""
    path = directory / version / f"values-{name}.json"
    there = load(version)
    known = {_place(each) for each in there.vectors}
    made = [asdict(each) for each in vectors(there.tenants()) if _place(each) not in known]
    if path.exists() or not made:
        message = f"{path.name} exists, or {version} has everything. Known answers never change."
        raise SystemExit(message)
    _write(path, made)


def _place(each: Vector) -> tuple[object, ...]:
    return each.tenant, each.kind, each.search, each.padding, each.given


def _write(path: Path, document: object) -> None:
    path.write_text(json.dumps(document, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python tests/vectors/write.py VERSION [NAME]")
    if len(sys.argv) == 3:
        add(sys.argv[1], sys.argv[2])
    else:
        write(HERE / sys.argv[1])
