"""Each form of application, in each case: it works for the right tenant, or raises."""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import fastapi
import pytest
from conformance import CASES, FORMS
from conformance.asgi_bench import AsgiBench, FastApiBench
from conformance.flask_bench import FlaskBench
from conforming import TABLE, render
from drivers import SYNC, address
from sqlalchemy import NullPool, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conformance.bench import Bench
    from conformance.forms import Case, Form
    from locks import World
    from sqlalchemy import Engine

# It has drivers, and an event loop, of its own.
pytestmark = pytest.mark.drivers(*SYNC)

FASTAPI_VERSION = tuple(map(int, fastapi.__version__.split(".")[:2]))
BENCHES: dict[str, type[Bench]] = {
    "flask": FlaskBench,
    "starlette": AsgiBench,
    "fastapi": FastApiBench,
}
SECONDS = 30
PARAMETERS = [
    pytest.param(case, form, driver, id=f"{case}-{form}-{driver}")
    for case in CASES
    for form in case.declared
    for driver in form.drivers
]


class Engines:
    """Protected engines, one a driver; the asynchronous ones live in the module's event loop."""

    def __init__(self, world: World, runner: asyncio.Runner) -> None:
        self._world = world
        self._runner = runner
        self._made: dict[str, Any] = {}

    def synchronous(self, driver: str) -> Engine:
        return self._engine(driver, create_engine, pool_size=1)  # type: ignore[no-any-return]

    def asynchronous(self, driver: str, form: Form) -> AsyncEngine:
        # Flask runs each `async def` view in an event loop of its own.
        if form.framework == "flask":
            return self._engine(driver, create_async_engine, poolclass=NullPool)  # type: ignore[no-any-return]
        return self._engine(driver, create_async_engine, pool_size=1)  # type: ignore[no-any-return]

    def _engine(self, driver: str, create: Callable[..., Any], **options: Any) -> Any:
        key = driver + str(options)
        if key not in self._made:
            self._made[key] = create(address(self._world.app_url, driver), **options)
            self._world.guard.protect(self._made[key])
            if isinstance(self._made[key], AsyncEngine):
                self._runner.run(_connect(self._made[key]))
        return self._made[key]

    async def dispose(self) -> None:
        for engine in self._made.values():
            if isinstance(engine, AsyncEngine):
                await engine.dispose()
            else:
                engine.dispose()


async def _connect(engine: AsyncEngine) -> None:
    """Connect once: SQLAlchemy's lock around an engine's first connection is one event loop's."""
    async with engine.connect():
        pass


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """The event loop of the module's asynchronous engines."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def engines(world: World, runner: asyncio.Runner) -> Iterator[Engines]:
    engines = Engines(world, runner)
    yield engines
    runner.run(engines.dispose())


@pytest.mark.parametrize(("case", "form", "by"), PARAMETERS)
def test_works_for_the_right_tenant_or_raises(  # noqa: PLR0917  (fixtures)
    case: Case, form: Form, by: str, world: World, engines: Engines, runner: asyncio.Runner
) -> None:
    """What happens is what the table declares: the right tenant's work, or an error."""
    synchronous = engines.synchronous("psycopg" if form.waits else by)
    asynchronous = engines.asynchronous(by, form) if form.waits else None
    bench = BENCHES[form.framework](form, world, synchronous, asynchronous)
    happened = runner.run(asyncio.wait_for(case.run(bench), SECONDS), context=copy_context())
    outcomes = happened if isinstance(happened, list) else [happened]
    assert set(outcomes) == {case.declared[form].outcome(FASTAPI_VERSION)}


def test_the_committed_table_is_what_the_suite_declares() -> None:
    """docs/conformance.md says what is tested here, and nothing else."""
    assert TABLE.read_text("utf-8") == render()


def test_each_form_is_tried_in_most_cases() -> None:
    """A form that cannot express a case has no row; it is not left out otherwise."""
    for form in FORMS:
        assert sum(form in case.declared for case in CASES) > len(CASES) // 2
