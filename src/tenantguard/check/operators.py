"""Indexes whose operators or functions are not leakproof, as PostgreSQL's catalogs have them."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.catalog import Kind
from tenantguard.rls.names import literal, target_of
from tenantguard.rls.state import as_recordset
from tenantguard.rls.views import is_view

if TYPE_CHECKING:
    from tenantguard.check.subject import Subject

__all__ = ["suspects_question"]

# The operator that the index is most likely for: equality, or what only such an index can do.
_OPERATOR = """
    SELECT n.nspname, p.oprname, f.proname, f.proleakproof, m.amoprighttype
    FROM pg_catalog.pg_amop m JOIN pg_catalog.pg_operator p ON p.oid = m.amopopr
    JOIN pg_catalog.pg_namespace n ON n.oid = p.oprnamespace
    JOIN pg_catalog.pg_proc f ON f.oid = p.oprcode
    WHERE m.amopfamily = o.opcfamily AND m.amoplefttype = o.opcintype AND m.amoppurpose = 's'
        AND p.oprresult = 'bool'::pg_catalog.regtype
    ORDER BY p.oprname = ANY (CASE WHEN am.amname IN ('btree', 'hash', 'brin')
            THEN ARRAY['='] ELSE ARRAY['&&', '@@', '@>'] END) DESC,
        m.amoprighttype = m.amoplefttype DESC, m.amopstrategy
    LIMIT 1"""

# Functions of an expression, its operators' among them, by the ids in its stored form.
_FUNCTIONS = """
    SELECT f.proname FROM pg_catalog.regexp_matches(
        CASE WHEN i.num = 0 THEN x.indexprs::text END, ':(?:funcid|opfuncid) (\\d+)', 'g') g(id)
    JOIN pg_catalog.pg_proc f ON f.oid = g.id[1]::oid WHERE NOT f.proleakproof"""

# In a GIN index the column has the type of an element.
_TYPE = """
    CASE WHEN r.typtype <> 'p' THEN r.oid WHEN a.atttypid IS NOT NULL THEN a.atttypid
        WHEN am.amname = 'gin' THEN e.typarray ELSE e.oid END"""


def suspects_question(subject: Subject) -> str:
    """Return the question for the indexes that row-level security may keep from being used.

    Each is one that the application's role can search, by its first column or, in a GIN index, by
    any, and that the tenant does not lead. *pattern* says that it is one for LIKE.
    """
    rows = (
        {**dict(zip("st", target_of(entry), strict=True)), "c": entry.column.name}
        for entry in subject.entries
        if entry.kind is Kind.SCOPED and entry.column is not None and not is_view(entry)
    )
    role = literal(subject.roles.application)
    return f"""
    SELECT coalesce(json_agg(to_json(q.*) ORDER BY q.s, q.t, q.index, q.number), '[]')::text
    FROM (SELECT w.s, w.t, ic.relname AS index, i.number, v.pattern,
        (SELECT json_agg(c.relname) FROM pg_catalog.pg_class c WHERE c.oid = x.indexrelid
            OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree(x.indexrelid))) AS names,
        coalesce(a.attname, (SELECT b.attname FROM pg_catalog.pg_depend d
            JOIN pg_catalog.pg_attribute b ON b.attrelid = k.oid AND b.attnum = d.refobjsubid
            WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                AND d.objid = x.indexrelid AND d.refobjid = k.oid AND d.refobjsubid > 0
            ORDER BY b.attnum LIMIT 1)) AS column,
        pg_catalog.pg_get_indexdef(x.indexrelid, i.number::int, false) AS expression,
        pg_catalog.pg_get_expr(x.indpred, x.indrelid) AS where,
        pg_catalog.quote_ident(op.nspname) || '.' || op.oprname AS operator,
        pg_catalog.format_type({_TYPE}, NULL) AS type, v.leaks
    FROM {as_recordset(rows, "s text, t text, c text")}
    JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
        AND pg_catalog.has_schema_privilege({role}, n.oid, 'USAGE')
    JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t
        AND pg_catalog.has_table_privilege({role}, k.oid, 'SELECT')
    JOIN pg_catalog.pg_attribute t ON t.attrelid = k.oid AND t.attname = w.c
    JOIN pg_catalog.pg_index x ON x.indrelid = k.oid AND x.indisvalid AND NOT x.indisexclusion
    JOIN pg_catalog.pg_class ic ON ic.oid = x.indexrelid
    JOIN pg_catalog.pg_am am ON am.oid = ic.relam
    CROSS JOIN unnest(x.indkey::int2[], x.indclass::oid[]) WITH ORDINALITY i(num, class, number)
    JOIN pg_catalog.pg_opclass o ON o.oid = i.class
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = k.oid AND a.attnum = i.num
    JOIN pg_catalog.pg_attribute ia ON ia.attrelid = x.indexrelid AND ia.attnum = i.number
    JOIN pg_catalog.pg_type e ON e.oid = ia.atttypid
    CROSS JOIN LATERAL ({_OPERATOR}) op JOIN pg_catalog.pg_type r ON r.oid = op.amoprighttype
    CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM pg_catalog.pg_amop m
            JOIN pg_catalog.pg_operator p ON p.oid = m.amopopr
            WHERE m.amopfamily = o.opcfamily AND p.oprname = '~<~') AS pattern,
        ARRAY({_FUNCTIONS} UNION ALL SELECT op.proname WHERE NOT op.proleakproof) AS leaks) v
    WHERE (v.pattern OR v.leaks <> '{{}}')
        AND CASE am.amname WHEN 'gin' THEN t.attnum <> ALL (x.indkey::int2[])
            ELSE i.number = 1 AND i.num <> t.attnum END) q"""
