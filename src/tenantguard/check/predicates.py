"""Policies whose comparison with the tenant no index can serve."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantguard.check.rule import Rule
from tenantguard.check.structure import tenant_columns_of
from tenantguard.check.trees import uses_of
from tenantguard.findings import Severity
from tenantguard.rls.state import as_recordset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding
    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Target

__all__ = ["RULES"]

_PUBLIC = "public"

_COMPARED = {"OPEXPR", "SCALARARRAYOPEXPR"}

_WORDS = {
    "OR": "an OR",
    "NOT": "a NOT",
    "CASE": "a CASE",
    "CASEEXPR": "a CASE",
    "COALESCE": "a coalesce()",
    "COALESCEEXPR": "a coalesce()",
    "DISTINCTEXPR": "IS DISTINCT FROM",
    "COERCEVIAIO": "a cast of the column",
    "FUNCEXPR": "a function or a cast of the column",
    "QUERY": "a sub-select for each row",
    "SUBLINK": "an IN (SELECT …)",
}
"""What PostgreSQL's nodes are called in SQL; some changed their names with PostgreSQL 16."""


@dataclass(frozen=True, slots=True)
class _Policy:
    """A policy for reading; *within* is what keeps the tenant from an index, None if nothing.

    *of_tenant* is whether it speaks of the tenant at all.
    """

    name: str
    permissive: bool
    roles: frozenset[str]
    of_tenant: bool
    within: str | None

    @property
    def indexed(self) -> bool:
        return self.of_tenant and self.within is None


def _slow(rule: Rule, subject: Subject) -> Iterator[Finding]:
    columns = tenant_columns_of(subject)
    found = subject.ask(_question(columns))
    uses = {each["key"]: list(uses_of(each["tree"], each["number"])) for each in found["trees"]}
    for facts in found["tables"]:
        target = (facts["s"], facts["t"])
        policies = [_policy(each, uses[each["key"]]) for each in facts["policies"]]
        asked = {subject.roles.application, subject.roles.support}
        asked |= {role for each in policies for role in each.roles} - {_PUBLIC}
        slow = {each for role in asked for each in _slow_for(role, policies)}
        for policy in sorted(slow, key=lambda each: each.name):
            table = ".".join(target)
            yield rule.finding(
                table,
                f"Policy {policy.name} on {table} has the tenant column inside {policy.within}, so "
                "no index serves it, and each statement reads the rows of all tenants.",
                "Compare the bare column: tenant = (SELECT …), with the value cast to its type. "
                "Let exceptions be a policy of their own for a role of their own.",
                columns[target],
            )


def _slow_for(role: str, policies: list[_Policy]) -> list[_Policy]:
    """Return the policies that keep an index from *role*'s statements."""
    ours = [each for each in policies if {role, _PUBLIC} & each.roles]
    permissive = [each for each in ours if each.permissive]
    # Restrictive policies are joined by AND, so one that an index serves is enough.
    if any(each.indexed for each in ours if not each.permissive):
        return []
    # Several permissive ones are joined by OR.
    if len(permissive) == 1 and permissive[0].indexed:
        return []
    return [each for each in ours if each.within is not None]


def _policy(facts: Facts, uses: list[tuple[str, ...]]) -> _Policy:
    served = any(map(_is_served, uses))
    return _Policy(
        facts["name"],
        facts["permissive"],
        frozenset(facts["roles"]),
        bool(uses),
        None if served or not uses else _why(uses[0]),
    )


def _is_served(within: tuple[str, ...]) -> bool:
    """Return whether a comparison stands alone, or in an AND, and has the column as it is."""
    kept = [each for each in within if each not in {"AND", "RELABELTYPE"}]
    return len(kept) == 1 and kept[0] in _COMPARED


def _why(within: tuple[str, ...]) -> str:
    named = [_WORDS[each] for each in within if each in _WORDS]
    # What is in a sub-select is in the test for it, too.
    return _WORDS["QUERY"] if "QUERY" in within else next(iter(named), "an expression")


# Tables repeat the same expressions, but for where in the statement each word stood.
def _question(columns: dict[Target, str]) -> str:
    rows = ({"s": s, "t": t, "c": column} for (s, t), column in columns.items())
    return f"""
    WITH stored AS (
        SELECT w.s, w.t, p.polname, p.polpermissive, p.polroles, a.attnum, q.tree,
            md5(a.attnum || ' ' || q.tree) AS key
        FROM {as_recordset(rows, "s text, t text, c text")}
        JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
        JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.oid AND a.attname = w.c
        JOIN pg_catalog.pg_policy p ON p.polrelid = k.oid AND p.polcmd IN ('r', '*')
        CROSS JOIN LATERAL (SELECT coalesce(regexp_replace(
            p.polqual::text, ' :location -?[0-9]+', '', 'g'), '') AS tree) q)
    SELECT json_build_object(
        'trees', (SELECT coalesce(json_agg(u.*), '[]')
            FROM (SELECT DISTINCT e.key, e.attnum AS number, e.tree FROM stored e) u),
        'tables', (SELECT coalesce(json_agg(q.*), '[]')
            FROM (SELECT e.s, e.t, json_agg(json_build_object('name', e.polname, 'key', e.key,
                    'permissive', e.polpermissive,
                    'roles', (SELECT json_agg(coalesce(r.rolname::text, '{_PUBLIC}'))
                        FROM unnest(e.polroles) g(oid)
                        LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.oid))) AS policies
                FROM stored e GROUP BY e.s, e.t) q))::text"""


RULES = (Rule("policy-predicate-slow", Severity.WARNING, _slow),)
