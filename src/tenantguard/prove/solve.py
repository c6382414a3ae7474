"""Choosing values that fulfil conditions: PostgreSQL itself says which combination does."""

# ruff: noqa: S608  (statements are put together from quoted names and escaped literals)

from __future__ import annotations

from itertools import islice, product
from typing import TYPE_CHECKING

from tenantguard.rls.names import literal, quote

if TYPE_CHECKING:
    from tenantguard.prove.session import Session

__all__ = ["Unsolvable", "solved"]

_COMBINATIONS = 40_000
_ONE_BY_ONE = 3_000

# Errors of a candidate, such as a text that is no number, count as "no".
_FIRST = """CREATE FUNCTION pg_temp.tenantguard_first(queries text[]) RETURNS int
    LANGUAGE plpgsql AS $tenantguard$
    DECLARE holds boolean;
    BEGIN
        FOR number IN 1 .. cardinality(queries) LOOP
            BEGIN
                EXECUTE queries[number] INTO holds;
                IF holds THEN
                    RETURN number;
                END IF;
            EXCEPTION WHEN data_exception OR integrity_constraint_violation
                OR raise_exception OR syntax_error_or_access_rule_violation THEN
                NULL;
            END;
        END LOOP;
        RETURN 0;
    END $tenantguard$"""


class Unsolvable(Exception):  # noqa: N818  (what it says, not what went wrong)
    """No combination that was tried fulfils the conditions."""


def solved(
    session: Session, candidates: dict[str, list[str]], conditions: list[str]
) -> dict[str, str]:
    """Return a candidate for each column, such that no condition is false; the earliest such.

    Args:
        session: Where PostgreSQL is asked; nothing is left of it.
        candidates: SQL expressions with their types, by column.
        conditions: SQL expressions over the columns.

    Raises:
        Unsolvable: If none of the combinations that were tried fits.
    """
    most = max(2, int(_COMBINATIONS ** (1 / max(1, len(candidates)))))
    tried = {name: listed[:most] for name, listed in candidates.items()}
    with session.undone():
        reply = session.attempt(_question(tried, conditions))
    if reply.error is not None:
        return _one_by_one(session, candidates, conditions)
    if not reply.rows:
        raise Unsolvable
    return {
        name: listed[number]
        for (name, listed), number in zip(tried.items(), reply.rows[0], strict=True)
    }


def _question(candidates: dict[str, list[str]], conditions: list[str]) -> str:
    sources = ", ".join(
        f"(VALUES {', '.join(f'({place}, {value})' for place, value in enumerate(listed))})"
        f" AS c{number}(n{number}, {quote(name)})"
        for number, (name, listed) in enumerate(candidates.items())
    )
    numbers = [f"n{number}" for number in range(len(candidates))]
    return (
        f"SELECT {', '.join(numbers)} FROM {sources} WHERE {_all(conditions)} "
        f"ORDER BY {' + '.join(numbers)}, {', '.join(numbers)} LIMIT 1"
    )


def _all(conditions: list[str]) -> str:
    return " AND ".join(f"({each}) IS NOT FALSE" for each in conditions) or "true"


def _one_by_one(
    session: Session, candidates: dict[str, list[str]], conditions: list[str]
) -> dict[str, str]:
    names = list(candidates)
    most = max(2, int(_ONE_BY_ONE ** (1 / max(1, len(candidates)))))
    choices = list(islice(product(*(candidates[name][:most] for name in names)), _ONE_BY_ONE))
    choices.sort(
        key=lambda chosen: sum(candidates[n].index(v) for n, v in zip(names, chosen, strict=True))
    )
    queries = [
        f"SELECT {_all(conditions)} FROM (SELECT "
        + ", ".join(f"{value} AS {quote(name)}" for name, value in zip(names, chosen, strict=True))
        + ") AS c"
        for chosen in choices
    ]
    with session.undone():
        session.run(_FIRST)
        listed = ", ".join(map(literal, queries))
        reply = session.attempt(f"SELECT pg_temp.tenantguard_first(ARRAY[{listed}]::text[])")
    if reply.error is not None or not reply.rows or not reply.rows[0][0]:
        raise Unsolvable
    return dict(zip(names, choices[reply.rows[0][0] - 1], strict=True))
