"""PostgreSQL's own stored form of the expressions we ask for.

The only sound comparison: each expression is put on an empty temporary clone of the column, and
read back. Comparing text would take another writing of the same for a difference, or worse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenantguard.rls.names import do_block, quote
from tenantguard.rls.state import ask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tenantguard.rls.state import Facts, Run
    from tenantguard.rls.step import Policy

__all__ = ["SEARCH_PATH", "Shape", "same_policy", "shape_of", "stored_forms"]

SEARCH_PATH = "pg_catalog, public, pg_temp"
"""Under which expressions are read and written, so that both are spelled alike."""


@dataclass(frozen=True, slots=True)
class Shape:
    """An expression over one column: a policy's, or with *default*, a column default."""

    column: str
    type: str
    expression: str
    default: bool = False


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
            'policy', (SELECT pg_catalog.pg_get_expr(p.polqual, p.polrelid)
                FROM pg_catalog.pg_policy p WHERE p.polrelid = k.oid))), '{}')::text
        FROM pg_catalog.pg_class k
        WHERE k.relnamespace = pg_catalog.pg_my_temp_schema()
            AND starts_with(k.relname::text, 'tg_clone_')
        """,
    )
    return {
        shape: answer.get(f"tg_clone_{number}", {}).get("default" if shape.default else "policy")
        for number, shape in enumerate(wanted)
    }


def shape_of(policy: Policy, facts: Facts) -> Shape:
    """Return *policy*'s expression over the column as the database has it."""
    return Shape(policy.column, facts["type"], policy.expression)


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
    put = (
        f"ALTER TABLE {table} ALTER {column} SET DEFAULT {shape.expression}"
        if shape.default
        else f"CREATE POLICY expected ON {table} USING ({shape.expression})"
    )
    return (
        "    BEGIN\n"
        f"        CREATE TEMP TABLE tg_clone_{number} ({column} {shape.type});\n"
        f"        {put};\n"
        "    EXCEPTION\n"
        "        WHEN undefined_function OR undefined_object OR datatype_mismatch THEN NULL;\n"
        "    END;"
    )
