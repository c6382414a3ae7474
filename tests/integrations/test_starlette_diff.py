"""The diff in the documentation is the one that protected the FastAPI example."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from httpx import ASGITransport, AsyncClient

from tenantguard.demo.data import PRACTICES
from tenantguard.demo.stage import Stage, set_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

ROOT = Path(__file__).resolve().parents[2]
DIFF = ROOT / "docs" / "protect-starlette.diff"
OWN, FOREIGN = 1, 2
NEW = {"first_name": "Zoë", "last_name": "Özdemir", "born": "1980-02-03"}
# What the first of two practices with three patients each gets to see.
UNPROTECTED = {"listed": 3, "own": 200, "foreign": 200, "exported": 6, "created": 201}
PROTECTED = {"listed": 3, "own": 200, "foreign": 404, "exported": 3, "created": 201}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


def _apply(directory: Path, *options: str) -> None:
    command = ["git", "apply", *options, str(DIFF)]
    environment = {
        "PATH": "/usr/bin:/bin:/usr/local/bin",
        "GIT_CEILING_DIRECTORIES": str(directory.parent),
    }
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def unprotected(tmp_path: Path) -> Path:
    """The example as it was before."""
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__")
    )
    _apply(tmp_path, "--reverse")
    return tmp_path / "examples" / "starlette_app"


@pytest.fixture
def before(unprotected: Path) -> Iterator[Any]:
    """The unprotected example's package."""
    with _loaded(unprotected) as package:
        yield package


@contextmanager
def _loaded(directory: Path) -> Iterator[Any]:
    """Load the package in *directory* under a name of its own."""
    name = "another_starlette_app"
    spec = spec_from_file_location(name, directory / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    package = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(package)
        yield package
    finally:
        for each in [each for each in sys.modules if each.split(".")[0] == name]:
            del sys.modules[each]


@pytest.fixture(scope="module")
def stage(new_database: Callable[[], URL]) -> Iterator[Stage]:
    with set_up(
        new_database(), patients=3, tell=lambda _text: nullcontext(), app="starlette"
    ) as stage:
        yield stage


def test_diff_is_short() -> None:
    """At most 25 lines were added or removed."""
    lines = DIFF.read_text("utf-8").splitlines()
    changed = [
        line for line in lines if line[:1] in {"+", "-"} and line[:4] not in {"+++ ", "--- "}
    ]
    assert 0 < len(changed) <= 25


def test_unprotected_example_knows_nothing_of_tenantguard(unprotected: Path) -> None:
    """Reversed, the diff leaves an app without the library, that can be compiled."""
    for path in unprotected.rglob("*.py"):
        source = path.read_text("utf-8")
        assert "tenantguard" not in source
        compile(source, str(path), "exec")


def test_diff_makes_the_example(unprotected: Path) -> None:
    """Applied again, the diff gives the example, byte for byte."""
    _apply(unprotected.parents[1])
    for path in unprotected.rglob("*.py"):
        original = ROOT / "examples" / "starlette_app" / path.relative_to(unprotected)
        assert path.read_bytes() == original.read_bytes()


def test_tenant_conditions_were_there_and_are_gone(unprotected: Path) -> None:
    """Before, somebody wrote some by hand; the protected example has none at all."""
    hand_written = (".tenant_id ==", "tenant_id=user")
    for wanted in hand_written:
        assert any(wanted in path.read_text("utf-8") for path in unprotected.glob("*.py"))
    for path in (ROOT / "examples" / "starlette_app").glob("*.py"):
        assert not any(wanted in path.read_text("utf-8") for wanted in hand_written)


@pytest.mark.anyio
@pytest.mark.parametrize("by", ["psycopg", "asyncpg"])
async def test_unprotected_example_shows_what_was_forgotten(
    stage: Stage, before: Any, by: str
) -> None:
    """Negative control: the lists were right and the rest was open; the policies alone close it."""
    name = f"postgresql+{by}"
    superuser, application = (
        each.set(drivername=name) for each in (stage.admin.url, stage.application)
    )
    assert await _seen(before, superuser) == UNPROTECTED
    assert await _seen(stage.example, application) == PROTECTED
    assert await _seen(before, application) == {"signed in": 401}


@pytest.mark.anyio
async def test_conditions_written_by_hand_may_stay(stage: Stage, unprotected: Path) -> None:
    """Without its deletions, the diff protects the app as well: they can wait."""
    _apply(unprotected.parents[1], "--exclude=*/orders.py", "--exclude=*/patients.py")
    with _loaded(unprotected) as package:
        assert ".tenant_id ==" in (unprotected / "patients.py").read_text("utf-8")
        assert await _seen(package, stage.application) == PROTECTED


async def _seen(package: Any, address: URL) -> dict[str, int]:
    """Return what the first practice gets to see."""
    practice = PRACTICES[0]
    app = package.create_app({"DATABASE_URL": address, "SECRET_KEY": "test"})
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://lab") as client,
    ):
        login = {"email": practice.email, "password": practice.password}
        status = (await client.post("/sign-in", json=login)).status_code
        if status != 204:
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
