"""The example application on PostgreSQL, as the application's role: every page, both practices."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from tenantguard.context import active_tenant, tenant_context
from tenantguard.demo.data import PRACTICES, Practice
from tenantguard.demo.stage import Stage, set_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flask import Flask
    from flask.testing import FlaskClient
    from sqlalchemy import URL
    from werkzeug.test import TestResponse

A, B = PRACTICES
PATIENTS = 25
UNKNOWN = 999_999
OTHER = {A: B, B: A}
both = pytest.mark.parametrize("own", PRACTICES, ids=["A", "B"])


@pytest.fixture(scope="module")
def stage(new_database: Callable[[], URL]) -> Iterator[Stage]:
    with set_up(new_database(), patients=PATIENTS, tell=lambda _text: nullcontext()) as stage:
        yield stage


@pytest.fixture(scope="module")
def app(stage: Stage) -> Iterator[Flask]:
    app = stage.app(SECRET_KEY="test", PAGE_SIZE=1000)
    yield app
    app.extensions["engine"].dispose()


@pytest.fixture
def fresh_app(stage: Stage) -> Iterator[Flask]:
    """An app that has served nothing yet, so that a test can add views."""
    app = stage.app(SECRET_KEY="test", PAGE_SIZE=10)
    yield app
    app.extensions["engine"].dispose()


def post(client: FlaskClient, path: str, **form: str) -> TestResponse:
    with client.session_transaction() as session:
        session["csrf"] = "token"
    return client.post(path, data={"csrf": "token", **form})


def signed_in(app: Flask, practice: Practice) -> FlaskClient:
    client = app.test_client()
    answer = post(client, "/sign-in", email=practice.email, password=practice.password)
    assert (answer.status_code, answer.location) == (302, "/")
    return client


def client_of(app: Flask, practice: Practice) -> FlaskClient:
    """A client with the session that signing in leaves behind."""
    client = app.test_client()
    with client.session_transaction() as session:
        session.update(user_id=PRACTICES.index(practice) + 1, practice_id=str(practice.id))
    return client


def ids(stage: Stage, model: Any, practice: Practice) -> set[int]:
    with stage.admin.connect() as connection:
        return set(connection.scalars(select(model.id).where(model.tenant_id == practice.id)))


def linked(kind: str, page: TestResponse) -> set[int]:
    return {int(number) for number in re.findall(rf'href="/{kind}/(\d+)"', page.text)}


def test_the_suite_acts_as_the_application_role(stage: Stage, app: Flask) -> None:
    """The app's role is no superuser, bypasses nothing and owns nothing."""
    with tenant_context(A.id), app.extensions["engine"].connect() as connection:
        role = connection.exec_driver_sql("SELECT current_user").scalar()
    assert role == stage.roles.application
    with stage.admin.connect() as connection:
        rights = connection.exec_driver_sql(
            "SELECT rolsuper OR rolbypassrls "
            "OR EXISTS (SELECT FROM pg_class WHERE relowner = r.oid) "
            f"FROM pg_roles AS r WHERE rolname = '{role}'"
        ).scalar()
    assert rights is False


# -- signing in -------------------------------------------------------------------------------


def test_sign_in_and_out(app: Flask) -> None:
    """Signing in opens the practice's pages; signing out closes them."""
    client = signed_in(app, A)
    page = client.get("/")
    assert A.name in page.text
    assert A.user in page.text
    assert post(client, "/sign-out").location == "/sign-in"
    assert client.get("/").location == "/sign-in"


@pytest.mark.parametrize(
    ("email", "password"),
    [(A.email, "wrong"), (A.email, ""), (A.email, B.password), ("x@y.example", "x"), ("", "")],
)
def test_wrong_sign_in(app: Flask, email: str, password: str) -> None:
    """A wrong password and an unknown address look the same, and open nothing."""
    client = app.test_client()
    answer = post(client, "/sign-in", email=email, password=password)
    assert "E-mail address or password is wrong." in answer.text
    assert client.get("/patients/").location == "/sign-in"


def test_unknown_address_does_the_same_work(
    stage: Stage, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password hash is verified for an unknown address as well."""
    verified: list[str] = []

    class Hasher:
        def verify(self, password_hash: str, _password: str) -> bool:
            verified.append(password_hash)
            return True

    monkeypatch.setattr(stage.example.auth, "hasher", Hasher())
    client = app.test_client()
    answer = post(client, "/sign-in", email="x@y.example", password="x")
    assert "is wrong" in answer.text
    assert len(verified) == 1


def test_forms_need_the_token(app: Flask) -> None:
    """A form from another site is refused."""
    client = signed_in(app, A)
    assert client.post("/sign-out").status_code == 400
    assert client.post("/sign-out", data={"csrf": "guess"}).status_code == 400
    assert client.get("/").status_code == 200


# -- reading ----------------------------------------------------------------------------------


@both
def test_lists_show_exactly_the_own_rows(stage: Stage, app: Flask, own: Practice) -> None:
    """Both lists have all rows of the practice and none of the other."""
    client = client_of(app, own)
    patients, orders = client.get("/patients/"), client.get("/orders/")
    assert linked("patients", patients) == ids(stage, stage.models.Patient, own)
    assert linked("orders", orders) == ids(stage, stage.models.Order, own)
    assert linked("patients", orders) <= ids(stage, stage.models.Patient, own)
    assert OTHER[own].name not in patients.text


@both
def test_overview_counts_the_own_rows(stage: Stage, app: Flask, own: Practice) -> None:
    """Counts and aggregates are of one practice."""
    page = client_of(app, own).get("/")
    numbers = [int(number) for number in re.findall(r"<b>(\d+)</b>", page.text)]
    assert numbers[0] == stage.counts[own.id]["patients"] == PATIENTS
    assert sum(numbers[1:]) == stage.counts[own.id]["orders"]
    assert linked("orders", page) <= ids(stage, stage.models.Order, own)
    assert OTHER[own].name not in page.text


@both
def test_search_finds_the_own_rows(stage: Stage, app: Flask, own: Practice) -> None:
    """A search matches in one practice only, also a name that the other has, in any case."""
    names = {each: last_names(stage, app, each) for each in PRACTICES}
    shared = min(set(names[A].values()) & set(names[B].values()))
    wanted = {id_ for id_, name in names[own].items() if name == shared}
    for written in (shared, shared.upper(), f" {shared.lower()} "):
        page = client_of(app, own).get("/patients/", query_string={"q": written})
        assert linked("patients", page) == wanted


@pytest.mark.parametrize("written", ["", "first", "part", "_", "%", "' OR true --"])
def test_search_is_for_whole_names(stage: Stage, app: Flask, written: str) -> None:
    """A first name is found too, no part of a name is, and an empty search lists everybody."""
    with tenant_context(A.id), Session(app.extensions["engine"]) as session:
        patient = session.get_one(stage.models.Patient, 1)
        first, part = patient.first_name, patient.last_name[:-1]
    written = {"first": first, "part": part}.get(written, written)
    found = linked("patients", client_of(app, A).get("/patients/", query_string={"q": written}))
    if not written:
        assert found == ids(stage, stage.models.Patient, A)
    else:
        assert (1 in found) == (written == first)


def test_list_begins_with_the_newest(app: Flask) -> None:
    """What is encrypted is not sorted by; the list is by number."""
    page = client_of(app, A).get("/patients/")
    numbers = [int(number) for number in re.findall(r'href="/patients/(\d+)"', page.text)]
    assert numbers == sorted(numbers, reverse=True)
    assert "Whole last or first name" in page.text


def last_names(stage: Stage, app: Flask, practice: Practice) -> dict[int, str]:
    patient = stage.models.Patient
    with tenant_context(practice.id), Session(app.extensions["engine"]) as session:
        return {row[0]: row[1] for row in session.execute(select(patient.id, patient.last_name))}


def test_pages_split_the_own_rows(stage: Stage, fresh_app: Flask) -> None:
    """Paging walks through all rows of the practice, once each."""
    client = client_of(fresh_app, A)
    pages = [client.get("/patients/", query_string={"page": number}) for number in (1, 2, 3)]
    seen = [linked("patients", page) for page in pages]
    assert [len(each) for each in seen] == [10, 10, 5]
    assert set.union(*seen) == ids(stage, stage.models.Patient, A)
    assert linked("patients", client.get("/patients/?page=99")) == seen[2]


@both
def test_own_pages_open(stage: Stage, app: Flask, own: Practice) -> None:
    """Every page of an own patient and order opens, and names nothing of the other practice."""
    client = client_of(app, own)
    patient = min(ids(stage, stage.models.Patient, own))
    order = min(ids(stage, stage.models.Order, own))
    for path in (
        f"/patients/{patient}",
        f"/patients/{patient}/edit",
        f"/orders/{order}",
        f"/orders/new/{patient}",
        "/patients/new",
    ):
        page = client.get(path)
        assert page.status_code == 200, path
        assert OTHER[own].name not in page.text


def test_price_list_is_shared(stage: Stage, app: Flask) -> None:
    """Both practices read the same price list."""
    pages = [
        re.findall(r"<td.*</td>", client_of(app, each).get("/orders/prices").text)
        for each in PRACTICES
    ]
    assert pages[0] == pages[1]
    with stage.admin.connect() as connection:
        total = connection.scalar(select(func.count()).select_from(stage.models.Material))
    assert sum("dim" in cell for cell in pages[0]) == total


# -- somebody else's ---------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    "case",
    [
        ("get", "/patients/{}", "Patient"),
        ("get", "/patients/{}/edit", "Patient"),
        ("post", "/patients/{}/edit", "Patient"),
        ("post", "/patients/{}/delete", "Patient"),
        ("get", "/orders/{}", "Order"),
        ("get", "/orders/new/{}", "Patient"),
        ("post", "/orders/new/{}", "Patient"),
        ("post", "/orders/{}/status", "Order"),
    ],
)
def test_foreign_and_unknown_numbers_are_the_same_404(
    stage: Stage, app: Flask, own: Practice, case: tuple[str, str, str]
) -> None:
    """Another practice's number answers like one that nobody has, and changes nothing."""
    client, foreign = client_of(app, own), OTHER[own]
    method, path, model = case
    foreign_id = min(ids(stage, getattr(stage.models, model), foreign))
    before = _digest(stage, foreign)

    def ask(number: int) -> TestResponse:
        if method == "get":
            return client.get(path.format(number))
        return post(client, path.format(number), status="delivered", first_name="X", last_name="X")

    theirs, nobody = ask(foreign_id), ask(UNKNOWN)
    assert (theirs.status_code, theirs.data) == (nobody.status_code, nobody.data)
    assert theirs.status_code == 404
    assert _digest(stage, foreign) == before


def _digest(stage: Stage, practice: Practice) -> list[Any]:
    """The practice's rows as they are stored."""
    query = "SELECT t::text FROM {} AS t WHERE tenant_id = :tenant ORDER BY id"
    with stage.admin.connect() as connection:
        return [
            connection.scalars(text(query.format(name)), {"tenant": practice.id}).all()
            for name in ("patients", "orders")
        ]


# -- writing ----------------------------------------------------------------------------------


def test_new_patient_and_order_are_the_own(stage: Stage, app: Flask) -> None:
    """What a practice creates is its own, though the code never says so."""
    client = client_of(app, B)
    form = {"first_name": "Zoë", "last_name": "Özdemir", "born": "1980-02-03"}
    patient = int(post(client, "/patients/new", **form).location.rsplit("/", 1)[1])
    order = post(client, f"/orders/new/{patient}", title="Krone", material_id="1", quantity="2")
    number = int(order.location.rsplit("/", 1)[1])
    assert "Krone" in client.get(f"/orders/{number}").text
    assert patient in ids(stage, stage.models.Patient, B)
    assert number in ids(stage, stage.models.Order, B)
    assert post(client, f"/orders/{number}/status", status="in_work").status_code == 302
    changed = post(client, f"/patients/{patient}/edit", **{**form, "first_name": "Zoe"})
    assert changed.location == f"/patients/{patient}"
    assert "Özdemir, Zoe" in client.get(f"/patients/{patient}").text
    assert post(client, f"/patients/{patient}/delete").location == "/patients/"
    assert patient not in ids(stage, stage.models.Patient, B)
    assert number not in ids(stage, stage.models.Order, B)


def test_wrong_forms_say_so(app: Flask) -> None:
    """A form that is not complete comes back with its fields."""
    client = client_of(app, A)
    page = post(client, "/patients/new", first_name="Zoë", last_name="")
    assert "needs a first and a last name" in page.text
    assert 'value="Zoë"' in page.text
    page = post(client, "/patients/new", first_name="Zoë", last_name="X", born="yesterday")
    assert "not a date" in page.text


# -- without a tenant --------------------------------------------------------------------------


def test_session_without_a_practice_is_403(app: Flask) -> None:
    """Somebody who is signed in for no practice sees nothing."""
    client = app.test_client()
    for practice in (None, "nonsense", 7, str(uuid4())):
        with client.session_transaction() as session:
            session.update(user_id=1, practice_id=practice)
        for path in ("/", "/patients/", "/orders/", "/orders/prices"):
            answer = client.get(path)
            assert answer.status_code == 403, (practice, path)
            assert str(practice) not in answer.text


def test_user_of_another_practice_is_403(app: Flask) -> None:
    """A session that pairs a user with another practice finds no such user there."""
    client = app.test_client()
    with client.session_transaction() as session:
        session.update(user_id=1, practice_id=str(B.id))
    assert client.get("/").status_code == 403


def test_public_view_that_reads_tenant_data_is_403(
    stage: Stage, fresh_app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """Declaring a view public gives it no data; the log says what is missing."""

    def leak() -> str:
        return str(stage.example.database.db().scalars(select(stage.models.Patient)).all())

    fresh_app.extensions["tenantguard"].public(leak)
    fresh_app.add_url_rule("/leak", "leak", leak)
    # Without the example's own functions, which ask for the user first.
    fresh_app.before_request_funcs[None] = fresh_app.before_request_funcs[None][1:2]
    assert client_of(fresh_app, A).get("/leak").status_code == 403
    assert "no tenant is active" in caplog.text


def test_error_pages_and_logs_name_no_practice(
    fresh_app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """A page for 403, 404 or 500 shows no tenant id, and neither does the log."""

    def fails() -> str:
        raise RuntimeError("broken")

    fresh_app.add_url_rule("/fails", "fails", fails)
    client = client_of(fresh_app, A)
    for path, status in (("/fails", 500), ("/patients/2", 404), ("/nowhere", 404)):
        page = client.get(path)
        assert page.status_code == status
        assert f"<h1>{status}</h1>" in page.text
        assert not any(str(practice.id) in page.text + caplog.text for practice in PRACTICES)
    assert active_tenant() is None


# -- one after the other, and at the same time -------------------------------------------------


def test_requests_in_one_thread_do_not_mix(stage: Stage, app: Flask) -> None:
    """Alternating practices on the same pooled connection get their own rows each time."""
    clients = {practice: client_of(app, practice) for practice in PRACTICES}
    for _ in range(3):
        for practice, client in clients.items():
            own = ids(stage, stage.models.Patient, practice)
            assert linked("patients", client.get("/patients/")) == own
            assert active_tenant() is None
            assert app.test_client().get("/").location == "/sign-in"


def test_requests_in_many_threads_do_not_mix(stage: Stage, app: Flask) -> None:
    """Practices that work at the same time get their own rows."""
    own = {practice: ids(stage, stage.models.Patient, practice) for practice in PRACTICES}

    def ask(number: int) -> bool:
        practice = PRACTICES[number % 2]
        page = client_of(app, practice).get("/patients/")
        return linked("patients", page) == own[practice]

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(24)))
