"""Work that runs later or elsewhere: it works for the right tenant, or raises, as the page says."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any

import pytest
from drivers import SYNC, address
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from time_cases import CASES, Bench
from time_table import PAGE, render

from tenantguard import CrossTenantError, TenantNotSetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from locks import World
    from time_cases import Case

# It has drivers, and an event loop, of its own.
pytestmark = pytest.mark.drivers(*SYNC)

SECONDS = 60


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module", params=["psycopg", "asyncpg"])
def bench(request: pytest.FixtureRequest, world: World, runner: asyncio.Runner) -> Iterator[Bench]:
    engine = create_engine(address(world.app_url, "psycopg"))
    async_engine = create_async_engine(address(world.app_url, request.param))
    world.guard.protect(engine)
    world.guard.protect(async_engine)
    yield Bench(engine, async_engine)
    engine.dispose()
    runner.run(async_engine.dispose())


def _run(case: Case, bench: Bench, runner: asyncio.Runner) -> Any:
    """What *case* comes to, in a context of its own."""
    result = copy_context().run(case.work, bench)
    if not iscoroutine(result):
        return result
    return runner.run(asyncio.wait_for(result, SECONDS), context=copy_context())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_runs_later_is_the_right_tenants_or_raises(
    case: Case, bench: Bench, world: World, runner: asyncio.Runner
) -> None:
    """What happens is what the page's row says."""
    if case.raises:
        with pytest.raises(case.raises):
            _run(case, bench, runner)
        return
    assert _run(case, bench, runner) == sorted(row[2] for row in world.rows("patients", case.reads))


def test_the_committed_page_is_what_is_tested() -> None:
    """docs/time.md says what is tested here, and nothing else."""
    assert PAGE.read_text("utf-8") == render()


def test_every_kind_of_outcome_is_there() -> None:
    """The table has rows that work and rows of each refusal: none of them is vacuous."""
    assert {None, CrossTenantError, TenantNotSetError} <= {case.raises for case in CASES}
