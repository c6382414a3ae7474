"""What a database has before a migration, in the form in which it can be put back."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantguard.rls.kept import PREFIX
from tenantguard.rls.state import Facts, as_recordset, ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from tenantguard.rls.step import Target

__all__ = ["Former", "read_former"]

_GRANTED = """(SELECT coalesce(json_agg(json_build_array(
        coalesce(r.rolname::text, 'public'),
        e.privilege_type || CASE WHEN e.is_grantable THEN '*' ELSE '' END)
            ORDER BY r.rolname, e.privilege_type), '[]')
     FROM pg_catalog.aclexplode({acl}) e LEFT JOIN pg_catalog.pg_roles r ON r.oid = e.grantee)"""

_POLICIES = """(SELECT coalesce(json_object_agg(p.polname, json_build_object(
        'permissive', p.polpermissive,
        'command', CASE p.polcmd WHEN '*' THEN 'ALL' WHEN 'r' THEN 'SELECT'
            WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' ELSE 'DELETE' END,
        'to', (SELECT json_agg(coalesce(r.rolname::text, 'public') ORDER BY r.rolname)
            FROM unnest(p.polroles) g(oid) LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.oid),
        'using', pg_catalog.pg_get_expr(p.polqual, p.polrelid),
        'with_check', coalesce(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), ''),
        'comment', coalesce(pg_catalog.obj_description(p.oid, 'pg_policy'), ''))), '{}')
     FROM pg_catalog.pg_policy p WHERE p.polrelid = k.oid)"""

_COLUMNS = f"""(SELECT coalesce(json_object_agg(a.attname, json_build_object(
        'not_null', a.attnotnull, 'acl', {_GRANTED.format(acl="a.attacl")},
        'default', (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid)
            FROM pg_catalog.pg_attrdef d WHERE d.adrelid = k.oid AND d.adnum = a.attnum))), '{{}}')
     FROM pg_catalog.pg_attribute a
     WHERE a.attrelid = k.oid AND a.attnum > 0 AND NOT a.attisdropped)"""

_CONSTRAINTS = """(SELECT coalesce(json_object_agg(c.conname,
        pg_catalog.pg_get_constraintdef(c.oid)), '{}')
     FROM pg_catalog.pg_constraint c WHERE c.conrelid = k.oid)"""

_INDEXES = """(SELECT coalesce(json_object_agg(i.relname,
        CASE WHEN x.indisvalid THEN pg_catalog.pg_get_indexdef(i.oid) END), '{}')
     FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
     WHERE x.indrelid = k.oid)"""

_KEEPERS = f"""(SELECT coalesce(json_object_agg(t.tgname, json_build_array(
        pg_catalog.pg_get_triggerdef(t.oid), t.tgenabled)), '{{}}')
     FROM pg_catalog.pg_trigger t
     WHERE t.tgrelid = k.oid AND starts_with(t.tgname::text, '{PREFIX}'))"""

_SEQUENCES = f"""(SELECT coalesce(json_object_agg(
        pg_catalog.format('%I.%I', sn.nspname, s.relname),
        {_GRANTED.format(acl="coalesce(s.relacl, acldefault('s', s.relowner))")}), '{{}}')
     FROM pg_catalog.pg_class s JOIN pg_catalog.pg_namespace sn ON sn.oid = s.relnamespace
     WHERE s.relkind = 'S' AND (s.oid IN (
        SELECT d.objid FROM pg_catalog.pg_depend d WHERE d.refobjid = k.oid
            AND d.deptype IN ('a', 'i') AND d.classid = 'pg_catalog.pg_class'::regclass
            AND d.refclassid = 'pg_catalog.pg_class'::regclass)
        OR s.oid IN (SELECT to_regclass(e.name)
            FROM json_array_elements_text(w.q) e(name))))"""

_FUNCTIONS = f"""(SELECT coalesce(json_agg(json_build_object(
        'schema', n.nspname, 'name', p.proname,
        'owner', pg_catalog.pg_get_userbyid(p.proowner),
        'arguments', pg_catalog.pg_get_function_identity_arguments(p.oid),
        'signature', p.oid::regprocedure::text, 'sql', pg_catalog.pg_get_functiondef(p.oid),
        'acl', {_GRANTED.format(acl="coalesce(p.proacl, acldefault('f', p.proowner))")})), '[]')
     FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
     JOIN {{names}} ON n.nspname = w.s AND p.proname = w.t
     WHERE p.prokind IN ('f', 'p'))"""

_SCHEMAS = f"""(SELECT coalesce(json_object_agg(n.nspname,
        {_GRANTED.format(acl="coalesce(n.nspacl, acldefault('n', n.nspowner))")}), '{{}}')
     FROM pg_catalog.pg_namespace n)"""


class Former:
    """What was there: tables, functions and schemas."""

    def __init__(self, facts: Facts) -> None:
        self._tables = {(each["s"], each["t"]): each for each in facts["tables"]}
        self._functions: list[Facts] = facts["functions"]
        self._schemas: dict[str, list[list[str]]] = facts["schemas"]

    def table(self, target: Target) -> Facts | None:
        """Return what a table was like, None if it was not there."""
        return self._tables.get(target)

    def functions(self, target: Target) -> list[Facts]:
        """Return the functions of that schema and name."""
        return [each for each in self._functions if (each["schema"], each["name"]) == target]

    def schema(self, name: str) -> list[list[str]]:
        """Return who could do what with a schema."""
        return self._schemas.get(name, [])


def read_former(
    connection: Connection,
    tables: Mapping[Target, Sequence[str]],
    functions: Iterable[Target],
) -> Former:
    """Return what the database of *connection* has of *tables*, *functions* and all schemas.

    The tables' values are the sequences that their columns name. Expressions are written so that
    they mean the same under every search path.
    """
    wanted = as_recordset(
        ({"s": s, "t": t, "q": list(q)} for (s, t), q in tables.items()), "s text, t text, q json"
    )
    names = as_recordset(({"s": s, "t": t} for s, t in functions), "s text, t text")
    question = f"""
    SELECT json_build_object('schemas', {_SCHEMAS}, 'functions', {_FUNCTIONS.format(names=names)},
        'tables', (SELECT coalesce(json_agg(json_build_object(
            's', w.s, 't', w.t, 'enabled', k.relrowsecurity, 'forced', k.relforcerowsecurity,
            'invoker', (SELECT o.option_value FROM pg_catalog.pg_options_to_table(k.reloptions) o
                WHERE o.option_name = 'security_invoker'),
            'acl', {_GRANTED.format(acl="coalesce(k.relacl, acldefault('r', k.relowner))")},
            'policies', {_POLICIES}, 'columns', {_COLUMNS}, 'constraints', {_CONSTRAINTS},
            'indexes', {_INDEXES}, 'keepers', {_KEEPERS}, 'sequences', {_SEQUENCES})), '[]')
        FROM {wanted} JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
        JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t
            AND k.relkind IN ('r', 'p', 'v', 'm')))::text"""
    options = {"no_parameters": True}

    def run(statement: str) -> Sequence[Any]:
        result = connection.exec_driver_sql(statement, execution_options=options)
        return result.fetchall() if result.returns_rows else ()

    with connection.begin_nested() as savepoint:
        run("SET LOCAL search_path = pg_catalog")
        facts = ask(run, question)
        savepoint.rollback()
    return Former(facts)
