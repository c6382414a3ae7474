"""Plain engines for the addresses that a command is given, which are never printed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from tenantguard.doctor.arguments import arguments_of
from tenantguard.doctor.libpq import UntranslatableError, as_url, from_asyncpg, from_libpq
from tenantguard.doctor.subject import Absence

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["engine_for", "engine_like"]

_SYNCHRONOUS = ("psycopg", "psycopg2")
_DRIVERS = {None, "psycopg", "psycopg2", "psycopg_async", "asyncpg"}
_INSTEAD = (
    "Give the application's address with --database-url or TENANTGUARD_DATABASE_URL, for psycopg: "
    "postgresql+psycopg://…, with libpq's arguments."
)


def engine_for(address: str | URL, *, whose: str) -> Engine | Absence:
    """Return an engine for *address*, or why there is none.

    An asynchronous driver's address is taken for a synchronous one that is installed, with the
    same server, role and encryption; if it has an argument that cannot be kept, it is refused.
    """
    try:
        url = make_url(address)
        if url.get_backend_name() not in {"postgresql", "postgres"}:
            return _not_postgresql(whose)
        if _driver_of(url) not in _DRIVERS:
            return Absence(
                f"The {whose} address cannot be read: its driver is not supported. Give one for "
                "psycopg, psycopg2 or asyncpg."
            )
        return _made(_synchronous(url))
    except UntranslatableError:
        return Absence(
            f"The {whose} address cannot be read: it has an argument of asyncpg's that libpq "
            "cannot be given. Write it for psycopg: postgresql+psycopg://…, with libpq's arguments."
        )
    except (ArgumentError, NoSuchModuleError, ValueError):
        return _unreadable(whose)


def engine_like(engine: Engine, name: str) -> Engine | Absence:
    """Return a plain engine that connects as *engine* does, or why there is none.

    What counts is what *engine*'s connections are made with, `connect_args` included, and not its
    address alone.
    """
    if engine.dialect.name != "postgresql":
        return _not_postgresql("application's")
    arguments = arguments_of(engine)
    if arguments is None:
        return Absence(
            f"How {name} connects cannot be read: it has a creator=, a pool or a do_connect "
            f"listener of its own. {_INSTEAD}"
        )
    if engine.dialect.driver not in _DRIVERS:
        return Absence(f"The driver of {name} is not supported. {_INSTEAD}")
    try:
        return _made(_libpq_url(engine.dialect.driver, arguments))
    except UntranslatableError as error:
        return Absence(f"An argument of {name} cannot be given to libpq{error.named}. {_INSTEAD}")
    except (ArgumentError, ValueError):
        return _unreadable("application's")


def _libpq_url(driver: str, arguments: Mapping[str, Any]) -> URL:
    if driver == "asyncpg":
        return as_url(_installed(), from_asyncpg(arguments))
    return as_url(driver, from_libpq(arguments))


def _made(url: URL) -> Engine | Absence:
    try:
        return create_engine(url, hide_parameters=True)
    except ImportError:
        return Absence(
            "The commands need a synchronous driver, and the address's is not installed: "
            f"pip install 'tenantguard[{_driver_of(url)}]'."
        )


def _synchronous(url: URL) -> URL:
    if url.drivername == "postgresql+asyncpg":
        arguments = url.get_dialect()().create_connect_args(url)[1]
        return _libpq_url("asyncpg", arguments)
    if _driver_of(url) in _SYNCHRONOUS:
        return url
    return url.set(drivername=f"postgresql+{_installed()}")


def _driver_of(url: URL) -> str | None:
    """Return the driver that *url* names, if it names one."""
    return url.drivername.partition("+")[2] or None


def _installed() -> str:
    """Return the synchronous driver that is there; psycopg, if both are or none is."""
    return next(filter(find_spec, _SYNCHRONOUS), "psycopg")


def _not_postgresql(whose: str) -> Absence:
    return Absence(f"The {whose} address is not PostgreSQL's; only PostgreSQL has policies.")


def _unreadable(whose: str) -> Absence:
    return Absence(
        f"The {whose} address cannot be read. Its form is "
        "postgresql+psycopg://user:password@host:port/database."
    )
