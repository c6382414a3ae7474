"""PostgreSQL's own stored form of the expressions we ask for.

The only sound comparison: each expression is put on an empty temporary clone of the column, and
read back. Comparing text would take another writing of the same for a difference, or worse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tenantguard.rls.names import do_block, quote
from tenantguard.rls.state import ask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tenantguard.rls.state import Facts, Run
    from tenantguard.rls.step import Derived, Policy

__all__ = [
    "BYTES",
    "SEARCH_PATH",
    "Shape",
    "derived_shape",
    "same_policy",
    "shape_of",
    "stored_forms",
]

SEARCH_PATH = "pg_catalog, public, pg_temp"
"""Under which expressions are read and written, so that both are spelled alike."""

BYTES = "bytea"
"""PostgreSQL's name for the type of encrypted columns, and of what is generated from them."""

# PostgreSQL keeps a generated column's expression where it keeps defaults.
_STORED = {"generated": "default"}

_MISFITS = "undefined_function OR undefined_object OR undefined_column OR datatype_mismatch"


@dataclass(frozen=True, slots=True)
class Shape:
    """An expression over one column, and what it serves.

    *generated* is the column it makes or, in a check, the other one that it is over.
    """

    column: str
    type: str
    expression: str
    use: Literal["policy", "default", "generated", "check"] = "policy"
    generated: str = ""


def stored_forms(run: Run, shapes: Iterable[Shape]) -> dict[Shape, str | None]:
    """Return the stored form of each shape, None where its type does not fit.

    Two statements, however many shapes there are; the caller rolls back. The session needs to be
    able to make temporary tables; the error is the driver's own.
    """
    wanted = list(dict.fromkeys(shapes))
    if not wanted:
        return {}
    run(do_block("BEGIN\n" + "\n".join(map(_clone, range(len(wanted)), wanted)) + "\nEND"))
    answer: dict[str, Any] = ask(
        run,
        """
        SELECT coalesce(json_object_agg(k.relname, json_build_object(
            'default', (SELECT pg_catalog.pg_get_expr(d.adbin, d.adrelid)
                FROM pg_catalog.pg_attrdef d WHERE d.adrelid = k.oid),
            'check', (SELECT pg_catalog.pg_get_expr(c.conbin, c.conrelid)
                FROM pg_catalog.pg_constraint c WHERE c.conrelid = k.oid AND c.contype = 'c'),
            'policy', (SELECT pg_catalog.pg_get_expr(p.polqual, p.polrelid)
                FROM pg_catalog.pg_policy p WHERE p.polrelid = k.oid))), '{}')::text
        FROM pg_catalog.pg_class k
        WHERE k.relnamespace = pg_catalog.pg_my_temp_schema()
            AND starts_with(k.relname::text, 'tg_clone_')
        """,
    )
    return {
        shape: answer.get(f"tg_clone_{number}", {}).get(_STORED.get(shape.use, shape.use))
        for number, shape in enumerate(wanted)
    }


def shape_of(policy: Policy, facts: Facts) -> Shape:
    """Return *policy*'s expression over the column as the database has it."""
    return Shape(policy.column, facts["type"], policy.expression)


def derived_shape(wanted: Derived) -> Shape:
    """Return *wanted* as a shape over its encrypted column."""
    generated = wanted.column and not wanted.kept
    use: Literal["generated", "check"] = "generated" if generated else "check"
    return Shape(wanted.source, BYTES, wanted.expression, use, wanted.column)


def same_policy(stored: Facts, policy: Policy, expected: str) -> bool:
    """Return whether *stored* is *policy*, whose stored form is *expected*."""
    return (
        stored["using"] == expected
        and stored["check"] == expected
        and stored["command"] == "*"
        and stored["permissive"] is policy.permissive
        and stored["roles"] == [policy.role]
    )


def _clone(number: int, shape: Shape) -> str:
    table, column = f"pg_temp.tg_clone_{number}", quote(shape.column)
    put = {
        "policy": f"CREATE POLICY expected ON {table} USING ({shape.expression})",
        "default": f"ALTER TABLE {table} ALTER {column} SET DEFAULT {shape.expression}",
        "generated": f"ALTER TABLE {table} ADD {quote(shape.generated)} {BYTES} "
        f"GENERATED ALWAYS AS ({shape.expression}) STORED",
        "check": f"ALTER TABLE {table} ADD CHECK ({shape.expression})",
    }[shape.use]
    other = (
        f", {quote(shape.generated)} {BYTES}" if shape.use == "check" and shape.generated else ""
    )
    # A partitioned table has no storage to make, which takes longest where a column may be long.
    kind = f" PARTITION BY LIST ({column})" if shape.type == BYTES else ""
    return (
        "    BEGIN\n"
        f"        CREATE TEMP TABLE tg_clone_{number} ({column} {shape.type}{other}){kind};\n"
        f"        {put};\n"
        "    EXCEPTION\n"
        f"        WHEN {_MISFITS} THEN NULL;\n"
        "    END;"
    )
