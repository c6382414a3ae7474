"""Binding the tenant with psycopg 3.

psycopg sends its start command (BEGIN with isolation level, READ ONLY, DEFERRABLE) right before a
transaction's first statement, whoever sends that: a cursor, COPY, `transaction()` or two-phase.
The class below puts the tenant, and after a check-out the scrub, into that same message. The logic
is in generators that psycopg's synchronous and asynchronous connections both run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import generators, pq

from tenantguard.catalog import SETTING
from tenantguard.errors import ConfigurationError, UnknownTenantError

if TYPE_CHECKING:
    from collections.abc import Generator

    from tenantguard.binding.state import ConnectionState

__all__ = ["TenantConnection", "check_driver"]

_IDLE = pq.TransactionStatus.IDLE
_COMPLETED = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
_HOOKS = ("_exec_command", "_start_query", "_get_tx_start_command")


class TenantBinding:
    """Mixed in before one of psycopg's connection classes."""

    tenantguard: ConnectionState | None = None
    pgconn: pq.abc.PGconn
    _pipeline: Any

    def _start_query(self) -> Generator[Any, Any, None]:
        state = self.tenantguard
        if state is not None and state.checked_out:
            if self.pgconn.transaction_status != _IDLE:
                if state.binding.tenant() != state.bound:
                    state.binding.refuse_switch()
            elif cast("psycopg.Connection[Any]", self).autocommit and not state.ends_prepared:
                state.binding.refuse_autocommit()
            state.ends_prepared = False
        yield from super()._start_query()  # type: ignore[misc]  # psycopg's connection is next

    def _exec_command(self, command: Any, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        state = self.tenantguard
        begins = isinstance(command, bytes) and command.startswith(b"BEGIN")
        if state is None or not state.checked_out or not begins:
            return (yield from super()._exec_command(command, *args, **kwargs))  # type: ignore[misc]
        return (yield from self._begin_for_tenant(state, command))

    def _begin_for_tenant(
        self, state: ConnectionState, begin: bytes
    ) -> Generator[Any, Any, pq.abc.PGresult | None]:
        tenant = state.binding.tenant()
        parts = [begin, f"SET LOCAL {SETTING} = {self.sql_literal(tenant or '')}".encode()]
        if state.binding.observe is None and (state.dirty or tenant != state.bound):
            parts[:0] = state.scrub
        if self._pipeline:
            # One command a message, sent together: so still no additional round trip. The answers
            # come later, so the registry is not asked, and the next BEGIN scrubs once more.
            state.bound = tenant
            for part in parts:
                yield from super()._exec_command(part)  # type: ignore[misc]
            return None
        look_up = tenant is not None and state.binding.unknown(tenant)
        if look_up:
            query = state.binding.registry_query(self.sql_literal(tenant or ""))
            parts.append(query.encode())
        self.pgconn.send_query(b"; ".join(parts))
        results: list[pq.abc.PGresult] = yield from generators.execute(self.pgconn)
        for result in results:
            if result.status not in _COMPLETED:
                raise _without_statement(result)
        state.dirty = False
        state.bound = None
        if look_up:
            if not results[-1].ntuples:
                raise UnknownTenantError(
                    "The registry does not have the active tenant. Create the tenant first, or "
                    "correct what the resolver returns."
                )
            state.binding.seen(tenant or "")
        state.bound = tenant
        return results[-1]

    def sql_literal(self, text: str) -> str:
        """Return *text* as an SQL literal, escaped by the driver."""
        escaped = pq.Escaping(self.pgconn).escape_literal(text.encode())
        return bytes(escaped).decode()


def _without_statement(result: pq.abc.PGresult) -> psycopg.Error:
    """Return the driver's error for *result*; PostgreSQL's own text would quote the tenant."""
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    try:
        kind: type[psycopg.Error] = psycopg.errors.lookup(state)
    except KeyError:
        kind = psycopg.OperationalError
    return kind(f"The transaction could not be begun for the tenant (SQLSTATE {state}).")


class TenantConnection(TenantBinding, psycopg.Connection[Any]):
    """psycopg's connection with the tenant on its BEGIN."""


def check_driver() -> None:
    """Raise `ConfigurationError` if this psycopg lacks a hook that binding needs."""
    missing = [hook for hook in _HOOKS if not callable(getattr(psycopg.Connection, hook, None))]
    if missing:
        raise ConfigurationError(
            f"This version of psycopg has no hook {missing[0]}; tenantguard supports psycopg>=3.2."
        )
