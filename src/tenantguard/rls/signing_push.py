"""Putting the keys of the file into the database that verifies with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import TIMESTAMP, Column, LargeBinary, MetaData, Table, Text, delete, insert, select
from sqlalchemy.exc import DBAPIError

from tenantguard.errors import ConfigurationError, sqlstate
from tenantguard.rls.signed import blocks, signing_target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Engine

    from tenantguard.catalog import Catalog

__all__ = ["Pushed", "SecretKey", "push_signing_keys"]

_UNDEFINED_TABLE = "42P01"


class SecretKey(Protocol):
    """A key as its file has it."""

    @property
    def id(self) -> str:
        """What names the key, eight characters."""

    @property
    def secret(self) -> bytes:
        """The key itself, up to 64 bytes."""

    @property
    def created(self) -> str:
        """When it was made, in ISO 8601."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """The ids of the keys that the database got, lost, and had already."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[str, ...]

    @property
    def changes(self) -> bool:
        """Whether the database has other keys now, or would have."""
        return bool(self.added or self.removed)


def push_signing_keys(
    engine: Engine,
    catalog: Catalog,
    keys: Mapping[str, SecretKey],
    *,
    dry_run: bool = False,
    only_add: bool = False,
) -> Pushed:
    """Let *engine*'s database have *keys* and no others, in one transaction.

    Args:
        engine: Of the table's owner or a superuser.
        catalog: The application's tables.
        keys: Those of the file, by id.
        dry_run: Say what would be done, and do nothing.
        only_add: Leave the others.

    Raises:
        ConfigurationError: If there is no table for them, or the role may not write it.
    """
    table = _table(catalog)
    try:
        with engine.begin() as connection:
            pushed = _difference(connection, table, keys, only_add=only_add)
            if pushed.changes and not dry_run:
                _push(connection, table, [keys[name] for name in pushed.added], pushed)
            return pushed
    except DBAPIError as error:
        # The driver's error could show the keys.
        raise _refused(sqlstate(error)) from None


def _difference(
    connection: Connection, table: Table, keys: Mapping[str, SecretKey], *, only_add: bool
) -> Pushed:
    wanted = {name: blocks(key.secret) for name, key in keys.items()}
    columns = (table.c.id, table.c.inner_block, table.c.outer_block)
    there = {row[0]: (bytes(row[1]), bytes(row[2])) for row in connection.execute(select(*columns))}
    added = [name for name in wanted if there.get(name) != wanted[name]]
    removed = [] if only_add else sorted(set(there) - set(wanted))
    return Pushed(tuple(added), tuple(removed), tuple(name for name in wanted if name not in added))


def _push(connection: Connection, table: Table, added: list[SecretKey], pushed: Pushed) -> None:
    gone = [*pushed.removed, *pushed.added]
    connection.execute(delete(table).where(table.c.id.in_(gone)))
    if added:
        connection.execute(insert(table), [_row(key) for key in added])


def _row(key: SecretKey) -> dict[str, Any]:
    inner, outer = blocks(key.secret)
    created = datetime.fromisoformat(key.created)
    return {"id": key.id, "inner_block": inner, "outer_block": outer, "created": created}


def _table(catalog: Catalog) -> Table:
    schema, name = signing_target(catalog)
    return Table(
        name,
        MetaData(),
        Column("id", Text),
        Column("inner_block", LargeBinary),
        Column("outer_block", LargeBinary),
        Column("created", TIMESTAMP(timezone=True)),
        schema=schema,
    )


def _refused(code: str | None) -> ConfigurationError:
    if code == _UNDEFINED_TABLE:
        return ConfigurationError(
            "The database has no table of signing keys. Run `tenantguard rls apply` first."
        )
    return ConfigurationError(
        f"The signing keys could not be put into the database ({code or 'no connection'}). Give "
        "the address of the table's owner or of a superuser."
    )
