"""Reading all rows of tables for a command, or refusing to."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from tenantguard.doctor import Absence, Subject
from tenantguard.doctor.eyes import Eyes
from tenantguard.errors import ConfigurationError, sqlstate
from tenantguard.keytable import KEY_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Engine

    from tenantguard.guard import TenantGuard
    from tenantguard.rls.state import Run

__all__ = ["open_eyes", "seen_whole"]

_NOT_NEEDED = Absence("not needed", chosen=True)
_NOT_MIGRATED = ("42P01", "42703")
"""SQLSTATE of a table or a column that is not there."""


def open_eyes(guard: TenantGuard, engine: Engine, targets: Iterable[tuple[str, str]]) -> Eyes:
    """Return eyes that see all rows of *targets*.

    Raises:
        ConfigurationError: If rows are hidden.
        CouldNotLookError: If the database cannot be reached.
    """
    eyes = Eyes(_subject(guard, engine), targets)
    for reason in eyes.missed():
        raise ConfigurationError(reason)
    return eyes


@contextmanager
def seen_whole(
    guard: TenantGuard, engine: Engine, targets: Iterable[tuple[str, str]]
) -> Iterator[Run]:
    """Yield a function that runs SQL in a read-only transaction that sees all rows of *targets*.

    Raises:
        ConfigurationError: If rows are hidden, or a table or column of the models is missing.
        CouldNotLookError: If the database cannot be reached.
    """
    eyes = open_eyes(guard, engine, targets)
    try:
        with eyes.transaction() as run:
            yield run
    except DBAPIError as error:
        if sqlstate(error) not in _NOT_MIGRATED:
            raise
    else:
        return
    raise ConfigurationError(
        f"The database lacks a table or column of the models, or {KEY_TABLE}. Run your "
        "migrations, then `tenantguard rls apply`."
    )


def _subject(guard: TenantGuard, engine: Engine) -> Subject:
    return Subject(
        catalog=guard.catalog,
        roles=guard.roles,
        mode=guard.mode,
        application=_NOT_NEEDED,
        admin=engine,
        engines=_NOT_NEEDED,
        is_protected=guard.protects,
    )
