"""The tenant column itself: empty, filled by something else, or of another type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantguard.catalog import SETTING, Kind
from tenantguard.check.rule import Rule
from tenantguard.check.structure import tenant_columns_of
from tenantguard.findings import Severity
from tenantguard.rls.names import (
    expression_sql,
    literal,
    qualified,
    quote,
    target_of,
    type_sql,
)
from tenantguard.rls.policies import bound_tenant
from tenantguard.rls.state import as_recordset
from tenantguard.rls.views import is_view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Column

    from tenantguard.catalog import Entry
    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding
    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Target

__all__ = ["RULES"]

_APPLY = "Run `tenantguard rls apply` with the owner's address."
_OF_TENANTS = {Kind.SCOPED, Kind.KEYS}

# A function that a default calls may read the setting in its stead.
_READS_SETTING = f"""(
    pg_catalog.strpos(pg_catalog.pg_get_expr(d.adbin, d.adrelid), {literal(SETTING)}) > 0
    OR EXISTS (SELECT FROM pg_catalog.pg_depend e
        JOIN pg_catalog.pg_proc p ON p.oid = e.refobjid
        WHERE e.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND e.objid = d.oid
            AND e.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND pg_catalog.strpos(p.prosrc, {literal(SETTING)}) > 0))"""

# citext overlooks case, char(n) blanks at the end, and a collation whatever it was told to.
_LOOSE = """(b.typname IN ('citext', 'bpchar') OR EXISTS (SELECT FROM pg_catalog.pg_collation l
        WHERE l.oid = a.attcollation AND NOT l.collisdeterministic))"""


def _columns(subject: Subject) -> dict[Target, Facts]:
    rows = ({"s": s, "t": t, "c": column} for (s, t), column in tenant_columns_of(subject).items())
    answer = subject.ask(
        f"""
    SELECT coalesce(json_agg(json_build_object('s', w.s, 't', w.t, 'not_null', a.attnotnull,
        'filled', a.atthasdef OR a.attidentity <> '',
        'by_setting', a.attgenerated = '' AND coalesce({_READS_SETTING}, false),
        'type', pg_catalog.format_type(b.oid, CASE b.typtype WHEN 'b' THEN a.atttypmod END),
        'loose', {_LOOSE})), '[]')::text
    FROM {as_recordset(rows, "s text, t text, c text")}
    JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
    JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t
    JOIN pg_catalog.pg_attribute a ON a.attrelid = k.oid AND a.attname = w.c AND a.attnum > 0
        AND NOT a.attisdropped
    JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
    JOIN pg_catalog.pg_type b ON b.oid = CASE y.typtype WHEN 'd' THEN y.typbasetype ELSE y.oid END
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = k.oid AND d.adnum = a.attnum"""  # noqa: S608
    )
    return {(facts["s"], facts["t"]): facts for facts in answer}


_Fault = tuple["Entry", "Column[Any]"]


def _found(
    subject: Subject, in_models: Callable[[Entry], bool], in_database: Callable[[Facts], bool]
) -> Iterator[_Fault]:
    """Yield the scoped tables that have a fault in the models, in the database or in both."""
    columns = _columns(subject) if subject.run is not None else {}
    for entry in subject.entries:
        if entry.kind not in _OF_TENANTS or entry.column is None or is_view(entry):
            continue
        facts = columns.get(target_of(entry))
        if in_models(entry) or (facts is not None and in_database(facts)):
            yield entry, entry.column


def _nullable(rule: Rule, subject: Subject) -> Iterator[Finding]:
    def in_models(entry: Entry) -> bool:
        return entry.column is not None and bool(entry.column.nullable)

    for entry, column in _found(subject, in_models, lambda facts: not facts["not_null"]):
        table = ".".join(target_of(entry))
        yield rule.finding(
            table,
            f"The tenant column of {table} may be empty: such a row is nobody's, and no composite "
            "key checks it.",
            "Declare it nullable=False in the models, fill what is empty (`tenantguard migrate "
            f"sql {entry.fullname}` prints the steps), then run `tenantguard rls apply`.",
            column.name,
        )


def _default_missing(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for entry, column in _found(subject, lambda _: False, lambda facts: not facts["filled"]):
        if entry.kind is Kind.KEYS:
            # Only we write to it, and name the tenant.
            continue
        table = ".".join(target_of(entry))
        yield rule.finding(
            table,
            f"SQL text that inserts into {table} without naming the tenant fails: the column has "
            "no default from the setting.",
            _APPLY,
            column.name,
        )


def _default_wrong(rule: Rule, subject: Subject) -> Iterator[Finding]:
    def in_database(facts: Facts) -> bool:
        return facts["filled"] and not facts["by_setting"]

    for entry, column in _found(subject, _filled_by_model, in_database):
        table, alter = ".".join(target_of(entry)), f"ALTER TABLE {qualified(target_of(entry))}"
        yield rule.finding(
            table,
            f"The database fills the tenant column of {table} from something other than the "
            "transaction's tenant.",
            "Take the default out of the models; a generated or identity column becomes a plain "
            f"one. Then: {alter} ALTER COLUMN {quote(column.name)} SET DEFAULT "
            f"{bound_tenant(column)}",
            column.name,
        )


def _filled_by_model(entry: Entry) -> bool:
    column = entry.column
    if column is None or entry.kind is Kind.KEYS:
        return False
    if column.computed is not None or column.identity is not None:
        return True
    default: Any = column.server_default
    if default is None:
        return False
    expression = getattr(default, "arg", "")
    text = expression if isinstance(expression, str) else expression_sql(expression)
    # A function of one's own cannot be looked into here; the database shows what it reads.
    return SETTING not in text and "(" not in text


def _type_differs(rule: Rule, subject: Subject) -> Iterator[Finding]:
    registry, key = subject.catalog.registry_key()
    wanted = type_sql(key)
    stored = _columns(subject).get(target_of(subject.catalog.registry)) if subject.run else None

    def in_models(entry: Entry) -> bool:
        return entry.column is not None and type_sql(entry.column) != wanted

    def in_database(facts: Facts) -> bool:
        return stored is not None and facts["type"] != stored["type"]

    for entry, column in _found(subject, in_models, in_database):
        table = ".".join(target_of(entry))
        yield rule.finding(
            table,
            f"The tenant column of {table} has another type or length than the primary key of "
            f"{registry.fullname}.",
            f"Give it the type {wanted} in the models and, by a migration, in the database: drop "
            "the policies, ALTER COLUMN … TYPE, then `tenantguard rls apply`.",
            column.name,
        )


def _match_loose(rule: Rule, subject: Subject) -> Iterator[Finding]:
    stored, (_, registry_key) = _columns(subject), subject.catalog.registry_key()
    registry = stored.get(target_of(subject.catalog.registry))
    if registry is not None and registry["loose"]:
        # Then the registry itself takes such ids for one tenant.
        return
    for entry, column in _found(subject, lambda _: False, lambda facts: bool(facts["loose"])):
        table = ".".join(target_of(entry))
        yield rule.finding(
            table,
            f"The tenant column of {table} takes ids for equal that the registry tells apart, such "
            "as those that differ in case or in blanks, so one tenant sees the other's rows.",
            f"ALTER TABLE {qualified(target_of(entry))} ALTER COLUMN {quote(column.name)} TYPE "
            f"{type_sql(registry_key)}, with the registry's collation, after dropping its "
            "policies; then `tenantguard rls apply`.",
            column.name,
        )


RULES = (
    Rule("tenant-nullable", Severity.WARNING, _nullable, offline=True),
    Rule("tenant-default-missing", Severity.WARNING, _default_missing),
    Rule("tenant-default-wrong", Severity.WARNING, _default_wrong, offline=True),
    Rule("tenant-type-differs", Severity.WARNING, _type_differs, offline=True),
    Rule("tenant-match-loose", Severity.ERROR, _match_loose),
)
