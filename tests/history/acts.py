"""The steps of which a random program is made, on a session or a bare connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from desk import Abandoned
from dirt import DIRT, look
from entries import TENANTS, Entry
from ledger import Refusal
from reading import (
    reach,
    read_core,
    read_core_of_all,
    read_cursor,
    read_driver,
    read_orm,
    read_orm_of_all,
    read_stream,
    read_text,
)
from sqlalchemy import select, text
from writing import savepoint, write

from tenantguard import CrossTenantError, tenant_context
from tenantguard.context import no_tenant
from tenantguard.errors import IsolationError, TenantNotSetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from desk import Desk


def nest(desk: Desk) -> None:
    """Act for another tenant while the transaction is open."""
    other = desk.rng.choice([tenant for tenant in TENANTS if tenant != desk.tenant])
    step = desk.rng.choice((read_core_of_all, read_orm_of_all, read_text, read_cursor))
    _open(desk)
    with tenant_context(other):
        _must_refuse(desk, step, CrossTenantError, "another tenant in an open transaction")


def leave(desk: Desk) -> None:
    """Act for no tenant while the transaction is open."""
    step = desk.rng.choice((read_core_of_all, read_text, read_cursor))
    _open(desk)
    with no_tenant():
        _must_refuse(desk, step, IsolationError, "no tenant in an open transaction")


def _open(desk: Desk) -> None:
    # Before its first statement a transaction is nobody's.
    desk.connection.execute(select(Entry.id).limit(1)).all()


def _must_refuse(
    desk: Desk, step: Callable[[Desk], None], error: type[Exception], attempt: str
) -> None:
    try:
        step(desk)
    except (error, TenantNotSetError):
        desk.record.ops.append(Refusal(attempt, refused=True))
    else:
        desk.record.ops.append(Refusal(attempt, refused=False))


def wait_too_long(desk: Desk) -> None:
    """Run into a statement timeout."""
    desk.connection.execute(text("SET LOCAL statement_timeout = '2ms'"))
    desk.connection.execute(text("SELECT pg_sleep(5)"))


def invalidate(desk: Desk) -> None:
    desk.record.ended = "invalidated"
    desk.connection.invalidate()
    raise Abandoned


def terminate(desk: Desk) -> None:
    if desk.disturber:
        desk.disturber.terminate(desk.rng)


def cancel(desk: Desk) -> None:
    if desk.disturber:
        desk.disturber.cancel(desk.rng)


def soil(desk: Desk) -> None:
    """Leave something on the connection; it has to be the transaction's last step."""
    desk.soiled = True
    dirt = desk.rng.choice(DIRT)
    name = f"_pg3_{desk.rng.randrange(10_000, 10**9)}"
    desk.connection.execute(text(dirt.format(tenant=desk.rng.choice(TENANTS), name=name)))


_STEPS: dict[Callable[[Desk], None], int] = {
    write: 40,
    savepoint: 8,
    read_core: 8,
    read_core_of_all: 8,
    read_orm: 8,
    read_orm_of_all: 8,
    read_text: 8,
    read_driver: 5,
    read_cursor: 5,
    read_stream: 5,
    reach: 6,
    nest: 3,
    leave: 2,
}
_DISTURBANCES: dict[Callable[[Desk], None], float] = {
    wait_too_long: 0.004,
    invalidate: 0.008,
    terminate: 0.015,
    cancel: 0.02,
}


def act(desk: Desk) -> None:
    """Run a random program's steps."""
    rng = desk.rng
    if desk.first and rng.random() < 0.3:
        look(desk)
    for step in rng.choices(list(_STEPS), weights=list(_STEPS.values()), k=rng.randint(1, 4)):
        for disturb, chance in _DISTURBANCES.items():
            if desk.disturber and rng.random() < chance / 2:
                disturb(desk)
        step(desk)
    if rng.random() < 0.08:
        soil(desk)
