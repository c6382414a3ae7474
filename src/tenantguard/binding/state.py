"""What a driver's connection needs to know to bind the tenant, and the SQL that it sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects import postgresql

from tenantguard.catalog import SETTING
from tenantguard.errors import ConfigurationError, CrossTenantError, UnscopedStatementError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column, Table

__all__ = ["SNAPSHOT_QUERY", "Binding", "ConnectionState", "registry_query", "scrub_sql"]

SNAPSHOT_QUERY = (
    "SELECT name, setting FROM pg_catalog.pg_settings WHERE source = 'session' "
    "AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable') "
    "UNION ALL SELECT 'role', pg_catalog.current_setting('role') ORDER BY 1"
)
"""What the application's own `connect` listeners have set; the scrub sets it again."""

# Sequences keep their values: DISCARD SEQUENCES forgets only this session's cached currval.
_SCRUB = (
    "RESET SESSION AUTHORIZATION",
    "CLOSE ALL",
    "UNLISTEN *",
    "SELECT pg_catalog.pg_advisory_unlock_all()",
    "DISCARD TEMP",
    "DISCARD SEQUENCES",
    "RESET ALL",
)


@dataclass(frozen=True, slots=True)
class Binding:
    """What the guard tells the driver's connections of one engine.

    Attributes:
        tenant: Returns the active tenant's id as text, or None when no tenant is active.
        unknown: Whether the tenant, as text, still has to be looked up in the registry.
        seen: Told that the registry has the tenant.
        registry_query: Returns the query that finds the tenant's row, given its SQL literal.
        observe: Told what would be refused; None refuses.
    """

    tenant: Callable[[], str | None]
    unknown: Callable[[str], bool]
    seen: Callable[[str], None]
    registry_query: Callable[[str], str]
    observe: Callable[[str, str], None] | None = None

    def refuse_autocommit(self) -> None:
        """Raise `UnscopedStatementError`: without a transaction no tenant can be bound."""
        self._refuse(
            "autocommit",
            UnscopedStatementError(
                "The connection is in AUTOCOMMIT, where a tenant cannot be bound to a "
                "transaction. Use the engine's normal isolation level, or system_access(reason=…)."
            ),
        )

    def refuse_switch(self) -> None:
        """Raise `CrossTenantError`: the open transaction belongs to another context."""
        self._refuse(
            "tenant switch",
            CrossTenantError(
                "The open transaction was begun for another tenant, or for none. Commit or roll "
                "back before the tenant changes."
            ),
        )

    def refuse_open_transaction(self) -> None:
        """Raise `UnscopedStatementError`: the pool handed out a connection in a transaction."""
        self._refuse(
            "open transaction",
            UnscopedStatementError(
                "The pool handed out a connection whose transaction is still open. Leave the "
                "pool's reset_on_return at its default, 'rollback'."
            ),
        )

    def refuse_foreign_connection(self) -> None:
        """Raise `ConfigurationError`: the engine got a connection that cannot bind a tenant."""
        self._refuse(
            "foreign connection",
            ConfigurationError(
                "A protected engine got a connection that tenantguard did not make. Remove "
                "create_engine(creator=…) and `do_connect` listeners that return connections; "
                "pass connect_args instead."
            ),
        )

    def _refuse(self, kind: str, error: Exception) -> None:
        if self.observe is None:
            raise error
        self.observe(kind, str(error))


@dataclass(slots=True, repr=False)
class ConnectionState:
    """One driver connection's part.

    Attributes:
        binding: What the guard says.
        scrub: The statements that clean the connection.
        checked_out: Whether the pool has handed it out; what the pool itself does is not bound.
        dirty: Whether the next BEGIN has to scrub.
        bound: The tenant of the transaction begun last.
        ends_prepared: Whether the next command is SQLAlchemy's own end of a prepared transaction.
    """

    binding: Binding
    scrub: list[bytes]
    checked_out: bool = False
    dirty: bool = False
    bound: str | None = None
    ends_prepared: bool = False


def scrub_sql(settings: list[tuple[str, str]], literal: Callable[[str], str]) -> list[bytes]:
    """Return the statements that bring a connection back to how its `connect` listeners left it.

    They end with a COMMIT of their own: without it, a later ROLLBACK would bring the old state
    back.
    """
    restore = [
        f"SELECT pg_catalog.set_config({literal(name)}, {literal(value)}, false)"
        for name, value in settings
        if name != SETTING and not (name == "role" and value == "none")
    ]
    return [part.encode() for part in ("BEGIN", *_SCRUB, *restore, "COMMIT")]


def registry_query(table: Table, key: Column[Any]) -> Callable[[str], str]:
    """Return a function from a tenant's literal to the query that finds it in the registry."""
    preparer = postgresql.dialect().identifier_preparer  # type: ignore[no-untyped-call]
    start = f"SELECT 1 FROM {preparer.format_table(table)} WHERE {preparer.format_column(key)} = "  # noqa: S608
    return lambda literal: start + literal
