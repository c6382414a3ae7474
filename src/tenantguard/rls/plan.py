"""Which steps are missing, or differ, in a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantguard.catalog import Kind as TableKind
from tenantguard.errors import ConfigurationError
from tenantguard.rls.compare import State, remaining
from tenantguard.rls.dialect import dialect_of
from tenantguard.rls.drift import refuse_drift
from tenantguard.rls.encrypted import idle_steps, watched_columns
from tenantguard.rls.forms import SEARCH_PATH, Shape, derived_shape, shape_of, stored_forms
from tenantguard.rls.generate import entries, generate
from tenantguard.rls.grants import granted_roles
from tenantguard.rls.names import target_of
from tenantguard.rls.roles import role_steps
from tenantguard.rls.signed import VERIFIED, verified_call
from tenantguard.rls.signing_keys import as_generated, read_signed
from tenantguard.rls.state import (
    read_functions,
    read_roles,
    read_schemas,
    read_structure,
    read_tables,
    read_type_names,
)
from tenantguard.rls.step import Derived, Grants, Key, Kind, Lookup, Policy, Step, Value
from tenantguard.rls.views import refuse_other_relation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from tenantguard.catalog import Catalog, Entry, Roles
    from tenantguard.rls.state import Facts, Run
    from tenantguard.rls.step import Target

__all__ = ["missing_roles", "plan"]

_SET_NULL_COLUMNS = 150000


def plan(
    connection: Connection,
    catalog: Catalog,
    roles: Roles,
    *,
    create_roles: bool = False,
    ahead: bool = False,
) -> list[Step]:
    """Return the steps that the database of *connection* still needs; none, if all are there.

    What needs an empty temporary table to compare is done in a savepoint that is rolled back.
    With *ahead* the models may have tables and columns that the database is about to get: all steps
    of such tables are missing.

    Raises:
        ConfigurationError: If a table is unclassified, or a table, a column or a role that the
            steps need is missing, or the server is too old for one of them; or if the table of keys
            or a search column is there and differs.
    """
    steps = generate(catalog, roles, create_roles=create_roles)
    savepoint = connection.begin_nested()
    try:
        state = _read(
            _runner(connection), steps, catalog, roles, create_roles=create_roles, ahead=ahead
        )
    finally:
        savepoint.rollback()
    missing = [rest for step in steps if (rest := remaining(step, state)) is not None]
    missing.extend(
        step
        for entry in entries(catalog)
        if (facts := state.tables.get(target_of(entry))) is not None
        for step in idle_steps(entry, facts)
    )
    missing.sort(key=lambda step: step.phase)
    if state.version < _SET_NULL_COLUMNS:
        _refuse_set_null(missing)
    return missing


def missing_roles(connection: Connection, roles: Roles) -> list[Step]:
    """Return the steps for those of *roles* that the server of *connection* does not have."""
    steps = list(role_steps(roles))
    run = _runner(connection)
    run(f"SET LOCAL search_path = {SEARCH_PATH}")
    _, existing = read_roles(run, [step.name for step in steps])
    return [step for step in steps if step.name not in existing]


def _runner(connection: Connection) -> Run:
    options = {"no_parameters": True}

    def run(statement: str) -> Sequence[Any]:
        result = connection.exec_driver_sql(statement, execution_options=options)
        return result.fetchall() if result.returns_rows else ()

    return run


def _read(
    run: Run, steps: list[Step], catalog: Catalog, roles: Roles, *, create_roles: bool, ahead: bool
) -> State:
    run(f"SET LOCAL search_path = {SEARCH_PATH}")
    run("SET LOCAL jit = off")
    version, existing = read_roles(run, (*granted_roles(roles), roles.owner))
    if not create_roles:
        _refuse_missing_roles(set(granted_roles(roles)) - existing)
    known = {target_of(entry): entry for entry in entries(catalog)}
    columns = {
        target: entry.column.name if entry.column is not None else ""
        for target, entry in known.items()
    }
    watched = {target: watched_columns(entry) for target, entry in known.items()}
    tables = read_tables(run, columns, watched)
    made = {step.target for step in steps if step.kind is Kind.TABLE}
    if ahead:
        tables = {at: facts for at, facts in tables.items() if _complete(known[at], facts)}
        made |= {at for at, entry in known.items() if entry.table is not None}
    absent = frozenset(made) - tables.keys()
    _refuse_missing_tables(catalog, tables, absent)
    signed = read_signed(run, catalog) if catalog.signed else {}
    # What calls a function that steps make cannot be compared before it is there.
    call = None if VERIFIED in signed else verified_call(catalog)
    there = [step for step in steps if step.target not in absent and not _calls(step, call)]
    forms = _forms(run, there, tables)
    for target, facts in tables.items():
        refuse_other_relation(known[target], facts, version)
        refuse_drift(known[target], facts, forms)
    lookups = [step for step in steps if isinstance(step.wanted, Lookup)]
    return State(
        version=version,
        roles=existing,
        confined=frozenset({roles.application, roles.support}),
        granted=granted_roles(roles),
        tables=tables,
        structure=read_structure(run, columns, _named_sequences(steps)),
        schemas=read_schemas(run, granted_roles(roles)),
        functions=read_functions(run, [(step.target[0], step.name) for step in lookups]),
        types=read_type_names(run, _types(lookups)),
        forms=forms,
        absent=absent,
        signed=frozenset(step.name for step in steps if as_generated(step, signed)),
        distribution=dialect_of(catalog).read(run),
    )


def _complete(entry: Entry, facts: Facts) -> bool:
    """Return whether a table has the columns that migrations give it; the keys' is not theirs."""
    if entry.kind is TableKind.KEYS:
        return True
    missing = set(watched_columns(entry)) - facts["columns"].keys()
    return not missing and (facts["type"] is not None or not entry.guarded)


def _forms(run: Run, steps: Iterable[Step], tables: dict[Target, Facts]) -> dict[Shape, str | None]:
    shapes: dict[Shape, str] = {}
    for step in steps:
        wanted = step.wanted
        if isinstance(wanted, Policy):
            shapes[shape_of(wanted, tables[step.target])] = step.table
        elif step.kind is Kind.DEFAULT and isinstance(wanted, Value):
            type_ = tables[step.target]["type"]
            shapes[Shape(wanted.column, type_, wanted.text, "default")] = step.table
        elif isinstance(wanted, Derived):
            shapes[derived_shape(wanted)] = step.table
    forms = stored_forms(run, shapes)
    for shape, table in shapes.items():
        if forms[shape] is None and shape.use in {"generated", "check"}:
            raise ConfigurationError(
                f"What the models derive from the encrypted column {shape.column!r} of {table} is "
                f"no expression over bytea of that column alone: {shape.expression}. Correct it."
            )
        if forms[shape] is None:
            raise ConfigurationError(
                f"The tenant column of {table} is {shape.type} in the database, and another "
                "type in the models. Change either; a tenant column has the type of the "
                "registry's key."
            )
    return forms


def _calls(step: Step, call: str | None) -> bool:
    return call is not None and isinstance(step.wanted, Policy) and call in step.wanted.expression


def _types(lookups: Iterable[Step]) -> list[str]:
    return [
        name for step in lookups if isinstance(step.wanted, Lookup) for name in step.wanted.types
    ]


def _named_sequences(steps: Iterable[Step]) -> dict[Target, tuple[str, ...]]:
    return {
        step.target: step.wanted.named_sequences
        for step in steps
        if isinstance(step.wanted, Grants)
    }


def _refuse_missing_roles(missing: set[str]) -> None:
    if missing:
        raise ConfigurationError(
            f"The database has no roles {', '.join(sorted(missing))}. Create them with "
            "`tenantguard rls roles --apply` or `tenantguard rls apply --create-roles`, or name "
            "your own in Roles(…). `tenantguard rls apply --dry-run --create-roles` lists "
            "everything that is missing."
        )


def _refuse_missing_tables(
    catalog: Catalog, tables: dict[Target, Facts], absent: frozenset[Target]
) -> None:
    for entry in entries(catalog):
        facts = tables.get(target_of(entry))
        if facts is None and entry.table is not None and target_of(entry) not in absent:
            raise ConfigurationError(
                f"The database has no table {'.'.join(target_of(entry))}. Run the application's "
                "migrations first, or correct the table's schema in the models."
            )
        if facts is not None and entry.column is not None and facts["type"] is None:
            advice = (
                f"`tenantguard migrate sql {entry.fullname}` prints the steps that add it; the "
                "roles that they name are created by `tenantguard rls roles --apply`."
                if entry.kind is TableKind.SCOPED
                else "Run the application's migrations first."
            )
            raise ConfigurationError(
                f"Table {entry.fullname} has no column {entry.column.name!r} in the database. "
                f"{advice}"
            )


def _refuse_set_null(missing: Iterable[Step]) -> None:
    for step in missing:
        if isinstance(step.wanted, Key) and step.wanted.on_delete.startswith("SET"):
            raise ConfigurationError(
                f"Foreign key {step.name} of {step.table} needs ON DELETE {step.wanted.on_delete}"
                ", and before PostgreSQL 15 only the whole key can be emptied, the tenant "
                "included. Upgrade the server, or use ON DELETE CASCADE or RESTRICT."
            )
