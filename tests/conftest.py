"""The server, a database a module, and the application under test with its locks."""

from __future__ import annotations

import os
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING

import pytest
from locks import Locks, World, build_world
from pytest_postgresql.janitor import DatabaseJanitor
from sqlalchemy import URL, create_engine, make_url, text

from tenantguard.demo.server import embedded_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_numbers = count()


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


@pytest.fixture
def locks(world: World) -> Iterator[Locks]:
    """Engines on the module's world: both locks, the first alone, the second alone, none."""
    engines = Locks(world)
    yield engines
    engines.dispose()
