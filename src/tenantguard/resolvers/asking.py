"""Asking functions that may be asynchronous, with one logic for both."""

from collections.abc import Awaitable, Generator
from inspect import isawaitable
from typing import Any, cast

from tenantguard.context import TenantId

__all__ = ["Steps", "run"]

Steps = Generator[Any, Any, TenantId | None]
"""Yields what may be awaitable, gets what it is worth, and returns a tenant's id."""


def run(steps: Steps) -> TenantId | Awaitable[TenantId | None] | None:
    """Return the result of *steps*, or an awaitable of it once they yield an awaitable."""
    try:
        asked = next(steps)
        while not isawaitable(asked):
            asked = steps.send(asked)
    except StopIteration as done:
        return cast("TenantId | None", done.value)
    return _wait(steps, asked)


async def _wait(steps: Steps, asked: Any) -> TenantId | None:
    try:
        while True:
            asked = steps.send((await asked) if isawaitable(asked) else asked)
    except StopIteration as done:
        return cast("TenantId | None", done.value)
