"""A pytest plugin for Flask-SQLAlchemy's own suite: a `FlaskGuard` in every application.

    python -m pytest -p flask_plugin -p sqlalchemy_plugin --tenantguard bare --in-postgresql URL …

The suite knows SQLite only. `--in-postgresql` gives each of its in-memory databases a schema in the
database of URL instead, with a guard and without.
"""

from __future__ import annotations

from functools import wraps
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy.engine
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import make_url, text
from sqlalchemy.engine import create
from standins import TENANT, make_guard

from tenantguard.integrations.flask import FlaskGuard

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

_schemas = count()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--in-postgresql", metavar="URL", help="where in-memory databases are instead")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    options = early_config.known_args_namespace
    if options.in_postgresql:
        elsewhere = _elsewhere(options.in_postgresql, create.create_engine)
        for module in (create, sqlalchemy.engine, sqlalchemy):
            module.create_engine = elsewhere  # type: ignore[attr-defined]
        # The suite drops its tables while a session still reads them, which PostgreSQL waits for.
        SQLAlchemy.drop_all = lambda *_, **__: None  # type: ignore[method-assign]
    if options.tenantguard:
        _guard_new_applications()


def _elsewhere(address: str, make: Callable[..., Engine]) -> Callable[..., Engine]:
    admin = make(address, isolation_level="AUTOCOMMIT")

    @wraps(make)
    def create_engine(url: Any, **options: Any) -> Engine:
        if make_url(url).get_backend_name() != "sqlite" or make_url(url).database:
            return make(url, **options)
        schema = f"suite_{next(_schemas)}"
        with admin.connect() as connection:
            connection.execute(text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
            connection.execute(text(f"CREATE SCHEMA {schema}"))
        options.pop("poolclass", None)
        options["connect_args"] = {"options": f"-c search_path={schema}"}
        return make(address, **options)

    return create_engine


def _guard_new_applications() -> None:
    guard = make_guard("bare")
    construct = Flask.__init__

    @wraps(construct)
    def construct_guarded(self: Flask, *args: Any, **options: Any) -> None:
        construct(self, *args, **options)
        FlaskGuard(self, guard, resolver=lambda _: TENANT)

    Flask.__init__ = construct_guarded  # type: ignore[method-assign]
