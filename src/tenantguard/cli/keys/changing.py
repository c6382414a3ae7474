"""Rows of `tenantguard_keys`, changed in batches; never over what another has changed meanwhile.

A batch is written in one transaction: wherever a run ends, each row is as before or as after, and
the next run goes on with the rows that are left.
"""

# ruff: noqa: S608  (statements are put together from quoted names and escaped literals)

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from tenantguard.binding.literal import sql_literal
from tenantguard.cli.keys.making import writing_role
from tenantguard.cli.keys.opening import require_answer
from tenantguard.cli.keys.rows import NO_SUCH_TENANT, key_target
from tenantguard.cli.keys.writing import LIVE, KeyRow, update_sql
from tenantguard.crypto.format import keyset_context
from tenantguard.crypto.keyring import provider_of
from tenantguard.errors import (
    ConfigurationError,
    KeyUnavailableError,
    UnknownTenantError,
    sqlstate,
)
from tenantguard.following import telling
from tenantguard.rls.names import qualified, quote, target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tenantguard.cli.keys.opening import Opened
    from tenantguard.cli.keys.writing import Change
    from tenantguard.crypto.rotation import Stored

__all__ = ["Changed", "KeyTable"]

_BATCH = 200
"""Rows of one transaction."""

_TIMEOUTS = "; ".join(
    f"SET LOCAL {name} = '{value}'"
    for name, value in (
        ("lock_timeout", "5s"),
        ("statement_timeout", "30s"),
        ("idle_in_transaction_session_timeout", "30s"),
    )
)
"""A row's time is at most so much before other processes can see the row."""

_TIME = "pg_catalog.to_char(k.rotated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')"

# PostgreSQL does not subtract infinite times.
_AGE = (
    "pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) "
    "- pg_catalog.date_part('epoch', coalesce(k.rotated_at, k.created_at))"
)

_OPTIONS = {"no_parameters": True}


@dataclass(slots=True)
class Changed:
    """What became of the rows.

    Attributes:
        done: How many were changed.
        kept: How many needed no change.
        overtaken: How many another had changed meanwhile; they are as that left them.
        unopened: How many keysets the key did not open.
    """

    done: int = 0
    kept: int = 0
    overtaken: int = 0
    unopened: int = 0


class KeyTable:
    """`tenantguard_keys` of all tenants, for a role that may change it.

    Raises:
        ConfigurationError: If the admin address may not, or the table is not there.
    """

    def __init__(self, own: Opened) -> None:
        self._own = own
        self.name = qualified(key_target(own.guard))
        try:
            self._begin = f"{writing_role(own.guard, own.engine, 'UPDATE')}; {_TIMEOUTS}"
        except DBAPIError as error:
            if sqlstate(error) != "42P01":
                raise
            raise ConfigurationError(
                "The database lacks tenantguard_keys. Run your migrations, then `tenantguard rls "
                "apply`."
            ) from None

    @contextmanager
    def transaction(self) -> Iterator[Callable[[str], Any]]:
        """Yield what runs SQL as the role that may, in one transaction."""
        with self._own.engine.begin() as connection:

            def run(statement: str) -> Any:
                return connection.exec_driver_sql(statement, execution_options=_OPTIONS)

            run(self._begin)
            yield run

    @contextmanager
    def changing(self) -> Iterator[Callable[[str], Any]]:
        """Do the same, and tell the processes that follow changes of keys when it commits."""
        with self.transaction() as run:
            run(telling(self._own.guard.catalog))
            yield run

    def ask(self, question: str) -> Sequence[Any]:
        """Return the rows of *question*, asked in a transaction of its own."""
        with self.transaction() as run:
            rows: Sequence[Any] = run(question).fetchall()
        return rows

    def count(self, condition: str) -> int:
        """Return for how many rows *condition* holds."""
        [[number]] = self.ask(f"SELECT count(*) FROM {self.name} k WHERE {LIVE} AND {condition}")
        return int(number)

    def canonical(self, tenant: str) -> str:
        """Return the canonical text of *tenant*'s id.

        Raises:
            KeyUnavailableError: If it is none that the registry could have.
        """
        catalog = self._own.guard.catalog
        try:
            return catalog.text(catalog.canonical(tenant))
        except UnknownTenantError:
            raise KeyUnavailableError("A row of tenantguard_keys is no tenant's.") from None

    def context(self, row: KeyRow) -> bytes:
        """Return what *row*'s keyset is bound to.

        Raises:
            KeyUnavailableError: If its tenant is none that the registry could have.
        """
        name = self.canonical(row.tenant).encode()
        return keyset_context(self._own.provider.environment, name, row.purpose)

    def of_tenant(self, tenant: str | None) -> str:
        """Return the condition that a row is *tenant*'s; without one, any tenant's.

        Raises:
            ConfigurationError: If it cannot be a tenant's id, or is nobody's.
        """
        if tenant is None:
            return "true"
        try:
            text = self.canonical(tenant)
        except KeyUnavailableError:
            raise ConfigurationError(
                "What --tenant names cannot be the id of a tenant: it does not have the type of "
                "the registry's primary key."
            ) from None
        condition = f"k.tenant_id = {sql_literal(text)}"
        if not (self.is_registered(text) or self._has_rows(condition)):
            raise ConfigurationError(NO_SUCH_TENANT)
        return condition

    def is_registered(self, tenant: str) -> bool:
        """Return whether the registry has *tenant*, whose id is canonical."""
        catalog = self._own.guard.catalog
        registry, key = target_of(catalog.registry), catalog.registry_key()[1]
        [[found]] = self.ask(
            f"SELECT EXISTS (SELECT FROM {qualified(registry)} r "
            f"WHERE r.{quote(key.name)} = {sql_literal(tenant)})"
        )
        return bool(found)

    def _has_rows(self, condition: str) -> bool:
        [[found]] = self.ask(f"SELECT EXISTS (SELECT FROM {self.name} k WHERE {condition})")
        return bool(found)

    def stored(self, row: KeyRow) -> Stored:
        """Return what the commands open *row*'s keyset with.

        Raises:
            KeyUnavailableError: If the guard lacks the key that wrapped it.
        """
        from tenantguard.crypto.rotation import Stored  # noqa: PLC0415  (loads Tink)

        provider = provider_of(self._own.provider, row.kek_uri)
        if provider is None:
            raise KeyUnavailableError("Another key-encryption key has wrapped the keyset.")
        return Stored(row.wrapped, row.check, provider.kek, self.context(row), row.purpose)

    def change(
        self,
        condition: str,
        make: Callable[[KeyRow], Change | None],
        *,
        also: str = "",
        progress: Callable[[int], object] = lambda _: None,
    ) -> Changed:
        """Put what *make* returns in the place of each keyset for which *condition* holds.

        Args:
            condition: SQL on a row, *k*.
            make: Returns None if the keyset stays; a `KeyUnavailableError` counts it as unopened.
            also: SQL that sets further columns.
            progress: Is told after each batch how many rows were looked at.
        """
        result, looked = Changed(), 0
        for rows in self._batches(condition):
            changes = [made for row in rows if (made := self._made(make, row, result))]
            if changes:
                self._write(changes, also, result)
            looked += len(rows)
            progress(looked)
        return result

    def rows(self, condition: str) -> Iterator[KeyRow]:
        """Yield the rows for which *condition* holds."""
        for rows in self._batches(condition):
            yield from rows

    def require_answer(self, uri: str) -> None:
        """Raise if the key *uri* of the guard's does not answer: then no row of it is damaged.

        Raises:
            KeyUnavailableError: If it does not.
        """
        provider = provider_of(self._own.provider, uri)
        if provider is not None:
            require_answer(provider)

    def _made(
        self, make: Callable[[KeyRow], Change | None], row: KeyRow, result: Changed
    ) -> Change | None:
        try:
            made = make(row)
        except KeyUnavailableError:
            for uri in (row.kek_uri, self._own.provider.uri):
                self.require_answer(uri)
            result.unopened += 1
            return None
        result.kept += made is None
        return made

    def _write(self, changes: list[Change], also: str, result: Changed) -> None:
        with self.changing() as run:
            changed = run(update_sql(self._own.guard.catalog, changes, also)).rowcount
        result.done += changed
        result.overtaken += len(changes) - changed

    def _batches(self, condition: str) -> Iterator[list[KeyRow]]:
        """Yield rows; no transaction is open meanwhile, for a key service may take its time."""
        after = ""
        while True:
            with self.transaction() as run:
                rows = self._batch(run, f"{condition}{after}")
            yield rows
            if len(rows) < _BATCH:
                return
            last = rows[-1]
            after = (
                f" AND (k.tenant_id, k.purpose) > ({sql_literal(last.tenant)}, "
                f"{sql_literal(last.purpose)})"
            )

    def _batch(self, run: Callable[[str], Any], condition: str) -> list[KeyRow]:
        rows = run(
            "SELECT k.tenant_id::text, k.purpose, k.generation, k.kek_uri, k.wrapped, "
            f"k.check_value, {_TIME}, {_AGE} "
            f"FROM {self.name} k WHERE {LIVE} AND {condition} "
            f"ORDER BY k.tenant_id, k.purpose LIMIT {_BATCH}"
        )
        # psycopg2 returns views of memory.
        return [
            KeyRow(tenant, purpose, count, uri, bytes(wrapped or b""), bytes(check or b""), *times)
            for tenant, purpose, count, uri, wrapped, check, *times in rows
        ]
