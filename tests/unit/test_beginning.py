"""What a driver's connection sends to begin a transaction, and when it cleans itself."""

from __future__ import annotations

from typing import Any

import pytest

from tenantguard import CrossTenantError
from tenantguard.binding.state import (
    _ANEW,
    _NOTHING_PREPARED_BY_SQL,
    UNBOUND,
    Binding,
    ConnectionState,
)

SCRUB = "RESET ALL"


class Connection(ConnectionState):
    """A connection's state with a tenant that a test sets."""

    active: str | None

    def __init__(self, **options: Any) -> None:
        self.active = "a"
        binding = Binding(
            tenant=lambda: self.active,
            unknown=lambda _: False,
            answered=lambda *_: None,
            registry_query=str,
            vouches=lambda _: True,
        )
        super().__init__(binding, [SCRUB], **options)

    def starts(self, command: str | None = "BEGIN", *, apart: bool = True) -> list[str]:
        """Begin a transaction; return what was sent."""
        beginning = self.begin(command, apart=apart)
        assert self.bound is UNBOUND
        self.begun(beginning, 0)
        assert self.bound == self.active
        return beginning.commands


def signed(tenant: str) -> str:
    return f"enter {tenant}"


def test_each_check_out_is_cleaned_once() -> None:
    """Also for the tenant that had the connection before; a change of tenant cleans again."""
    connection = Connection()
    for _ in range(2):
        connection.check_out()
        assert SCRUB in connection.starts()
        assert SCRUB not in connection.starts()
    connection.active = "b"
    assert SCRUB in connection.starts()
    assert SCRUB not in connection.starts()


def test_a_pooled_connection_is_cleaned_each_time() -> None:
    """Whoever had the server's connection last; and what was prepared there is looked for."""
    connection = Connection(pooled=True)
    connection.check_out()
    for _ in range(2):
        sent = connection.starts()
        assert SCRUB in sent
        assert _NOTHING_PREPARED_BY_SQL in sent


def test_what_was_prepared_is_looked_for_where_it_may_be() -> None:
    """After text of an earlier check-out, or of an earlier tenant; not before the first text."""
    connection = Connection()
    connection.check_out()
    connection.check(in_transaction=False, autocommit=False)
    assert _NOTHING_PREPARED_BY_SQL not in connection.starts()
    connection.active = "b"
    assert _NOTHING_PREPARED_BY_SQL in connection.starts()
    connection.check_out()
    assert _NOTHING_PREPARED_BY_SQL in connection.starts()
    connection.check_out()
    assert _NOTHING_PREPARED_BY_SQL not in connection.starts()
    connection.active = "a"
    assert _NOTHING_PREPARED_BY_SQL not in connection.starts()


@pytest.mark.parametrize("entry", [None, signed])
def test_a_begun_transaction_is_begun_anew_for_a_signature(entry: Any) -> None:
    """Once, and not where text has ended the transaction; without one only the scrub does."""
    connection = Connection(entry=entry)
    connection.check_out()
    assert connection.starts(None).count(_ANEW) == 1
    assert connection.starts(None).count(_ANEW) == (0 if entry is None else 1)
    assert connection.starts(None, apart=False).count(_ANEW) == 0


def test_who_asked_before_is_forgotten() -> None:
    """The author of a statement that was not sent has no say in what comes next."""
    connection = Connection()
    connection.caller = "b"
    connection.check_out()
    assert connection.tenant() == "a"
    connection.caller, connection.ends = "b", True
    connection.check(in_transaction=False, autocommit=False)
    assert connection.tenant() == "a"
    connection.caller = "b"
    with pytest.raises(CrossTenantError, match="another context"):
        connection.tenant()
