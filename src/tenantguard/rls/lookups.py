"""Functions that answer one question each before the tenant is known."""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.rls.names import (
    DEFAULT_SCHEMA,
    do_block,
    plain_literal,
    qualified,
    quote,
    type_sql,
)
from tenantguard.rls.step import Kind, Lookup, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Catalog, IdentityLookup, Roles, TenantLookup

__all__ = ["hand_over", "lookup_steps"]


def lookup_steps(catalog: Catalog, roles: Roles) -> Iterator[Step]:
    """Yield a step for each lookup, ordered by function."""
    for lookup in sorted(catalog.lookups, key=lambda each: (each.table.fullname, each.function)):
        yield _step(lookup, roles)


def _step(lookup: IdentityLookup | TenantLookup, roles: Roles) -> Step:
    schema = lookup.table.schema or DEFAULT_SCHEMA
    function = qualified((schema, lookup.function))
    signature = f"{function}({type_sql(lookup.key)})"
    drop = f"DROP FUNCTION IF EXISTS {signature}"
    body = _body(lookup, schema)
    create = (
        f"CREATE OR REPLACE FUNCTION {function}(key {type_sql(lookup.key)})\n"
        f"    RETURNS {_result(lookup)}\n"
        "    LANGUAGE sql STABLE SECURITY DEFINER\n"
        "    SET search_path = pg_catalog, pg_temp\n"
        f"    AS {plain_literal(body)}"
    )
    up = (
        # The result's columns cannot be replaced, only created anew.
        drop,
        create,
        f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC",
        f"GRANT EXECUTE ON FUNCTION {signature} TO {quote(roles.application)}",
        # The owner is what lets the function see all rows; the owner of the tables sees none.
        hand_over(schema, signature, roles.maintenance),
    )
    types = tuple(map(type_sql, (lookup.key, *lookup.answer.values())))
    wanted = Lookup(body, roles.maintenance, roles.application, types, tuple(lookup.answer))
    target = (schema, lookup.table.name)
    return Step(Phase.LOOKUPS, target, Kind.LOOKUP, lookup.function, up, (drop,), wanted)


def hand_over(schema: str, signature: str, owner: str) -> str:
    """Change the owner, who needs CREATE on the schema just for that, unless it has it anyway."""
    return do_block(
        "DECLARE lent boolean := NOT has_schema_privilege("
        f"{plain_literal(owner)}, {plain_literal(schema)}, 'CREATE');\n"
        "BEGIN\n"
        "    IF lent THEN\n"
        f"        GRANT CREATE ON SCHEMA {quote(schema)} TO {quote(owner)};\n"
        "    END IF;\n"
        f"    ALTER FUNCTION {signature} OWNER TO {quote(owner)};\n"
        "    IF lent THEN\n"
        f"        REVOKE CREATE ON SCHEMA {quote(schema)} FROM {quote(owner)};\n"
        "    END IF;\n"
        "END"
    )


def _result(lookup: IdentityLookup | TenantLookup) -> str:
    listed = ", ".join(f"{name} {type_sql(column)}" for name, column in lookup.answer.items())
    return f"TABLE({listed})"


def _body(lookup: IdentityLookup | TenantLookup, schema: str) -> str:
    listed = ", ".join(f"t.{quote(column.name)}" for column in lookup.answer.values())
    return (
        f"SELECT {listed} FROM {qualified((schema, lookup.table.name))} AS t "
        f"WHERE t.{quote(lookup.key.name)} = $1"
    )
