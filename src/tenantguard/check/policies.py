"""Tables nobody decided on, row-level security that is off, policies that are not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.check import undecided
from tenantguard.check.guarded import confined, read_guarded
from tenantguard.check.rule import Rule
from tenantguard.findings import Severity
from tenantguard.rls.comparing import extra_policy, floors_hold, policy_findings
from tenantguard.rls.names import column_list, literal, qualified, quote
from tenantguard.rls.policies import POLICY_NAMES
from tenantguard.rls.state import as_recordset
from tenantguard.rls.verify import switch_findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding
    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Target

__all__ = ["RULES"]

_PUBLIC = "public"

# Policies of other roles than these hold whoever has privileges, or nothing does.
_GRANTS = """
    WITH granted AS (
        SELECT k.oid, w.s, w.t, e.grantee
        FROM {tables}
        JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
        JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t
        CROSS JOIN LATERAL (
            SELECT x.grantee FROM pg_catalog.aclexplode(k.relacl) x
            UNION
            SELECT x.grantee FROM pg_catalog.pg_attribute a, pg_catalog.aclexplode(a.attacl) x
            WHERE a.attrelid = k.oid) e
        WHERE e.grantee NOT IN (0, k.relowner))
    SELECT coalesce(json_agg(json_build_object('s', f.s, 't', f.t, 'roles', f.roles)
        ORDER BY f.s, f.t), '[]')::text
    FROM (
        SELECT g.s, g.t, json_agg(r.rolname ORDER BY r.rolname) AS roles
        FROM granted g JOIN pg_catalog.pg_roles r ON r.oid = g.grantee
        WHERE NOT r.rolsuper AND r.rolname NOT IN ({ours})
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles m WHERE m.rolname IN ({whole})
                AND pg_catalog.pg_has_role(r.oid, m.oid, 'MEMBER'))
            AND (r.rolbypassrls OR NOT EXISTS (
                SELECT FROM pg_catalog.pg_policy p, unnest(p.polroles) o(oid)
                WHERE p.polrelid = g.oid AND NOT p.polpermissive AND p.polcmd = '*'
                    AND CASE WHEN o.oid = 0 THEN true
                        ELSE pg_catalog.pg_has_role(r.oid, o.oid, 'USAGE') END))
        GROUP BY g.s, g.t) f"""


def _compared(rule: Rule, subject: Subject) -> Iterator[Finding]:
    """Find what of tables, switches and policies goes by the code of *rule*."""
    for each in subject.once(_compare):
        if each.code == rule.id:
            yield rule.finding(each.object, each.message, each.mend)


def _compare(subject: Subject) -> list[Finding]:
    guarded = subject.once(read_guarded)
    findings: list[Finding] = []
    for target, table in guarded.tables.items():
        findings += switch_findings(table.entry, table.facts)
        if table.facts is not None:
            findings += policy_findings(target, table.wanted, table.facts, guarded.forms)
    return findings


def _extra(_rule: Rule, subject: Subject) -> Iterator[Finding]:
    """Find permissive policies beside ours that apply to the application or to support."""
    guarded = subject.once(read_guarded)
    for target, facts, name in _strangers(subject):
        to = set(facts["policies"][name]["roles"])
        whom = {who: each for who, each in confined(subject).items() if to & {_PUBLIC, *each}}
        if whom:
            wanted, roles = guarded.tables[target].wanted.items(), set().union(*whom.values())
            against = {each: policy for each, policy in wanted if policy.role in roles}
            held = floors_hold(against, facts, guarded.forms)
            who = " and ".join(sorted(whom, reverse=True))
            yield extra_policy(target, name, facts, held=held, whom=who)


def _floorless(rule: Rule, subject: Subject) -> Iterator[Finding]:
    """Find permissive policies for other roles, for which no restrictive one stands."""
    held = {_PUBLIC, subject.roles.maintenance}.union(*confined(subject).values())
    for target, facts, name in _strangers(subject):
        floors = {
            role
            for each in facts["policies"].values()
            if not each["permissive"] and each["command"] == "*"
            for role in each["roles"]
        }
        others = sorted(set(facts["policies"][name]["roles"]) - held - floors)
        if others and _PUBLIC not in floors:
            table, listed = ".".join(target), ", ".join(others)
            yield rule.finding(
                table,
                f"Policy {name!r} shows rows of {table} to {listed}, and no restrictive policy "
                "FOR ALL holds for them.",
                f"DROP POLICY {quote(name)} ON {qualified(target)}, and let them be members of "
                f"{quote(subject.roles.application)} or {quote(subject.roles.support)}, which have "
                "both. Who needs all tenants is granted the maintenance role.",
            )


def _grants(rule: Rule, subject: Subject) -> Iterator[Finding]:
    """Find privileges of other roles, for which no restrictive policy stands."""
    targets = [
        target
        for target, table in subject.once(read_guarded).tables.items()
        if any(not policy.permissive for policy in table.wanted.values())
    ]
    for facts in subject.ask(_grants_question(targets, subject)):
        target = (facts["s"], facts["t"])
        table, listed = ".".join(target), ", ".join(facts["roles"])
        yield rule.finding(
            table,
            f"{listed} has privileges on {table}, and no restrictive policy FOR ALL holds for it.",
            f"REVOKE ALL ON {qualified(target)} FROM {column_list(facts['roles'])}; then GRANT it "
            f"{quote(subject.roles.application)} or {quote(subject.roles.support)}, which have "
            "policies. Who needs all tenants is granted the maintenance role.",
        )


def _grants_question(targets: list[Target], subject: Subject) -> str:
    roles = subject.roles
    whole = (roles.owner, roles.maintenance, roles.backup)
    return _GRANTS.format(
        tables=as_recordset(({"s": s, "t": t} for s, t in targets), "s text, t text"),
        ours=", ".join(map(literal, (*whole, roles.application, roles.support))),
        whole=", ".join(map(literal, whole)),
    )


def _strangers(subject: Subject) -> Iterator[tuple[Target, Facts, str]]:
    for target, table in subject.once(read_guarded).tables.items():
        facts = table.facts or {"policies": {}}
        for name, stored in sorted(facts["policies"].items()):
            if name not in POLICY_NAMES and stored["permissive"]:
                yield target, facts, name


RULES: tuple[Rule, ...] = (
    *undecided.RULES,
    Rule("table-missing", Severity.ERROR, _compared),
    Rule("column-missing", Severity.ERROR, _compared),
    Rule("rls-not-enabled", Severity.ERROR, _compared),
    Rule("rls-not-forced", Severity.ERROR, _compared),
    Rule("policy-missing", Severity.ERROR, _compared),
    Rule("policy-changed", Severity.ERROR, _compared),
    Rule("policy-extra", Severity.ERROR, _extra),
    Rule("policy-without-floor", Severity.ERROR, _floorless),
    Rule("grant-without-floor", Severity.WARNING, _grants),
    Rule("could-not-compare", Severity.ERROR, _compared),
)
