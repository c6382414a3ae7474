"""Cases: requests that overlap, requests inside requests, and tenants inside a request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from practice import A, B, Patient

from conformance.bench import names, tried, tried_async
from conformance.forms import FORMS, case, waiting
from tenantguard import CrossTenantError, current_tenant, tenant_context

if TYPE_CHECKING:
    from conformance.forms import Outcome

TOPIC = "Several tenants at a time"
AT_ONCE = 6


@case(TOPIC, works=FORMS)
async def concurrent_requests(bench: Any) -> list[Outcome]:
    """Requests of both tenants run at the same time, all inside the view at once."""
    meet = bench.meeting(AT_ONCE)

    async def view() -> list[str]:
        before = current_tenant()
        await meet()
        found: list[str] = await bench.names()
        await meet()
        assert current_tenant() == before
        return found if await bench.names() == found else []

    bench.view("/patients", view)
    tenants = (A, B) * (AT_ONCE // 2)
    answers = await asyncio.gather(*(bench.get("/patients", tenant) for tenant in tenants))
    return [bench.judge(*pair) for pair in zip(answers, tenants, strict=True)]


@case(TOPIC, works=FORMS)
async def concurrent_transactions(bench: Any) -> list[Outcome]:
    """Transactions of both tenants are open at the same time."""
    meet = bench.meeting(2)

    async def view() -> list[str]:
        async with bench.session() as session:
            found: list[str] = await bench.within(session, names)
            await meet()
            again = await bench.within(session, names)
            await meet()
            return found if again == found else []

    bench.view("/patients", view)
    answers = await asyncio.gather(*(bench.get("/patients", tenant) for tenant in (A, B)))
    return [bench.judge(*pair) for pair in zip(answers, (A, B), strict=True)]


@case(TOPIC, works=FORMS)
async def nested_request(bench: Any) -> list[Outcome]:
    """A view sends a request of another tenant to its own application, and then goes on."""

    async def outer() -> list[str]:
        answer = await bench.nested("/patients", B)
        bench.reached.append(bench.judge(answer, B))
        return await bench.names()  # type: ignore[no-any-return]

    bench.view("/patients", bench.names)
    bench.view("/outer", outer)
    return [await bench.reads("/outer", A), *bench.reached]


@case(TOPIC, works=FORMS)
async def switched(bench: Any) -> list[Outcome]:
    """A view enters another tenant and opens a session there; afterwards it goes on as its own."""

    async def view() -> list[str]:
        with tenant_context(B):
            bench.reached.append(await bench.names())
        return await bench.names()  # type: ignore[no-any-return]

    bench.view("/patients", view)
    outcome = await bench.reads("/patients", A)
    return [outcome, *(bench.judge_shown(shown, B) for shown in bench.reached)]


@case(TOPIC, raises={CrossTenantError: FORMS})
async def switched_with_an_open_session(bench: Any) -> list[Outcome]:
    """A view enters another tenant and uses the session that it opened before: 404."""

    async def view() -> None:
        async with bench.session() as session:
            await bench.within(session, names)
            with tenant_context(B):
                await bench.within(session, names)
            raise AssertionError("Both tenants used one session.")

    bench.view("/patients", view)
    answer = await bench.get("/patients", A)
    assert answer.status == 404
    return [bench.judge(answer, A)]


@case(TOPIC, raises={CrossTenantError: FORMS})
async def switched_with_a_warm_object(bench: Any) -> list[Outcome]:
    """A view enters another tenant and asks its session for what it has already loaded."""

    async def view() -> list[str]:
        async with bench.session() as session:
            await bench.within(session, _first)
            with tenant_context(B):
                shown = await bench.within(session, lambda open_: tried(lambda: _first(open_)))
        bench.reached.append(shown)
        return await bench.names()  # type: ignore[no-any-return]

    bench.view("/patients", view)
    assert await bench.reads("/patients", A) is None
    return [bench.judge_shown(shown, A) for shown in bench.reached]


def _first(session: Any) -> list[str]:
    # The session itself forgets what nobody holds.
    session.info["held"] = session.get_one(Patient, 1)
    return [session.info["held"].name]


@case(TOPIC, works=waiting(FORMS))
async def task_group(bench: Any) -> list[Outcome]:
    """A view reads in several tasks at once, each with a session of its own."""

    async def view() -> list[str]:
        async with asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(bench.names()) for _ in range(3)]
        found = [task.result() for task in reading]
        assert found[0] == found[1] == found[2]
        return found[0]  # type: ignore[no-any-return]

    bench.view("/patients", view)
    answers = await asyncio.gather(*(bench.get("/patients", tenant) for tenant in (A, B)))
    return [bench.judge(*pair) for pair in zip(answers, (A, B), strict=True)]


@case(TOPIC, works=waiting(FORMS))
async def a_tenant_for_each_task(bench: Any) -> list[Outcome]:
    """A view starts two tasks, one of which enters another tenant: neither disturbs the other."""

    async def view() -> list[str]:
        own, others = await asyncio.gather(bench.names(), _as_other(bench))
        bench.reached.append(others)
        return own  # type: ignore[no-any-return]

    bench.view("/patients", view)
    outcome = await bench.reads("/patients", A)
    return [outcome, *(bench.judge_shown(shown, B) for shown in bench.reached)]


async def _as_other(bench: Any) -> Any:
    with tenant_context(B):
        return await tried_async(bench.names())
