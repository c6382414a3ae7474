"""Proving every table that holds tenants' rows, one transaction each, none of them committed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tenantguard.catalog import Kind
from tenantguard.doctor.subject import reason_of
from tenantguard.errors import ConfigurationError
from tenantguard.prove.database import Database
from tenantguard.prove.proof import Proof
from tenantguard.prove.session import Session
from tenantguard.rls.generate import entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Connection, Engine

    from tenantguard.catalog import Catalog, Entry, Roles
    from tenantguard.prove.proof import Samples
    from tenantguard.rls.signed import SigningKey

__all__ = ["prove", "wanted"]


def _nothing(_done: int, _total: int, _table: str) -> None:
    """Show no progress."""


def prove(
    engine: Engine,
    catalog: Catalog,
    roles: Roles,
    *,
    tables: Iterable[str] = (),
    samples: Samples = "invent",
    signing_key: SigningKey | None = None,
    progress: Callable[[int, int, str], None] = _nothing,
) -> Proof:
    """Try to cross tenants as the application, on every table that holds tenants' rows.

    Each table has one transaction, which is rolled back; a table stays locked for that long, so
    this is for a database that nobody waits for.

    Args:
        engine: A superuser's, or that of the tables' owner if it may SET ROLE to the application.
        catalog: The application's tables.
        roles: The roles that the policies speak of.
        tables: Names of tables, with a schema where the models have one; all if there are none.
        samples: Whether rows are invented, or rows that are there are taken.
        signing_key: The key that signs, where the setting is signed.
        progress: Told how many tables are done, of how many, and the next one's name.

    Raises:
        ConfigurationError: If there is no such table, the admin's login cannot prove anything, or
            the connection is lost.
    """
    catalog.check()
    chosen = wanted(catalog, tuple(tables))
    with engine.connect() as connection, _unpooled(connection):
        session = Session(connection.connection.driver_connection, roles.application)
        database = Database(session, catalog, roles, samples, signing_key)
        found = []
        for done, entry in enumerate(chosen):
            progress(done, len(chosen), entry.fullname)
            found.append(database.of(entry))
        return Proof(tuple(found), tuple(database.left_over()))


@contextmanager
def _unpooled(connection: Connection) -> Iterator[None]:
    """Keep *connection*, whose driver the block uses, out of the pool; its errors are one line."""
    driver: Any = connection.dialect.loaded_dbapi
    try:
        yield
    except driver.Error as error:
        raise ConfigurationError(
            f"The tables were not all tried: {reason_of(error)} Nothing was kept. Check that the "
            "server runs and keeps the connection, then run it again."
        ) from None
    finally:
        # Prepared statements and settings are as they were left.
        connection.invalidate()


def wanted(catalog: Catalog, names: tuple[str, ...]) -> list[Entry]:
    """Return the tables to prove: those with *names*, or all that hold rows of tenants.

    Raises:
        ConfigurationError: If there is no such table.
    """
    known = {
        each.fullname: each
        for each in entries(catalog)
        if each.kind not in (Kind.SHARED, Kind.UNTENANTED)
    }
    for name in names:
        if name not in known:
            raise ConfigurationError(
                f"--table: no table {name!r} holds rows of tenants. `tenantguard tables` lists "
                "them."
            )
    return [each for name, each in known.items() if not names or name in names]
