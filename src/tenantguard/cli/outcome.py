"""How every command ends: 0 holds, 1 findings, 2 could not look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import click
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tenantguard.doctor.subject import is_lost
from tenantguard.errors import (
    LOCK_NOT_AVAILABLE,
    IsolationError,
    PolicyDriftError,
    TenantGuardError,
    sqlstate,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["COULD_NOT_LOOK", "FINDINGS", "HOLDS", "GuardedCommand", "could_not_look"]

HOLDS, FINDINGS, COULD_NOT_LOOK = 0, 1, 2

_DUPLICATE = (
    "A unique key does not take a value that another row has already, such as an equal value's "
    "blind index. Change or delete one of the two rows and run the command again; what was done "
    "before stays done."
)
_LOCKED = (
    "An open transaction kept a lock for too long. Let it end, or look for it in pg_stat_activity, "
    "and run the command again; what was done before stays done."
)
_ROLE = "Check that the role of --admin-url owns the tables or is a superuser."
_MENDED_BY = {"23505": _DUPLICATE, LOCK_NOT_AVAILABLE: _LOCKED}


def could_not_look(message: str) -> NoReturn:
    """Write one line to stderr and end with 2."""
    _fail(message, COULD_NOT_LOOK)


class GuardedCommand(click.Command):
    """A command whose expected errors are one line, with examples at the end of its help."""

    def __init__(self, *args: Any, examples: Iterable[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; no expected problem ends in a traceback."""
        try:
            return super().invoke(ctx)
        except (IsolationError, PolicyDriftError) as error:
            _fail(str(error), FINDINGS)
        except TenantGuardError as error:
            could_not_look(str(error))
        except DBAPIError as error:
            could_not_look(_database(error))
        except SQLAlchemyError as error:
            could_not_look(
                f"SQLAlchemy refused the models or the address ({type(error).__name__})."
            )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        del ctx
        if self.examples:
            with formatter.section("Examples"):
                # Not wrapped: it is there to be copied.
                margin = " " * formatter.current_indent
                for example in self.examples:
                    formatter.write(f"{margin}$ {example}\n")


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"tenantguard: {' '.join(message.split())}", err=True)
    raise click.exceptions.Exit(code)


def _database(error: DBAPIError) -> str:
    # The driver's text can hold the address, and with it the password.
    code = sqlstate(error)
    if is_lost(error):
        # Not every driver has a code for it.
        named = f" ({code})" if code else ""
        return (
            f"PostgreSQL or the network ended the connection{named}. Check that the "
            "server runs and keeps the connection, then run the command again."
        )
    if code is None:
        return (
            "The database cannot be reached. Check host, port, user and password of --admin-url or "
            "TENANTGUARD_ADMIN_URL, and that the server runs."
        )
    mend = _MENDED_BY.get(code, _ROLE)
    return f"PostgreSQL refused ({code}, {type(error.orig).__name__}). {mend}"
