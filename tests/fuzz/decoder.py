"""What reads stored values, given any bytes: `decoder.py stored|packed CORPUS [-option=…]`."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import atheris

with atheris.instrument_imports(include=["tenantguard"]):
    from frozen import KINDS, load
    from rows import bound, row_key

    from tenantguard.columns.field import Field
    from tenantguard.crypto.format import HEADER_SIZE, LAYOUTS
    from tenantguard.errors import DecryptionError, EncryptedValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tenantguard.columns.row_keys import RowKey
    from tenantguard.crypto.tenant_keys import TenantKeys

CHOICE = 2
"""Bytes at the beginning of each input that choose where the rest stands."""

VERSION = load("v1")
TENANTS = VERSION.tenants()


def _places() -> Iterator[tuple[TenantKeys, Field, RowKey | None, bytes]]:
    """Yield the keys, column and primary key of each known answer, and what is sent of it."""
    for value in VERSION.vectors:
        yield TENANTS[value.tenant], value.field(), None, bytes.fromhex(value.stored)
    for row in bound("v1"):
        sent = bytes.fromhex(row.stored + row.row)
        yield TENANTS[row.tenant], row.field(), row_key(row.key), sent


PLACES = list(_places())
SEALED = {sent for *_, sent in PLACES}


def read_stored(given: bytes) -> None:
    """Read bytes where a known answer stands: nothing opens but what was sealed."""
    chosen, sent = int.from_bytes(given[:CHOICE], "big"), given[CHOICE:]
    keys, field, key, _ = PLACES[chosen % len(PLACES)]
    try:
        if key is None:
            field.open(keys, sent)
        else:
            field.open(keys, *key.split(sent))
    except DecryptionError:
        return
    assert sent in SEALED


KEYS = next(iter(TENANTS.values()))
ROW = bytes(16)
FORMS = [(kind, header) for kind in KINDS for header in LAYOUTS]


@cache
def _field(kind: str, bind: str) -> Field:
    field = Field(KINDS[kind], bind=bind)
    field.attach("patients", kind)
    return field


def read_packed(given: bytes) -> None:
    """Read bytes that were sealed as they are: what they open as can be sealed again."""
    chosen, plaintext = int.from_bytes(given[:CHOICE], "big"), given[CHOICE:]
    kind, header = FORMS[chosen % len(FORMS)]
    layout = LAYOUTS[header]
    field = _field(kind, "row" if layout.bound else "column")
    row = ROW if layout.bound else None
    indexes = bytes(layout.end - HEADER_SIZE)
    stored = KEYS.seal(field.attached, header, plaintext, indexes, row)
    try:
        value = field.open(KEYS, stored, row)
        again = field.open(KEYS, field.seal(KEYS, value, row), row)
    except (DecryptionError, EncryptedValueError):
        return
    assert field.kind.pack(again) == field.kind.pack(value)


def _stored_seeds() -> Iterator[bytes]:
    for chosen, (*_, sent) in enumerate(PLACES):
        yield chosen.to_bytes(CHOICE, "big") + sent


def _packed_seeds() -> Iterator[bytes]:
    for chosen, (kind, _) in enumerate(FORMS):
        of_kind = [value.packed for value in VERSION.vectors if value.kind == kind]
        packed = bytes.fromhex(of_kind[chosen % len(of_kind)])
        yield chosen.to_bytes(CHOICE, "big") + packed


WAYS: dict[str, tuple[Callable[[bytes], None], Callable[[], Iterator[bytes]]]] = {
    "stored": (read_stored, _stored_seeds),
    "packed": (read_packed, _packed_seeds),
}


def fuzz(way: str, corpus: Path) -> None:
    """Give *way* what libFuzzer finds; a *corpus* that is a file is given once."""
    read, seeds = WAYS[way]
    if not corpus.is_file():
        corpus.mkdir(exist_ok=True)
        for number, seed in enumerate(seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], read)
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in WAYS:
        sys.exit("usage: python tests/fuzz/decoder.py stored|packed CORPUS [-option=…]")
    fuzz(sys.argv[1], Path(sys.argv[2]))
