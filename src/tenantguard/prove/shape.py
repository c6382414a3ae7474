"""What the tables of a database are made of, read from its catalogs in one question."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tenantguard.rls.kept import fills
from tenantguard.rls.names import literal
from tenantguard.rls.state import ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenantguard.rls.step import Target

__all__ = ["Check", "Column", "Key", "Reference", "Shape", "Table", "Type", "read_shape"]


_BY_TRIGGER = "t"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; *type* is as it is written, *type_id* its number among the types."""

    name: str
    type: str
    type_id: int
    not_null: bool
    default: str | None
    identity: str
    generated: str
    updatable: bool

    @property
    def counts(self) -> bool:
        """Whether its default takes a number from a sequence, which no rollback gives back."""
        return bool(self.identity) or "nextval(" in (self.default or "")


@dataclass(frozen=True, slots=True)
class Check:
    """A condition on *columns*."""

    name: str
    expression: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """A unique key or an exclusion; only those that can arbitrate serve an upsert."""

    name: str
    columns: tuple[str, ...]
    primary: bool
    arbitrates: bool


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key."""

    name: str
    columns: tuple[str, ...]
    parent: Target
    parent_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view, *owned* by the application or not.

    *sources* are the bodies of its triggers, *reads* a view's tables.
    """

    target: Target
    kind: str
    columns: dict[str, Column]
    checks: tuple[Check, ...]
    keys: tuple[Key, ...]
    references: tuple[Reference, ...]
    sources: tuple[str, ...]
    parts: tuple[str, ...]
    has_default_part: bool
    forced: bool
    owned: bool
    privileges: frozenset[str]
    reads: tuple[Target, ...]

    @property
    def partitioned(self) -> bool:
        """Whether its rows lie in partitions."""
        return self.kind == "p"

    @property
    def primary(self) -> tuple[str, ...]:
        """The columns of the primary key, or none."""
        return next((key.columns for key in self.keys if key.primary), ())


@dataclass(frozen=True, slots=True)
class Type:
    """A type; *of* is what an array, a domain or a range is made of."""

    name: str
    kind: str
    of: int
    written: str
    labels: tuple[str, ...]
    fields: tuple[tuple[str, int], ...]
    checks: tuple[str, ...]
    not_null: bool


@dataclass(slots=True)
class Shape:
    """Everything that an invented row has to fit."""

    tables: dict[Target, Table] = field(default_factory=dict)
    types: dict[int, Type] = field(default_factory=dict)


_NAMES = """(SELECT coalesce(json_agg(a.attname ORDER BY u.ord), '[]')
        FROM unnest({numbers}) WITH ORDINALITY u(num, ord)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = {relation} AND a.attnum = u.num)"""

_COLUMNS = """(SELECT coalesce(json_agg(json_build_array(a.attname,
            pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid::bigint, a.attnotnull,
            pg_catalog.pg_get_expr(d.adbin, d.adrelid), a.attidentity::text, a.attgenerated::text,
            pg_catalog.has_column_privilege({role}, k.oid, a.attnum, 'UPDATE'))
            ORDER BY a.attnum), '[]')
        FROM pg_catalog.pg_attribute a
        LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = k.oid AND a.attnum > 0 AND NOT a.attisdropped)"""

_CONSTRAINTS = f"""(SELECT coalesce(json_agg(json_build_object('name', c.conname,
            'type', c.contype::text, 'expression', pg_catalog.pg_get_expr(c.conbin, c.conrelid),
            'columns', {_NAMES.format(numbers="c.conkey", relation="c.conrelid")},
            'parent', (SELECT json_build_array(n.nspname, p.relname) FROM pg_catalog.pg_class p
                JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace WHERE p.oid = c.confrelid),
            'parent_columns', {_NAMES.format(numbers="c.confkey", relation="c.confrelid")}
        ) ORDER BY c.conname), '[]')
        FROM pg_catalog.pg_constraint c
        WHERE c.conrelid = k.oid AND c.contype IN ('c', 'f', 'x') AND c.contype <> 'n')"""

_INDEXES = f"""(SELECT coalesce(json_agg(json_build_object('name', i.relname,
            'columns', {
    _NAMES.format(numbers="(x.indkey::int2[])[0:x.indnkeyatts - 1]", relation="x.indrelid")
},
            'primary', x.indisprimary, 'arbitrates', x.indimmediate AND x.indpred IS NULL
                AND x.indexprs IS NULL) ORDER BY x.indisprimary DESC, i.relname), '[]')
        FROM pg_catalog.pg_index x JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
        WHERE x.indrelid = k.oid AND x.indisunique AND x.indisvalid)"""

_TRIGGERS = """(SELECT coalesce(json_agg(DISTINCT p.prosrc), '[]')
        FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = k.oid AND NOT t.tgisinternal)"""

_PARTS = """(SELECT coalesce(json_agg(pg_catalog.pg_get_partition_constraintdef(r.relid)), '[]')
        FROM pg_catalog.pg_partition_tree(k.oid) r WHERE r.isleaf AND k.relkind = 'p')"""

_DEFAULT_PART = """EXISTS (SELECT FROM pg_catalog.pg_partition_tree(k.oid) r
        JOIN pg_catalog.pg_class c ON c.oid = r.relid
        WHERE k.relkind = 'p'
            AND pg_catalog.pg_get_expr(c.relpartbound, c.oid) = 'DEFAULT')"""

_READS = """(WITH RECURSIVE readers(oid) AS (
            SELECT k.oid UNION
            SELECT d.refobjid FROM readers e
            JOIN pg_catalog.pg_rewrite v ON v.ev_class = e.oid
            JOIN pg_catalog.pg_depend d ON d.objid = v.oid
                AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass)
        SELECT coalesce(json_agg(json_build_array(m.nspname, b.relname)), '[]')
        FROM readers e JOIN pg_catalog.pg_class b ON b.oid = e.oid AND b.relkind IN ('r', 'p')
        JOIN pg_catalog.pg_namespace m ON m.oid = b.relnamespace WHERE k.relkind IN ('v', 'm'))"""

_PRIVILEGES = """(SELECT coalesce(json_agg(v.p), '[]')
        FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) v(p)
        WHERE pg_catalog.has_table_privilege({role}, k.oid, v.p)
            OR v.p = 'UPDATE' AND pg_catalog.has_any_column_privilege({role}, k.oid, v.p))"""

_FOREIGN = """n.nspname NOT IN ('pg_catalog', 'information_schema')
        AND n.nspname NOT LIKE 'pg\\_toast%' AND n.nspname NOT LIKE 'pg\\_temp%'"""


def read_shape(run: Callable[[str], list[Any]], application: str) -> Shape:
    """Return the shape of every table and type; privileges are those of *application*.

    The caller's transaction has only pg_catalog in its search path, so that names are qualified.
    """
    shape = Shape()
    role = literal(application)
    columns, privileges = _COLUMNS.format(role=role), _PRIVILEGES.format(role=role)
    tables = ask(
        run,
        f"""SELECT coalesce(json_agg(json_build_object('target',
            json_build_array(n.nspname, k.relname), 'kind', k.relkind::text, 'columns', {columns},
            'constraints', {_CONSTRAINTS}, 'indexes', {_INDEXES}, 'sources', {_TRIGGERS},
            'parts', {_PARTS}, 'default_part', {_DEFAULT_PART}, 'forced', k.relforcerowsecurity,
            'owned', pg_catalog.pg_has_role({role}, k.relowner, 'USAGE'),
            'privileges', {privileges}, 'reads', {_READS})), '[]')::text
        FROM pg_catalog.pg_class k JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
        WHERE k.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT k.relispartition AND {_FOREIGN}""",
    )
    for facts in tables:
        found = _table(facts)
        shape.tables[found.target] = found
    for facts in ask(run, _TYPES):
        number = facts.pop("id")
        shape.types[number] = _type(facts)
    return shape


_TYPES = """SELECT json_agg(json_build_object('id', t.oid::bigint, 'name', t.typname,
        'kind', CASE WHEN t.typcategory = 'A' AND t.typelem <> 0 THEN 'a' ELSE t.typtype::text END,
        'of', (CASE WHEN t.typtype = 'd' THEN t.typbasetype
            WHEN t.typtype = 'r' THEN (SELECT r.rngsubtype FROM pg_catalog.pg_range r
                WHERE r.rngtypid = t.oid)
            WHEN t.typtype = 'm' THEN (SELECT r.rngsubtype FROM pg_catalog.pg_range r
                WHERE r.rngmultitypid = t.oid)
            ELSE t.typelem END)::bigint,
        'written', CASE WHEN t.typtype = 'd'
            THEN pg_catalog.format_type(t.typbasetype, t.typtypmod)
            ELSE pg_catalog.format_type(t.oid, NULL) END,
        'labels', (SELECT coalesce(json_agg(e.enumlabel ORDER BY e.enumsortorder), '[]')
            FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid),
        'fields', (SELECT coalesce(json_agg(json_build_array(
                pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypid::bigint)
                ORDER BY a.attnum), '[]')
            FROM pg_catalog.pg_attribute a WHERE t.typtype = 'c' AND a.attrelid = t.typrelid
                AND a.attnum > 0 AND NOT a.attisdropped),
        'checks', (SELECT coalesce(json_agg(pg_catalog.pg_get_expr(c.conbin, 0)), '[]')
            FROM pg_catalog.pg_constraint c WHERE c.contypid = t.oid AND c.contype = 'c'),
        'not_null', t.typnotnull))::text
    FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class k ON k.oid = t.typrelid
    LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
    LEFT JOIN pg_catalog.pg_class ek ON ek.oid = e.typrelid
    WHERE coalesce(k.relkind, ek.relkind, 'c') = 'c' AND t.typtype <> 'p'"""


def _type(facts: dict[str, Any]) -> Type:
    lists = {name: tuple(facts[name]) for name in ("labels", "checks")}
    return Type(
        **{**facts, **lists, "fields": tuple((each[0], each[1]) for each in facts["fields"])}
    )


def _table(facts: dict[str, Any]) -> Table:
    columns = {each[0]: Column(*each) for each in facts["columns"]}
    # What a trigger of ours fills follows by itself, as what is generated does.
    kept = {name for name in columns if any(fills(body, name) for body in facts["sources"])}
    columns |= {name: replace(columns[name], generated=_BY_TRIGGER) for name in kept}
    return Table(
        target=_target(facts["target"]),
        kind=facts["kind"],
        columns=columns,
        checks=tuple(
            Check(each["name"], each["expression"], tuple(each["columns"]))
            for each in facts["constraints"]
            if each["type"] == "c" and kept.isdisjoint(each["columns"])
        ),
        keys=tuple(_keys(facts)),
        references=tuple(
            Reference(
                each["name"],
                tuple(each["columns"]),
                _target(each["parent"]),
                tuple(each["parent_columns"]),
            )
            for each in facts["constraints"]
            if each["type"] == "f"
        ),
        sources=tuple(facts["sources"]),
        parts=tuple(each for each in facts["parts"] if each),
        has_default_part=facts["default_part"],
        forced=facts["forced"],
        owned=facts["owned"],
        privileges=frozenset(facts["privileges"]),
        reads=tuple(_target(each) for each in facts["reads"]),
    )


def _keys(facts: dict[str, Any]) -> list[Key]:
    unique = [
        Key(each["name"], tuple(each["columns"]), each["primary"], each["arbitrates"])
        for each in facts["indexes"]
    ]
    exclusions = [
        Key(each["name"], tuple(each["columns"]), primary=False, arbitrates=False)
        for each in facts["constraints"]
        if each["type"] == "x"
    ]
    return unique + exclusions


def _target(names: list[str]) -> Target:
    return (names[0], names[1])
