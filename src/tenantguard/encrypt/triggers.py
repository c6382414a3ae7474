"""The two triggers that keep plaintext and sealed value together while a migration lasts."""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantguard.encrypt.entering import ENCRYPTING
from tenantguard.rls.names import do_block, plain_literal, quote

if TYPE_CHECKING:
    from tenantguard.encrypt.migrating import Migration

__all__ = ["trigger_statements", "without_triggers"]


def trigger_statements(migration: Migration) -> tuple[str, ...]:
    """Return what makes the triggers, or replaces them.

    A column's trigger fires whether or not its value changes, so the first of the two notes that a
    statement writes the plaintext, and the second, which fires after it, for every UPDATE, knows.
    """
    table = migration.table
    marker, guardian = quote(migration.marker), quote(migration.guardian)
    return (
        _function(migration),
        f"REVOKE ALL ON FUNCTION {migration.function}() FROM PUBLIC",
        _handed_over(migration),
        _trigger(migration.marker, f"UPDATE OF {quote(migration.plain.name)}", migration, "'yes'"),
        _trigger(migration.guardian, "UPDATE", migration),
        f"ALTER TABLE {table} ENABLE TRIGGER {marker}, ENABLE TRIGGER {guardian}",
    )


def without_triggers(migration: Migration) -> tuple[str, ...]:
    """Return what drops them."""
    return (
        f"DROP TRIGGER IF EXISTS {quote(migration.guardian)} ON {migration.table}",
        f"DROP TRIGGER IF EXISTS {quote(migration.marker)} ON {migration.table}",
        f"DROP FUNCTION IF EXISTS {migration.function}()",
    )


def _forgetting(sealed: str) -> str:
    return f"NEW.{sealed} := NULL;"


def _moved(migration: Migration) -> str:
    """Return the condition that a row with plaintext gets another key, if that binds values."""
    sealed: Any = migration.sealed.type
    if not sealed.field.bound:
        return "false"
    keys = (quote(column.name) for column in migration.sealed.table.primary_key)
    changed = " OR ".join(f"NEW.{key} IS DISTINCT FROM OLD.{key}" for key in keys)
    return f"NEW.{quote(migration.plain.name)} IS NOT NULL AND ({changed})"


def _function(migration: Migration) -> str:
    plain, sealed = quote(migration.plain.name), quote(migration.sealed.name)
    changed = f"NEW.{plain}::text IS DISTINCT FROM OLD.{plain}::text"
    mark = f"tenantguard.{migration.marker}"
    return (
        f"CREATE OR REPLACE FUNCTION {migration.function}() RETURNS trigger LANGUAGE plpgsql\n"
        "    SET search_path = pg_catalog\n"
        "    AS $tenantguard$\n"
        f"    DECLARE written boolean := current_setting('{mark}', true) = 'on';\n"
        "    BEGIN\n"
        "    IF TG_NARGS = 1 THEN\n"
        f"        PERFORM set_config('{mark}', 'on', true);\n"
        "        RETURN NEW;\n"
        "    END IF;\n"
        f"    PERFORM set_config('{mark}', '', true);\n"
        f"    IF current_setting('{ENCRYPTING}', true) = 'on' THEN RETURN NEW; END IF;\n"
        f"    IF NEW.{sealed} IS NOT DISTINCT FROM OLD.{sealed} THEN\n"
        f"        IF {changed} OR {_moved(migration)} THEN {_forgetting(sealed)} END IF;\n"
        f"    ELSIF written IS NOT TRUE THEN NEW.{plain} := NULL;\n"
        "    END IF;\n"
        "    RETURN NEW;\n"
        "    END $tenantguard$"
    )


def _handed_over(migration: Migration) -> str:
    """Return what gives the function to the table's owner, whoever that is where it runs."""
    table = plain_literal(migration.table)
    return do_block(
        "DECLARE keeper oid := (SELECT relowner FROM pg_catalog.pg_class\n"
        f"    WHERE oid = {table}::regclass);\n"
        "BEGIN\n"
        f"    EXECUTE pg_catalog.format('ALTER FUNCTION %s() OWNER TO %I',\n"
        f"        {plain_literal(migration.function)}, pg_catalog.pg_get_userbyid(keeper));\n"
        "END"
    )


def _trigger(name: str, act: str, migration: Migration, argument: str = "") -> str:
    return (
        f"CREATE OR REPLACE TRIGGER {quote(name)} BEFORE {act} ON {migration.table}\n"
        f"    FOR EACH ROW EXECUTE FUNCTION {migration.function}({argument})"
    )
