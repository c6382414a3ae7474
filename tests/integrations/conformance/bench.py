"""A bench: one application of one form, on the test database, and a client that judges.

A view is written once, as a coroutine. Where the form's views are `def`, the coroutine uses a
synchronous session and never waits, so an ordinary function can run it to its end.
"""

from __future__ import annotations

import json
import logging
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from practice import A, B, Patient
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from tenantguard import TenantGuardError, errors
from tenantguard.context import active_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
    from uuid import UUID

    from locks import World
    from sqlalchemy import Engine

    from conformance.forms import Form, Outcome

T = TypeVar("T")
View = "Callable[..., Coroutine[Any, Any, Any]]"

OTHER = {A: B, B: A}
HEADER = "x-practice"
NAMES = select(Patient.name).order_by(Patient.id)


@dataclass(slots=True)
class Answer:
    """What a client got.

    Attributes:
        status: The HTTP status.
        text: The body, or as much of it as was sent.
        error: What reached the server after the answer had begun, or besides it.
        refused: The errors that the adapter turned into an answer.
        logged: What was logged meanwhile, tracebacks included.
    """

    status: int
    text: str = ""
    error: BaseException | None = None
    refused: list[BaseException] = field(default_factory=list)
    logged: str = ""

    @property
    def raised(self) -> BaseException | None:
        """The error that the application ended with, if any."""
        return next(iter([*self.refused, *([self.error] if self.error else [])]), None)


class Bench:
    """One application of one form.

    Attributes:
        form: How the application is written.
        world: The database, and what the superuser sees of it.
        engine: The protected engine for synchronous work, whatever the form.
        async_engine: The protected AsyncEngine; None where the form's views are `def`.
        reached: What the views have noted of themselves.
    """

    def __init__(
        self, form: Form, world: World, engine: Engine, async_engine: AsyncEngine | None
    ) -> None:
        self.form = form
        self.world = world
        self.guard = world.guard
        self.engine = engine
        self.async_engine = async_engine
        self.reached: list[Any] = []

    # -- what the application does ---------------------------------------------------------

    async def work(self, function: Callable[[Session], T]) -> T:
        """Return what *function* does with a session of the form's own kind."""
        async with self.session() as session:
            return await self.within(session, function)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        if self.async_engine is None:
            with Session(self.engine) as session:
                yield session
        else:
            async with AsyncSession(self.async_engine) as async_session:
                yield async_session

    async def within(self, session: Any, function: Callable[[Session], T]) -> T:
        """Return what *function* does with *session*, which is open already."""
        if isinstance(session, AsyncSession):
            return await session.run_sync(function)
        return function(session)

    async def names(self) -> list[str]:
        """Read all patients: the view of most cases."""
        return await self.work(names)

    def names_here(self) -> list[str]:
        """Read all patients in whatever thread this is, with the synchronous engine."""
        with Session(self.engine) as session:
            return names(session)

    # -- what the client sees --------------------------------------------------------------

    def stored(self, tenant: UUID) -> list[str]:
        """The patients of *tenant* as the superuser sees them."""
        return [row[2] for row in self.world.rows("patients", tenant)]

    async def get(self, path: str, tenant: UUID | str | None = None) -> Answer:
        return await self.ask("GET", path, tenant)

    async def ask(self, method: str, path: str, tenant: UUID | str | None = None) -> Answer:
        """Send a request; whatever comes of it, the caller keeps the tenant it had."""
        headers = {HEADER: str(tenant)} if tenant else {}
        before = active_tenant()
        with refusals() as log:
            answer = await self.send(method, path, headers)
        assert active_tenant() is before
        answer.refused, answer.logged = log.errors, "\n".join(log.texts)
        return answer

    async def send(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        raise NotImplementedError

    async def reads(self, path: str, tenant: UUID) -> Outcome:
        """Send a request of *tenant* to a view that answers with patients, and judge it."""
        return self.judge(await self.get(path, tenant), tenant)

    def judge(self, answer: Answer, tenant: UUID) -> Outcome:
        """Return what happened, or raise `AssertionError` where it neither works nor raises."""
        shown = self.shown(answer)
        own = self.stored(tenant)
        assert own
        assert not set(own) & set(self.stored(OTHER[tenant]))
        if answer.raised is not None:
            # As much as was sent before must be the tenant's as well.
            assert isinstance(shown, list)
            assert shown == own[: len(shown)]
            return guard_error(answer.raised)
        return self.judge_shown(shown, tenant)

    def judge_shown(self, shown: Any, tenant: UUID) -> Outcome:
        """Judge a list of patients, or the name of the error that came instead."""
        if isinstance(shown, str):
            return _named(shown)
        assert shown == self.stored(tenant)
        return None

    def shown(self, answer: Answer) -> Any:
        if answer.status != 200:
            return []
        if answer.text.startswith(("[", '"')):
            return json.loads(answer.text)
        return answer.text.splitlines()


def names(session: Session) -> list[str]:
    return list(session.scalars(NAMES))


def finished(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a *coroutine* that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise AssertionError("A `def` view waited.")


def tried(function: Callable[[], Any]) -> Any:
    """Return what *function* returns, or the name of the guard's error that it raises."""
    try:
        return function()
    except TenantGuardError as error:
        return type(error).__name__


async def tried_async(awaitable: Awaitable[Any]) -> Any:
    try:
        return await awaitable
    except TenantGuardError as error:
        return type(error).__name__


def guard_error(error: BaseException) -> Outcome:
    # Older versions of Starlette raise what happens in a body as a group.
    while isinstance(error, BaseExceptionGroup):
        [error] = error.exceptions
    if not isinstance(error, TenantGuardError):
        raise AssertionError("An error that is not the guard's") from error  # noqa: TRY004
    return type(error)


def _named(name: str) -> Outcome:
    assert name in errors.__all__
    error: type[Exception] = getattr(errors, name)
    return error


class Refusals(logging.Handler):
    """Keeps what is logged, and the errors that an adapter logs as it turns them into answers."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))
        if record.msg == "Refused: %s" and isinstance(record.args, tuple):
            self.errors += [each for each in record.args if isinstance(each, BaseException)]


@contextmanager
def refusals() -> Iterator[Refusals]:
    handler = Refusals()
    logging.getLogger().addHandler(handler)
    try:
        yield handler
    finally:
        logging.getLogger().removeHandler(handler)
