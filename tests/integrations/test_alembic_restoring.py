"""Each operation and its opposite: what is made is what `rls apply` makes, and what was, is again.

For plain models, for encrypted columns and for a signed setting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from locks import unique_roles
from practice import Base, make_guard
from signing_world import ENVIRONMENT, signing_file
from sqlalchemy import MetaData, create_engine, text
from vault import Base as Sealed
from vault import make_guard as make_sealed

from tenantguard import TenantGuard, rls
from tenantguard.crypto.keyfile import make_key_file
from tenantguard.crypto.signing import make_signing_file
from tenantguard.integrations.alembic import missing_operations
from tenantguard.integrations.alembic.former import read_former
from tenantguard.integrations.alembic.operation import Unprotecting
from tenantguard.keytable import KEY_TABLE
from tenantguard.rls.generate import generate
from tenantguard.rls.kept import keeper
from tenantguard.rls.names import object_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL, Connection, Engine


def _plain(_directory: Path) -> TenantGuard:
    return make_guard(unique_roles())


def _signed(directory: Path) -> TenantGuard:
    make_signing_file(directory / "signing.json", environment=ENVIRONMENT)
    signing = signing_file(directory / "signing.json")
    return make_guard(unique_roles(), signing=signing, signed_setting=True)


def _sealed(directory: Path) -> TenantGuard:
    make_key_file(directory / "key.json", environment="test")
    return make_sealed(unique_roles(), directory / "key.json")


_NOTHING: tuple[str, ...] = ()
_LOST = (
    "ALTER TABLE patients DROP COLUMN name_bidx",
    "ALTER TABLE visits DROP CONSTRAINT visits_reason_sealed",
    "ALTER TABLE patients DROP CONSTRAINT patients_notes_sealed",
    "ALTER TABLE patients ADD CONSTRAINT patients_notes_sealed CHECK (notes IS NULL) NOT VALID",
    "DROP INDEX ix_patients_phone_bidx",
    f"DROP TRIGGER {keeper('visits', 'reason')} ON visits",
    f"DROP TRIGGER {keeper('patients', 'born')} ON patients",
    f"DROP FUNCTION {keeper('patients', 'born')}()",
    f"ALTER TABLE patients DISABLE TRIGGER {keeper('patients', 'email')}",
    "ALTER TABLE patients DROP CONSTRAINT patients_email_bidx_kept",
)
_KEY = object_name("orders", "tenant_id", "patient_id", "fkey")
_OTHERS = (
    "CREATE FUNCTION tenantguard_verified() RETURNS text LANGUAGE sql AS 'SELECT NULL::text'",
    "CREATE TABLE tenantguard_signing_keys (id text PRIMARY KEY, inner_block bytea NOT NULL)",
    "ALTER TABLE tenantguard_signing_keys ADD outer_block bytea NOT NULL, ADD created timestamptz",
    "GRANT SELECT ON tenantguard_signing_keys TO PUBLIC",
    f"CREATE INDEX {object_name('patients', 'tenant_id', 'id', 'key')} ON patients (name)",
    f"ALTER TABLE orders ADD CONSTRAINT {_KEY} CHECK (patient_id > 0) NOT VALID",
)

WORLDS: dict[str, tuple[Callable[[Path], TenantGuard], MetaData, tuple[str, ...]]] = {
    "plain": (_plain, Base.metadata, _NOTHING),
    "signed": (_signed, Base.metadata, _NOTHING),
    "signed differently": (_signed, Base.metadata, _OTHERS),
    "encrypted": (_sealed, Sealed.metadata, _NOTHING),
    "encrypted in part": (_sealed, Sealed.metadata, _LOST),
}


@pytest.fixture
def engine(new_database: Callable[[], URL]) -> Iterator[Engine]:
    made = create_engine(new_database())
    yield made
    made.dispose()


def _everything(connection: Connection, guard: TenantGuard) -> dict[str, Any]:
    steps = generate(guard.catalog, guard.roles)
    functions = {(step.target[0], step.name) for step in steps}
    # The table of keys stays, because losing keys is losing data.
    tables = {step.target: () for step in steps if step.target[1] not in {"", KEY_TABLE}}
    return vars(read_former(connection, tables, functions))


@pytest.mark.parametrize(("make", "metadata", "before"), WORLDS.values(), ids=WORLDS)
def test_what_is_made_can_be_taken_back(
    engine: Engine,
    tmp_path: Path,
    make: Callable[[Path], TenantGuard],
    metadata: MetaData,
    before: tuple[str, ...],
) -> None:
    """Up: nothing is left to apply. Down: the captured state. Up again: all of it once more."""
    guard = make(tmp_path)
    rls.apply_roles(engine, guard.roles)
    metadata.create_all(engine)
    with engine.begin() as connection:
        for line in before:
            connection.execute(text(line))
        former = _everything(connection, guard)
        operations = Operations(MigrationContext.configure(connection))
        made = missing_operations(connection, guard)
        for each in made:
            operations.invoke(each)
        assert missing_operations(connection, guard) == []
        protected = _everything(connection, guard)
        assert protected != former
        for each in reversed(made):
            undo: Any = each.reverse()
            if isinstance(undo, Unprotecting):
                undo.allow_unprotected = "a test"
            operations.invoke(undo)
        assert _everything(connection, guard) == former
        for each in missing_operations(connection, guard):
            operations.invoke(each)
        assert _everything(connection, guard) == protected


def test_the_same_is_made_as_by_apply(
    engine: Engine, new_database: Callable[[], URL], tmp_path: Path
) -> None:
    """Two databases, one by the operations and one by `rls apply`: the comments agree too."""
    guard = _plain(tmp_path)
    rls.apply_roles(engine, guard.roles)
    other = create_engine(new_database())
    for each in (engine, other):
        Base.metadata.create_all(each)
    rls.apply(other, guard.catalog, guard.roles)
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        for operation in missing_operations(connection, guard):
            operations.invoke(operation)
        ours = _everything(connection, guard)
    with other.connect() as connection:
        assert _everything(connection, guard) == ours
    other.dispose()
