"""Which two tenants are tried, and how a transaction is entered in their names."""

# ruff: noqa: S608  (statements are put together from quoted names and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.prove.invent import NotProvableError
from tenantguard.rls.names import literal, qualified, quote
from tenantguard.rls.signed import enter_function, entry_token

if TYPE_CHECKING:
    from tenantguard.catalog import Catalog
    from tenantguard.prove.session import Session
    from tenantguard.prove.shape import Table
    from tenantguard.rls.signed import SigningKey

__all__ = ["KEPT", "entering", "existing_tenants"]

KEPT = tuple(f"tenantguard_prove.{name}" for name in ("first", "second", "third"))
"""Settings that keep the proofs of the tenants, for a signed setting."""


def existing_tenants(session: Session, table: Table, column: str) -> tuple[str, str]:
    """Return two tenants that have rows in *table*.

    Raises:
        NotProvableError: If there are none.
    """
    name, tenant = qualified(table.target), quote(column)
    found: list[str] = []
    for after in ("", " WHERE {tenant} > {last}"):
        where = after.format(tenant=tenant, last=literal(found[0])) if found else ""
        rows = session.run(f"SELECT {tenant}::text FROM {name}{where} ORDER BY {tenant} LIMIT 1")
        if not rows or rows[0][0] is None:
            raise NotProvableError(
                f"{'.'.join(table.target)} has rows of fewer than two tenants. Run without "
                "--samples existing, or against a database that has them."
            )
        found.append(rows[0][0])
    return found[0], found[1]


def entering(
    session: Session, catalog: Catalog, key: SigningKey | None, tenants: tuple[str, ...]
) -> str:
    """Return what has to be sent with the begin: a signature holds at a transaction's start only.

    The proofs stay in the server, each in a setting of the transaction.
    """
    if not catalog.signed:
        return ""
    if key is None:
        raise NotProvableError(
            "The setting is signed, and there is no key to sign with. Give the guard signing=."
        )
    [(process, at)] = session.run(
        "SELECT pg_backend_pid(), (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
    )
    entered = [
        f"SELECT {enter_function(catalog)}("
        f"{literal(entry_token(key, tenant, process=process, at=at))}); "
        f"SELECT set_config('{kept}', current_setting('tenantguard.proof'), true)"
        for tenant, kept in zip(tenants, KEPT, strict=True)
    ]
    return "; ".join([*session.as_application(), *entered, *session.as_admin(), ""])
