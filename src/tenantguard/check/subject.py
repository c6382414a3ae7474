"""What the rules look at: the models, and the catalogs of a database."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import DBAPIError

from tenantguard.doctor.subject import is_lost
from tenantguard.errors import LOCK_NOT_AVAILABLE, sqlstate
from tenantguard.rls.generate import LOCK_TIMEOUT, entries
from tenantguard.rls.names import target_of
from tenantguard.rls.state import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from tenantguard.catalog import Catalog, Entry, Roles
    from tenantguard.rls.state import Run
    from tenantguard.rls.step import Target

__all__ = ["NoDatabaseError", "Subject", "connected"]

_T = TypeVar("_T")


class NoDatabaseError(Exception):
    """A rule asked a database, and none was given."""


@dataclass
class Subject:
    """The models, and a database if there is one.

    Attributes:
        catalog: The application's tables.
        roles: The roles that the policies speak of.
        run: Runs a statement in a transaction that is rolled back, as a role that may read the
            catalogs; None where only the models are looked at.
    """

    catalog: Catalog
    roles: Roles
    run: Run | None = None
    _answers: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def entries(self) -> list[Entry]:
        """What the database should have: the models' tables, and the table of keys if need be."""
        return entries(self.catalog)

    @cached_property
    def by_target(self) -> dict[Target, Entry]:
        """The entries by schema and name."""
        return {target_of(each): each for each in self.entries}

    @cached_property
    def version(self) -> int:
        """The server's version, such as 180004."""
        answer: int = self.ask(
            "SELECT to_json(pg_catalog.current_setting('server_version_num')::int)::text"
        )
        return answer

    def ask(self, question: str) -> Any:
        """Return the decoded JSON text that *question* answers with, asking each only once.

        Ask for all tables at once: a database with 1,000 of them is checked in seconds.

        Raises:
            NoDatabaseError: If only the models are looked at.
        """
        if self.run is None:
            raise NoDatabaseError
        if question not in self._answers:
            self._answers[question] = ask(self.run, question)
        return self._answers[question]

    def once(self, make: Callable[[Subject], _T]) -> _T:
        """Return what *make* makes of this subject, for as many rules as ask for the same.

        If it fails, it fails for all of them: waiting for a lock once is enough.
        """
        if make not in self._made:
            try:
                self._made[make] = (make(self), None)
            except Exception as error:
                self._made[make] = (None, error)
                raise
        made, failure = self._made[make]
        if failure is not None:
            raise failure
        return made  # type: ignore[no-any-return]


class _Running:
    """Runs statements on *connection*, until it is lost; waits for a lock only once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lost: DBAPIError | None = None

    def __call__(self, statement: str) -> Any:
        if self._lost is not None:
            raise self._lost
        try:
            # What one rule may not ask must not end the transaction of the others.
            with self._connection.begin_nested():
                result = self._connection.exec_driver_sql(
                    statement, execution_options={"no_parameters": True}
                )
                return result.fetchall() if result.returns_rows else ()
        except DBAPIError as error:
            self._note(error)
            raise

    def _note(self, error: DBAPIError) -> None:
        if is_lost(error):
            # A rule may take it for its own failure; the next one then ends the check.
            self._lost = error
        elif sqlstate(error) == LOCK_NOT_AVAILABLE:
            # Who keeps a lock for so long keeps it for the other questions, too.
            self._connection.exec_driver_sql("SET LOCAL lock_timeout = '1ms'")


@contextmanager
def connected(engine: Engine, catalog: Catalog, roles: Roles) -> Iterator[Subject]:
    """Yield a subject that asks *engine*'s database, in one transaction, which is rolled back."""
    with engine.connect() as connection:
        run = _Running(connection)
        run(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        # Names in answers are qualified, whatever the role's search_path says.
        run("SET LOCAL search_path = pg_catalog")
        try:
            yield Subject(catalog, roles, run)
        finally:
            connection.rollback()
