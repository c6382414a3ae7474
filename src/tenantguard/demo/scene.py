"""What a check works with, and how it says what it saw."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from tenantguard.catalog import SETTING
from tenantguard.context import tenant_context
from tenantguard.demo.access import Access
from tenantguard.demo.data import PRACTICES
from tenantguard.demo.stage import Stage
from tenantguard.errors import sqlstate

__all__ = ["NotSeenError", "Result", "Scene", "expect", "no_answer", "pairs", "refused"]

_B = PRACTICES[1].id
# Connection, authorization, database, resources, shutdown: the server could not be asked.
_CLASSES_OF_NO_ANSWER = ("08", "28", "3D", "53", "57")


class NotSeenError(Exception):
    """The check looked, and did not see what it must see."""


@dataclass(frozen=True, slots=True)
class Result:
    """One check's outcome; `unknown` means that it could not look."""

    name: str
    status: Literal["ok", "failed", "unknown"]
    seen: str


@dataclass(frozen=True, slots=True)
class Scene:
    """What a check works with: the stage and a protected engine of the application's role."""

    stage: Stage
    access: Access

    @property
    def models(self) -> Any:
        """The example's models."""
        return self.stage.models

    @contextmanager
    def session(self, tenant: UUID) -> Iterator[Session]:
        """Yield a protected session of *tenant*; nothing is committed."""
        with tenant_context(tenant), self.access.session() as session:
            yield session

    @contextmanager
    def connection(self, tenant: UUID) -> Iterator[Connection]:
        """Yield a protected connection of *tenant*; nothing is committed."""
        with tenant_context(tenant), self.access.connect() as connection:
            yield connection

    @contextmanager
    def bare(self, tenant: UUID | None) -> Iterator[Callable[..., Any]]:
        """Yield how to send SQL as the application's role without the first lock.

        The engine is one that no guard has seen; nothing is committed.
        """
        with self.access.to(self.stage.application).connect() as connection:
            if tenant is not None:
                values = {"name": SETTING, "tenant": str(tenant)}
                connection.execute(text("SELECT set_config(:name, :tenant, true)"), values)
            yield lambda query, **values: connection.execute(text(query), values)

    def patients(self) -> list[int]:
        """Return the number of a patient of practice A, and of one of practice B."""
        found = self.stage.first(self.models.Patient)
        expect("patients of both practices exist", actual=min(found), more_than=0)
        return found

    def fingerprint(self) -> list[str]:
        """Return a digest of all rows of practice B, table by table, as the superuser sees them."""
        tables = ("practices", "users", "patients", "orders", "order_items")
        with self.stage.admin.connect() as connection:
            return [str(connection.scalar(_digest(name), {"tenant": str(_B)})) for name in tables]


def _digest(table: str) -> Any:
    key = "id" if table == "practices" else "tenant_id"
    return text(
        f"SELECT count(*) || ':' || md5(string_agg(t::text, '|' ORDER BY t.id)) FROM {table} AS t "  # noqa: S608
        f"WHERE t.{key}::text = :tenant"
    )


def expect(what: str, *, actual: Any, equal: Any = None, more_than: Any = None) -> Any:
    """Return *actual* if it is as expected.

    Raises:
        NotSeenError: If not.
    """
    if more_than is not None and not actual > more_than:
        raise NotSeenError(f"{what}: expected more than {more_than}, saw {actual}")
    if equal is not None and actual != equal:
        raise NotSeenError(f"{what}: expected {_shown(equal)}, saw {_shown(actual)}")
    return actual


def pairs(rows: Iterable[Any]) -> dict[Any, Any]:
    """Return rows of two columns as a dictionary."""
    return {row[0]: row[1] for row in rows}


def _shown(value: Any) -> str:
    """Return a number as it is, and of anything else, which may hold tenants, only its kind."""
    return str(value) if isinstance(value, int) else f"another {type(value).__name__}"


@contextmanager
def refused(what: str, wanted: type[Exception] | str, *, never: str = "") -> Iterator[None]:
    """Expect an error of ours, or PostgreSQL's by its code, whose text does not have *never*.

    Raises:
        NotSeenError: If nothing was raised, or something else.
    """
    try:
        yield
    except Exception as error:
        if never and never in str(error):
            raise NotSeenError(f"{what}: refused, but the error quotes the value") from None
        if sqlstate(error) == wanted or (not isinstance(wanted, str) and isinstance(error, wanted)):
            return
        if no_answer(error):
            raise
        raise NotSeenError(f"{what}: refused, but with {type(error).__name__}") from error
    raise NotSeenError(f"{what}: was not refused")


def no_answer(error: Exception) -> bool:
    """Return whether the server could not be asked."""
    no_answer = isinstance(error, OperationalError | InterfaceError | OSError)
    return no_answer or (sqlstate(error) or "").startswith(_CLASSES_OF_NO_ANSWER)
