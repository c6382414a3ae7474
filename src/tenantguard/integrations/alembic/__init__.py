"""Alembic: operations for row-level security, seen by autogenerate, and safe data statements.

`env.py` calls `configure(guard, …)` in place of `context.configure(…)`. Importing this registers
the operations on `op`.
"""

from tenantguard.integrations.alembic import (
    columns,
    data,
    encrypting,
    keys,
    objects,
    partitioned,
    policies,
    privileges,
    requiring,
    transactions,
)
from tenantguard.integrations.alembic.configure import configure
from tenantguard.integrations.alembic.missing import missing_operations

__all__ = [
    "columns",
    "configure",
    "data",
    "encrypting",
    "keys",
    "missing_operations",
    "objects",
    "partitioned",
    "policies",
    "privileges",
    "requiring",
    "transactions",
]
