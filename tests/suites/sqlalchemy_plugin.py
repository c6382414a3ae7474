"""A pytest plugin that puts a guard onto every engine that a suite makes with `create_engine`.

    python -m pytest -p sqlalchemy_plugin --tenantguard bare …

It has to be loaded by `-p`: before the suite's conftest.py, which imports `create_engine`.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any

import sqlalchemy.engine
from sqlalchemy.engine import create
from standins import FORMS, TENANT, attach, make_guard

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from sqlalchemy import Engine

    from tenantguard import TenantGuard

_GUARDED = {
    ("postgresql", "psycopg"),
    ("postgresql", "psycopg2"),
    ("sqlite", "pysqlite"),
}
# An engine with one of these does not connect by itself, or to no database.
_FOREIGN = {"_initialize", "creator", "module", "pool"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tenantguard", choices=FORMS, default=None, help="the guard's form")


def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    form = early_config.known_args_namespace.tenantguard
    if form is None:
        return
    guard = make_guard(form)
    stack = ExitStack()
    stack.enter_context(guard.tenant_context(TENANT))
    early_config.add_cleanup(stack.close)
    early_config.add_cleanup(lambda: print(f"\n{guard.observations.counts}"))  # noqa: T201
    guarded = _guarding(guard, create.create_engine)
    for module in (create, sqlalchemy.engine, sqlalchemy):
        module.create_engine = guarded  # type: ignore[attr-defined]


def _guarding(guard: TenantGuard, make: Callable[..., Engine]) -> Callable[..., Engine]:
    @wraps(make)
    def create_engine(*args: Any, **options: Any) -> Engine:
        engine = make(*args, **options)
        if (engine.name, engine.driver) in _GUARDED and not _FOREIGN & set(options):
            attach(guard, engine)
        return engine

    return create_engine
