"""Transactions in which row-level security shows one tenant's rows, and that tenant's keys."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import column, text
from sqlalchemy.exc import DBAPIError

from tenantguard.classification import SETTING
from tenantguard.errors import ConfigurationError, sqlstate
from tenantguard.rls.generate import LOCK_TIMEOUT
from tenantguard.rls.names import plain_literal, qualified, target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, Engine
    from sqlalchemy.types import TypeEngine

    from tenantguard.catalog import Entry
    from tenantguard.crypto.tenant_keys import TenantKeys

__all__ = ["ENCRYPTING", "Access", "Run"]

ENCRYPTING = "tenantguard.encrypting"
"""The setting under which the triggers of a migration leave both columns as they are written."""

_NOT_A_MEMBER = ("42501", "22023")
"""SQLSTATE of a role that may not be taken, or does not exist."""

_ENTER = text(
    "SELECT pg_catalog.set_config('lock_timeout', :patience, true), "
    "pg_catalog.set_config('row_security', 'on', true), "
    "pg_catalog.set_config('role', :role, true), "
    f"pg_catalog.set_config('{SETTING}', :tenant, true), "
    f"pg_catalog.set_config('{ENCRYPTING}', 'on', true)"
)


class Run:
    """Runs SQL in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __call__(
        self,
        statement: str,
        values: Mapping[str, Any] | None = None,
        types: Sequence[TypeEngine[Any] | None] = (),
    ) -> Sequence[Any]:
        """Return the rows of *statement*; *types* are its columns', if the driver's do not do."""
        sent: Any = text(statement)
        if types:
            named = (column(f"c{at}", type_) for at, type_ in enumerate(types))
            sent = sent.columns(*named)
        return self.connection.execute(sent, values).fetchall()

    def count(self, statement: str, values: Mapping[str, Any]) -> int:
        """Return how many rows *statement* has changed."""
        return self.connection.execute(text(statement), values).rowcount


@dataclass(frozen=True, slots=True, repr=False)
class Access:
    """How one tenant's rows are reached.

    Attributes:
        engine: Of a login that may take *role*; without any lock.
        role: The role that the statements run as; policies hold for it.
        keys: Returns a tenant's keys, given a transaction of its own, the canonical text of its id,
            and whether to make them if it has none.
    """

    engine: Engine
    role: str
    keys: Callable[[Connection, str, bool], TenantKeys]

    @contextmanager
    def transaction(self, tenant: str) -> Iterator[Run]:
        """Yield what runs SQL as *role* for *tenant*; it is committed at the end.

        Raises:
            ConfigurationError: If the login may not take the role.
        """
        with self.engine.begin() as connection:
            self._enter(connection, tenant)
            yield Run(connection)

    def keys_of(self, entry: Entry, tenant: str, *, create: bool = False) -> TenantKeys:
        """Return *tenant*'s keys, once it is certain that policies hold on *entry*'s table.

        Raises:
            ConfigurationError: If they do not.
            KeyUnavailableError: If the keys cannot be read, unwrapped or made.
        """
        with self.transaction(tenant) as run:
            self._require_policies(run, entry)
            return self.keys(run.connection, tenant, create)

    def _require_policies(self, run: Run, entry: Entry) -> None:
        table = plain_literal(qualified(target_of(entry))).replace(":", "\\:")
        if not run(f"SELECT pg_catalog.row_security_active(CAST({table} AS regclass))")[0][0]:
            raise ConfigurationError(
                f"Row-level security does not hold on table {entry.fullname} for the role "
                f"{self.role!r}, so another tenant's rows could be reached. Run `tenantguard rls "
                "apply` first."
            )

    def _enter(self, connection: Connection, tenant: str) -> None:
        values = {
            "patience": LOCK_TIMEOUT,
            "role": self.role,
            "tenant": tenant,
        }
        try:
            connection.execute(_ENTER, values)
        except DBAPIError as error:
            if sqlstate(error) not in _NOT_A_MEMBER:
                raise
        else:
            return
        raise ConfigurationError(
            f"The role of the admin address may not act as {self.role!r}, for which the policies "
            "hold. Give the address of a superuser, or of a login that is granted that role and "
            "the maintenance role."
        )
