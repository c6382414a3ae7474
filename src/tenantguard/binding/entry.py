"""Entering a tenant with a signature that PostgreSQL verifies, instead of only naming it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CLOCK", "OURS", "PROCESS", "READABLE", "SERVER", "WRONG_TIME", "Entry", "not_begun"]

PROCESS = "pg_backend_pid"
CLOCK = "clock_timestamp"
READABLE = "track_activity_query_size"
SERVER = (PROCESS, CLOCK, READABLE)
"""What is asked of the server beside its settings."""

OURS = "TG"
"""The class of what `tenantguard_enter` refuses."""

WRONG_TIME = "TG004"
"""The clocks have moved apart since the connection was made; another one compares them anew."""

_PUSH = "Run `tenantguard rls signing push` with the owner's address."
_REASONS = {
    "TG001": f"The database does not have the key that signs the tenant. {_PUSH}",
    "TG003": f"The database has another key than the one that signs under its id. {_PUSH}",
    WRONG_TIME: "The clocks of application and server have moved apart. Try again: the next "
    "connection compares them anew.",
}


@dataclass(frozen=True, slots=True, repr=False)
class Entry:
    """How one connection enters tenants.

    Attributes:
        statement: Returns the SQL that enters a tenant, given the id of the server's process and
            its time in microseconds since 1970.
        process: That id.
        ahead: By how much the server's clock is ahead of ours, in microseconds.
        readable: How many bytes of a message other sessions can read in `pg_stat_activity`.
    """

    statement: Callable[[str, int, int], str]
    process: int
    ahead: int
    readable: int

    @classmethod
    def of(
        cls, statement: Callable[[str, int, int], str], server: Mapping[str, str], *, pooled: bool
    ) -> Entry:
        """Return how to enter on a connection that has just answered with *server*.

        Raises:
            ConfigurationError: If a pooler is between.
        """
        if pooled:
            raise ConfigurationError(
                "A pooler such as PgBouncer is between the application and PostgreSQL, so that the "
                "signed tenant cannot be bound to its connection. Connect directly, or leave out "
                "TenantGuard(signed_setting=True) and run `tenantguard rls apply`."
            )
        ahead = int(server[CLOCK]) - _now()
        return cls(statement, int(server[PROCESS]), ahead, int(server[READABLE]))

    def __call__(self, tenant: str) -> str:
        """Return the SQL that enters *tenant*, where no other session reads its signature."""
        return " " * self.readable + self.statement(tenant, self.process, _now() + self.ahead)


def not_begun(code: str | None) -> str:
    """Return the text of the error for PostgreSQL's refusal; its own would quote the tenant."""
    text = f"The transaction could not be begun for the tenant (SQLSTATE {code})."
    return " ".join((text, *filter(None, [_REASONS.get(code or "")])))


def _now() -> int:
    return time.time_ns() // 1000
