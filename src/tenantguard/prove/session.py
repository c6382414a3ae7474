"""One connection, whose transactions are never committed, as the admin or as the application."""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenantguard.catalog import SETTING
from tenantguard.errors import LOST, sqlstate
from tenantguard.rls.generate import LOCK_TIMEOUT
from tenantguard.rls.names import literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["STATEMENT_TIMEOUT", "Refusal", "Reply", "Session"]

STATEMENT_TIMEOUT = "30s"

_SAVEPOINT = "tenantguard_prove"
_PROOF = "tenantguard.proof"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error of PostgreSQL's: its code and the names in it, and never its text."""

    state: str
    constraint: str | None = None
    column: str | None = None
    table: str | None = None
    kind: str = ""

    def __str__(self) -> str:
        named = [
            f"{what} {name}"
            for what, name in (
                ("constraint", self.constraint),
                ("column", self.column),
                ("table", self.table),
            )
            if name
        ]
        return f"PostgreSQL refused ({', '.join([self.state or self.kind, *named])})"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a statement returned: rows, how many were affected, or the error."""

    rows: list[tuple[Any, ...]]
    count: int
    error: Refusal | None = None


class Session:
    """One connection of a driver's.

    Args:
        connection: The admin's DBAPI connection.
        application: The role that is tried.

    Attributes:
        proofs: For a signed setting, the setting that keeps each tenant's proof.
        impersonates: Whether the admin is a superuser, who can become the session's user.
        bypasses: Whether the admin sees rows whatever policies say.
    """

    def __init__(self, connection: Any, application: str) -> None:
        self._connection = connection
        if hasattr(connection, "prepare_threshold"):
            # Statements are sent several at a time, which cannot be prepared.
            connection.prepare_threshold = None
        self._cursor = connection.cursor()
        self._role = quote(application)
        self.proofs: Mapping[str, str] = {}
        [(self.impersonates, self.bypasses)] = self.run(
            "SELECT rolsuper, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
        )
        self._depth = 0

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Send *statement*, which may be several, and return the rows of the last one."""
        cursor = self._cursor
        cursor.execute(statement)
        # psycopg2 has the last result alone, and its cursor other methods.
        while not hasattr(cursor, "copy_expert") and cursor.nextset():
            pass
        return list(cursor.fetchall()) if cursor.description else []

    def one(self, statement: str) -> Any:
        """Return the first value that *statement* answers with."""
        return self.run(statement)[0][0]

    def attempt(self, statement: str) -> Reply:
        """Send *statement*; an error is part of the answer, and ends the savepoint it is in."""
        try:
            rows = self.run(statement)
        except Exception as error:  # noqa: BLE001  (a driver's, of which those that count are raised)
            return _refused(error)
        return Reply(rows, self._cursor.rowcount)

    def attempt_copy(self, statement: str) -> Reply:
        """Send a COPY … TO STDOUT of one column; each line is a row."""
        copied: list[tuple[Any, ...]] = []
        try:
            copied = [(line,) for line in self._copied(statement)]
        except Exception as error:  # noqa: BLE001  (a driver's, of which those that count are raised)
            return _refused(error)
        return Reply(copied, len(copied))

    @contextmanager
    def transaction(self, entering: str = "") -> Iterator[None]:
        """Run the block in a transaction of its own, which is rolled back.

        Nothing waits long for a lock. *entering* is sent in the same message as the begin.
        """
        # The driver may have begun one already.
        try:
            self.run(
                f"ROLLBACK; BEGIN; {entering} SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'; "
                f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'; SET CONSTRAINTS ALL DEFERRED"
            )
            yield
        finally:
            self._depth = 0
            self._connection.rollback()

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Undo what the block does, and who it was done as."""
        self._depth += 1
        name = f"{_SAVEPOINT}_{self._depth}"
        self.run(f"SAVEPOINT {name}")
        try:
            yield
        finally:
            self._depth -= 1
            # What was prepared outlives a rollback.
            self.run(f"ROLLBACK TO SAVEPOINT {name}; RELEASE SAVEPOINT {name}; DEALLOCATE ALL")

    def attempt_as(self, tenant: str, statement: str) -> Reply:
        """Send *statement* as the application for *tenant*, which it stays until that is undone."""
        return self.attempt("; ".join([self.bind(tenant), *self.as_application(), statement]))

    def one_as_admin(self, statement: str) -> Any:
        """Become the admin again, and return the first value that *statement* answers with."""
        return self.one("; ".join([*self.as_admin(), statement]))

    def as_application(self) -> list[str]:
        """Return what makes the application of the admin.

        A superuser becomes the session's user as well, which policies may ask for.
        """
        how = "SESSION AUTHORIZATION" if self.impersonates else "ROLE"
        return [f"SET LOCAL {how} {self._role}"]

    def as_admin(self) -> list[str]:
        """Return what takes that back."""
        back = "SESSION AUTHORIZATION DEFAULT" if self.impersonates else "ROLE NONE"
        return [f"SET LOCAL {back}"]

    def bind(self, tenant: str, *, proven: bool = True) -> str:
        """Return the statement that sets *tenant*, with its proof where one is asked for.

        Not *proven*, it names the tenant as injected SQL could, and the proof stays another's.
        """
        setting = f"SELECT set_config('{SETTING}', {literal(tenant)}, true)"
        if not (self.proofs and proven):
            return setting
        kept = self.proofs.get(tenant, "tenantguard_prove.none")
        proof = f"coalesce(current_setting('{kept}', true), '')"
        return f"{setting}, set_config('{_PROOF}', {proof}, true)"

    def _copied(self, statement: str) -> list[str]:
        if hasattr(self._cursor, "copy_expert"):
            written = io.StringIO()
            self._cursor.copy_expert(statement, written)
            return written.getvalue().splitlines()
        with self._cursor.copy(statement) as copy:
            return b"".join(bytes(each) for each in copy).decode().splitlines()


def _refused(error: Exception) -> Reply:
    """Return the reply that *error* is; raise it if it is none of the server's, or the last."""
    state = sqlstate(error)
    if state is None or state.startswith(LOST):
        raise error
    return Reply([], 0, _refusal(error, state))


def _refusal(error: BaseException, state: str) -> Refusal:
    told = getattr(error, "diag", None)
    constraint, column, table = (
        getattr(told, f"{each}_name", None) for each in ("constraint", "column", "table")
    )
    return Refusal(state, constraint, column, table, type(error).__name__)
