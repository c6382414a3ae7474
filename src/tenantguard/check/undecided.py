"""Tables nobody decided on: of the models, and those that no model knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.catalog import Kind
from tenantguard.check.rule import Rule
from tenantguard.doctor.models import application_only, unclassified
from tenantguard.findings import Severity
from tenantguard.rls.names import literal, qualified, target_of
from tenantguard.rls.signed import signing_target
from tenantguard.rls.state import OWN_SCHEMAS, not_of_an_extension

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding
    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Target

__all__ = ["RULES"]

_KINDS = {"r": "table", "p": "partitioned table", "f": "foreign table"}

# Views and materialised views are found by what they read. A part is decided with its parents.
_QUESTION = """
    SELECT coalesce(json_agg(json_build_object('s', n.nspname, 't', k.relname,
        'kind', k.relkind::text,
        'alembic', k.relname = 'alembic_version' AND k.relkind = 'r' AND (
            SELECT array_agg(a.attname::text) FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = k.oid AND a.attnum > 0 AND NOT a.attisdropped
            ) = ARRAY['version_num'],
        'reached', pg_catalog.has_schema_privilege({role}, n.oid, 'USAGE') AND (
            pg_catalog.has_any_column_privilege({role}, k.oid, 'SELECT, INSERT, UPDATE')
            OR pg_catalog.has_table_privilege({role}, k.oid, 'DELETE, TRUNCATE')),
        'parents', (SELECT coalesce(json_agg(json_build_array(pn.nspname, p.relname)), '[]')
            FROM pg_catalog.pg_inherits i
            JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
            JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
            WHERE i.inhrelid = k.oid))
        ORDER BY n.nspname, k.relname), '[]')::text
    FROM pg_catalog.pg_class k JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
    WHERE k.relkind IN ('r', 'p', 'f')
        AND {own} AND {not_of_an_extension}"""


def _unclassified(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for entry in subject.entries:
        for each in unclassified([entry]):
            yield rule.finding(".".join(target_of(entry)), each.message, each.mend)


def _application_only(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for entry in subject.catalog.application_only:
        for each in application_only([entry]):
            yield rule.finding(".".join(target_of(entry)), each.message, each.mend)


def _reached(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for target, facts in _unknown(subject):
        if facts["reached"]:
            name = ".".join(target)
            yield rule.finding(
                name,
                f"The application reaches the {_KINDS[facts['kind']]} {name}, which the models do "
                "not know.",
                f"REVOKE ALL ON {qualified(target)} FROM the application's role and from PUBLIC; "
                "or put it into the models and classify it (`tenantguard tables`).",
            )


def _undecided(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for target, facts in _unknown(subject):
        # What becomes of a part is decided with the whole. Alembic's own table has no one's rows.
        if not facts["reached"] and not facts["parents"] and not facts["alembic"]:
            schema, table = target
            name = ".".join(target)
            declared = table if schema == "public" else name
            yield rule.finding(
                name,
                f"Nobody decided whose rows the {_KINDS[facts['kind']]} {name} has: the models do "
                "not know it. The application has no privilege on it yet.",
                f"untenanted={{{declared!r}: '…'}} with the reason why it is not the "
                "application's; or put it into the models and classify it (`tenantguard tables`).",
            )


def _unknown(subject: Subject) -> Iterator[tuple[Target, Facts]]:
    own = {signing_target(subject.catalog)} if subject.catalog.signed else set()
    question = _QUESTION.format(
        role=literal(subject.roles.application),
        own=OWN_SCHEMAS,
        not_of_an_extension=not_of_an_extension("k", "pg_class"),
    )
    found = {(each["s"], each["t"]): each for each in subject.ask(question)}
    for target, facts in found.items():
        if target not in own and not _is_known(target, found, subject):
            yield target, facts


def _is_known(target: Target, found: dict[Target, Facts], subject: Subject) -> bool:
    """Return whether the models know *target*, or what it is a part of.

    A part of what no tenant needs is not the application's either, and is known while it is out of
    its reach.
    """
    entry = subject.by_target.get(target)
    if entry is not None:
        return True
    for schema, name in found.get(target, {}).get("parents", ()):
        parent = subject.by_target.get((schema, name))
        if parent is not None and parent.kind is Kind.UNTENANTED and found[target]["reached"]:
            continue
        if _is_known((schema, name), found, subject):
            return True
    return False


RULES: tuple[Rule, ...] = (
    Rule("table-unclassified", Severity.ERROR, _unclassified, offline=True),
    Rule("table-application-only", Severity.WARNING, _application_only, offline=True),
    Rule("relation-unknown", Severity.ERROR, _reached),
    Rule("relation-undecided", Severity.WARNING, _undecided),
)
