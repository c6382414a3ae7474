"""Telling PostgreSQL the tenant, on the driver's own BEGIN: one file a driver.

The driver's connection class is replaced by one that appends the tenant to the command with which
it starts a transaction anyway. So there is no additional round trip, and whatever runs on that
connection runs for the tenant: SQLAlchemy's statements, raw cursors and COPY alike.
"""

from tenantguard.binding.engine import bind_engine, refuse_driver
from tenantguard.binding.execution import ask
from tenantguard.binding.literal import sql_literal
from tenantguard.binding.state import AHEAD, Binding, registry_query

__all__ = [
    "AHEAD",
    "Binding",
    "ask",
    "bind_engine",
    "refuse_driver",
    "registry_query",
    "sql_literal",
]
