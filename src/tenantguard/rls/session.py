"""Questions on a plain DBAPI connection, in a transaction that is rolled back."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tenantguard.rls.state import Run

__all__ = ["rolled_back"]


@contextmanager
def rolled_back(connection: Any) -> Iterator[Run]:
    """Yield a function that runs SQL on *connection* and returns its rows.

    The connection is idle afterwards, and nothing of the block is left, also under autocommit.
    """
    cursor = connection.cursor()

    def run(statement: str) -> Sequence[Any]:
        # Without parameters, drivers leave per cent signs alone.
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else ()

    explicit = bool(getattr(connection, "autocommit", False))
    try:
        if explicit:
            cursor.execute("BEGIN")
        yield run
    finally:
        if explicit:
            cursor.execute("ROLLBACK")
        else:
            connection.rollback()
        cursor.close()
