"""The functions of RQ's jobs: a worker imports them by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from practice import A, B

from tenantguard import current_actor, current_purpose, current_tenant, tenant_context, tenantless
from tenantguard.context import active_tenant

desk = SimpleNamespace(office=None, queue=None)
seen: list[Any] = []
LETTERS: dict[Any, str] = {A: "A", B: "B"}


def read() -> Any:
    return desk.office.names()


def begin() -> str:
    tenant = active_tenant()
    seen.append(("began", tenant and current_tenant()))
    return "nobody" if tenant is None else LETTERS[current_tenant()]


def fail() -> None:
    begin()
    raise ValueError("broken")


def leave() -> None:
    begin()
    raise SystemExit(3)


def leave_open() -> None:
    begin()
    tenant_context(current_tenant()).__enter__()


@tenantless("removes expired files")
def sweep() -> str:
    return "nobody" if active_tenant() is None else "somebody"


async def acting() -> tuple[Any, ...]:
    return current_actor(), current_purpose(), desk.office.names()


def third_time() -> Any:
    seen.append(current_tenant())
    if len(seen) < 3:
        raise ValueError
    return desk.office.names()


def enqueues() -> None:
    desk.queue.enqueue(tells)


def tells() -> None:
    seen.append(desk.office.names())


def succeeded(*_: Any) -> None:
    seen.append(("succeeded", current_tenant()))


def failed(*_: Any) -> None:
    seen.append(("failed", current_tenant()))


def stopped(*_: Any) -> None:
    seen.append(("stopped", current_tenant()))
