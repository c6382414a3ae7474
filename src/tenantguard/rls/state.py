"""What the database has, read from its catalogs in one statement a question.

Every question is plain SQL without parameters and answers with one JSON text, so that any driver
can ask it, however many tables there are.
"""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tenantguard.rls.kept import PREFIX
from tenantguard.rls.names import literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tenantguard.rls.step import Target

    Run = Callable[[str], Sequence[Any]]

__all__ = [
    "INVOKER",
    "KEEPERS",
    "OWN_SCHEMAS",
    "Facts",
    "as_recordset",
    "ask",
    "not_of_an_extension",
    "read_functions",
    "read_roles",
    "read_schemas",
    "read_structure",
    "read_tables",
    "read_type_names",
    "structure_question",
]

Facts = dict[str, Any]
"""One object's properties."""

_POLICIES = """
    (SELECT coalesce(json_object_agg(p.polname, json_build_object(
        'permissive', p.polpermissive, 'command', p.polcmd::text,
        'roles', (SELECT json_agg(coalesce(r.rolname::text, 'public'))
            FROM unnest(p.polroles) g(oid) LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.oid),
        'applies', (SELECT bool_or(g.oid = 0
                OR CASE WHEN g.oid <> 0 THEN pg_catalog.pg_has_role(g.oid, 'MEMBER') END)
            FROM unnest(p.polroles) g(oid)),
        'using', pg_catalog.pg_get_expr(p.polqual, p.polrelid),
        'check', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))), '{}')
     FROM pg_catalog.pg_policy p WHERE p.polrelid = k.oid)"""

_PRIVILEGES = """
    (SELECT coalesce(json_agg(v.p), '[]') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE',
        'TRUNCATE', 'REFERENCES', 'TRIGGER']) v(p)
     WHERE pg_catalog.has_table_privilege(k.oid, v.p)
        OR CASE WHEN v.p IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
            THEN pg_catalog.has_any_column_privilege(k.oid, v.p) END)"""

_NAMES = """(SELECT json_agg(n.attname ORDER BY u.ord) FROM
        unnest({numbers}) WITH ORDINALITY u(num, ord)
        LEFT JOIN pg_catalog.pg_attribute n ON n.attrelid = {relation} AND n.attnum = u.num)"""

# confdelsetcols exists from PostgreSQL 15 on, conenforced from 18 on: reading the row as JSON gives
# NULL before. Without its triggers a key checks nothing, however valid it is.
_CONSTRAINTS = f"""
    (SELECT coalesce(json_agg(json_build_object(
        'name', c.conname, 'type', c.contype::text, 'valid', c.convalidated,
        'columns', {_NAMES.format(numbers="c.conkey", relation="c.conrelid")},
        'parent', (SELECT json_build_array(ps.nspname, pk.relname) FROM pg_catalog.pg_class pk
            JOIN pg_catalog.pg_namespace ps ON ps.oid = pk.relnamespace WHERE pk.oid = c.confrelid),
        'parent_columns', {_NAMES.format(numbers="c.confkey", relation="c.confrelid")},
        'checked', coalesce((to_jsonb(c.*) ->> 'conenforced')::boolean, true) AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_trigger t
            WHERE t.tgconstraint = c.oid AND t.tgenabled IN ('D', 'R')),
        'update', c.confupdtype::text, 'delete', c.confdeltype::text,
        'delete_columns', (SELECT json_agg(n.attname ORDER BY n.attnum)
            FROM pg_catalog.pg_attribute n
            WHERE c.confdeltype IN ('n', 'd') AND n.attrelid = c.conrelid
                AND to_jsonb(c.*) -> 'confdelsetcols' @> to_jsonb(n.attnum))
     )), '[]') FROM pg_catalog.pg_constraint c WHERE c.conrelid = k.oid AND c.contype = 'f')"""

_INDEXES = f"""
    (SELECT coalesce(json_agg(json_build_object(
        'name', ic.relname, 'valid', x.indisvalid,
        'whole', x.indpred IS NULL, 'unique', x.indisunique AND x.indimmediate,
        'columns', {
    _NAMES.format(numbers="(x.indkey::int2[])[0:x.indnkeyatts - 1]", relation="x.indrelid")
}
     )), '[]') FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class ic ON ic.oid = x.indexrelid
     WHERE x.indrelid = k.oid)"""

_PARTS = """parts(oid) AS (
            SELECT i.inhrelid FROM pg_catalog.pg_inherits i WHERE i.inhparent = k.oid
            UNION
            SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN parts p ON p.oid = i.inhparent)"""

# From PostgreSQL 16 on a partition may generate a column from something else than its table does.
_COLUMNS = f"""
    (SELECT coalesce(json_object_agg(ca.attname, json_build_object(
        'type', pg_catalog.format_type(ca.atttypid, ca.atttypmod),
        'generated', ca.attgenerated::text,
        'expression', (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid)
            FROM pg_catalog.pg_attrdef d WHERE d.adrelid = k.oid AND d.adnum = ca.attnum),
        'alike', NOT k.relhassubclass OR (
            WITH RECURSIVE {_PARTS}
            SELECT count(DISTINCT pg_catalog.pg_get_expr(d.adbin, d.adrelid)) < 2
            FROM (SELECT k.oid UNION SELECT p.oid FROM parts p) p
            JOIN pg_catalog.pg_attribute pa ON pa.attrelid = p.oid AND pa.attname = ca.attname
            JOIN pg_catalog.pg_attrdef d ON d.adrelid = p.oid AND d.adnum = pa.attnum))), '{{}}')
     FROM json_array_elements_text(w.x) e(name) JOIN pg_catalog.pg_attribute ca
        ON ca.attrelid = k.oid AND ca.attname = e.name AND ca.attnum > 0 AND NOT ca.attisdropped)"""

OWN_SCHEMAS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
"""Schemas that are not PostgreSQL's own."""

INVOKER = """coalesce((SELECT o.option_value::boolean
        FROM pg_catalog.pg_options_to_table({relation}.reloptions) o
        WHERE o.option_name = 'security_invoker'), false)"""

# What shows a guarded table's rows to the current user without its policies: parts under their own
# names, and views, however many there are in between.
# OFFSET keeps the planner from reading a whole catalog for each table, which it chooses where the
# catalogs have no statistics yet: 1,000 new tables took 13 seconds.
_WAYS = f"""
    CASE WHEN w.c <> '' THEN (
        WITH RECURSIVE {_PARTS},
        readers(oid) AS (
            SELECT k.oid UNION SELECT p.oid FROM parts p
            UNION
            SELECT v.ev_class FROM readers e
            CROSS JOIN LATERAL (SELECT d.objid FROM pg_catalog.pg_depend d
                WHERE d.refobjid = e.oid
                    AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                    AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass OFFSET 0) d
            JOIN pg_catalog.pg_rewrite v ON v.oid = d.objid)
        SELECT coalesce(json_agg(json_build_object('s', xn.nspname, 't', x.relname,
            'kind', x.relkind::text) ORDER BY xn.nspname, x.relname), '[]')
        FROM readers e CROSS JOIN LATERAL (SELECT x.* FROM pg_catalog.pg_class x
            WHERE x.oid = e.oid AND x.oid <> k.oid OFFSET 0) x
        JOIN pg_catalog.pg_namespace xn ON xn.oid = x.relnamespace
        WHERE pg_catalog.has_schema_privilege(xn.oid, 'USAGE')
            AND (pg_catalog.has_any_column_privilege(x.oid, 'SELECT, INSERT, UPDATE')
                OR pg_catalog.has_table_privilege(x.oid, 'DELETE, TRUNCATE'))
            AND CASE x.relkind WHEN 'v' THEN NOT {INVOKER.format(relation="x")}
                WHEN 'm' THEN true ELSE NOT (x.relrowsecurity AND x.relforcerowsecurity) END)
    ELSE '[]' END"""

_PRIMARY = f"""
    (SELECT {_NAMES.format(numbers="c.conkey", relation="c.conrelid")}
     FROM pg_catalog.pg_constraint c WHERE c.conrelid = k.oid AND c.contype = 'p')"""

# conenforced exists from PostgreSQL 18 on; what is not enforced checks nothing. One that is not
# inherited leaves children out, also those that are made later.
_CHECKS = """
    (SELECT coalesce(json_agg(json_build_object('name', c.conname, 'valid', c.convalidated,
        'enforced', coalesce((to_jsonb(c.*) ->> 'conenforced')::boolean, true)
            AND NOT c.connoinherit,
        'expression', pg_catalog.pg_get_expr(c.conbin, c.conrelid))), '[]')
     FROM pg_catalog.pg_constraint c WHERE c.conrelid = k.oid AND c.contype = 'c')"""

# Of triggers that keep search columns: BEFORE INSERT OR UPDATE is 23 with FOR EACH ROW. One that is
# idle fills no column that is there, and makes every write fail.
KEEPERS = f"""
    (SELECT coalesce(json_object_agg(t.tgname, json_build_object(
        'fires', t.tgenabled IN ('O', 'A') AND t.tgtype = 23 AND t.tgqual IS NULL
            AND t.tgattr::text = '' AND t.tgnargs = 0
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_partition_tree(k.oid) d
                JOIN pg_catalog.pg_trigger f ON f.tgrelid = d.relid AND f.tgfoid = t.tgfoid
                WHERE f.tgenabled NOT IN ('O', 'A')),
        'safe', NOT p.prosecdef AND p.proconfig = ARRAY['search_path=pg_catalog']
            AND l.lanname = 'plpgsql' AND (o.rolsuper OR p.proowner = k.relowner),
        'body', p.prosrc, 'idle', NOT EXISTS (SELECT FROM pg_catalog.pg_attribute f
            WHERE f.attrelid = k.oid AND NOT f.attisdropped AND strpos(p.prosrc,
                'NEW."' || replace(f.attname, '"', '""') || '" := ') > 0))), '{{}}')
     FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
     JOIN pg_catalog.pg_language l ON l.oid = p.prolang
     JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
     WHERE k.relhastriggers AND t.tgrelid = k.oid AND starts_with(t.tgname::text, '{PREFIX}'))"""
"""What triggers that keep search columns of the relation *k* do, by their names."""

_ACL = """(SELECT coalesce(json_agg(json_build_array(
        coalesce(r.rolname::text, 'public'), e.privilege_type)), '[]')
     FROM pg_catalog.aclexplode({acl}) e LEFT JOIN pg_catalog.pg_roles r ON r.oid = e.grantee)"""

# As an array the ids are looked up; joined, each table would scan all relations.
_SEQUENCES = f"""
    (SELECT coalesce(json_agg(json_build_object('acl', {_ACL.format(acl="s.relacl")})), '[]')
     FROM pg_catalog.pg_class s WHERE s.relkind = 'S' AND s.oid = ANY (ARRAY(
        SELECT d.objid FROM pg_catalog.pg_depend d WHERE d.refobjid = k.oid
            AND d.deptype IN ('a', 'i') AND d.classid = 'pg_catalog.pg_class'::regclass
            AND d.refclassid = 'pg_catalog.pg_class'::regclass
        UNION SELECT to_regclass(e.name)::oid FROM json_array_elements_text(w.q) e(name))))"""


def not_of_an_extension(row: str, catalog: str) -> str:
    """Return whether *row* of *catalog* was not brought by an extension."""
    return f"""NOT EXISTS (SELECT FROM pg_catalog.pg_depend x
        WHERE x.objid = {row}.oid AND x.deptype = 'e'
            AND x.classid = 'pg_catalog.{catalog}'::pg_catalog.regclass)"""


def ask(run: Run, question: str) -> Any:
    """Return the decoded JSON text that *question* answers with."""
    return json.loads(run(question)[0][0])


def as_recordset(rows: Iterable[Facts], columns: str) -> str:
    """Return *rows* as a table expression with *columns*."""
    return f"json_to_recordset({literal(json.dumps(list(rows)))}) AS w({columns})"


def read_tables(
    run: Run, wanted: dict[Target, str], watched: dict[Target, tuple[str, ...]]
) -> dict[Target, Facts]:
    """Return what row-level security makes of each table in *wanted*; its value is the column.

    *watched* are the further columns that are looked at. A table that the database does not have is
    left out. Privileges are the current user's.
    """
    question = f"""
    SELECT coalesce(json_agg(json_build_object(
        's', w.s, 't', w.t, 'enabled', k.relrowsecurity, 'forced', k.relforcerowsecurity,
        'kind', k.relkind::text, 'invoker', {INVOKER.format(relation="k")}, 'ways', {_WAYS},
        'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
        'columns', {_COLUMNS}, 'primary', {_PRIMARY}, 'checks', {_CHECKS}, 'keepers', {KEEPERS},
        'policies', {_POLICIES}, 'privileges', {_PRIVILEGES})), '[]')::text
    FROM {_relations(wanted, watched=watched)}
    LEFT JOIN pg_catalog.pg_attribute a
        ON a.attrelid = k.oid AND a.attname = w.c AND a.attnum > 0 AND NOT a.attisdropped"""
    return {(facts["s"], facts["t"]): facts for facts in ask(run, question)}


def read_structure(
    run: Run, wanted: dict[Target, str], sequences: dict[Target, tuple[str, ...]]
) -> dict[Target, Facts]:
    """Return keys, indexes and privileges of each table.

    *sequences* are those that columns name.
    """
    return {
        (facts["s"], facts["t"]): facts for facts in ask(run, structure_question(wanted, sequences))
    }


def structure_question(
    wanted: dict[Target, str], sequences: dict[Target, tuple[str, ...]] | None = None
) -> str:
    """Return the question that `read_structure` asks."""
    return f"""
    SELECT coalesce(json_agg(json_build_object(
        's', w.s, 't', w.t, 'not_null', a.attnotnull,
        'default', (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid) FROM pg_catalog.pg_attrdef d
            WHERE d.adrelid = k.oid AND d.adnum = a.attnum),
        'keys', {_CONSTRAINTS}, 'indexes', {_INDEXES},
        'acl', {_ACL.format(acl="k.relacl")},
        'column_acl', (SELECT coalesce(json_agg(x.acl), '[]') FROM (
            SELECT {_ACL.format(acl="ca.attacl")} AS acl FROM pg_catalog.pg_attribute ca
            WHERE ca.attrelid = k.oid AND ca.attacl IS NOT NULL) x),
        'sequences', {_SEQUENCES})), '[]')::text
    FROM {_relations(wanted, sequences)}
    LEFT JOIN pg_catalog.pg_attribute a
        ON a.attrelid = k.oid AND a.attname = w.c AND a.attnum > 0 AND NOT a.attisdropped"""


def read_functions(run: Run, wanted: Iterable[Target]) -> dict[Target, list[Facts]]:
    """Return every function of each wanted name."""
    names = as_recordset(({"s": s, "t": t} for s, t in wanted), "s text, t text")
    question = f"""
    SELECT coalesce(json_agg(json_build_object(
        's', w.s, 't', w.t, 'body', p.prosrc, 'definer', p.prosecdef, 'config', p.proconfig,
        'owner', pg_catalog.pg_get_userbyid(p.proowner), 'volatile', p.provolatile::text,
        'result', pg_catalog.pg_get_function_result(p.oid),
        'arguments', pg_catalog.pg_get_function_identity_arguments(p.oid),
        'acl', {_ACL.format(acl="coalesce(p.proacl, acldefault('f', p.proowner))")})), '[]')::text
    FROM {names} JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
    JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid AND p.proname = w.t"""
    found: dict[Target, list[Facts]] = {}
    for facts in ask(run, question):
        found.setdefault((facts["s"], facts["t"]), []).append(facts)
    return found


def read_type_names(run: Run, types: Iterable[str]) -> dict[str, str | None]:
    """Return PostgreSQL's own name of each type, without its length."""
    wanted = as_recordset(({"t": name} for name in sorted(set(types))), "t text")
    question = f"""
    SELECT coalesce(json_object_agg(
        w.t, pg_catalog.format_type(pg_catalog.to_regtype(w.t), NULL)), '{{}}')::text
    FROM {wanted}"""
    names: dict[str, str | None] = ask(run, question)
    return names


def read_schemas(run: Run, roles: Iterable[str]) -> dict[str, dict[str, Facts]]:
    """Return what each role may do in each schema."""
    names = as_recordset(({"r": role} for role in roles), "r text")
    question = f"""
    SELECT coalesce(json_agg(json_build_object('schema', n.nspname, 'role', r.rolname,
        'usage', pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE'),
        'create', pg_catalog.has_schema_privilege(r.oid, n.oid, 'CREATE'))), '[]')::text
    FROM {names} JOIN pg_catalog.pg_roles r ON r.rolname = w.r
    CROSS JOIN pg_catalog.pg_namespace n"""
    found: dict[str, dict[str, Facts]] = {}
    for facts in ask(run, question):
        found.setdefault(facts["schema"], {})[facts["role"]] = facts
    return found


def read_roles(run: Run, names: Iterable[str]) -> tuple[int, set[str]]:
    """Return the server's version number and which of the roles *names* exist."""
    wanted = as_recordset(({"r": name} for name in names), "r text")
    question = f"""
    SELECT json_build_object('version', pg_catalog.current_setting('server_version_num')::int,
        'roles', (SELECT coalesce(json_agg(r.rolname), '[]')
            FROM {wanted} JOIN pg_catalog.pg_roles r ON r.rolname = w.r))::text"""
    answer = ask(run, question)
    return answer["version"], set(answer["roles"])


def _relations(
    wanted: dict[Target, str],
    sequences: dict[Target, tuple[str, ...]] | None = None,
    watched: dict[Target, tuple[str, ...]] | None = None,
) -> str:
    named, looked_at = sequences or {}, watched or {}
    rows = (
        {
            "s": target[0],
            "t": target[1],
            "c": column,
            "q": list(named.get(target, ())),
            "x": list(looked_at.get(target, ())),
        }
        for target, column in wanted.items()
    )
    return (
        f"{as_recordset(rows, 's text, t text, c text, q json, x json')}\n"
        "    JOIN pg_catalog.pg_namespace n ON n.nspname = w.s\n"
        "    JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t\n"
        "        AND k.relkind IN ('r', 'p', 'v', 'm')"
    )
