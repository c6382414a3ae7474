"""The application's own engines: protected, and set up so that the locks can work."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tenantguard.doctor.arguments import arguments_of, beyond_address, makes_own_connections
from tenantguard.doctor.subject import Absence, CouldNotLookError, Look
from tenantguard.findings import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from tenantguard.doctor.subject import Subject

__all__ = ["look_at_engines"]


def look_at_engines(subject: Subject) -> Look:
    """Find engines that the guard does not protect, or whose options work against it."""
    engines = subject.engines
    if isinstance(engines, Absence):
        raise CouldNotLookError(engines.reason, chosen=engines.chosen)
    findings: list[Finding] = []
    for name, engine in engines.items():
        findings += _protection(name, engine, subject)
        findings += _connections(name, engine)
        findings += _logging(name, engine)
        if subject.address_given:
            findings += _arguments(name, engine)
    return Look(f"{', '.join(engines)}: {'see below' if findings else 'protected'}", findings)


def _protection(name: str, engine: Engine, subject: Subject) -> Iterator[Finding]:
    if not subject.is_protected(engine):
        yield Finding(
            "engine-unprotected",
            name,
            f"No guard protects the engine {name}: its statements are not scoped, and it binds no "
            "tenant.",
            "guard.protect(engine), where the engine is made.",
        )


def _connections(name: str, engine: Engine) -> Iterator[Finding]:
    dialect: Any = engine.dialect
    pool: Any = engine.pool
    level = engine.get_execution_options().get("isolation_level")
    autocommit = (arguments_of(engine) or {}).get("autocommit")
    if autocommit or "AUTOCOMMIT" in (level, dialect._on_connect_isolation_level):  # noqa: SLF001
        yield Finding(
            "engine-autocommit",
            name,
            f"The engine {name} is in AUTOCOMMIT, where only SQLAlchemy's statements carry the "
            "tenant, each in a transaction of its own, and the driver's own cursors are refused.",
            "Leave out isolation_level='AUTOCOMMIT' and autocommit=; give single connections "
            "execution_options(isolation_level=…) where they need it.",
        )
    if pool._reset_on_return.name == "reset_none":  # noqa: SLF001
        yield Finding(
            "engine-no-reset",
            name,
            f"The pool of {name} does not roll back what is returned to it, so a transaction stays "
            "open with its tenant.",
            "Leave out pool_reset_on_return=None.",
        )
    if makes_own_connections(engine):
        yield Finding(
            "engine-creator",
            name,
            f"The engine {name} makes its connections by a function of its own, which does not "
            "make them connections that bind a tenant.",
            "Leave out creator= and async_creator=; put what it does into connect_args= or a "
            "`do_connect` listener that changes the arguments.",
        )


def _arguments(name: str, engine: Engine) -> Iterator[Finding]:
    names = beyond_address(engine)
    if names == []:
        return
    what = "arguments that cannot be read" if names is None else ", ".join(names)
    yield Finding(
        "engine-arguments",
        name,
        f"The engine {name} connects with more than its address says: {what}. The address that was "
        "given was examined without that.",
        "Leave out --database-url and TENANTGUARD_DATABASE_URL, and what the engine connects with "
        "is examined; or say the same in the address that you give, and accept this.",
        Severity.WARNING,
    )


def _logging(name: str, engine: Engine) -> Iterator[Finding]:
    if not engine.hide_parameters:
        yield Finding(
            "engine-shows-parameters",
            name,
            f"Errors and logs of the engine {name} print the values of statements.",
            "Leave out show_parameters=True of protect(), or create_engine(hide_parameters=True).",
            Severity.WARNING,
        )
    # hide_parameters hides what is sent; at DEBUG, SQLAlchemy prints the rows that come back.
    if engine.logger.isEnabledFor(logging.DEBUG):
        yield Finding(
            "engine-logs-rows",
            name,
            f"The engine {name} logs every row it reads.",
            "Leave out echo='debug', and set the logger sqlalchemy.engine to INFO or above.",
            Severity.WARNING,
        )
