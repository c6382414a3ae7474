"""Plain engines for the addresses that a command is given, which are never printed."""

from __future__ import annotations

from importlib.util import find_spec

from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from tenantguard.doctor.subject import Absence

__all__ = ["engine_for"]


def engine_for(address: str | URL, *, whose: str) -> Engine | Absence:
    """Return an engine for *address*, or why there is none.

    An asynchronous driver's address is taken for the synchronous one that is installed.
    """
    try:
        url = make_url(address)
        if url.get_backend_name() not in {"postgresql", "postgres"}:
            return Absence(
                f"The {whose} address is not PostgreSQL's; only PostgreSQL has policies."
            )
        return create_engine(_synchronous(url), hide_parameters=True)
    except (ArgumentError, NoSuchModuleError, ValueError):
        return Absence(
            f"The {whose} address cannot be read. Its form is "
            "postgresql+psycopg://user:password@host:port/database."
        )
    except ImportError:
        return Absence("The address's driver is not installed: pip install 'tenantguard[psycopg]'.")


def _synchronous(url: URL) -> URL:
    if url.drivername == "postgresql+asyncpg":
        ssl = url.query.get("ssl")
        options = {"sslmode": ssl} if ssl else {}
        url = url.set(query=options)
    if url.drivername in {"postgres", "postgresql", "postgresql+asyncpg"}:
        installed = find_spec("psycopg") is None and find_spec("psycopg2")
        return url.set(drivername=f"postgresql+{'psycopg2' if installed else 'psycopg'}")
    return url.set(drivername=url.drivername.removesuffix("_async"))
