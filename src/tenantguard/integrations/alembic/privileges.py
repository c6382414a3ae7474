"""Operations that set what each role may do with tables and schemas."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tenantguard.integrations.alembic.operation import (
    PUBLIC,
    OfTable,
    TenantOperation,
    Unprotecting,
    grantees,
    operation,
)
from tenantguard.rls.grants import grant_statements
from tenantguard.rls.names import quote
from tenantguard.rls.step import Grants

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "GrantTenantPrivileges",
    "GrantTenantSchema",
    "RestoreTenantPrivileges",
    "RestoreTenantSchema",
]


@operation
@dataclass
class GrantTenantPrivileges(OfTable):
    """Set what each role may do with a table; PUBLIC may do nothing.

    Attributes:
        table: The table's name.
        privileges: By role; a role with an empty list loses what it had.
        sequences: What each role may do with the sequences of the table's columns.
        named_sequences: Sequences that columns name, quoted and with their schema.
        if_exists: Do nothing where there is no such table.
        schema: The table's schema.
    """

    verb: ClassVar[str] = "grant_tenant_privileges"

    privileges: Mapping[str, Sequence[str]]
    sequences: Mapping[str, Sequence[str]] | None = field(default=None, kw_only=True)
    named_sequences: Sequence[str] = field(default=(), kw_only=True)
    if_exists: bool = field(default=False, kw_only=True)

    def to_diff_tuple(self) -> tuple[str, ...]:
        """Return what `alembic check` shows."""
        return (self.verb, self.table)

    def statements(self) -> Iterator[str]:
        """Yield what revokes all, then what grants."""
        grants = Grants(
            {role: frozenset(each) for role, each in self.privileges.items() if each},
            {role: frozenset(each) for role, each in (self.sequences or {}).items()},
            tuple(self.named_sequences),
            optional=self.if_exists,
        )
        yield from grant_statements(self.target, grants, tuple(self.privileges))


@operation
@dataclass
class RestoreTenantPrivileges(OfTable, Unprotecting):
    """Set what each role could do before.

    Attributes:
        table: The table's name.
        privileges: By role, or "public"; with "*" behind those that it could grant on. A role with
            an empty list could do nothing.
        columns: The same by column.
        sequences: The same by sequence, quoted and with its schema.
        schema: The table's schema.
    """

    verb: ClassVar[str] = "restore_tenant_privileges"

    privileges: Mapping[str, Sequence[str]]
    columns: Mapping[str, Mapping[str, Sequence[str]]] | None = field(default=None, kw_only=True)
    sequences: Mapping[str, Mapping[str, Sequence[str]]] | None = field(default=None, kw_only=True)

    def to_diff_tuple(self) -> tuple[str, ...]:
        """Return what `alembic check` shows."""
        return (self.verb, self.table)

    def statements(self) -> Iterator[str]:
        """Yield what revokes all, then what grants."""
        everybody = grantees(self.privileges)
        yield f"REVOKE ALL ON TABLE {self.on} FROM {everybody}"
        yield from _granted(f"TABLE {self.on}", self.privileges)
        for column, privileges in (self.columns or {}).items():
            yield from _granted(f"TABLE {self.on}", privileges, column)
        for sequence, privileges in (self.sequences or {}).items():
            yield f"REVOKE ALL ON SEQUENCE {sequence} FROM {everybody}"
            yield from _granted(f"SEQUENCE {sequence}", privileges)


@operation
@dataclass
class GrantTenantSchema(TenantOperation):
    """Let *roles* use a schema, and neither PUBLIC nor *confined* create anything in it."""

    verb: ClassVar[str] = "grant_tenant_schema"

    schema: str
    roles: Sequence[str] = field(kw_only=True)
    confined: Sequence[str] = field(kw_only=True)

    def statements(self) -> Iterator[str]:
        """Yield what revokes CREATE and grants USAGE."""
        name = quote(self.schema)
        yield f"REVOKE CREATE ON SCHEMA {name} FROM {grantees([PUBLIC, *self.confined])}"
        yield f"GRANT USAGE ON SCHEMA {name} TO {grantees(self.roles)}"


@operation
@dataclass
class RestoreTenantSchema(Unprotecting):
    """Set what each role could do with a schema before; *privileges* as for tables."""

    verb: ClassVar[str] = "restore_tenant_schema"

    schema: str
    privileges: Mapping[str, Sequence[str]]

    def statements(self) -> Iterator[str]:
        """Yield what revokes all, then what grants."""
        name = quote(self.schema)
        yield f"REVOKE ALL ON SCHEMA {name} FROM {grantees(self.privileges)}"
        yield from _granted(f"SCHEMA {name}", self.privileges)


def _granted(
    what: str, privileges: Mapping[str, Sequence[str]], column: str | None = None
) -> Iterator[str]:
    on = "" if column is None else f" ({quote(column)})"
    for role, listed in privileges.items():
        for option, names in (
            ("", [each for each in listed if not each.endswith("*")]),
            (" WITH GRANT OPTION", [each[:-1] for each in listed if each.endswith("*")]),
        ):
            if names:
                granted = ", ".join(f"{name}{on}" for name in names)
                yield f"GRANT {granted} ON {what} TO {grantees([role])}{option}"
