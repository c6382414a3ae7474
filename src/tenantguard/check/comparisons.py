"""What a tenant is compared by: functions, operators and indexes that are not PostgreSQL's own."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.check import reach
from tenantguard.check.rule import Rule
from tenantguard.findings import Severity
from tenantguard.rls.names import literal, qualified
from tenantguard.rls.policies import POLICY_NAMES
from tenantguard.rls.signed import VERIFIED, signing_target
from tenantguard.rls.state import not_of_an_extension

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding

__all__ = ["RULES"]


def _calls(rule: Rule, subject: Subject) -> Iterator[Finding]:
    """Find what the generated policies call; a cast's function does not show in their text."""
    names = ", ".join(map(literal, sorted(POLICY_NAMES)))
    schema, _ = signing_target(subject.catalog)
    ours = f"({literal(schema)}, {literal(VERIFIED)})" if subject.catalog.signed else "(NULL, NULL)"
    for schema, table, called in subject.ask(f"""
    WITH {reach.guarded(subject)}
    SELECT coalesce(jsonb_agg(DISTINCT jsonb_build_array(n.nspname, k.relname,
        CASE d.refclassid WHEN 'pg_catalog.pg_proc'::regclass
            THEN d.refobjid::pg_catalog.regprocedure::text
            ELSE d.refobjid::pg_catalog.regoperator::text END)), '[]')::text
    FROM guarded g JOIN pg_catalog.pg_class k ON k.oid = g.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
    JOIN pg_catalog.pg_policy p ON p.polrelid = k.oid AND p.polname IN ({names})
    JOIN pg_catalog.pg_depend d ON d.objid = p.oid
        AND d.classid = 'pg_catalog.pg_policy'::regclass
        AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass)
    WHERE d.refobjid >= {reach.FIRST_OWN} AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace fn ON fn.oid = f.pronamespace
        WHERE f.oid = d.refobjid AND d.refclassid = 'pg_catalog.pg_proc'::regclass
            AND (fn.nspname, f.proname) = {ours})"""):
        table_name = f"{schema}.{table}"
        yield rule.finding(
            table_name,
            f"The generated policies of {table_name} call {called}, which is neither PostgreSQL's "
            "nor ours: a cast or an operator of your own took the place of the built-in one.",
            "Drop the cast or operator; then drop the policies of the table, and run `tenantguard "
            "rls apply` with the owner's address.",
        )


def _operator_classes(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for schema, table, index, name in subject.ask(f"""
    WITH RECURSIVE {reach.guarded(subject)}, {reach.parts()}
    SELECT coalesce(jsonb_agg(DISTINCT jsonb_build_array(
        n.nspname, k.relname, i.relname, o.opcname)), '[]')::text
    FROM (SELECT oid FROM guarded UNION SELECT oid FROM parts) g
    JOIN pg_catalog.pg_class k ON k.oid = g.oid
    JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
    JOIN pg_catalog.pg_index x ON x.indrelid = k.oid
    JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
    JOIN pg_catalog.pg_opclass o ON o.oid = ANY (x.indclass)
    WHERE o.oid >= {reach.FIRST_OWN} AND {not_of_an_extension("o", "pg_opclass")}"""):
        yield rule.finding(
            f"{schema}.{table}",
            f"Index {index} of {schema}.{table} compares by {name}, an operator class of your own: "
            "it answers the policy's comparison, so a tenant misses rows, or has more, if it errs.",
            f"DROP INDEX {qualified((schema, index))}, and make it with the built-in operator "
            "class.",
        )


RULES: tuple[Rule, ...] = (
    Rule("policy-calls", Severity.ERROR, _calls),
    Rule("index-operator-class", Severity.WARNING, _operator_classes),
)
