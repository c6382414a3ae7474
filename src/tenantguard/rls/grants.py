"""Who may do what with a table: least privilege for each role, nothing for PUBLIC."""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Sequence

from tenantguard.catalog import WRITTEN
from tenantguard.catalog import Kind as TableKind
from tenantguard.rls.names import (
    DEFAULT_SCHEMA,
    column_list,
    do_block,
    plain_literal,
    qualified,
    target_of,
)
from tenantguard.rls.step import Grants, Kind, Phase, Step
from tenantguard.rls.views import is_view

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import Table

    from tenantguard.catalog import Entry, Roles
    from tenantguard.rls.step import Target

__all__ = ["grant_statements", "grant_steps", "granted_roles"]

_READ = frozenset({"SELECT"})
_WRITE = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
_ADD = frozenset({"SELECT", "INSERT"})
_NEXT_VALUE = frozenset({"USAGE"})

_EACH = "\0"
"""Stands for the sequence in a statement that is formatted in the database."""


def granted_roles(roles: Roles) -> tuple[str, ...]:
    """Return the roles whose privileges are generated."""
    return (roles.application, roles.support, roles.maintenance, roles.backup)


def grant_steps(entry: Entry, roles: Roles) -> Iterator[Step]:
    """Yield the step that sets the privileges on *entry*'s table."""
    target = target_of(entry)
    # A table that the models do not know, such as a migration tool's, need not exist yet.
    grants = Grants(
        _on_table(entry.kind, roles, view=is_view(entry)),
        _on_sequences(entry.kind, roles) if _has_sequences(entry.table) else {},
        tuple(_named_sequences(entry.table)),
        optional=entry.table is None,
    )
    everybody = granted_roles(roles)
    down = [_revoke(qualified(target), everybody)]
    if grants.optional:
        down = [_if_present(target, down)]
    if grants.sequences:
        gone = f"REVOKE ALL ON SEQUENCE {_EACH} FROM {column_list(everybody)}"
        down.append(_for_sequences(target, grants, [gone]))
    up = grant_statements(target, grants, everybody)
    yield Step(Phase.PROTECTION, target, Kind.GRANTS, "privileges", up, tuple(down), grants)


def grant_statements(target: Target, grants: Grants, roles: Iterable[str]) -> tuple[str, ...]:
    """Return what takes all privileges on *target* from *roles* and PUBLIC, and gives *grants*."""
    name = qualified(target)
    revoke = _revoke(name, roles).replace(" FROM ", " FROM PUBLIC, ", 1)
    up = [revoke, *_grants("TABLE", name, grants.table)]
    if grants.optional:
        up = [_if_present(target, up)]
    if grants.sequences:
        granted = list(_grants("SEQUENCE", _EACH, grants.sequences))
        up.append(_for_sequences(target, grants, granted))
    return tuple(up)


def _has_sequences(table: Table | None) -> bool:
    return table is not None and (
        table.autoincrement_column is not None
        or any(
            column.identity is not None
            or column.server_default is not None
            or isinstance(column.default, Sequence)
            for column in table.columns
        )
    )


def _on_table(kind: TableKind, roles: Roles, *, view: bool) -> dict[str, frozenset[str]]:
    write = _READ if view else _WRITE
    granted = {roles.maintenance: write, roles.backup: _READ}
    if kind is TableKind.KEYS:
        # Support has no use for wrapped keys. A key changes and goes by maintenance alone.
        return {roles.application: _ADD, **granted}
    if kind is not TableKind.UNTENANTED:
        granted[roles.support] = _READ
        granted[roles.application] = write if kind in WRITTEN else _READ
    return granted


def _on_sequences(kind: TableKind, roles: Roles) -> dict[str, frozenset[str]]:
    granted = {roles.maintenance: _NEXT_VALUE, roles.backup: _READ}
    if kind in WRITTEN:
        granted[roles.application] = _NEXT_VALUE
    return granted


def _named_sequences(table: Table | None) -> Iterator[str]:
    """Yield the sequences that columns name; PostgreSQL does not know them as the columns' own."""
    for column in () if table is None else table.columns:
        default: Any = column.default
        if isinstance(default, Sequence):
            yield qualified((default.schema or DEFAULT_SCHEMA, default.name))


def _revoke(name: str, roles: Iterable[str]) -> str:
    return f"REVOKE ALL ON TABLE {name} FROM {column_list(roles)}"


def _grants(what: str, name: str, granted: Mapping[str, frozenset[str]]) -> Iterator[str]:
    for role, privileges in granted.items():
        listed = ", ".join(sorted(privileges))
        yield f"GRANT {listed} ON {what} {name} TO {column_list([role])}"


def _for_sequences(target: Target, grants: Grants, statements: list[str]) -> str:
    table = plain_literal(qualified(target))
    named = ", ".join(f"to_regclass({plain_literal(name)})" for name in grants.named_sequences)
    extra = f" OR c.oid IN ({named})" if named else ""
    commands = "\n".join(
        f"        EXECUTE format({plain_literal(statement)}, found);"
        for statement in (each.replace("%", "%%").replace(_EACH, "%s") for each in statements)
    )
    return do_block(
        "DECLARE found regclass;\n"
        "BEGIN\n"
        "    FOR found IN\n"
        "        SELECT DISTINCT c.oid::regclass FROM pg_class c\n"
        "        LEFT JOIN pg_depend d ON d.objid = c.oid AND d.deptype IN ('a', 'i')\n"
        "            AND d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass\n"
        f"        WHERE c.relkind = 'S' AND (d.refobjid = to_regclass({table}){extra})\n"
        "    LOOP\n"
        f"{commands}\n"
        "    END LOOP;\n"
        "END"
    )


def _if_present(target: Target, statements: list[str]) -> str:
    body = "\n".join(f"        {statement};" for statement in statements)
    return do_block(
        "BEGIN\n"
        f"    IF to_regclass({plain_literal(qualified(target))}) IS NOT NULL THEN\n"
        f"{body}\n"
        "    END IF;\n"
        "END"
    )
