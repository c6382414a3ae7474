"""Citus: tables spread over nodes by their tenant, so that a tenant's rows are on one.

A tenant's table is distributed by its tenant column, together with the registry; what all tenants
read is copied to every node, as a reference table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.sql.ddl import sort_tables_and_constraints

from tenantguard.catalog import Kind as TableKind
from tenantguard.errors import ConfigurationError
from tenantguard.rls.citus_keys import key_faults
from tenantguard.rls.kept import kept_by_source
from tenantguard.rls.names import do_block, plain_literal, qualified, target_of
from tenantguard.rls.state import ask
from tenantguard.rls.step import Kind, Phase, Step, Value
from tenantguard.rls.views import is_view

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Table

    from tenantguard.catalog import Catalog, Entry
    from tenantguard.rls.state import Facts, Run
    from tenantguard.rls.step import Target

__all__ = [
    "distribution_steps",
    "is_distributed",
    "read_distribution",
    "refuse_undistributable",
]

REFERENCE = "reference"
"""How a table is spread that is whole on every node."""

_READ = """
    SELECT coalesce(json_agg(json_build_object('s', n.nspname, 't', k.relname,
        'method', CASE p.repmodel WHEN 't' THEN 'reference' ELSE 'hash' END,
        'column', CASE WHEN p.partkey IS NOT NULL
            THEN pg_catalog.column_to_column_name(p.logicalrelid, p.partkey) END,
        'group', p.colocationid)), '[]')::text
    FROM pg_catalog.pg_dist_partition p
    JOIN pg_catalog.pg_class k ON k.oid = p.logicalrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace"""
_THERE = "SELECT to_json(to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL)::text"


def refuse_undistributable(catalog: Catalog) -> None:
    """Raise a `ConfigurationError` unless each table can be distributed, or copied to each node."""
    if catalog.lookups:
        raise ConfigurationError(
            "With Citus no key can be unique over all tenants, so that identity_lookup() and "
            "tenant_lookup() have none to ask for. Keep names and addresses in an untenanted table "
            "that your sign-in reads with system access."
        )
    for entry in catalog:
        if entry.table is not None and kept_by_source(entry.table):
            raise ConfigurationError(
                f"Citus has no triggers on distributed tables, and a search of {entry.fullname} is "
                "kept_by='trigger'. Leave that out: the search column is then generated."
            )
    faults = [fault for entry in catalog for fault in key_faults(entry, catalog)]
    if faults:
        raise ConfigurationError(
            f"Citus cannot distribute these tables by tenant: {' '.join(faults)} Change the models "
            "and migrate first; docs/citus.md shows how."
        )


def distribution_steps(catalog: Catalog) -> Iterator[Step]:
    """Yield a step for each table that is spread over nodes, what others refer to first."""
    by_table = {
        entry.table: entry
        for entry in catalog
        if entry.table is not None and not is_view(entry) and _is_spread(entry)
    }
    for table in _parents_first(list(by_table), cast("Table", catalog.registry.table)):
        yield _step(by_table[table], catalog)


def read_distribution(run: Run) -> dict[Target, Facts]:
    """Return how each table is spread over nodes.

    Raises:
        ConfigurationError: If the database does not have Citus.
    """
    if not ask(run, _THERE):
        raise ConfigurationError(
            "The database does not have the extension citus, which dialect='citus' is for. Run "
            "CREATE EXTENSION citus on every node, or leave out the dialect."
        )
    return {(facts["s"], facts["t"]): facts for facts in ask(run, _READ)}


def is_distributed(step: Step, wanted: Value, found: dict[Target, Facts]) -> bool:
    """Return whether the table of *step* is spread as *wanted*, given what is *found*.

    Raises:
        ConfigurationError: If it is spread in another way.
    """
    facts = found.get(step.target)
    if facts is None:
        return False
    if wanted.text == REFERENCE:
        same = facts["method"] == REFERENCE
    else:
        groups = {".".join(target): each["group"] for target, each in found.items()}
        given = (facts["method"], facts["column"], facts["group"])
        same = given == ("hash", wanted.column, groups.get(wanted.text))
    if not same:
        raise ConfigurationError(
            f"Table {step.table} is spread over the nodes in another way than by its tenant, "
            "together with the registry. Undo it with `SELECT undistribute_table(…)` first."
        )
    return True


def _is_spread(entry: Entry) -> bool:
    return entry.guarded or entry.kind is TableKind.SHARED


def _parents_first(tables: list[Table], registry: Table) -> Iterator[Table]:
    # A key's table may be distributed after the one that it refers to, not before.
    above = {key.referred_table for key in registry.foreign_key_constraints}
    needed = [(registry, table) for table in tables if table is not registry and table not in above]
    ordered: Any = sort_tables_and_constraints(  # type: ignore[no-untyped-call]
        tables, extra_dependencies=needed
    )
    yield from (table for table, _ in ordered if table is not None)


def _step(entry: Entry, catalog: Catalog) -> Step:
    target = target_of(entry)
    registry = target_of(catalog.registry)
    name = f"{plain_literal(qualified(target))}::regclass"
    if entry.column is None:
        call, wanted = f"create_reference_table({name})", Value(REFERENCE)
    else:
        beside = "none" if target == registry else qualified(registry)
        call = (
            f"pg_catalog.create_distributed_table({name}, {plain_literal(entry.column.name)}, "
            f"colocate_with => {plain_literal(beside)})"
        )
        wanted = Value(".".join(registry), entry.column.name)
    return Step(Phase.DISTRIBUTION, target, Kind.DISTRIBUTION, "", (_once(name, call),), (), wanted)


def _once(table: str, call: str) -> str:
    """Return a block that runs *call* unless *table* is spread over the nodes already."""
    return do_block(
        "BEGIN\n"
        "    IF NOT EXISTS (SELECT FROM pg_catalog.pg_dist_partition\n"
        f"            WHERE logicalrelid = {table}) THEN\n"
        f"        PERFORM {call};\n"
        "    END IF;\n"
        "END"
    )
