"""What policies do not hold: foreign keys to the other's rows, and TRUNCATE."""

# ruff: noqa: S608  (statements are put together from quoted names and escaped literals)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantguard.prove.case import REACHED, REFUSED, Seen, What
from tenantguard.rls.names import column_list, quote

if TYPE_CHECKING:
    from tenantguard.prove.case import Case
    from tenantguard.prove.invent import Owned, Row
    from tenantguard.prove.session import Reply
    from tenantguard.prove.shape import Reference, Table
    from tenantguard.rls.step import Target

__all__ = ["Crossing", "crossings", "point_across", "truncate", "with_truncate", "without_tenant"]

_VIOLATED = "23503"
_REFUSED = "42501"
_UNSUPPORTED = "0A000"


@dataclass(frozen=True, slots=True)
class Crossing:
    """The columns that refer to a *parent* with rows of tenants, by whichever foreign keys."""

    parent: Target
    pairs: tuple[tuple[str, str], ...]
    keys: tuple[Reference, ...]

    @property
    def columns(self) -> str:
        """The referring columns, for messages."""
        return ", ".join(name for name, _ in self.pairs)


def crossings(table: Table, owned: Owned, registry: Target) -> list[Crossing]:
    """Return what of *table* refers to rows that have a tenant column."""
    tenant = owned.columns.get(table.target)
    found: dict[tuple[Target, tuple[tuple[str, str], ...]], list[Reference]] = {}
    for each in table.references:
        pairs = tuple(sorted(zip(each.columns, each.parent_columns, strict=True)))
        bare = tuple(pair for pair in pairs if pair[0] != tenant)
        if bare and each.parent in owned.columns and each.parent != registry:
            found.setdefault((each.parent, bare), []).append(each)
    return [Crossing(parent, pairs, tuple(keys)) for (parent, pairs), keys in found.items()]


def point_across(case: Case, crossing: Crossing, foreign: Row, *, updates: bool) -> Seen:
    """Let a row of the one tenant refer to *foreign*, a row of the other's."""
    pointed = {name: foreign.values[of] for name, of in crossing.pairs}
    gone = [] if crossing.parent == case.table.target else [case.row_b]
    # Where each row may be referred to once, the other's own reference is in the way.
    _delete_if_possible(case, gone if updates else [*gone, case.row_a])
    reply = case.session.attempt_as(
        case.a,
        f"{_updated(case, pointed) if updates else _inserted(case, pointed)}; "
        "SET CONSTRAINTS ALL IMMEDIATE",
    )
    return _judged(reply, (_VIOLATED, _REFUSED))


def without_tenant(case: Case, crossing: Crossing) -> str | None:
    """Return the statement that drops the keys which hold *crossing*; None if there are none."""
    held = [
        f"DROP CONSTRAINT {quote(key.name)}" for key in crossing.keys if case.column in key.columns
    ]
    return f"ALTER TABLE {case.name} {', '.join(held)}" if held else None


def truncate(case: Case) -> Seen:
    """Empty the table as the application."""
    reply = case.session.attempt_as(case.a, f"TRUNCATE {case.name}")
    if reply.error is not None and reply.error.state == _UNSUPPORTED:
        # Whoever may not is refused before it counts that other tables refer to this one.
        return REACHED
    return _judged(reply, (_REFUSED,))


def with_truncate(case: Case, application: str) -> str:
    """Return the statement that grants what `truncate` is refused for."""
    return f"GRANT TRUNCATE ON {case.name} TO {quote(application)}"


def _judged(reply: Reply, refused: tuple[str, ...]) -> Seen:
    if reply.error is None:
        return REACHED
    if reply.error.state in refused:
        return REFUSED
    return Seen(What.UNCLEAR, reply.error)


def _delete_if_possible(case: Case, rows: list[Row]) -> None:
    for row in rows:
        case.session.run("SAVEPOINT tenantguard_gone")
        gone = f"DELETE FROM {case.name} WHERE {case.is_row(row)}"
        if case.session.attempt(gone).error is not None:
            case.session.run("ROLLBACK TO SAVEPOINT tenantguard_gone")


def _updated(case: Case, pointed: dict[str, str]) -> str:
    given = ", ".join(f"{quote(name)} = {value}" for name, value in pointed.items())
    return f"UPDATE {case.name} SET {given} WHERE {case.is_row(case.row_a)}"


def _inserted(case: Case, pointed: dict[str, str]) -> str:
    values = case.written(case.row_a) | pointed
    return (
        f"INSERT INTO {case.name} ({column_list(values)}) OVERRIDING SYSTEM VALUE "
        f"VALUES ({', '.join(values.values())})"
    )
