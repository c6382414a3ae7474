"""Unique and exclusion keys that say whether another tenant has a value."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, DefaultClause, UniqueConstraint
from sqlalchemy.dialects.postgresql import ExcludeConstraint

from tenantguard.catalog import WRITTEN
from tenantguard.check.rule import Rule
from tenantguard.findings import Severity
from tenantguard.keytable import SEARCHES
from tenantguard.rls.names import expression_sql, literal, target_of, type_sql
from tenantguard.rls.state import as_recordset
from tenantguard.rls.views import is_view

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Table

    from tenantguard.catalog import Catalog, Entry
    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding
    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Target

__all__ = ["RULES"]

_MADE = r"nextval\(|random|uuid"
"""What the default of a column calls whose values nobody chooses."""


@dataclass(frozen=True, slots=True)
class _Unique:
    """A key's columns and expressions; *equal* are those that it compares for equality.

    *column* is the first column that it is of.
    """

    parts: tuple[str, ...]
    equal: tuple[str, ...]
    column: str | None


def _without_tenant(rule: Rule, subject: Subject) -> Iterator[Finding]:
    stored = _stored(subject) if subject.run is not None else {}
    for entry in subject.entries:
        if entry.kind not in WRITTEN or entry.table is None or is_view(entry):
            continue
        own, facts = _distinct(subject.catalog, entry), stored.get(target_of(entry), {})
        own |= set(facts.get("distinct", ()))
        keys = [_Unique(tuple(p), tuple(e), c) for p, e, c in facts.get("uniques", ())]
        # The database spells an expression in its own way.
        keys += [key for key in _of_model(entry.table) if not facts or _is_plain(key, entry.table)]
        for key in dict.fromkeys(each for each in keys if not own & set(each.equal)):
            yield _finding(rule, entry, key)


def _finding(rule: Rule, entry: Entry, key: _Unique) -> Finding:
    table = ".".join(target_of(entry))
    what = f"unique ({', '.join(key.parts)}) of {table}"
    if entry.column is None:
        return rule.finding(
            table,
            f"The key {what} does not name the row's parent, so a violation tells that another "
            "tenant has the value.",
            "Add the foreign key to the parent as its first column, in the models and the "
            "database.",
            key.column,
        )
    return rule.finding(
        table,
        f"The key {what} does not contain the tenant, so a violation tells that another tenant "
        "has the value, and two tenants cannot have the same.",
        f"Make it ({', '.join([entry.column.name, *key.parts])}) in the models and the database. "
        "What signing in asks for before the tenant is known: a login name is declared by "
        "guard.identity_lookup(…), a token is exempt with that reason.",
        key.column,
    )


# -- which columns keep two tenants' rows apart by themselves ---------------------------------


def _distinct(catalog: Catalog, entry: Entry) -> set[str]:
    """Return the columns that no two tenants have an equal value in, but by knowing it."""
    table = entry.table
    if table is None:
        return set()
    found = {column.name for column in table.columns if _is_surrogate(column)}
    found |= {entry.column.name} if entry.column is not None else set()
    # What a tenant's row points at is the tenant's own; the composite key sees to it.
    found |= {
        column.name
        for key in table.foreign_key_constraints
        if any(_is_of_a_tenant(catalog, each.column.table) for each in key.elements)
        for column in key.columns
    }
    # Signing in asks for it before the tenant is known.
    return found | {each.key.name for each in catalog.lookups if each.table is table}


def _is_of_a_tenant(catalog: Catalog, table: Table) -> bool:
    return catalog.entry(table).kind in WRITTEN


def _is_surrogate(column: Column[Any]) -> bool:
    """Return whether nobody chooses the values: counted, random, or made by the application."""
    default = column.server_default
    text = _sql_of(default.arg) if isinstance(default, DefaultClause) else ""
    return bool(
        (column.default is not None and not column.default.is_scalar)
        or column is column.table.autoincrement_column
        or column.identity is not None
        or type_sql(column).upper() == "UUID"
        or SEARCHES in column.info
        or re.search(_MADE, text)
    )


# -- the keys of the models -------------------------------------------------------------------


def _of_model(table: Table) -> Iterator[_Unique]:
    unique = (each for each in table.constraints if isinstance(each, UniqueConstraint))
    # The primary key of a table without one has no columns.
    for key in sorted(filter(None, map(_names, [table.primary_key, *unique]))):
        yield _Unique(key, key, key[0])
    for index in sorted(table.indexes, key=lambda each: str(each.name)):
        if index.unique:
            parts = tuple(_sql_of(each) for each in index.expressions)
            yield _Unique(parts, parts, next(iter(_names(index)), None))
    for constraint in table.constraints:
        if isinstance(constraint, ExcludeConstraint):
            operators = {str(name): operator for name, operator in constraint.operators.items()}
            equal = tuple(name for name, operator in operators.items() if operator == "=")
            yield _Unique(tuple(operators), equal, next(iter(_names(constraint)), None))


def _names(key: Any) -> tuple[str, ...]:
    return tuple(column.name for column in key.columns)


def _sql_of(expression: Any) -> str:
    if isinstance(expression, str):
        return expression
    return expression.name if isinstance(expression, Column) else expression_sql(expression)


def _is_plain(key: _Unique, table: Table) -> bool:
    return set(key.parts) <= {column.name for column in table.columns}


# -- the keys of the database -----------------------------------------------------------------

# Exclusion constraints, and keys WITHOUT OVERLAPS, name the operator of each part.
_UNIQUES = """
    SELECT coalesce(json_agg(json_build_array(p.parts, p.equal, coalesce(p.first,
        (SELECT a.attname FROM pg_catalog.pg_depend d
            JOIN pg_catalog.pg_attribute a ON a.attrelid = k.oid AND a.attnum = d.refobjsubid
            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                AND d.objid = x.indexrelid AND d.refobjid = k.oid AND d.refobjsubid > 0
            ORDER BY a.attnum LIMIT 1))) ORDER BY x.indexrelid), '[]')
    FROM pg_catalog.pg_index x CROSS JOIN LATERAL (
        SELECT json_agg(u.part ORDER BY u.number) AS parts,
            coalesce(json_agg(u.part ORDER BY u.number)
                FILTER (WHERE u.operator IS NULL OR u.operator = '='), '[]') AS equal,
            (array_agg(u.attname ORDER BY u.number)
                FILTER (WHERE u.attname IS NOT NULL))[1] AS first
        FROM (SELECT i.number, a.attname, coalesce(a.attname::text,
                pg_catalog.pg_get_indexdef(x.indexrelid, i.number::int, false)) AS part,
                (SELECT o.oprname FROM pg_catalog.pg_constraint c
                    JOIN pg_catalog.pg_operator o ON o.oid = c.conexclop[i.number]
                    WHERE c.conrelid = k.oid AND c.conindid = x.indexrelid
                        AND c.contype IN ('x', 'u', 'p')) AS operator
            FROM unnest(x.indkey::int2[]) WITH ORDINALITY i(num, number)
            LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = k.oid AND a.attnum = i.num
            WHERE i.number <= x.indnkeyatts) u) p
    WHERE x.indrelid = k.oid AND (x.indisunique OR x.indisexclusion)"""

_DISTINCT = f"""
    SELECT coalesce(json_agg(a.attname), '[]') FROM pg_catalog.pg_attribute a
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = k.oid AND d.adnum = a.attnum
    WHERE a.attrelid = k.oid AND a.attnum > 0 AND (a.attidentity <> ''
        OR a.atttypid = 'pg_catalog.uuid'::pg_catalog.regtype
        OR pg_catalog.pg_get_expr(d.adbin, d.adrelid) ~ {literal(_MADE)})"""


def _stored(subject: Subject) -> dict[Target, Facts]:
    """Return the unique keys of the database, and the columns of which nobody chooses values."""
    rows = (dict(zip("st", target_of(each), strict=True)) for each in subject.entries if each.owned)
    answer = subject.ask(
        f"""
    SELECT coalesce(json_agg(json_build_object('s', w.s, 't', w.t, 'uniques', ({_UNIQUES}),
        'distinct', ({_DISTINCT}))), '[]')::text
    FROM {as_recordset(rows, "s text, t text")}
    JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
    JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t"""
    )
    return {(facts["s"], facts["t"]): facts for facts in answer}


RULES = (Rule("unique-without-tenant", Severity.WARNING, _without_tenant, offline=True),)
