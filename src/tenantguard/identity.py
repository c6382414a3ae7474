"""The questions that are asked before the tenant is known: who signs in, and which tenant."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Column, Table, bindparam, column, func, inspect, select
from sqlalchemy.orm import Mapper
from sqlalchemy.sql.elements import quoted_name

from tenantguard.catalog import Catalog, Entry, IdentityLookup, Kind, TenantLookup, has_unique_key
from tenantguard.errors import ConfigurationError
from tenantguard.rls.names import DEFAULT_SCHEMA, object_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine, Row
    from sqlalchemy.orm import Session, scoped_session

    from tenantguard.context import TenantId

__all__ = [
    "Identity",
    "IdentityQuery",
    "TenantQuery",
    "declare_lookup",
    "declare_tenant_lookup",
]

# SQLAlchemy quotes a function's name, but not the schema before it.
_CALLABLE = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Identity:
    """What sign-in may know about a user before it knows the tenant."""

    id: Any = field(repr=False)
    tenant: TenantId = field(repr=False)
    secret: Any = field(repr=False)


class _Query:
    """Asks the database function of one lookup."""

    def __init__(self, lookup: IdentityLookup | TenantLookup, count: Callable[[], None]) -> None:
        self._count = count
        schema = getattr(func, quoted_name(lookup.table.schema or DEFAULT_SCHEMA, quote=True))
        call = getattr(schema, quoted_name(lookup.function, quote=True))
        answer = call(bindparam("key", type_=lookup.key.type)).table_valued(
            *(column(name, asked.type) for name, asked in lookup.answer.items())
        )
        self._statement = select(*answer.c)

    def _ask(
        self, connection: Connection | Session | scoped_session[Any] | Engine, key: Any
    ) -> Row[Any] | None:
        self._count()
        if hasattr(connection, "connect") and not hasattr(connection, "execute"):
            with connection.connect() as own:
                rows = own.execute(self._statement, {"key": key}).fetchmany(2)
        else:
            rows = connection.execute(self._statement, {"key": key}).fetchmany(2)
        return rows[0] if len(rows) == 1 else None


class IdentityQuery(_Query):
    """Asks who signs in; made by `TenantGuard.identity_lookup`."""

    def __call__(
        self, connection: Connection | Session | scoped_session[Any] | Engine, key: Any
    ) -> Identity | None:
        """Return the identity of *key*, or None when there is not exactly one.

        Compare the secret with a constant-time library also when the answer is None, so that the
        time taken does not tell which keys exist.

        In asynchronous code: `await connection.run_sync(find_user, key)`, with an `AsyncConnection`
        or an `AsyncSession`.
        """
        row = self._ask(connection, key)
        return None if row is None else Identity(*tuple(row))


class TenantQuery(_Query):
    """Asks which tenant a name means; made by `TenantGuard.tenant_lookup`."""

    def __call__(
        self, connection: Connection | Session | scoped_session[Any] | Engine, key: Any
    ) -> TenantId | None:
        """Return the id of the tenant that *key* means, or None.

        Give it the engine, not the request's session: a session's transaction that has begun
        without a tenant cannot be used with one.

        In asynchronous code: `await connection.run_sync(find_tenant, key)`, with an
        `AsyncConnection` of its own.
        """
        row = self._ask(connection, key)
        return None if row is None else cast("TenantId", row[0])


def declare_lookup(catalog: Catalog, model: Any, *, by: str, secret: str) -> IdentityLookup:
    """Return the lookup of *model* by its column *by*.

    Raises:
        ConfigurationError: If the table is not scoped, a column is missing, or *by* is not unique.
    """
    asked = _Asked("identity_lookup()", catalog, model)
    entry = asked.entry
    if entry.kind is not Kind.SCOPED or entry.column is None:
        raise ConfigurationError(
            f"identity_lookup(): table {entry.fullname!r} has no tenant column."
        )
    identities = [key for key in asked.table.primary_key.columns if key.name != entry.column.name]
    if len(identities) != 1:
        raise ConfigurationError(
            f"identity_lookup(): table {entry.fullname!r} needs one primary key column besides the "
            "tenant."
        )
    key = asked.key(by, means="one user")
    return IdentityLookup(
        table=asked.table,
        key=key,
        identity=identities[0],
        tenant=entry.column,
        secret=asked.column(secret),
        function=asked.function("identity", key),
    )


def declare_tenant_lookup(catalog: Catalog, model: Any, *, by: str) -> TenantLookup:
    """Return the lookup of the registry *model* by its column *by*.

    Raises:
        ConfigurationError: If *model* is not the registry, or *by* is missing or not unique.
    """
    asked = _Asked("tenant_lookup()", catalog, model)
    entry = asked.entry
    if entry.kind is not Kind.REGISTRY or entry.column is None:
        raise ConfigurationError(
            f"tenant_lookup(): table {entry.fullname!r} is not the registry. Name the model of "
            f"{catalog.registry.fullname!r}."
        )
    key = asked.key(by, means="one tenant")
    return TenantLookup(asked.table, key, entry.column, asked.function("tenant", key))


class _Asked:
    """The table that a lookup asks, and what its declaration calls things."""

    def __init__(self, caller: str, catalog: Catalog, model: Any) -> None:
        self._caller = caller
        self._mapper = None if isinstance(model, Table) else inspect(model, raiseerr=False)
        table = model if isinstance(model, Table) else getattr(self._mapper, "local_table", None)
        if not isinstance(table, Table):
            raise ConfigurationError(f"{caller} takes a mapped class or a Table.")
        if table.schema and not _CALLABLE.fullmatch(table.schema):
            raise ConfigurationError(
                f"{caller}: SQLAlchemy cannot call a function in schema {table.schema!r}, whose "
                "name needs quoting."
            )
        self.table: Table = table
        self.entry: Entry = catalog.entry(table)

    def key(self, name: str, *, means: str) -> Column[Any]:
        found = self.column(name)
        if not has_unique_key(found):
            raise ConfigurationError(
                f"{self._caller}: column {self.entry.fullname}.{found.name} needs a unique "
                f"constraint of its own, so that one key means {means}."
            )
        return found

    def column(self, name: str) -> Column[Any]:
        if isinstance(self._mapper, Mapper) and name in self._mapper.columns:
            found = self._mapper.columns[name]
            if isinstance(found, Column):
                return found
        for candidate in self.table.columns:
            if candidate.name == name:
                return candidate
        raise ConfigurationError(
            f"{self._caller}: table {self.table.fullname!r} has no column {name!r}."
        )

    def function(self, question: str, key: Column[Any]) -> str:
        return object_name(question, self.table.schema or "", self.table.name, "by", key.name)
