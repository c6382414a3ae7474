"""The server, a database a module, and the application under test with its locks."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING

import pytest
from _pytest.runner import runtestprotocol
from drivers import ASYNC, DRIVERS, close_loop, in_greenlet
from locks import Locks, World, build_world
from pytest_postgresql.janitor import DatabaseJanitor
from sqlalchemy import URL, create_engine, make_url, text
from vault import Vault, build_vault

from tenantguard.demo.server import embedded_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shown import Shown

pytest_plugins = ("key_fixtures",)

_numbers = count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--driver",
        choices=DRIVERS,
        default="psycopg",
        help="the driver of the engines under test, where a test does not name its own",
    )
    parser.addoption(
        "--pgbouncer",
        action="store_true",
        help="run also what needs PgBouncer on this machine (Debian's package pgbouncer)",
    )
    parser.addoption(
        "--softhsm",
        action="store_true",
        help="run also what needs SoftHSM on this machine (Debian's package softhsm2)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "pgbouncer: needs PgBouncer; left out without --pgbouncer")
    config.addinivalue_line("markers", "softhsm: needs SoftHSM; left out without --softhsm")
    config.addinivalue_line("markers", "drivers(*names): what is tested needs one of these drivers")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that need another driver's interface, or a program nobody asked for."""

    def fits(item: pytest.Item) -> bool:
        for program in ("pgbouncer", "softhsm"):
            if item.get_closest_marker(program) and not config.getoption(program):
                return False
        return all(
            config.getoption("driver") in marker.args for marker in item.iter_markers("drivers")
        )

    config.hook.pytest_deselected(items=[item for item in items if not fits(item)])
    items[:] = [item for item in items if fits(item)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run each test, with its fixtures, where engines of its driver work."""
    parameters = getattr(item, "callspec", None)
    driver = (parameters and parameters.params.get("driver")) or item.config.getoption("driver")
    if driver not in ASYNC:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    in_greenlet(runtestprotocol, item, nextitem=nextitem)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_sessionfinish() -> None:
    close_loop()


@pytest.fixture(scope="session")
def server() -> Iterator[URL]:
    """A superuser's address on the embedded server, or on the one of TENANTGUARD_TEST_URL."""
    given = os.environ.get("TENANTGUARD_TEST_URL")
    if given:
        yield make_url(given)
        return
    with embedded_server() as running:
        yield running.url()


@pytest.fixture(scope="session")
def server_version(server: URL) -> int:
    """The server's version as PostgreSQL counts it, such as 180004."""
    engine = create_engine(server)
    with engine.connect() as connection:
        version = int(connection.scalar(text("SHOW server_version_num")) or 0)
    engine.dispose()
    return version


@pytest.fixture(scope="session")
def new_database(server: URL) -> Iterator[Callable[[], URL]]:
    """Makes fresh databases, which are dropped at the end; each URL is a superuser's."""
    with ExitStack() as stack:

        def create() -> URL:
            name = f"tg_{os.getpid()}_{next(_numbers)}"
            janitor = DatabaseJanitor(
                user=server.username or "postgres",
                host=str(server.query.get("host") or server.host),
                port=server.port or 5432,
                dbname=name,
                password=server.password,
            )
            stack.enter_context(janitor)
            return server.set(database=name)

        yield create


@pytest.fixture(scope="module")
def admin_url(new_database: Callable[[], URL]) -> URL:
    """A superuser's address of a fresh database, one a module."""
    return new_database()


@pytest.fixture(scope="module")
def world(admin_url: URL) -> Iterator[World]:
    """The test application's database with two tenants, its roles and its policies."""
    built = build_world(admin_url)
    yield built
    built.dispose()


@pytest.fixture(scope="module")
def vault(admin_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """The test application with encrypted columns, its database and two tenants."""
    built = build_vault(admin_url, tmp_path_factory.mktemp("keys"))
    yield built
    built.dispose()


@pytest.fixture(scope="module")
def masked(admin_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """An application with columns whose reading is restricted, its database and two tenants."""
    # Not before: a control may take away what declares the columns.
    from masking import Base  # noqa: PLC0415

    built = build_vault(admin_url, tmp_path_factory.mktemp("keys"), base=Base)
    yield built
    built.dispose()


@pytest.fixture(autouse=True)
def _close_engines(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "vault" in request.fixturenames:
        request.getfixturevalue("vault").close_engines()


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> str:
    """The driver of the engines under test; a test may parametrise it."""
    return str(request.config.getoption("driver"))


@pytest.fixture
def locks(world: World, driver: str) -> Iterator[Locks]:
    """Engines on the module's world: both locks, the first alone, the second alone, none."""
    engines = Locks(world, driver)
    yield engines
    engines.dispose()


@pytest.fixture
def shown(
    new_database: Callable[[], URL], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shown]:
    """An application for the code of the documentation: without models, its database empty."""
    # Not before: a control may take away what the blocks import.
    from shown import Shown  # noqa: PLC0415

    made = Shown(create_engine(new_database()), tmp_path)
    made.install(monkeypatch)
    yield made
    made.close()


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that change as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)
