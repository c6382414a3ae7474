"""The one question that is asked before the tenant is known: who signs in, and where to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Table, bindparam, func, inspect, select
from sqlalchemy.orm import Mapper

from tenantguard.catalog import Catalog, IdentityLookup, Kind, has_unique_key
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections import Counter

    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session, scoped_session

    from tenantguard.context import TenantId

__all__ = ["Identity", "IdentityQuery", "declare_lookup"]

_MAX_NAME = 63


@dataclass(frozen=True, slots=True)
class Identity:
    """What sign-in may know about a user before it knows the tenant."""

    id: Any = field(repr=False)
    tenant: TenantId = field(repr=False)
    secret: Any = field(repr=False)


class IdentityQuery:
    """Asks the database function of one `IdentityLookup`."""

    def __init__(self, lookup: IdentityLookup, counts: Counter[str]) -> None:
        self._counts = counts
        function = func
        if lookup.table.schema:
            function = getattr(function, lookup.table.schema)
        call = getattr(function, lookup.function)
        answer = call(bindparam("key", type_=lookup.key.type)).table_valued(
            Column("identity", lookup.identity.type),
            Column("tenant", lookup.tenant.type),
            Column("secret", lookup.secret.type),
        )
        self._statement = select(answer.c.identity, answer.c.tenant, answer.c.secret)

    def __call__(
        self, connection: Connection | Session | scoped_session[Any] | Engine, key: Any
    ) -> Identity | None:
        """Return the identity of *key*, or None when there is none.

        Compare the secret with a constant-time library also when the answer is None, so that the
        time taken does not tell which keys exist.
        """
        self._counts["identity_lookup"] += 1
        if hasattr(connection, "connect") and not hasattr(connection, "execute"):
            with connection.connect() as own:
                row = own.execute(self._statement, {"key": key}).first()
        else:
            row = connection.execute(self._statement, {"key": key}).first()
        return None if row is None else Identity(*row)


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
        function=f"tenantguard_identity_{table.name}_by_{key.name}"[:_MAX_NAME],
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
