"""A version of SQLAlchemy or of a driver that lacks a hook is refused, not run without it."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import loading

from tenantguard import ConfigurationError
from tenantguard.binding import refuse_driver
from tenantguard.binding.driver import need_hooks
from tenantguard.scoping.compiler import scoping_compiler
from tenantguard.scoping.streams import watch_streams

NONE: Any = None


def test_a_compiler_without_a_hook_is_refused() -> None:
    """The predicate would silently be missing wherever that hook places it."""
    bare: Any = type("Bare", (), {})
    with pytest.raises(ConfigurationError, match="no compiler hook _compose_select_body"):
        scoping_compiler(bare, NONE)


def test_an_execution_context_without_a_hook_is_refused() -> None:
    """Streamed rows would come out for whoever reads them."""
    dialect: Any = SimpleNamespace(execution_ctx_cls=object)
    with pytest.raises(ConfigurationError, match="no hook for streamed results"):
        watch_streams(dialect, NONE)


def test_a_driver_without_a_hook_is_refused() -> None:
    """Transactions would begin without their tenant."""
    with pytest.raises(ConfigurationError, match="no hook _start_query; tenantguard supports x>=1"):
        need_hooks("x>=1", object, ["_start_query"])


@pytest.mark.parametrize("mode", ["psycopg.synchronous", "psycopg.asynchronous", "asyncpg"])
def test_each_driver_is_asked_for_its_hooks(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When an engine is protected, before it connects."""
    name, _, kind = mode.partition(".")
    driver = import_module(f"tenantguard.binding.{name}")
    monkeypatch.setattr(driver, "_CHECKED" if name == "asyncpg" else "_HOOKS", ("missing",))
    with pytest.raises(ConfigurationError, match=rf"no hook missing; tenantguard .* {name}>="):
        getattr(driver, kind or "asynchronous")()


def test_objects_are_watched_once() -> None:
    """However many engines are protected, a chunk of objects is looked at once."""
    watch_streams(create_engine("postgresql+psycopg://").dialect, NONE)
    watching = loading.instances
    watch_streams(create_engine("postgresql+psycopg://").dialect, NONE)
    assert loading.instances is watching


@pytest.mark.parametrize(
    ("name", "driver"), [("postgresql", "pg8000"), ("mysql", "psycopg"), ("sqlite", "pysqlite")]
)
def test_a_driver_that_cannot_bind_is_refused(name: str, driver: str) -> None:
    """It takes PostgreSQL and one of the three drivers."""
    engine: Any = SimpleNamespace(dialect=SimpleNamespace(name=name, driver=driver))
    with pytest.raises(ConfigurationError, match=rf"cannot bind a tenant with {name}\+{driver}"):
        refuse_driver(engine)
