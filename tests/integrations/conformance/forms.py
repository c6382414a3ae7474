"""The forms of applications, and what is declared of each in each case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tenantguard import TenantNotSetError, UnknownTenantError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Outcome = type[Exception] | None
"""The error that is raised; None where it works for the right tenant."""
WORKS: Outcome = None


@dataclass(frozen=True, slots=True)
class Form:
    """A way to write an application.

    Attributes:
        title: How the table calls it.
        framework: Which one it is written with.
        waits: Whether its views are `async def`, with an AsyncEngine.
        by_dependency: Whether a FastAPI dependency enters the tenant, and no resolver.
    """

    title: str
    framework: Literal["flask", "starlette", "fastapi"]
    waits: bool
    by_dependency: bool = False

    @property
    def drivers(self) -> tuple[str, ...]:
        return ("psycopg-async", "asyncpg") if self.waits else ("psycopg", "psycopg2")

    def __str__(self) -> str:
        return "-".join(self.title.lower().replace("`", "").replace(",", "").split())


Raising = Mapping[type[Exception], tuple[Form, ...]]

FLASK = (
    Form("Flask, `def`", "flask", waits=False),
    Form("Flask, `async def`", "flask", waits=True),
)
STARLETTE = (
    Form("Starlette, `def`", "starlette", waits=False),
    Form("Starlette, `async def`", "starlette", waits=True),
)
FASTAPI_BY_RESOLVER = (
    Form("FastAPI, `def`", "fastapi", waits=False),
    Form("FastAPI, `async def`", "fastapi", waits=True),
)
DEPENDENCY = (
    Form("FastAPI, dependency, `def`", "fastapi", waits=False, by_dependency=True),
    Form("FastAPI, dependency, `async def`", "fastapi", waits=True, by_dependency=True),
)
FASTAPI = (*FASTAPI_BY_RESOLVER, *DEPENDENCY)
RESOLVER = (*STARLETTE, *FASTAPI_BY_RESOLVER)
ASGI = (*STARLETTE, *FASTAPI)
FORMS = (*FLASK, *ASGI)
NO_TENANT: Raising = {TenantNotSetError: (*FLASK, *RESOLVER), UnknownTenantError: DEPENDENCY}
"""Who refuses a request without a tenant: the adapter, or the guard in the dependency."""
LEFT_EARLY: Raising = {TenantNotSetError: DEPENDENCY}
"""What becomes of later work where the dependency has been left by then."""


def waiting(forms: Iterable[Form]) -> tuple[Form, ...]:
    """Return those of *forms* whose views are `async def`."""
    return tuple(form for form in forms if form.waits)


@dataclass(frozen=True, slots=True)
class Declared:
    """What happens in one form.

    Attributes:
        now: With current versions.
        before: With FastAPI before 0.118, which leaves a generator dependency before the response
            is sent and not after it.
    """

    now: Outcome
    before: Outcome

    def outcome(self, fastapi: tuple[int, ...]) -> Outcome:
        return self.before if fastapi < (0, 118) else self.now


@dataclass(frozen=True, slots=True)
class Case:
    """Something that applications do.

    Attributes:
        topic: The heading it stands under.
        title: What is done and what has to hold, in one sentence.
        run: Does it on a bench and returns what happened, or raises `AssertionError`.
        declared: What happens, for each form that can express it.
    """

    topic: str
    title: str
    run: Any
    declared: dict[Form, Declared]

    def __str__(self) -> str:
        return str(self.run.__name__).replace("_", "-")


CASES: list[Case] = []


def case(
    topic: str,
    *,
    works: tuple[Form, ...] = (),
    raises: Raising | None = None,
    before: Raising | None = None,
) -> Callable[[Any], Any]:
    """Declare the outcomes of a case; its docstring is the title.

    Args:
        topic: The heading it stands under.
        works: The forms in which it works for the right tenant.
        raises: The forms in which it raises, by error.
        before: What raises with FastAPI before 0.118, where that differs.
    """
    now = {**dict.fromkeys(works, WORKS), **dict(_by_form(raises))}
    then = {**now, **dict(_by_form(before))}
    declared = {form: Declared(now[form], then[form]) for form in FORMS if form in now}

    def declare(run: Any) -> Any:
        CASES.append(Case(topic, " ".join(run.__doc__.split()), run, declared))
        return run

    return declare


def _by_form(raising: Raising | None) -> Iterator[tuple[Form, Outcome]]:
    for error, forms in (raising or {}).items():
        yield from ((form, error) for form in forms)
