"""The one question that is asked before the tenant is known: who signs in, and where to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Table, bindparam, func, inspect, select
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.elements import quoted_name

from tenantguard.catalog import Catalog, IdentityLookup, Kind, has_unique_key
from tenantguard.errors import ConfigurationError
from tenantguard.rls.names import DEFAULT_SCHEMA, object_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session, scoped_session

    from tenantguard.context import TenantId

__all__ = ["Identity", "IdentityQuery", "declare_lookup"]


# SQLAlchemy quotes a function's name, but not the schema before it.
_CALLABLE = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Identity:
    """What sign-in may know about a user before it knows the tenant."""

    id: Any = field(repr=False)
    tenant: TenantId = field(repr=False)
    secret: Any = field(repr=False)


class IdentityQuery:
    """Asks the database function of one `IdentityLookup`."""

    def __init__(self, lookup: IdentityLookup, count: Callable[[], None]) -> None:
        self._count = count
        schema = getattr(func, quoted_name(lookup.table.schema or DEFAULT_SCHEMA, quote=True))
        call = getattr(schema, quoted_name(lookup.function, quote=True))
        answer = call(bindparam("key", type_=lookup.key.type)).table_valued(
            Column("identity", lookup.identity.type),
            Column("tenant", lookup.tenant.type),
            Column("secret", lookup.secret.type),
        )
        self._statement = select(answer.c.identity, answer.c.tenant, answer.c.secret)

    def __call__(
        self, connection: Connection | Session | scoped_session[Any] | Engine, key: Any
    ) -> Identity | None:
        """Return the identity of *key*, or None when there is not exactly one.

        Compare the secret with a constant-time library also when the answer is None, so that the
        time taken does not tell which keys exist.
        """
        self._count()
        if hasattr(connection, "connect") and not hasattr(connection, "execute"):
            with connection.connect() as own:
                rows = own.execute(self._statement, {"key": key}).fetchmany(2)
        else:
            rows = connection.execute(self._statement, {"key": key}).fetchmany(2)
        return Identity(*rows[0]) if len(rows) == 1 else None


def declare_lookup(catalog: Catalog, model: Any, *, by: str, secret: str) -> IdentityLookup:
    """Return the lookup of *model* by its column *by*.

    Raises:
        ConfigurationError: If the table is not scoped, a column is missing, or *by* is not unique.
    """
    mapper = None if isinstance(model, Table) else inspect(model, raiseerr=False)
    table = model if isinstance(model, Table) else getattr(mapper, "local_table", None)
    if not isinstance(table, Table):
        raise ConfigurationError("identity_lookup() takes a mapped class or a Table.")
    entry = catalog.entry(table)
    keys = list(table.primary_key.columns)
    if entry.kind is not Kind.SCOPED or entry.column is None:
        raise ConfigurationError(
            f"identity_lookup(): table {entry.fullname!r} has no tenant column."
        )
    identities = [key for key in keys if key.name != entry.column.name]
    if len(identities) != 1:
        raise ConfigurationError(
            f"identity_lookup(): table {entry.fullname!r} needs one primary key column besides the "
            "tenant."
        )
    if table.schema and not _CALLABLE.fullmatch(table.schema):
        raise ConfigurationError(
            f"identity_lookup(): SQLAlchemy cannot call a function in schema {table.schema!r}, "
            "whose name needs quoting."
        )
    key = _column(mapper, table, by)
    if not has_unique_key(key):
        raise ConfigurationError(
            f"identity_lookup(): column {entry.fullname}.{key.name} needs a unique constraint of "
            "its own, so that one key means one user."
        )
    return IdentityLookup(
        table=table,
        key=key,
        identity=identities[0],
        tenant=entry.column,
        secret=_column(mapper, table, secret),
        function=object_name("identity", table.schema or "", table.name, "by", key.name),
    )


def _column(mapper: Any, table: Table, name: str) -> Column[Any]:
    if isinstance(mapper, Mapper) and name in mapper.columns:
        found = mapper.columns[name]
        if isinstance(found, Column):
            return found
    for candidate in table.columns:
        if candidate.name == name:
            return candidate
    raise ConfigurationError(f"identity_lookup(): table {table.fullname!r} has no column {name!r}.")
