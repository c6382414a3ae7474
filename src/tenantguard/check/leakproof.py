"""Indexes that row-level security keeps a query from using.

A condition of the query may go into an index scan before the policy's only if nothing in it can
tell of the rows that it sees: its operators and functions have to be marked leakproof.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Enum, Numeric
from sqlalchemy.dialects.postgresql import ARRAY, CITEXT, HSTORE, JSONB, TSVECTOR
from sqlalchemy.dialects.postgresql.ranges import AbstractRange
from sqlalchemy.types import Float

from tenantguard.catalog import Kind
from tenantguard.check.operators import suspects_question
from tenantguard.check.plans import as_application, scans
from tenantguard.check.rule import Rule
from tenantguard.check.sight import seeing
from tenantguard.doctor.eyes import hidden_reason
from tenantguard.doctor.subject import CouldNotLookError, reason_of
from tenantguard.findings import Severity
from tenantguard.rls.names import expression_sql, qualified, target_of
from tenantguard.rls.views import is_view

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Index

    from tenantguard.catalog import Entry
    from tenantguard.check.plans import Scan
    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding
    from tenantguard.rls.state import Facts, Run
    from tenantguard.rls.step import Target

__all__ = ["RULES"]

_MEND = (
    "Search a column whose operators are leakproof (text with a CHECK for an enum, integer cents "
    "for numeric, a generated column for lower()), or lead an index with the tenant. `tenantguard "
    "rls explain index-not-leakproof` has the ways round and what they bring."
)


def _unusable(rule: Rule, subject: Subject) -> Iterator[Finding]:
    yield from _in_models(rule, subject) if subject.run is None else _measured(rule, subject)


# -- measured in the database -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Searched:
    """What is asked of one index: the query that it is for."""

    target: Target
    index: str
    names: frozenset[str]
    column: str | None
    leaks: tuple[str, ...]
    query: str


def _measured(rule: Rule, subject: Subject) -> Iterator[Finding]:
    wanted = [_searched(facts) for facts in subject.ask(suspects_question(subject))]
    if not wanted:
        return
    missed: list[str] = []
    with seeing(subject, {each.target for each in wanted}) as (run, hidden):
        seen = [each for each in wanted if each.target not in hidden]
        plain = {each: _scans_of(run, each, missed) for each in seen}
    served = {each: scan for each in seen if (scan := _serving(each, plain[each])) is not None}
    with as_application(subject, run):
        under = {each: _scans_of(run, each, missed) for each in served}
    for each, scan in served.items():
        if under[each] and not _serves_as_well(each, scan, under[each]):
            yield _finding(rule, each, scan, under[each][0])
    if hidden or missed:
        raise CouldNotLookError(" ".join([*missed, *([hidden_reason(hidden)] if hidden else [])]))


def _scans_of(run: Run, searched: _Searched, missed: list[str]) -> list[Scan]:
    try:
        return scans(run, searched.query)
    except Exception as error:  # noqa: BLE001  (any driver's error, named by its class)
        missed.append(f"{searched.index}: {reason_of(error)}")
        return []


def _serving(searched: _Searched, found: list[Scan]) -> Scan | None:
    return next((scan for scan in found if scan.index in searched.names and scan.condition), None)


def _serves_as_well(searched: _Searched, plain: Scan, found: list[Scan]) -> bool:
    """Return whether the index is asked the same as in *plain*, with or without the tenant."""
    return any(
        scan.index in searched.names and plain.condition[1:-1] in scan.condition for scan in found
    )


def _finding(rule: Rule, searched: _Searched, plain: Scan, under: Scan) -> Finding:
    because = ", ".join(searched.leaks)
    return rule.finding(
        ".".join(searched.target),
        f"Index {searched.index} of {'.'.join(searched.target)} does not serve the application: "
        f"{because} is not leakproof. Without row-level security the plan is {plain}, Index Cond: "
        f"{plain.condition}; under it, {under}, and the condition is a filter.",
        _MEND,
        searched.column,
    )


def _searched(facts: Facts) -> _Searched:
    left, target = f"({facts['expression']})", (facts["s"], facts["t"])
    if facts["pattern"]:
        condition = f"{left} OPERATOR(pg_catalog.~~) 'a%'"
    else:
        condition = f"{left} OPERATOR({facts['operator']}) (SELECT NULL::{facts['type']})"
    where = f" AND ({facts['where']})" if facts["where"] else ""
    return _Searched(
        target,
        facts["index"],
        frozenset(facts["names"]),
        facts["column"],
        tuple(["LIKE"] if facts["pattern"] else dict.fromkeys(facts["leaks"])),
        f"SELECT FROM {qualified(target)} WHERE {condition}{where}",
    )


# -- from the models alone --------------------------------------------------------------------

_TYPES = {
    Enum: "an enum of PostgreSQL",
    Numeric: "numeric",
    ARRAY: "an array",
    JSONB: "jsonb",
    TSVECTOR: "full text",
    HSTORE: "hstore",
    CITEXT: "citext",
    AbstractRange: "a range",
}
"""Types without leakproof operators, as the database that PostgreSQL 14 to 18 set up has them."""


def _in_models(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for entry in subject.entries:
        if entry.kind is Kind.SCOPED and entry.table is not None and not is_view(entry):
            for index in sorted(entry.table.indexes, key=lambda each: str(each.name)):
                yield from _of_index(rule, entry, index)


def _of_index(rule: Rule, entry: Entry, index: Index) -> Iterator[Finding]:
    first: Any = next(iter(index.expressions), None)
    column = first if isinstance(first, Column) else next(iter(index.columns), None)
    if first is None or column is entry.column:
        return
    what = _type_of(first) if isinstance(first, Column) else expression_sql(first)
    if what is not None:
        table = ".".join(target_of(entry))
        yield rule.finding(
            table,
            f"Index {index.name} of {table} does not serve the application under row-level "
            f"security: the operators of {what} are not leakproof, so the condition becomes a "
            "filter.",
            _MEND,
            column.name if column is not None else None,
        )


def _type_of(column: Column[Any]) -> str | None:
    if isinstance(column.type, Float) or not getattr(column.type, "native_enum", True):
        return None
    return next((what for kind, what in _TYPES.items() if isinstance(column.type, kind)), None)


RULES = (Rule("index-not-leakproof", Severity.WARNING, _unusable, offline=True),)
