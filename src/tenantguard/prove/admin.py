"""Whether the admin's login can prove anything, and what it lacks if not."""

# ruff: noqa: S608  (statements are put together from escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.doctor.subject import reason_of
from tenantguard.errors import ConfigurationError, sqlstate
from tenantguard.rls.names import literal

if TYPE_CHECKING:
    from tenantguard.prove.session import Session
    from tenantguard.rls.step import Target

__all__ = ["check_admin", "reason_with_mend"]

_INSUFFICIENT_PRIVILEGE = "42501"


def check_admin(session: Session, application: str, tables: list[Target]) -> None:
    """Refuse a login that can make no row, or that cannot become the *application*.

    Raises:
        ConfigurationError: If it is no superuser's, and either owns none of *tables* or may not
            SET ROLE.
    """
    if not (session.impersonates or _owns_some(session, tables)):
        raise ConfigurationError(
            "The admin's login is no superuser's and owns none of the tables, so it can prove "
            "nothing. Give --admin-url a superuser's address, or that of the tables' owner, to "
            f"whom {application} has to be granted."
        )
    with session.undone():
        if session.attempt("; ".join(session.as_application())).error is not None:
            raise ConfigurationError(
                f"The admin's login cannot act as {application}. Give --admin-url a superuser's "
                "address, or grant that role to the owner's login."
            )


def _owns_some(session: Session, tables: list[Target]) -> bool:
    """Return whether the admin owns one of *tables*, or none of them is there."""
    named = ", ".join(f"({literal(schema)}, {literal(name)})" for schema, name in tables)
    return bool(
        session.one(
            "SELECT coalesce(bool_or(pg_catalog.pg_has_role(k.relowner, 'USAGE')), true) "
            "FROM pg_catalog.pg_class k JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace "
            f"WHERE (n.nspname, k.relname) IN ({named})"
        )
    )


def reason_with_mend(error: Exception) -> str:
    """Return *error* in words, and who may do what was refused."""
    if sqlstate(error) != _INSUFFICIENT_PRIVILEGE:
        return reason_of(error)
    return (
        f"{reason_of(error)} The admin's login may not make or change what this table needs. Give "
        "--admin-url a superuser's address, or let its login own the table and those it refers to."
    )
