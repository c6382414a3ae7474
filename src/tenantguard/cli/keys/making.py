"""Making the keysets of tenants that have none, each tenant's in a transaction of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from tenantguard.cli.keys.rows import key_target
from tenantguard.doctor.subject import reason_of
from tenantguard.errors import ConfigurationError, TenantGuardError, sqlstate
from tenantguard.rls.names import plain_literal, qualified, quote

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Engine

    from tenantguard.guard import TenantGuard

__all__ = ["Made", "make_keys", "writing_role"]

_ITS_OWN = ("40",)
"""Classes of SQLSTATE that say something of one transaction; others would meet the next too."""

_ACTS = {"INSERT": "add", "UPDATE": "change"}

_AS_IT_IS = "SET LOCAL row_security = off"
"""What a policy would filter is an error then."""


@dataclass(slots=True, repr=False)
class Made:
    """What became of the tenants that had no keys.

    Attributes:
        made: How many have keys now.
        failed: The ids of those that do not, by the reason.
        stopped: Why the others were not tried.
    """

    made: int = 0
    failed: dict[str, list[str]] = field(default_factory=dict)
    stopped: str | None = None


def writing_role(guard: TenantGuard, engine: Engine, privilege: str = "INSERT") -> str:
    """Return the statement with which a transaction may write keysets of every tenant.

    Args:
        guard: Whose roles and table of keys they are.
        engine: With the admin address.
        privilege: What the transaction needs beside SELECT.

    Raises:
        ConfigurationError: If the engine's login may not.
    """
    for statement in (_AS_IT_IS, f"SET LOCAL ROLE {quote(guard.roles.maintenance)}"):
        if _may_write(guard, engine, statement, privilege):
            return statement
    raise ConfigurationError(
        f"The role of the admin address may not {_ACTS[privilege]} keys of all tenants. Give the "
        "address of a superuser, or of a login that is granted the maintenance role."
    )


def make_keys(guard: TenantGuard, engine: Engine, role: str, tenants: Iterable[str]) -> Made:
    """Make the keysets of *tenants*; one that fails does not keep others from theirs."""
    result = Made()
    for tenant in tenants:
        try:
            with engine.begin() as connection:
                connection.exec_driver_sql(role)
                guard.create_keys(connection, tenant)
            result.made += 1
        except TenantGuardError as error:
            result.failed.setdefault(str(error), []).append(tenant)
        except DBAPIError as error:
            if not (sqlstate(error) or "").startswith(_ITS_OWN):
                result.stopped = _end(error)
                break
            result.failed.setdefault(reason_of(error), []).append(tenant)
    return result


def _end(error: DBAPIError) -> str:
    if sqlstate(error) is None:
        return f"The connection was lost ({type(error.orig).__name__})."
    return reason_of(error)


def _may_write(guard: TenantGuard, engine: Engine, statement: str, privilege: str) -> bool:
    with engine.connect() as connection:
        try:
            connection.exec_driver_sql(statement)
        except DBAPIError:
            # The role does not exist, or the login may not take it.
            return False
        return _writes(connection, guard, privilege, restricted=statement != _AS_IT_IS)


def _writes(connection: Connection, guard: TenantGuard, what: str, *, restricted: bool) -> bool:
    """Return whether the current role may; *restricted*: by a policy that lets it see all."""
    table = f"{plain_literal(qualified(key_target(guard)))}::regclass"
    question = (
        f"SELECT pg_catalog.has_table_privilege({table}, 'SELECT') "
        f"AND pg_catalog.has_table_privilege({table}, '{what}') "
        f"AND ({restricted} OR NOT pg_catalog.row_security_active({table}))"
    )
    options = {"no_parameters": True}
    return bool(connection.exec_driver_sql(question, execution_options=options).scalar())
