"""A search column that a trigger keeps: plain, so that no table is rewritten to have it.

The trigger takes the blind index out of what is written, whoever writes it. A check demands that it
is there, so without the trigger a write fails, and is not lost for searches.
"""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantguard.keytable import KEPT, SEARCHES
from tenantguard.rls.names import do_block, object_name, plain_literal, quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column, Table

    from tenantguard.rls.state import Facts

__all__ = [
    "PREFIX",
    "derived_sql",
    "fills",
    "hand_over",
    "is_keeper",
    "keeper",
    "keeper_body",
    "keeping",
    "kept_by_source",
    "unkeeping",
]

PREFIX = "zz_tg_search_"
"""What the triggers' names begin with: they fire in the order of their names, and this one last."""


def kept_by_source(table: Table) -> dict[str, list[Column[Any]]]:
    """Return the search columns of *table* that a trigger keeps, by the encrypted column's name."""
    found: dict[str, list[Column[Any]]] = {}
    for column in table.columns:
        if KEPT in column.info:
            found.setdefault(column.info[SEARCHES], []).append(column)
    return found


def derived_sql(column: Column[Any], named: Callable[[str], str] = quote) -> str:
    """Return the expression of what *column* holds; *named* writes the encrypted column's name."""
    begin, size = column.info[KEPT]
    return f"substring({named(column.info[SEARCHES])}, {begin}, {size})"


def keeper(table: str, source: str) -> str:
    """Return the name of the trigger, and of its function, for searches of *source* in *table*."""
    return f"{PREFIX}{object_name(table, source, 'search')[-8:]}"


def keeper_body(columns: list[Column[Any]]) -> str:
    """Return what the function of the trigger that keeps *columns* does."""
    taken = (f"    {_of_new(each.name)} := {derived_sql(each, _of_new)};\n" for each in columns)
    return f"\nBEGIN\n{''.join(taken)}    RETURN NEW;\nEND\n"


def fills(body: str, column: str) -> bool:
    """Return whether a function that does *body* fills *column* of a new row."""
    return f"{_of_new(column)} := substring(" in body


def _of_new(name: str) -> str:
    return f"NEW.{quote(name)}"


def keeping(table: str, function: str, name: str, body: str) -> tuple[str, ...]:
    """Return what makes the trigger *name* on *table*, and its *function*; both names quoted."""
    does = (
        f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger\n"
        "    LANGUAGE plpgsql\n"
        "    SET search_path = pg_catalog\n"
        f"    AS {plain_literal(body)}"
    )
    fires = (
        f"CREATE OR REPLACE TRIGGER {quote(name)} BEFORE INSERT OR UPDATE ON {table}\n"
        f"    FOR EACH ROW EXECUTE FUNCTION {function}()"
    )
    return does, f"REVOKE ALL ON FUNCTION {function}() FROM PUBLIC", fires


def unkeeping(table: str, function: str, name: str) -> tuple[str, ...]:
    """Return what takes away what `keeping` makes; the check then refuses what is written."""
    return (
        f"DROP TRIGGER IF EXISTS {quote(name)} ON {table}",
        f"DROP FUNCTION IF EXISTS {function}()",
    )


def hand_over(table: str, function: str) -> str:
    """Return what gives *function* to the owner of *table*, who else could not replace it."""
    alter = plain_literal(f"ALTER FUNCTION {function.replace('%', '%%')}() OWNER TO %I")
    return do_block(
        "DECLARE\n"
        "    keeper name := (SELECT pg_get_userbyid(relowner) FROM pg_class\n"
        f"        WHERE oid = {plain_literal(table)}::regclass);\n"
        "BEGIN\n"
        f"    EXECUTE format({alter}, keeper);\n"
        "END"
    )


def is_keeper(trigger: Facts | None, body: str) -> bool:
    """Return whether *trigger* is there, fires at each row that is written, and does *body*."""
    return bool(trigger and trigger["fires"] and trigger["safe"] and trigger["body"] == body)
