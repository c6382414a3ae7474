"""The diffs in the documentation are the ones that protected and encrypted the FastAPI example."""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from httpx import ASGITransport, AsyncClient
from steps import EXAMPLES, apply, changed_lines, copy_before, diff, dump, files, last_name, loaded

from tenantguard.demo.data import PRACTICES
from tenantguard.demo.stage import Stage, set_up, stage_with

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL

EXAMPLE = EXAMPLES / "starlette_app"
PROTECT, ENCRYPT = diff("protect", "starlette"), diff("encrypt", "starlette")
OWN, FOREIGN = 1, 2
NEW = {"first_name": "Zoë", "last_name": "Özdemir", "born": "1980-02-03"}
# What the first of two practices with three patients each gets to see.
UNPROTECTED = {"listed": 3, "own": 200, "foreign": 200, "exported": 6, "created": 201}
PROTECTED = {"listed": 3, "own": 200, "foreign": 404, "exported": 3, "created": 201}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def unprotected(tmp_path: Path) -> Path:
    """The example as it was before."""
    return copy_before("protect", "starlette", tmp_path / "before")


@pytest.fixture
def before(unprotected: Path) -> Iterator[Any]:
    """The unprotected example's package."""
    with loaded(unprotected, "unprotected_app") as package:
        yield package


@pytest.fixture
def protected(tmp_path: Path) -> Path:
    """The example with isolation and without encryption."""
    return copy_before("encrypt", "starlette", tmp_path / "protected")


@pytest.fixture(scope="module")
def plain_stage(
    tmp_path_factory: pytest.TempPathFactory, new_database: Callable[[], URL]
) -> Iterator[Stage]:
    """A stage for the example without encryption."""
    package = copy_before("encrypt", "starlette", tmp_path_factory.mktemp("plain"))
    with (
        loaded(package, "protected_app") as example,
        stage_with(
            example, new_database(), patients=3, tell=lambda _text: nullcontext(), app="starlette"
        ) as stage,
    ):
        yield stage


@pytest.fixture(scope="module")
def stage(new_database: Callable[[], URL]) -> Iterator[Stage]:
    with set_up(
        new_database(), patients=3, tell=lambda _text: nullcontext(), app="starlette"
    ) as stage:
        yield stage


# -- isolation ---------------------------------------------------------------------------------


def test_diff_is_short() -> None:
    """At most 25 lines were added or removed."""
    assert 0 < sum(changed_lines(PROTECT)) <= 25


def test_unprotected_example_knows_nothing_of_tenantguard(unprotected: Path) -> None:
    """Reversed, the diffs leave an app without the library, that can be compiled."""
    for path in unprotected.rglob("*.py"):
        source = path.read_text("utf-8")
        assert "tenantguard" not in source
        compile(source, str(path), "exec")


def test_diff_makes_the_example(unprotected: Path, protected: Path) -> None:
    """Applied again, the diff gives the protected example, byte for byte."""
    apply(PROTECT, unprotected.parents[1])
    assert files(unprotected) == files(protected)


def test_tenant_conditions_were_there_and_are_gone(unprotected: Path) -> None:
    """Before, somebody wrote some by hand; the protected example has none at all."""
    hand_written = (".tenant_id ==", "tenant_id=user")
    for wanted in hand_written:
        assert any(wanted in path.read_text("utf-8") for path in unprotected.glob("*.py"))
    for path in EXAMPLE.glob("*.py"):
        assert not any(wanted in path.read_text("utf-8") for wanted in hand_written)


@pytest.mark.anyio
@pytest.mark.parametrize("by", ["psycopg", "asyncpg"])
async def test_unprotected_example_shows_what_was_forgotten(
    plain_stage: Stage, before: Any, by: str
) -> None:
    """Negative control: the lists were right and the rest was open; the policies alone close it."""
    name = f"postgresql+{by}"
    superuser, application = (
        each.set(drivername=name) for each in (plain_stage.admin.url, plain_stage.application)
    )
    assert await _seen(before, superuser) == UNPROTECTED
    assert await _seen(plain_stage.example, application) == PROTECTED
    assert await _seen(before, application) == {"signed in": 401}


@pytest.mark.anyio
async def test_conditions_written_by_hand_may_stay(plain_stage: Stage, unprotected: Path) -> None:
    """Without its deletions, the diff protects the app as well: they can wait."""
    apply(PROTECT, unprotected.parents[1], "--exclude=*/orders.py", "--exclude=*/patients.py")
    with loaded(unprotected) as package:
        assert ".tenant_id ==" in (unprotected / "patients.py").read_text("utf-8")
        assert await _seen(package, plain_stage.application) == PROTECTED


# -- encryption --------------------------------------------------------------------------------


def test_encryption_is_short() -> None:
    """The numbers of lines are those that the page about the diff states."""
    page = ENCRYPT.with_name("diff-starlette.md").read_text("utf-8")
    added, removed = changed_lines(ENCRYPT)
    assert 0 < added + removed <= 40
    assert f"{added} lines come and {removed} go" in " ".join(page.split())


def test_encryption_makes_the_example(protected: Path) -> None:
    """Applied again, the second diff gives the example, byte for byte."""
    apply(ENCRYPT, protected.parents[1])
    assert files(protected) == files(EXAMPLE)


def test_encryption_touches_models_keys_and_search_only(protected: Path) -> None:
    """No route, schema, export, task or WebSocket is touched but the search."""
    before, after = files(protected), files(EXAMPLE)
    changed = {name for name in after if before[name] != after[name]}
    assert changed == {"models.py", "database.py", "patients.py"}


@pytest.mark.anyio
@pytest.mark.parametrize("by", ["psycopg", "asyncpg"])
async def test_clients_see_the_same(plain_stage: Stage, stage: Stage, by: str) -> None:
    """The answers are the same before and after; the database's rows are not."""
    answers = []
    order, _ = stage.first(stage.models.Order)
    for each in (plain_stage, stage):
        application = each.application.set(drivername=f"postgresql+{by}")
        async with _signed_in(each.example, application) as client:
            paths = (f"/patients/{OWN}", f"/orders/{order}", "/patients/export.csv")
            answers.append([await _get(client, path) for path in paths])
    assert answers[0] == answers[1]
    name = last_name(plain_stage)
    assert [status for status, _ in answers[0]] == [200, 200, 200]
    assert name in answers[1][0][1]
    assert name in dump(plain_stage)
    assert name not in dump(stage)
    assert await _seen(stage.example, stage.application) == PROTECTED


@pytest.mark.anyio
async def test_what_searching_loses(plain_stage: Stage, stage: Stage) -> None:
    """Before, a part of a name was enough; after, the whole name is needed, in any case."""
    name = last_name(plain_stage)
    found = []
    for each in (plain_stage, stage):
        async with _signed_in(each.example, each.application) as client:
            for wanted in (name[:3], name.upper()):
                page = (await client.get("/patients", params={"q": wanted})).json()
                found.append(OWN in {row["id"] for row in page["rows"]})
    assert found == [True, True, False, True]


async def _get(client: AsyncClient, path: str) -> tuple[int, str]:
    answer = await client.get(path)
    return answer.status_code, answer.text


async def _seen(package: Any, address: URL) -> dict[str, int]:
    """Return what the first practice gets to see."""
    async with _signed_in(package, address) as client:
        status = (await client.get("/me")).status_code
        if status != 200:
            return {"signed in": status}
        created = await client.post("/patients", json=NEW)
        await client.delete(f"/patients/{created.json()['id']}")
        return {
            "created": created.status_code,
            "listed": (await client.get("/patients")).json()["total"],
            "own": (await client.get(f"/patients/{OWN}")).status_code,
            "foreign": (await client.get(f"/patients/{FOREIGN}")).status_code,
            "exported": len((await client.get("/patients/export.csv")).text.splitlines()) - 1,
        }


@asynccontextmanager
async def _signed_in(package: Any, address: URL) -> AsyncIterator[AsyncClient]:
    """A client of the first practice, if signing in works."""
    practice = PRACTICES[0]
    app = package.create_app({"DATABASE_URL": address, "SECRET_KEY": "test"})
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://lab") as client,
    ):
        await client.post("/sign-in", json={"email": practice.email, "password": practice.password})
        yield client
