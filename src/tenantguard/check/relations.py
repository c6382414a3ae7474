"""Views, copies, parts and foreign tables that show rows beside the policies."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.catalog import SETTING, Kind
from tenantguard.check import firing, reach
from tenantguard.check.rule import Rule
from tenantguard.findings import Severity
from tenantguard.rls.names import literal, qualified
from tenantguard.rls.state import INVOKER, OWN_SCHEMAS, not_of_an_extension
from tenantguard.rls.views import materialised_view, open_part, view_of_owner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding
    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Target

__all__ = ["RULES"]

# What is declared is everybody's, or within nobody's reach; the privileges say which.
_DECLARED = {Kind.SHARED, Kind.UNTENANTED, Kind.UNCLASSIFIED}

_REACHES = """pg_catalog.has_schema_privilege(c.oid, n.oid, 'USAGE')
            AND (pg_catalog.has_any_column_privilege(c.oid, k.oid, 'SELECT, INSERT, UPDATE')
                OR pg_catalog.has_table_privilege(c.oid, k.oid, 'DELETE, TRUNCATE'))"""

_ANCESTORS = """ancestors(oid) AS (
        SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN guarded g ON g.oid = i.inhrelid
        UNION
        SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN ancestors a ON a.oid = i.inhrelid)"""

_READERS = """readers(oid) AS (
        SELECT oid FROM guarded UNION SELECT oid FROM parts UNION SELECT oid FROM ancestors
        UNION
        SELECT w.ev_class FROM readers e
        JOIN pg_catalog.pg_depend d ON d.refobjid = e.oid
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
        JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid AND w.ev_class <> e.oid)"""


# What a function reads is not known to the view that calls it.
_CALLS = f"""EXISTS (SELECT FROM pg_catalog.pg_rewrite w
            JOIN pg_catalog.pg_depend d ON d.objid = w.oid
                AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
            JOIN pg_catalog.pg_proc f ON f.oid = d.refobjid
            WHERE w.ev_class = k.oid AND k.relkind = 'm'
                AND {not_of_an_extension("f", "pg_proc")})"""

_ASKS = f"strpos(pg_catalog.pg_get_expr(p.polqual, p.polrelid), '{SETTING}') > 0"

_LOOSE = f"""(EXISTS (SELECT FROM pg_catalog.pg_policy p CROSS JOIN unnest(p.polroles) h(oid)
            WHERE p.polrelid = k.oid AND p.polpermissive AND p.polcmd IN ('r', '*') AND NOT {_ASKS}
                AND (h.oid = 0 OR EXISTS (SELECT FROM confined c
                    WHERE pg_catalog.pg_has_role(c.oid, h.oid, 'USAGE'))))
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy p
            WHERE p.polrelid = k.oid AND NOT p.polpermissive AND {_ASKS}))"""


def _views_of_owner(_rule: Rule, subject: Subject) -> Iterator[Finding]:
    for target, facts in _undeclared(subject):
        if facts["kind"] == "v" and facts["reads"] and not facts["invoker"]:
            yield view_of_owner(target, _who(facts, subject))


def _copies(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for target, facts in _undeclared(subject):
        if facts["kind"] == "m" and facts["reads"]:
            yield materialised_view(target, _who(facts, subject))
        elif facts["kind"] == "m" and facts["calls"]:
            name, who = ".".join(target), _who(facts, subject)
            yield rule.finding(
                name,
                f"The materialised view {name} was filled by functions as its owner, has no "
                f"policies, and {who} reaches it: whose rows it holds, only the functions say.",
                f"REVOKE ALL ON {qualified(target)} FROM {who}'s role and from PUBLIC; or declare "
                "it in shared=, with the reason.",
            )


def _open_parts(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for target, facts in _reached(subject):
        # A part that is in the models is looked at as the table that it is.
        if facts["part"] and not facts["locked"] and target not in subject.by_target:
            yield open_part(target, _who(facts, subject))
        elif facts["part"] and facts["loose"] and target not in subject.by_target:
            name, who = ".".join(target), _who(facts, subject)
            yield rule.finding(
                name,
                f"{name} is a part of a guarded table, and has a policy of its own that does not "
                f"ask for the tenant: {who} reads other tenants' rows by that name.",
                f"REVOKE ALL ON {qualified(target)} FROM {who}'s role and from PUBLIC; or put the "
                "part into the models, so that it gets the generated policies.",
            )


def _open_ancestors(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for target, facts in _reached(subject):
        if facts["ancestor"] and not facts["locked"]:
            name, who = ".".join(target), _who(facts, subject)
            yield rule.finding(
                name,
                f"{name} has no row-level security, {who} reaches it, and a guarded table is a "
                "part of it: read by this name, its rows are shown without its policies.",
                f"REVOKE ALL ON {qualified(target)} FROM {who}'s role and from PUBLIC; or give it "
                "the tenant column in the models too, and run `tenantguard rls apply`.",
            )


def _foreign(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for target, facts in _undeclared(subject):
        if facts["kind"] == "f" and facts["tenants"] and not facts["part"]:
            name, who = ".".join(target), _who(facts, subject)
            yield rule.finding(
                name,
                f"The foreign table {name} has rows of tenants, {who} reaches it, and PostgreSQL "
                "has no policies on foreign tables.",
                f"REVOKE ALL ON {qualified(target)} FROM {who}'s role and from PUBLIC; read it "
                "with system access. One that all tenants may read belongs into shared=.",
            )


def _undeclared(subject: Subject) -> Iterator[tuple[Target, Facts]]:
    for target, facts in _reached(subject):
        entry = subject.by_target.get(target)
        if entry is None or entry.kind not in _DECLARED:
            yield target, facts


def _reached(subject: Subject) -> Iterator[tuple[Target, Facts]]:
    for facts in subject.ask(_question(subject)):
        yield (facts["s"], facts["t"]), facts


def _who(facts: Facts, subject: Subject) -> str:
    return "the application" if subject.roles.application in facts["who"] else "support"


def _question(subject: Subject) -> str:
    """Ask for each relation within the reach of confined roles that is more than a plain table."""
    names = {subject.catalog.tenant_column, *subject.catalog.tenant_columns.values()}
    listed = ", ".join(map(literal, sorted(names)))
    return f"""
    WITH RECURSIVE {reach.guarded(subject)}, {reach.parts()}, {_ANCESTORS}, {_READERS},
    {reach.confined(subject)},
    seen AS (
        SELECT n.nspname, k.*, ARRAY(SELECT c.role FROM confined c WHERE {_REACHES}) AS who
        FROM pg_catalog.pg_class k JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
        WHERE k.oid IN (SELECT oid FROM readers) OR (k.relkind IN ('f', 'm') AND {OWN_SCHEMAS}))
    SELECT coalesce(json_agg(json_build_object('s', k.nspname, 't', k.relname,
        'kind', k.relkind::text, 'who', k.who, 'reads', k.oid IN (SELECT oid FROM readers),
        'part', k.oid IN (SELECT oid FROM parts),
        'ancestor', k.oid IN (SELECT oid FROM ancestors EXCEPT SELECT oid FROM guarded),
        'calls', {_CALLS}, 'loose', k.oid IN (SELECT oid FROM parts) AND {_LOOSE},
        'locked', k.relrowsecurity AND k.relforcerowsecurity,
        'invoker', {INVOKER.format(relation="k")},
        'tenants', EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = k.oid
            AND a.attnum > 0 AND a.attname IN ({listed})))
        ORDER BY k.nspname, k.relname), '[]')::text
    FROM seen k WHERE k.who <> '{{}}'"""


RULES: tuple[Rule, ...] = (
    Rule("view-of-owner", Severity.ERROR, _views_of_owner),
    Rule("view-materialised", Severity.ERROR, _copies),
    Rule("partition-open", Severity.ERROR, _open_parts),
    Rule("parent-open", Severity.ERROR, _open_ancestors),
    Rule("foreign-table-open", Severity.ERROR, _foreign),
    *firing.RULES,
)
