"""tenantguard doctor: what is wrong with an application and its database, and what mends it."""

from __future__ import annotations

import importlib
import inspect
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text
from sqlalchemy import Engine

from tenantguard.cli.locate import ADMIN_URL, load_guard
from tenantguard.cli.options import format_option, guard_option
from tenantguard.cli.outcome import COULD_NOT_LOOK, FINDINGS, HOLDS, GuardedCommand
from tenantguard.doctor import (
    Absence,
    Subject,
    engine_for,
    engine_like,
    examine,
    write_json,
    write_text,
)
from tenantguard.engines import engines_of
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tenantguard.doctor import Report

__all__ = ["doctor"]

DATABASE_URL = "TENANTGUARD_DATABASE_URL"
"""Environment variable with the application's own database address."""


def _acceptances(_ctx: Any, _option: Any, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for code, _, reason in pairs:
        if not (code.strip() and reason.strip()):
            raise click.BadParameter('needs a code and a reason: --accept "server-cve=in March".')
    return {code.strip(): reason.strip() for code, _, reason in pairs}


@click.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard doctor",
        "tenantguard doctor --engine myapp.db:engine --format json",
        "tenantguard doctor --without-admin",
        'tenantguard doctor --accept "server-cve=update planned for the next window"',
    ],
)
@guard_option
@click.option(
    "--database-url",
    metavar="URL",
    help=f"Address as the application has it; better given in {DATABASE_URL}, which no process "
    "list shows. Without it, as the engine connects.",
)
@click.option(
    "--admin-url",
    metavar="URL",
    help="Address that sees all rows: a superuser's, or a login's that is granted the maintenance "
    f"role; better given in {ADMIN_URL}.",
)
@click.option(
    "--engine",
    "engine_name",
    metavar="MODULE:ATTRIBUTE",
    help="The application's engine: an Engine, an AsyncEngine, a sessionmaker, or a function "
    "without arguments that returns one.",
)
@click.option("--without-admin", is_flag=True, help="Leave out what needs --admin-url.")
@click.option(
    "--accept",
    "acceptances",
    metavar="CODE=REASON",
    multiple=True,
    callback=_acceptances,
    help="Accept a warning, with the reason. Errors cannot be accepted.",
)
@format_option
@click.pass_context
def doctor(
    ctx: click.Context,
    *,
    guard_name: str | None,
    database_url: str | None,
    admin_url: str | None,
    engine_name: str | None,
    without_admin: bool,
    acceptances: dict[str, str],
    output: str,
) -> None:
    """Examine the application and its database; each finding names what mends it.

    Nothing is changed. Ends with 1 on findings, with 2 if something could not be looked at.
    """
    guard = load_guard(guard_name)
    engines = _engines(engine_name)
    address = database_url or os.environ.get(DATABASE_URL)
    subject = Subject(
        catalog=guard.catalog,
        roles=guard.roles,
        mode=guard.mode,
        application=_application(address, engines),
        admin=_admin(admin_url, unwanted=without_admin),
        engines=engines,
        is_protected=guard.protects,
        address_given=bool(address),
    )
    try:
        with _progress(shown=output == "text") as subject.progress:
            report = examine(subject, acceptances)
    finally:
        for engine in (subject.application, subject.admin):
            if isinstance(engine, Engine):
                engine.dispose()
    (write_json if output == "json" else write_text)(report)
    ctx.exit(_exit_code(report))


def _exit_code(report: Report) -> int:
    # What was not looked at counts for more: the list of findings may be longer.
    if not report.complete:
        return COULD_NOT_LOOK
    return FINDINGS if report.findings else HOLDS


def _application(url: str | None, engines: dict[str, Engine] | Absence) -> Engine | Absence:
    if url:
        return engine_for(url, whose="application's")
    if isinstance(engines, dict):
        name, engine = next(iter(engines.items()))
        return engine_like(engine, name)
    return Absence(
        f"The application's address was not given. Give it with --database-url or {DATABASE_URL}."
    )


def _admin(url: str | None, *, unwanted: bool) -> Engine | Absence:
    if unwanted:
        return Absence("--without-admin", chosen=True)
    given = url or os.environ.get(ADMIN_URL)
    if given:
        return engine_for(given, whose="admin")
    return Absence(
        f"An address that sees all rows was not given. Give it with --admin-url or {ADMIN_URL}, or "
        "leave this out with --without-admin."
    )


def _engines(name: str | None) -> dict[str, Engine] | Absence:
    if name is None:
        return Absence("--engine was not given, such as --engine myapp.db:engine.", chosen=True)
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
        engines = engines_of(found() if inspect.isfunction(found) else found)
    except ConfigurationError:
        return Absence(f"{name!r} is no engine and no sessionmaker that has one.")
    except Exception as error:  # noqa: BLE001  (the application's own code may raise anything)
        return Absence(f"Taking the engine from {name!r} failed ({type(error).__name__}).")
    if len(engines) == 1:
        return {name: engines[0]}
    return {f"{name} ({number})": engine for number, engine in enumerate(engines, 1)}


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[str], None]]:
    console = Console(stderr=True)
    if not (shown and console.is_terminal):
        yield lambda _: None
        return
    with console.status("looking") as status:
        yield lambda what: status.update(Text(what))
