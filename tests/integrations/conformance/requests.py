"""Cases: who a request acts for, and what it cannot reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from practice import UNKNOWN, A, B, Patient
from sqlalchemy import select, text

from conformance.bench import OTHER, names
from conformance.forms import ASGI, FORMS, NO_TENANT, case
from tenantguard import TenantNotSetError, UnknownTenantError, tenant_context

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from conformance.forms import Outcome

TOPIC = "Who a request acts for"
NOBODY = 999_999


@case(TOPIC, works=FORMS)
async def own_rows(bench: Any) -> list[Outcome]:
    """A view reads without a WHERE: the tenant's rows, and nobody else's."""
    bench.view("/patients", bench.names)
    return [await bench.reads("/patients", tenant) for tenant in (A, B, A)]


@case(TOPIC, works=FORMS)
async def own_writes(bench: Any) -> list[Outcome]:
    """A view writes a row without naming a tenant: it is the tenant's."""

    async def write() -> list[str]:
        return await bench.work(_add)  # type: ignore[no-any-return]

    bench.view("/patients", write, ("POST",))
    outcomes = []
    for tenant in (A, B):
        foreign = bench.stored(OTHER[tenant])
        outcomes.append(bench.judge(await bench.ask("POST", "/patients", tenant), tenant))
        assert bench.stored(OTHER[tenant]) == foreign
    return outcomes


def _add(session: Session) -> list[str]:
    session.add(Patient(name=f"new {uuid4()}"))
    session.commit()
    return names(session)


@case(TOPIC, raises=NO_TENANT)
async def missing_tenant(bench: Any) -> Outcome:
    """A request names no tenant: 403, and no view runs."""
    _add_noting_view(bench)
    return await _refused(bench, None)


@case(TOPIC, raises={UnknownTenantError: FORMS})
async def malformed_tenant(bench: Any) -> list[Outcome]:
    """A request names something that is no tenant's id: 403, and no view runs."""
    given = ("nonsense", "' OR 1=1 --", "7", "0" * 4000)
    _add_noting_view(bench)
    return [await _refused(bench, tenant) for tenant in given]


def _add_noting_view(bench: Any) -> None:
    async def view() -> None:
        bench.reached.append("view")

    bench.view("/patients", view)


async def _refused(bench: Any, tenant: str | None) -> Outcome:
    answer = await bench.get("/patients", tenant)
    assert answer.status == 403
    assert bench.reached == []
    assert tenant is None or tenant not in answer.text
    return bench.judge(answer, A)  # type: ignore[no-any-return]


@case(TOPIC, raises={UnknownTenantError: FORMS})
async def unknown_tenant(bench: Any) -> Outcome:
    """A request names a tenant that the registry does not have: 403 at the first statement."""
    bench.view("/patients", bench.names)
    answer = await bench.get("/patients", UNKNOWN)
    assert answer.status == 403
    assert str(UNKNOWN) not in answer.text
    return bench.judge(answer, A)  # type: ignore[no-any-return]


@case(TOPIC, works=FORMS)
async def foreign_id_read(bench: Any) -> Outcome:
    """A view looks up another tenant's row: the same 404 as for a row that nobody has."""

    async def detail(id_: int) -> str:
        found = await bench.work(lambda session: session.get(Patient, id_))
        return found.name if found else bench.not_found()  # type: ignore[no-any-return]

    bench.view("/patients/{id_:int}", detail)
    for tenant in (A, B):
        own = bench.world.rows("patients", tenant)[0][0]
        assert (await bench.get(f"/patients/{own}", tenant)).status == 200
    await _all_like_nobody(bench, "GET")
    return None


@case(TOPIC, works=FORMS)
async def foreign_id_write(bench: Any) -> Outcome:
    """A view changes or deletes another tenant's row: the same 404, and the row is as it was."""

    async def change(id_: int) -> str | None:
        return await bench.work(lambda session: _rename(session, id_)) or bench.not_found()  # type: ignore[no-any-return]

    async def remove(id_: int) -> str | None:
        return await bench.work(lambda session: _remove(session, id_)) or bench.not_found()  # type: ignore[no-any-return]

    bench.view("/patients/{id_:int}/name", change, ("PUT",))
    bench.view("/patients/{id_:int}", remove, ("DELETE",))
    own = bench.world.rows("patients", A)[0][0]
    assert (await bench.ask("PUT", f"/patients/{own}/name", A)).status == 200
    before = [bench.world.rows("patients", tenant) for tenant in (A, B)]
    await _all_like_nobody(bench, "PUT", "/name")
    await _all_like_nobody(bench, "DELETE")
    assert [bench.world.rows("patients", tenant) for tenant in (A, B)] == before
    return None


async def _all_like_nobody(bench: Any, method: str, suffix: str = "") -> None:
    for tenant in (A, B):
        nobody = await bench.ask(method, f"/patients/{NOBODY}{suffix}", tenant)
        assert (nobody.status, nobody.raised) == (404, None)
        theirs = bench.world.rows("patients", OTHER[tenant])[0][0]
        foreign = await bench.ask(method, f"/patients/{theirs}{suffix}", tenant)
        assert (foreign.status, foreign.text) == (404, nobody.text)


def _rename(session: Session, id_: int) -> str | None:
    patient = session.get(Patient, id_)
    if patient is None:
        return None
    patient.name = f"renamed {uuid4()}"
    session.commit()
    return "renamed"


def _remove(session: Session, id_: int) -> str | None:
    removed = session.execute(Patient.__table__.delete().where(Patient.id == id_))  # type: ignore[attr-defined]
    session.commit()
    return "removed" if removed.rowcount else None  # type: ignore[attr-defined]


@case(TOPIC, works=FORMS)
async def not_inherited(bench: Any) -> list[Outcome]:
    """A request is sent from inside another tenant's block: it has its own tenant."""
    bench.view("/patients", bench.names)
    with tenant_context(B):
        return [await bench.reads("/patients", A)]


@case(TOPIC, raises=NO_TENANT)
async def nothing_inherited(bench: Any) -> Outcome:
    """A request without a tenant is sent from inside a tenant's block: 403, no view runs."""
    _add_noting_view(bench)
    with tenant_context(B):
        return await _refused(bench, None)


@case(TOPIC, raises={TenantNotSetError: FORMS})
async def public_page(bench: Any) -> list[Outcome]:
    """A public page runs a query, after a tenant's request and inside a tenant's block: 403."""
    bench.view("/patients", bench.names)
    bench.view("/public/leak", bench.names)
    outcomes = []
    for tenant in (A, None):
        await bench.reads("/patients", A)
        answers = [await bench.get("/public/leak", tenant)]
        with tenant_context(A):
            answers.append(await bench.get("/public/leak", tenant))
        assert [answer.status for answer in answers] == [403, 403]
        outcomes += [bench.judge(answer, A) for answer in answers]
    return outcomes


@case(TOPIC, works=FORMS)
async def head(bench: Any) -> Outcome:
    """HEAD runs the view as the tenant, and sends no body."""

    async def view() -> list[str]:
        bench.reached.append(await bench.names())
        return []

    bench.view("/patients", view, ("GET", "HEAD"))
    answer = await bench.ask("HEAD", "/patients", A)
    assert (answer.status, answer.text) == (200, "")
    assert (await bench.ask("HEAD", "/patients")).status == 403
    [shown] = bench.reached
    return bench.judge_shown(shown, A)  # type: ignore[no-any-return]


@case(TOPIC, works=FORMS)
async def options(bench: Any) -> Outcome:
    """OPTIONS without a tenant, as a browser asks first: no view runs."""
    _add_noting_view(bench)
    answer = await bench.ask("OPTIONS", "/patients")
    assert answer.status == {"flask": 200}.get(bench.form.framework, answer.status)
    assert answer.status in (200, 403, 405)
    assert bench.reached == []
    return None


@case(TOPIC, works=FORMS)
async def root_path(bench: Any) -> list[Outcome]:
    """The application is served below a root path: tenants and public paths are as ever."""
    bench.root_path = "/lab"
    bench.view("/patients", bench.names)
    bench.view("/public/health", _healthy)
    prefix = "/lab" if bench.form in ASGI else ""
    assert (await bench.get(f"{prefix}/public/health")).status == 200
    assert (await bench.get(f"{prefix}/patients")).status == 403
    return [await bench.reads(f"{prefix}/patients", tenant) for tenant in (A, B)]


async def _healthy() -> str:
    return "ok"


@case(TOPIC, works=FORMS)
async def setting(bench: Any) -> Outcome:
    """A view sends SQL text: PostgreSQL knows the tenant, and its policies answer."""
    query = text("SELECT name FROM patients ORDER BY id")

    async def view() -> list[str]:
        return await bench.work(lambda session: list(session.scalars(query)))  # type: ignore[no-any-return]

    async def count() -> int:
        return await bench.work(lambda session: len(session.scalars(select(Patient)).all()))  # type: ignore[no-any-return]

    bench.view("/text", view)
    bench.view("/count", count)
    answer = await bench.get("/count", A)
    assert answer.text == str(len(bench.stored(A)))
    return await bench.reads("/text", A)  # type: ignore[no-any-return]
