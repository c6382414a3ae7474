"""The channel that those who change keys notify, and those who follow them listen to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.binding.literal import sql_literal
from tenantguard.keytable import KEY_TABLE
from tenantguard.rls.names import DEFAULT_SCHEMA, object_name

if TYPE_CHECKING:
    from tenantguard.catalog import Catalog

__all__ = ["channel_of", "telling"]


def channel_of(catalog: Catalog) -> str:
    """Return the channel of *catalog*'s table of keys: each schema's is another.

    PostgreSQL keeps the channels of different databases apart.
    """
    schema = catalog.key_table.schema or DEFAULT_SCHEMA
    return KEY_TABLE if schema == DEFAULT_SCHEMA else object_name(KEY_TABLE, schema)


def telling(catalog: Catalog) -> str:
    """Return the statement that tells, when its transaction commits, that keys have changed.

    Every role of the database can listen, so it says neither whose nor which.
    """
    return f"SELECT pg_catalog.pg_notify({sql_literal(channel_of(catalog))}, '')"
