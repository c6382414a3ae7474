"""The functions that policies call, on which the tenant then depends."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tenantguard.check.routines import is_pinned, routines
from tenantguard.check.rule import Rule
from tenantguard.findings import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.routines import Routine
    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding

__all__ = ["RULES", "unqualified"]

_SESSION = re.compile(
    r"\b(?:current_setting|set_config|current_user|session_user|current_role|user)\b",
    re.IGNORECASE,
)
_NO_CODE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
_FROM_WITHIN = re.compile(r"\b(?:extract|substring|trim|overlay)\s*\([^()]*\)", re.IGNORECASE)

# A name in the place of a table or of a function, with nothing qualifying it.
_TABLE = re.compile(
    r"\b(?<!distinct )(?:from|join|insert\s+into|update|delete\s+from)\s+(?:only\s+)?"
    r"(\"[^\"]+\"|[a-z_][\w$]*)(?![\w$\".]|\s*[.(])",
    re.IGNORECASE,
)
_CALL = re.compile(r"(?<![\w$.\"])([a-z_][\w$]*)\s*\(", re.IGNORECASE)
_NAMED_QUERY = re.compile(r"([a-z_][\w$]*)\s+as\s+(?:(?:not\s+)?materialized\s+)?\(", re.IGNORECASE)
_KEYWORDS = (
    "all and any array as by case cast coalesce current_date distinct else elsif except exists "
    "extract filter from greatest having if in intersect into is lateral least like limit not "
    "nullif on only or over overlay perform position return row select set some substring then "
    "trim union using values when where while with"
)
_WORDS = frozenset(_KEYWORDS.split())


def _immutable(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for each in routines(subject):
        reads = each.names_tenant or (each.policies and _SESSION.search(each.body))
        if each.facts["volatile"] == "i" and reads:
            yield rule.finding(
                each.name,
                f"{each.name} is IMMUTABLE and reads the session, so a prepared statement keeps "
                "the first tenant's answer, and returns its rows to the next.",
                f"ALTER FUNCTION {each.signature} STABLE; and close the connections that may have "
                "prepared it.",
            )


def _volatile(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for each in routines(subject):
        if each.facts["volatile"] == "v" and each.policies:
            yield rule.finding(
                each.name,
                f"{each.name} is VOLATILE, and {_of(each)} calls it for every row of the table, "
                "whoever's it is; no index serves.",
                f"ALTER FUNCTION {each.signature} STABLE, if it changes nothing.",
            )


def _serial(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for each in routines(subject):
        if each.facts["parallel"] == "u" and each.policies:
            yield rule.finding(
                each.name,
                f"{each.name} is PARALLEL UNSAFE, as functions are unless they say otherwise, and "
                f"{_of(each)} calls it: no statement on that table uses more than one process.",
                f"ALTER FUNCTION {each.signature} PARALLEL SAFE, if it only reads (PARALLEL "
                "RESTRICTED, if it calls set_config or reads temporary tables).",
            )


def _open_path(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for each in routines(subject):
        names = _chosen_by_caller(each) if each.policies else []
        if names:
            yield rule.finding(
                each.name,
                f"{each.name} names {names[0]} without its schema, and {_of(each)} calls it: what "
                "that means is chosen by the caller's search path and temporary tables.",
                f"Qualify every name in it, or ALTER FUNCTION {each.signature} SET search_path = "
                "pg_catalog, pg_temp.",
            )


def _chosen_by_caller(routine: Routine) -> list[str]:
    """Return names in *routine* that its caller can give another meaning."""
    if is_pinned(routine):
        return []
    if routine.facts["language"] in {"sql", "plpgsql"}:
        return unqualified(routine.body)
    return ["what it reads"]


def unqualified(body: str) -> list[str]:
    """Return the names of tables, then of functions, that *body* does not qualify."""
    code = _FROM_WITHIN.sub(" ", _NO_CODE.sub(" '' ", body))
    local = {name.lower() for name in _NAMED_QUERY.findall(code)}
    tables = [name for name in _TABLE.findall(code) if name.lower() not in local | _WORDS]
    calls = [name for name in _CALL.findall(code) if name.lower() not in local | _WORDS]
    return tables + calls


def _of(routine: Routine) -> str:
    return f"the policy of {', '.join(routine.policies[:3])}"


RULES: tuple[Rule, ...] = (
    Rule("helper-immutable", Severity.ERROR, _immutable),
    Rule("helper-search-path", Severity.ERROR, _open_path),
    Rule("helper-volatile", Severity.WARNING, _volatile),
    Rule("helper-parallel", Severity.WARNING, _serial),
)
