"""What a tenant leaves behind on a connection, and how the next one would find it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledger import Look
from sqlalchemy import text

if TYPE_CHECKING:
    from desk import Desk

DIRT = (
    # Shadows the table: who finds it reads the rows of the tenant that made it.
    "CREATE TEMP TABLE entries AS SELECT * FROM entries",
    "CREATE TEMP VIEW marks AS SELECT * FROM public.marks",
    "DECLARE held CURSOR WITH HOLD FOR SELECT * FROM entries",
    "LISTEN history",
    "SELECT pg_try_advisory_lock(4711)",
    "SET work_mem = '65kB'",
    "SET search_path = pg_temp",
    "SET default_transaction_read_only = on",
    "SET statement_timeout = '500ms'",
    "SET tenantguard.tenant = '{tenant}'",
    "PREPARE {name} AS SELECT 1",
)

_LEFT = {
    "temporary relation": "EXISTS (SELECT FROM pg_catalog.pg_class "
    "WHERE relnamespace = pg_catalog.pg_my_temp_schema())",
    "held cursor": "EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable)",
    "LISTEN": "EXISTS (SELECT FROM pg_catalog.pg_listening_channels())",
    "advisory lock": "EXISTS (SELECT FROM pg_catalog.pg_locks "
    "WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid())",
    "work_mem": "pg_catalog.current_setting('work_mem') = '65kB'",
    "search_path": "pg_catalog.current_setting('search_path') = 'pg_temp'",
    "read only": "pg_catalog.current_setting('default_transaction_read_only') = 'on'",
    "timeout": "pg_catalog.current_setting('statement_timeout') != '0'",
}
_LOOK = text("SELECT " + ", ".join(_LEFT.values()))


def look(desk: Desk) -> None:
    """Note what an earlier check-out has left on the connection."""
    [found] = desk.connection.execute(_LOOK).all()
    left = tuple(name for name, there in zip(_LEFT, found, strict=True) if there)
    desk.record.ops.append(Look(left))
