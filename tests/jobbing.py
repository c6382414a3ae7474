"""An application that has workers: its guard signs, and its jobs read the active tenant's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drivers import engine_of
from practice import A, B, Base, Patient, Practice
from sqlalchemy import column, select, text
from sqlalchemy.orm import Session

from tenantguard import SigningFile, TenantGuard
from tenantguard.crypto.signing import make_signing_file

if TYPE_CHECKING:
    from pathlib import Path

    from locks import World
    from sqlalchemy import Engine

OWNED = {
    tenant: [f"patient {letter}{n}" for n in range(3)] for tenant, letter in ((A, "a"), (B, "b"))
}
SHOWS = (str(A), A.hex, str(B), B.hex)


@dataclass(frozen=True)
class Office:
    """The guard, and its engine of few connections, so that jobs take turns on each."""

    guard: TenantGuard
    engine: Engine
    world: World

    def names(self) -> list[str]:
        """What a job reads: the names of the active tenant's patients."""
        with Session(self.engine) as session:
            return sorted(session.scalars(select(Patient.name)))

    def suspend(self, tenant: Any, *, until_now: bool = False) -> None:
        """Suspend *tenant*, or end that."""
        value = "NULL" if until_now else "now()"
        query = text(f"UPDATE practices SET suspended_at = {value} WHERE id = :tenant")
        with self.world.admin.begin() as connection:
            connection.execute(query, {"tenant": tenant})

    def dispose(self) -> None:
        self.engine.dispose()


def open_office(world: World, directory: Path, **options: Any) -> Office:
    path = directory / "signing.json"
    if not path.exists():
        make_signing_file(path, environment="test")
    with world.admin.begin() as connection:
        added = "ALTER TABLE practices ADD COLUMN IF NOT EXISTS suspended_at timestamptz"
        connection.execute(text(added))
    registry: Any = Practice.__table__
    guard = TenantGuard(
        Base.metadata,
        tenants="practices",
        shared={"materials": "price list of the trade association"},
        untenanted={"schema_versions": "migration state"},
        roles=world.guard.roles,
        suspended=column("suspended_at", _selectable=registry).is_not(None),
        signing=SigningFile(path, environment="test"),
        **options,
    )
    engine = engine_of(world.app_url, "psycopg", pool_size=1, max_overflow=0)
    guard.protect(engine)
    return Office(guard, engine, world)
