"""Two encrypted columns in the small application of `rls_world`, and what its database lacks."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rls_world import World, fill, make_world
from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
)

from tenantguard import rls
from tenantguard.keytable import ENCRYPTED, SEARCHES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

KEYS = "public.tenantguard_keys"
PATIENTS = "public.patients"
SEALED = r"'\x9e54010000000000000000000000000000000001'::bytea"
INDEXED = r"'\x9e54010100000000000000000000000000000001'::bytea"
INSERT_KEY = (
    "INSERT INTO tenantguard_keys (tenant_id, purpose, kek_uri, wrapped) "
    "VALUES ('{}', 'data', 'file:x', 'wrapped') RETURNING generation, state"
)


def add_patients(metadata: MetaData, *, check: str | None = None) -> Table:
    """Two encrypted columns, of which the name is searched."""

    def encrypted(name: str, more: str = "") -> tuple[Any, ...]:
        form = rf"substring({name}, 1, 2) = '\x9e54'::bytea{more}"
        label = check and check.format(name)
        return (
            Column(name, LargeBinary, info={ENCRYPTED: f"patients.{name}"}),
            CheckConstraint(form, name=label, info={ENCRYPTED: name}),
        )

    return Table(
        "patients",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", ForeignKey("practices.id"), nullable=False),
        *encrypted("name", " AND length(name) >= 20 AND get_bit(name, 24) = 1"),
        Column(
            "name_bidx",
            LargeBinary,
            Computed("substring(name, 5, 16)", persisted=True),
            info={SEARCHES: "name"},
        ),
        *encrypted("notes"),
        Index("ix_patients_name_bidx", "tenant_id", "name_bidx"),
    )


@contextmanager
def patients_world(url: URL) -> Iterator[World]:
    """The tables with rows, and the second lock not yet on them."""
    with make_world(url) as made:
        table = add_patients(made.metadata)
        with made.owner.begin() as connection:
            table.create(connection)
        fill(made)
        yield made


def missing(world: World) -> list[str]:
    with world.owner.connect() as connection:
        return [str(step) for step in rls.plan(connection, world.catalog, world.roles)]


def found(world: World) -> set[tuple[str, str | None]]:
    with world.as_application() as connection:
        findings = rls.verify(connection, world.catalog, world.roles)
    assert all(finding.mend for finding in findings)
    return {(finding.code, finding.object) for finding in findings}
