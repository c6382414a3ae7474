"""The FastAPI example on PostgreSQL, as the application's role: everything, both practices."""

from __future__ import annotations

import asyncio
import csv
import json
import threading
from base64 import b64encode
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from httpx import ASGITransport, AsyncClient
from itsdangerous import TimestampSigner
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.pool import NullPool

from tenantguard.context import active_tenant, tenant_context
from tenantguard.demo.data import PRACTICES, Practice
from tenantguard.demo.stage import Stage, set_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from fastapi import FastAPI
    from httpx import Response
    from sqlalchemy import URL, Engine

    from tenantguard.guard import TenantGuard

pytestmark = pytest.mark.anyio

A, B = PRACTICES
PATIENTS = 25
UNKNOWN = 999_999
OTHER = {A: B, B: A}
PATHS = ("/me", "/patients", "/patients/1", "/patients/export.csv", "/orders", "/prices")
NEW_PATIENT = {"first_name": " Zoë", "last_name": "Özdemir ", "born": "1980-02-03"}
both = pytest.mark.parametrize("own", PRACTICES, ids=["A", "B"])


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def stage(new_database: Callable[[], URL]) -> Iterator[Stage]:
    with set_up(
        new_database(), patients=PATIENTS, tell=lambda _text: nullcontext(), app="starlette"
    ) as stage:
        yield stage


@pytest.fixture(scope="module", params=["psycopg", "asyncpg"])
def address(stage: Stage, request: pytest.FixtureRequest) -> URL:
    """The application's address by each driver: all that an app has to change."""
    return stage.application.set(drivername=f"postgresql+{request.param}")


@asynccontextmanager
async def running(stage: Stage, address: URL) -> AsyncIterator[FastAPI]:
    app: FastAPI = replace(stage, application=address).app(SECRET_KEY="test")
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture(scope="module")
async def app(stage: Stage, address: URL) -> AsyncIterator[FastAPI]:
    async with running(stage, address) as app:
        yield app


@pytest.fixture
async def fresh_app(
    stage: Stage, address: URL, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FastAPI]:
    """An app that has served nothing yet, so that a test can add routes; `/leak` is public."""
    monkeypatch.setattr(stage.example.auth, "PUBLIC", {*stage.example.auth.PUBLIC, "/leak"})
    async with running(stage, address) as app:
        yield app


def cookie(session: dict[str, Any]) -> str:
    """The cookie that Starlette's SessionMiddleware makes of *session*."""
    return TimestampSigner("test").sign(b64encode(json.dumps(session).encode())).decode()


def session_of(practice: Practice) -> dict[str, Any]:
    """What signing in leaves behind."""
    return {"user_id": PRACTICES.index(practice) + 1, "tenant_id": str(practice.id)}


@asynccontextmanager
async def client_with(app: FastAPI, session: dict[str, Any] | None) -> AsyncIterator[AsyncClient]:
    cookies = {"session": cookie(session)} if session is not None else {}
    transport = ASGITransport(app, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://lab", cookies=cookies) as client:
        yield client


def client_of(app: FastAPI, practice: Practice) -> Any:
    return client_with(app, session_of(practice))


async def sign_in(client: AsyncClient, email: str, password: str) -> Response:
    return await client.post("/sign-in", json={"email": email, "password": password})


async def rows(client: AsyncClient, path: str, **params: str) -> list[dict[str, Any]]:
    """All rows of a list, page by page."""
    found, page, pages = [], 0, 1
    while page < pages:
        page += 1
        document = (await client.get(path, params={**params, "page": str(page)})).json()
        found += document["rows"]
        pages = document["pages"]
    assert len(found) == document["total"]
    return found


async def listed(client: AsyncClient, path: str, **params: str) -> set[int]:
    return {row["id"] for row in await rows(client, path, **params)}


def ids(stage: Stage, model: Any, practice: Practice) -> set[int]:
    with stage.admin.connect() as connection:
        return set(connection.scalars(select(model.id).where(model.tenant_id == practice.id)))


def stored(stage: Stage, model: Any, id_: int) -> Any:
    """A row of the practice that has it, as the superuser sees, which alone can read it."""
    with stage.admin.connect() as connection:
        owner = connection.scalars(select(model.tenant_id).where(model.id == id_)).one()
    with tenant_context(owner), reader(stage.guard, stage.application).connect() as connection:
        return connection.execute(select(model.__table__).where(model.id == id_)).one()


@cache
def reader(guard: TenantGuard, address: URL) -> Engine:
    """An engine of its own, which keeps no connection."""
    engine = create_engine(address.set(drivername="postgresql+psycopg"), poolclass=NullPool)
    guard.protect(engine)
    return engine


def everything(stage: Stage, practice: Practice) -> list[Any]:
    """The practice's rows as they are stored."""
    query = "SELECT t::text FROM {} AS t WHERE tenant_id = :tenant ORDER BY id"
    with stage.admin.connect() as connection:
        return [
            connection.scalars(text(query.format(name)), {"tenant": practice.id}).all()
            for name in ("patients", "orders", "order_items")
        ]


async def test_the_suite_acts_as_the_application_role(
    stage: Stage, app: FastAPI, address: URL
) -> None:
    """The app's role is no superuser, owns nothing; the driver is the URL's."""
    with tenant_context(A.id):
        async with app.state.engine.connect() as connection:
            role = (await connection.exec_driver_sql("SELECT current_user")).scalar()
            driver = (await connection.get_raw_connection()).driver_connection
    kinds = {each.__module__.partition(".")[0] for each in type(driver).__mro__}
    assert address.get_driver_name() in kinds
    assert role == stage.roles.application
    with stage.admin.connect() as connection:
        rights = connection.exec_driver_sql(
            "SELECT rolsuper OR rolbypassrls "
            "OR EXISTS (SELECT FROM pg_class WHERE relowner = r.oid) "
            f"FROM pg_roles AS r WHERE rolname = '{role}'"
        ).scalar()
    assert rights is False


# -- signing in -------------------------------------------------------------------------------


@both
async def test_sign_in_and_out(app: FastAPI, own: Practice) -> None:
    """Signing in opens the practice's data; signing out closes it."""
    async with client_with(app, None) as client:
        assert (await sign_in(client, f" {own.email.upper()}", own.password)).status_code == 204
        me = (await client.get("/me")).json()
        assert me == {
            "name": own.user,
            "email": own.email,
            "practice": own.name,
            "city": own.city,
        }
        assert (await client.post("/sign-out")).status_code == 204
        assert (await client.get("/me")).status_code == 401


async def test_sign_in_as_somebody_else_changes_the_practice(stage: Stage, app: FastAPI) -> None:
    """One browser that signs in twice is only ever what it is last."""
    async with client_with(app, None) as client:
        for practice in (A, B, A):
            await sign_in(client, practice.email, practice.password)
            own = ids(stage, stage.models.Patient, practice)
            assert await listed(client, "/patients") == own


@pytest.mark.parametrize(
    ("email", "password"),
    [(A.email, "wrong"), (A.email, ""), (A.email, B.password), ("x@y.example", "x"), ("", "")],
)
async def test_wrong_sign_in(app: FastAPI, email: str, password: str) -> None:
    """A wrong password and an unknown address look the same, and open nothing."""
    async with client_with(app, None) as client:
        answer = await sign_in(client, email, password)
        assert answer.status_code == 401
        assert answer.json() == {"detail": "E-mail address or password is wrong."}
        assert (await client.get("/patients")).status_code == 401


async def test_unknown_address_does_the_same_work(
    stage: Stage, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash is verified for an unknown address as well, and never on the event loop."""
    verified: list[threading.Thread] = []

    class Hasher:
        def verify(self, _password_hash: str, _password: str) -> bool:
            verified.append(threading.current_thread())
            return True

    monkeypatch.setattr(stage.example.auth, "hasher", Hasher())
    async with client_with(app, None) as client:
        assert (await sign_in(client, "x@y.example", "x")).status_code == 401
    assert len(verified) == 1
    assert verified[0] is not threading.current_thread()


# -- reading ----------------------------------------------------------------------------------


@both
async def test_lists_show_exactly_the_own_rows(stage: Stage, app: FastAPI, own: Practice) -> None:
    """Both lists have all rows of the practice, page by page, and none of the other."""
    async with client_of(app, own) as client:
        assert await listed(client, "/patients") == ids(stage, stage.models.Patient, own)
        orders = await rows(client, "/orders")
        assert {row["id"] for row in orders} == ids(stage, stage.models.Order, own)
        patients = ids(stage, stage.models.Patient, own)
        assert {row["patient_id"] for row in orders} <= patients
        new = await listed(client, "/orders", status="new")
        assert new == {row["id"] for row in orders if row["status"] == "new"}


@both
async def test_search_finds_the_own_rows(app: FastAPI, own: Practice) -> None:
    """A search matches in one practice only, also a name that the other has, in any case."""
    names = {}
    for practice in PRACTICES:
        async with client_of(app, practice) as client:
            found = await rows(client, "/patients")
            names[practice] = {row["id"]: row["last_name"] for row in found}
    shared = min(set(names[A].values()) & set(names[B].values()))
    wanted = {id_ for id_, name in names[own].items() if name == shared}
    async with client_of(app, own) as client:
        for written in (shared, shared.upper(), f" {shared.lower()} "):
            assert await listed(client, "/patients", q=written) == wanted


async def test_search_is_for_whole_names(stage: Stage, app: FastAPI) -> None:
    """A first name is found too, no part of a name is, and an empty search lists everybody."""
    patient = stored(stage, stage.models.Patient, 1)
    async with client_of(app, A) as client:
        assert 1 in await listed(client, "/patients", q=patient.first_name)
        for written in (patient.last_name[:-1], "_", "%", "' OR true --"):
            assert 1 not in await listed(client, "/patients", q=written)
        everybody = [row["id"] for row in await rows(client, "/patients", q=" ")]
    assert everybody == sorted(ids(stage, stage.models.Patient, A), reverse=True)


async def test_page_behind_the_last_is_the_last(stage: Stage, app: FastAPI) -> None:
    """Paging ends at the last page of the own rows."""
    size, total = stage.example.database.PAGE_SIZE, len(ids(stage, stage.models.Patient, A))
    async with client_of(app, A) as client:
        last = (await client.get("/patients?page=99")).json()
        assert (last["page"], last["pages"], len(last["rows"])) == (2, 2, total - size)
        assert last == (await client.get("/patients?page=2")).json()


@both
async def test_own_details_are_complete(stage: Stage, app: FastAPI, own: Practice) -> None:
    """Every own patient and order opens with what belongs to it."""
    async with client_of(app, own) as client:
        for number in ids(stage, stage.models.Patient, own):
            patient = (await client.get(f"/patients/{number}")).json()
            assert patient["last_name"] == stored(stage, stage.models.Patient, number).last_name
            orders = {order["id"] for order in patient["orders"]}
            assert orders <= ids(stage, stage.models.Order, own)
        for number in ids(stage, stage.models.Order, own):
            order = (await client.get(f"/orders/{number}")).json()
            assert order["patient"]["id"] == order["patient_id"]
            prices = [
                float(each["material"]["price"]) * each["quantity"] for each in order["items"]
            ]
            assert float(order["total"]) == pytest.approx(sum(prices))
            assert sum(prices) > 0


async def test_price_list_is_shared(stage: Stage, app: FastAPI) -> None:
    """Both practices read the same price list."""
    lists = []
    for practice in PRACTICES:
        async with client_of(app, practice) as client:
            lists.append((await client.get("/prices")).json())
    with stage.admin.connect() as connection:
        total = connection.scalar(select(func.count()).select_from(stage.models.Material))
    assert lists[0] == lists[1]
    assert len(lists[0]) == total


# -- streaming --------------------------------------------------------------------------------


async def exported(app: FastAPI, practice: Practice) -> set[int]:
    async with client_of(app, practice) as client:
        answer = await client.get("/patients/export.csv")
    assert answer.headers["content-type"].startswith("text/csv")
    return {int(row["id"]) for row in csv.DictReader(answer.text.splitlines())}


async def test_streams_at_the_same_time_do_not_mix(
    stage: Stage, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exports that fetch in turns from the server have the own practice's rows only."""
    monkeypatch.setattr(stage.example.patients, "_AT_ONCE", 2)
    found = await asyncio.gather(*(exported(app, PRACTICES[each % 2]) for each in range(8)))
    for number, patients in enumerate(found):
        assert patients == ids(stage, stage.models.Patient, PRACTICES[number % 2])


@pytest.mark.parametrize("told", [True, False], ids=["server tells", "send fails"])
async def test_client_that_goes_away_leaves_nothing(
    stage: Stage, fresh_app: FastAPI, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    """A download broken off in the middle gives its connection back, and no tenant with it."""
    monkeypatch.setattr(stage.example.patients, "_AT_ONCE", 2)
    gone = asyncio.Event()
    chunks = 0

    async def receive() -> dict[str, str]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal chunks
        chunks += message["type"] == "http.response.body"
        if chunks == 5 and told:
            gone.set()
            await asyncio.sleep(10)
        elif chunks == 5:
            raise OSError("The client is gone.")

    version = "2.3" if told else "2.4"
    scope = {**http_scope("/patients/export.csv", session_of(A)), "asgi": {"spec_version": version}}
    # Starlette's own exception differs from version to version.
    with nullcontext() if told else suppress(Exception):
        await fresh_app(scope, receive, send)
    assert chunks == 5
    assert fresh_app.state.engine.pool.checkedout() == 0
    assert active_tenant() is None
    assert await exported(fresh_app, B) == ids(stage, stage.models.Patient, B)


def http_scope(path: str, session: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"lab"), (b"cookie", f"session={cookie(session)}".encode())],
    }


# -- the WebSocket ----------------------------------------------------------------------------


class Socket:
    """A client on the WebSocket, at the level of ASGI."""

    def __init__(self, app: FastAPI, session: dict[str, Any]) -> None:
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self._got: asyncio.Queue[Any] = asyncio.Queue()
        scope = {
            **http_scope("/orders/live", session),
            "type": "websocket",
            "scheme": "ws",
            "extensions": {"websocket.http.response": {}},
        }
        self._task = asyncio.create_task(app(scope, self._sent.get, self._got.put))

    async def open(self) -> Any:
        await self._sent.put({"type": "websocket.connect"})
        return await self._got.get()

    async def ask(self, question: Any) -> Any:
        text = question if isinstance(question, str) else json.dumps(question)
        await self._sent.put({"type": "websocket.receive", "text": text})
        return json.loads((await self._got.get())["text"])

    async def close(self) -> None:
        await self._sent.put({"type": "websocket.disconnect", "code": 1000})
        await self._task


@asynccontextmanager
async def connected(app: FastAPI, practice: Practice) -> AsyncIterator[Socket]:
    socket = Socket(app, session_of(practice))
    assert (await socket.open())["type"] == "websocket.accept"
    yield socket
    await socket.close()


@both
async def test_live_orders_are_the_own(stage: Stage, app: FastAPI, own: Practice) -> None:
    """The WebSocket answers about own orders; a foreign number is like one that nobody has."""
    mine, theirs = (ids(stage, stage.models.Order, each) for each in (own, OTHER[own]))
    async with connected(app, own) as socket:
        for number in mine:
            status = stored(stage, stage.models.Order, number).status
            assert (await socket.ask({"order": number}))["status"] == status
        nobody = await socket.ask({"order": UNKNOWN})
        assert nobody == {"detail": "Not Found"}
        for number in theirs:
            assert await socket.ask({"order": number}) == nobody
        listed = await socket.ask({"status": "delivered"})
        delivered = {
            each for each in mine if stored(stage, stage.models.Order, each).status == "delivered"
        }
        assert {order["id"] for order in listed["orders"]} == delivered
        nonsense: Any
        for nonsense in ("", "x", [], {"order": "x"}, {"order": -1}, {"status": "x"}):
            assert "Ask for an order" in (await socket.ask(nonsense))["detail"]


async def test_open_sockets_do_not_mix_and_hold_no_connection(stage: Stage, app: FastAPI) -> None:
    """Sockets of both practices that ask in turns get their own; waiting ones cost nothing."""
    numbers = {each: min(ids(stage, stage.models.Order, each)) for each in PRACTICES}
    async with connected(app, A) as first, connected(app, B) as second:
        for _ in range(3):
            answers = [
                await socket.ask({"order": numbers[each]})
                for socket in (first, second)
                for each in (A, B)
            ]
            assert [each.get("id") for each in answers] == [numbers[A], None, None, numbers[B]]
            assert app.state.engine.pool.checkedout() == 0


async def test_socket_of_nobody_is_refused(app: FastAPI) -> None:
    """Who has not signed in, or for no or another practice, is closed with 1008, not accepted."""
    sessions: list[dict[str, Any]] = [
        {"user_id": 1, "tenant_id": tenant}
        for tenant in (None, "nonsense", 7, str(uuid4()), str(B.id))
    ]
    for session in ({}, {"tenant_id": str(A.id)}, *sessions):
        socket = Socket(app, session)
        closed = await socket.open()
        assert (closed["type"], closed["code"]) == ("websocket.close", 1008)


# -- somebody else's ---------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    "case",
    [
        ("GET", "/patients/{}", "Patient", None),
        ("PUT", "/patients/{}", "Patient", NEW_PATIENT),
        ("DELETE", "/patients/{}", "Patient", None),
        ("GET", "/orders/{}", "Order", None),
        ("PUT", "/orders/{}/status", "Order", {"status": "delivered"}),
        ("POST", "/orders", "Patient", {"title": "X", "due_on": "2030-01-01"}),
    ],
)
async def test_foreign_and_unknown_numbers_are_the_same_404(
    stage: Stage, app: FastAPI, own: Practice, case: tuple[str, str, str, Any]
) -> None:
    """Another practice's number answers like one that nobody has, and changes nothing."""
    method, path, model, body = case
    before = everything(stage, OTHER[own])
    foreign = min(ids(stage, getattr(stage.models, model), OTHER[own]))

    async def ask(number: int) -> Response:
        form = body and {**body, "patient_id": number, "items": [{"material_id": 1}]}
        answer: Response = await client.request(method, path.format(number), json=form)
        return answer

    async with client_of(app, own) as client:
        theirs, nobody = await ask(foreign), await ask(UNKNOWN)
    assert (theirs.status_code, theirs.content) == (nobody.status_code, nobody.content)
    assert (theirs.status_code, theirs.json()) == (404, {"detail": "Not Found"})
    assert everything(stage, OTHER[own]) == before


# -- writing ----------------------------------------------------------------------------------


async def created(client: AsyncClient, **order: Any) -> tuple[int, int]:
    """Create a patient with an order, and return their numbers."""
    patient = (await client.post("/patients", json=NEW_PATIENT)).json()
    assert (patient["first_name"], patient["last_name"]) == ("Zoë", "Özdemir")
    form = {"patient_id": patient["id"], "title": "Krone", "due_on": "2030-01-01", **order}
    answer = await client.post("/orders", json={"items": [{"material_id": 1}], **form})
    assert answer.status_code == 201
    assert answer.json()["status"] == "new"
    return patient["id"], answer.json()["id"]


@both
async def test_new_patient_and_order_are_the_own(stage: Stage, app: FastAPI, own: Practice) -> None:
    """What a practice creates is its own, though the code never says so; so is what it changes."""
    async with client_of(app, own) as client:
        items = [{"material_id": 1, "quantity": 2}, {"material_id": 2, "tooth": "11"}]
        patient, order = await created(client, items=items)
        assert stored(stage, stage.models.Patient, patient).tenant_id == own.id
        assert stored(stage, stage.models.Order, order).tenant_id == own.id
        shown = (await client.get(f"/orders/{order}")).json()
        assert [each["quantity"] for each in shown["items"]] == [2, 1]
        changed = await client.put(f"/orders/{order}/status", json={"status": "in_work"})
        assert changed.json()["status"] == stored(stage, stage.models.Order, order).status
        form = {**NEW_PATIENT, "first_name": "Zoe"}
        assert (await client.put(f"/patients/{patient}", json=form)).status_code == 200
        assert stored(stage, stage.models.Patient, patient).first_name == "Zoe"
        assert (await client.delete(f"/patients/{patient}")).status_code == 204
    assert patient not in ids(stage, stage.models.Patient, own)
    assert order not in ids(stage, stage.models.Order, own)


async def test_background_task_writes_for_its_practice(stage: Stage, app: FastAPI) -> None:
    """What runs after the answer still acts for the practice that ordered."""

    async def order(practice: Practice) -> tuple[Practice, int, int]:
        async with client_of(app, practice) as client:
            return practice, *await created(client)

    for practice, patient, number in await asyncio.gather(*map(order, [A, B] * 3)):
        found = stored(stage, stage.models.Patient, patient)
        assert found.tenant_id == practice.id
        assert found.notes == f"Order {number} (Krone) by {practice.user}, due on 2030-01-01."


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/patients", {**NEW_PATIENT, "last_name": " "}),
        ("/patients", {**NEW_PATIENT, "born": "yesterday"}),
        ("/orders", {"patient_id": 1, "title": "X", "due_on": "2030-01-01", "items": []}),
        (
            "/orders",
            {
                "patient_id": 1,
                "title": "X",
                "due_on": "2030-01-01",
                "items": [{"material_id": UNKNOWN}],
            },
        ),
        ("/orders", {"patient_id": 2**40, "title": "X", "due_on": "2030-01-01"}),
    ],
)
async def test_wrong_forms_say_so(stage: Stage, app: FastAPI, path: str, form: Any) -> None:
    """What is not complete is 422, with the reason, and changes nothing."""
    before = everything(stage, A)
    async with client_of(app, A) as client:
        answer = await client.post(path, json=form)
    assert answer.status_code == 422
    assert answer.json()["detail"]
    assert everything(stage, A) == before


async def test_form_cannot_name_a_practice(stage: Stage, app: FastAPI) -> None:
    """A tenant in the body is ignored: the row is the signed-in practice's."""
    async with client_of(app, A) as client:
        form = {**NEW_PATIENT, "tenant_id": str(B.id), "id": 1}
        patient = (await client.post("/patients", json=form)).json()["id"]
        assert stored(stage, stage.models.Patient, patient).tenant_id == A.id
        await client.put(f"/patients/{patient}", json=form)
    assert stored(stage, stage.models.Patient, patient).tenant_id == A.id


# -- without a tenant --------------------------------------------------------------------------


async def test_everything_but_sign_in_needs_signing_in(app: FastAPI) -> None:
    """Each operation that the API describes is 401 for a stranger, before it looks at anything."""
    operations = [
        (method.upper(), path.replace("{id_}", "1"))
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]
    assert len(operations) == 14
    async with client_with(app, None) as client:
        answers = {each: await client.request(*each) for each in operations}
        assert (await client.get("/openapi.json")).status_code == 200
        assert (await client.get("/docs")).status_code == 200
    opened = {each for each, answer in answers.items() if answer.status_code != 401}
    assert opened == {("POST", "/sign-in"), ("POST", "/sign-out")}
    bodies = {answer.text for answer in answers.values() if answer.status_code == 401}
    assert bodies == {'{"detail":"Not authenticated"}'}


async def test_session_without_a_practice_is_403(app: FastAPI) -> None:
    """Somebody who is signed in for no practice sees nothing."""
    for tenant in (None, "nonsense", 7, str(uuid4())):
        async with client_with(app, {"user_id": 1, "tenant_id": tenant}) as client:
            for path in PATHS:
                answer = await client.get(path)
                assert (answer.status_code, answer.json()) == (403, {"detail": "Forbidden"})


async def test_user_of_another_practice_is_403(app: FastAPI) -> None:
    """A session that pairs a user with another practice finds no such user there."""
    async with client_with(app, {"user_id": 1, "tenant_id": str(B.id)}) as client:
        for path in PATHS:
            assert (await client.get(path)).status_code == 403


async def test_public_view_that_reads_tenant_data_is_403(
    stage: Stage, fresh_app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Declaring a path public gives it no data; the log says what is missing."""

    async def leak() -> str:
        async with AsyncSession(fresh_app.state.engine) as session:
            return str((await session.scalars(select(stage.models.Patient))).all())

    fresh_app.add_api_route("/leak", leak)
    async with client_of(fresh_app, A) as client:
        assert (await client.get("/leak")).status_code == 403
    assert "no tenant is active" in caplog.text


async def test_error_answers_and_logs_name_no_practice(
    fresh_app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer with 403, 404, 422 or 500 shows no tenant id, and neither does the log."""

    async def fails() -> None:
        raise RuntimeError("broken")

    fresh_app.add_api_route("/fails", fails)
    async with client_of(fresh_app, A) as client:
        for path, status in (
            ("/fails", 500),
            ("/patients/2", 404),
            ("/nowhere", 404),
            ("/patients/x", 422),
            ("/leak", 404),
        ):
            answer = await client.get(path)
            assert answer.status_code == status
            assert not any(str(each.id) in answer.text + caplog.text for each in PRACTICES)
    assert active_tenant() is None


# -- one after the other, and at the same time -------------------------------------------------


async def test_requests_one_after_the_other_do_not_mix(stage: Stage, app: FastAPI) -> None:
    """Alternating practices on the same pooled connection get their own rows each time."""
    for practice in (A, B) * 3:
        async with client_of(app, practice) as client:
            assert await listed(client, "/patients") == ids(stage, stage.models.Patient, practice)
        assert active_tenant() is None
        async with client_with(app, None) as client:
            assert (await client.get("/patients")).status_code == 401


async def test_requests_at_the_same_time_do_not_mix(stage: Stage, app: FastAPI) -> None:
    """Practices that work at the same time on one event loop get their own rows."""
    own = {each: ids(stage, stage.models.Patient, each) for each in PRACTICES}
    orders = {each: ids(stage, stage.models.Order, each) for each in PRACTICES}

    async def ask(number: int) -> bool:
        practice = PRACTICES[number % 2]
        async with client_of(app, practice) as client:
            asked: list[Awaitable[set[int]]] = [
                listed(client, "/patients"),
                listed(client, "/orders"),
            ]
            return await asyncio.gather(*asked) == [own[practice], orders[practice]]

    assert all(await asyncio.gather(*map(ask, range(24))))
