"""Alembic's autogenerate sees what encrypted columns need, and leaves alone what `rls` has made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, select, text
from sqlalchemy.orm import Session
from vault import A, Base, Patient, Vault, build_vault

from tenantguard import tenant_context
from tenantguard.migrate.autogenerate import include_object, render_item

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    from sqlalchemy import URL, Connection, Engine

_OPTIONS: dict[str, Any] = {
    "compare_type": True,
    "include_object": include_object,
    "render_item": render_item,
}


def _context(connection: Connection, **options: Any) -> MigrationContext:
    return MigrationContext.configure(connection, opts={**_OPTIONS, **options})


def _written(connection: Connection) -> str:
    """Return the migration that Alembic writes for the database, as a module's text."""
    context = _context(connection)
    script = produce_migrations(context, Base.metadata)
    assert script.upgrade_ops is not None
    body = render_python_code(
        script.upgrade_ops, render_item=render_item, migration_context=context
    )
    imports = "import sqlalchemy as sa\nfrom sqlalchemy.dialects import postgresql\n"
    return f"{imports}\ndef upgrade():\n{body}\n"


def _upgrade(engine: Engine) -> str:
    with engine.begin() as connection:
        source = _written(connection)
        module: dict[str, Any] = {"op": Operations(_context(connection))}
        exec(compile(source, "migration", "exec"), module)
        module["upgrade"]()
    return source


def test_a_migration_from_nothing_makes_what_create_all_makes(
    new_database: Callable[[], URL], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table, check, generated column and index are in the migration, and the columns work."""
    url = new_database()
    engine = create_engine(url)
    source = _upgrade(engine)
    engine.dispose()
    assert "sa.Computed('substring(name, 5, 16)', persisted=True)" in source
    assert "patients_name_sealed" in source
    assert "'ix_patients_name_bidx', 'patients', ['tenant_id', 'name_bidx']" in source
    monkeypatch.setattr(Base.metadata, "create_all", lambda _engine: None)
    vault = build_vault(url, tmp_path)
    with tenant_context(A), Session(vault.engine()) as session:
        session.add(Patient(name="Müller"))
        session.commit()
        assert session.scalars(select(Patient.name).where(Patient.name == "müller")).all()
    vault.dispose()


def test_nothing_is_left_to_migrate(vault: Vault) -> None:
    """After `rls apply`, autogenerate proposes nothing: least of all to drop the keys."""
    with vault.admin.connect() as connection:
        assert compare_metadata(_context(connection), Base.metadata) == []


def test_without_our_function_the_keys_would_be_dropped(vault: Vault) -> None:
    """The positive control: what `include_object` keeps is there to be seen."""
    with vault.admin.connect() as connection:
        context = _context(connection, include_object=lambda *_: True)
        found = compare_metadata(context, Base.metadata)
    assert [each[1].name for each in found if each[0] == "remove_table"] == ["tenantguard_keys"]


def test_a_missing_search_column_is_seen(new_database: Callable[[], URL]) -> None:
    """A column that becomes searchable gets its generated column and its index."""
    engine = create_engine(new_database())
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE patients DROP COLUMN name_bidx"))
    with engine.connect() as connection:
        found = compare_metadata(_context(connection), Base.metadata)
    assert [(each[0], each[-1].name) for each in found] == [
        ("add_column", "name_bidx"),
        ("add_index", "ix_patients_name_bidx"),
    ]
    _upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(_context(connection), Base.metadata) == []
    engine.dispose()
