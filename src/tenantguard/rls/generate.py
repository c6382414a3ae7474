"""From the catalog to SQL: every step, in the order in which they are run."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from sqlalchemy import table as named_table

from tenantguard.catalog import Kind as TableKind
from tenantguard.errors import ConfigurationError
from tenantguard.rls.dialect import dialect_of
from tenantguard.rls.encrypted import encrypted_steps, key_table_steps
from tenantguard.rls.grants import grant_steps
from tenantguard.rls.keys import composite_keys, key_steps
from tenantguard.rls.lookups import lookup_steps
from tenantguard.rls.names import target_of
from tenantguard.rls.policies import policy_steps, switch_steps
from tenantguard.rls.roles import role_steps, schema_steps
from tenantguard.rls.signed import signed_steps, verified_call
from tenantguard.rls.step import Kind, Phase
from tenantguard.rls.structure import structure_steps
from tenantguard.rls.views import is_view, view_steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tenantguard.catalog import Catalog, Entry, Roles
    from tenantguard.rls.keys import CompositeKey
    from tenantguard.rls.step import Step

__all__ = [
    "LOCK_TIMEOUT",
    "down_sql",
    "down_steps",
    "entries",
    "generate",
    "kept",
    "preamble",
    "roles_sql",
    "script",
    "sql",
    "table_steps",
    "transactions",
]

LOCK_TIMEOUT = "3s"
"""How long a transaction waits for a lock: while it waits, every other statement queues behind."""


_KEPT = """\
-- {} is not dropped: without the keys in it, no encrypted value
-- can be read again. It stays, with its rows, out of the application's reach.
-- Columns, indexes and checks of encrypted values stay too: they are the models' own.

"""


def generate(catalog: Catalog, roles: Roles, *, create_roles: bool = False) -> list[Step]:
    """Return every step that *catalog* asks for, in order; the same models give the same steps.

    Raises:
        ConfigurationError: If a table is unclassified, or a foreign key cannot carry the tenant.
    """
    catalog.check()
    known = entries(catalog)
    _refuse_unclassified(known, catalog)
    dialect = dialect_of(catalog)
    dialect.refuse(catalog)
    composites = composite_keys(catalog)
    steps = list(role_steps(roles)) if create_roles else []
    steps.extend(schema_steps(known, roles))
    steps.extend(signed_steps(catalog, roles))
    for entry in known:
        steps.extend(table_steps(entry, catalog, roles, composites))
    steps.extend(dialect.steps(catalog))
    steps.extend(lookup_steps(catalog, roles))
    return sorted(steps, key=lambda step: step.phase)


def preamble(phase: Phase) -> tuple[str, ...]:
    """Return the settings of a transaction of *phase*."""
    waits = f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"
    if phase in {Phase.STRUCTURE, Phase.KEYS}:
        # A statement that policies would restrict then fails instead of seeing less.
        return (waits, "SET LOCAL row_security = off")
    return (waits,)


def table_steps(
    entry: Entry, catalog: Catalog, roles: Roles, composites: list[CompositeKey]
) -> Iterator[Step]:
    """Yield the steps of one table or view."""
    if is_view(entry):
        yield from view_steps(entry)
        yield from grant_steps(entry, roles)
        return
    yield from key_table_steps(entry, catalog)
    yield from structure_steps(entry, composites)
    yield from encrypted_steps(entry)
    if entry.kind in {TableKind.SCOPED, TableKind.KEYS}:
        yield from key_steps(entry, catalog, composites)
    yield from policy_steps(entry, roles, verified_call(catalog), dialect_of(catalog).form)
    if entry.guarded:
        yield from switch_steps(entry)
    yield from grant_steps(entry, roles)


def entries(catalog: Catalog) -> list[Entry]:
    """Return every table's entry, ordered by schema and name, declared unknown ones included."""
    tables = {table.fullname: table for table in catalog.tables()}
    found = [catalog.entry(table) for table in tables.values()]
    for fullname in catalog.untenanted:
        if fullname not in tables:
            schema, _, name = fullname.rpartition(".")
            found.append(catalog.entry(named_table(name, schema=schema or None)))
    return sorted(found, key=target_of)


def transactions(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Yield *steps* in groups that are one transaction each."""
    for _, group in groupby(steps, key=lambda step: (step.phase, step.target)):
        yield list(group)


def sql(catalog: Catalog, roles: Roles, *, create_roles: bool = False) -> str:
    """Return a script that puts the second lock on a database that has the tables.

    Raises:
        ConfigurationError: As `generate`.
    """
    steps = generate(catalog, roles, create_roles=create_roles)
    return "".join(
        script(group, [line for step in group for line in step.up]) for group in transactions(steps)
    )


def roles_sql(roles: Roles) -> str:
    """Return a script that creates those of *roles* that do not exist; tables play no part in it.

    It needs a superuser, and sets no password.
    """
    steps = list(role_steps(roles))
    return script(steps, [line for step in steps for line in step.up])


def down_sql(catalog: Catalog, roles: Roles) -> str:
    """Return a script that removes what `sql` made, and neither tables, columns nor roles.

    The table of signing keys goes, because its keys are in their file. Privileges that PUBLIC had
    before are not given back, and a tenant column stays NOT NULL. What
    encrypted columns need stays too: the table of keys, search columns, indexes and format checks.

    Raises:
        ConfigurationError: As `generate`.
    """
    steps = down_steps(catalog, roles)
    return "".join(
        [
            *kept(steps),
            *(
                script(group, [line for step in group for line in step.down])
                for group in transactions(steps)
            ),
        ]
    )


def down_steps(catalog: Catalog, roles: Roles) -> list[Step]:
    """Return the steps in the order in which `down_sql` undoes them."""
    return generate(catalog, roles)[::-1]


def kept(steps: Iterable[Step]) -> list[str]:
    """Return comments that name what `down_sql` does not drop of what *steps* make."""
    return [_KEPT.format(_commented(step.table)) for step in steps if step.kind is Kind.TABLE]


def script(group: list[Step], statements: list[str]) -> str:
    """Return the transaction that runs *statements* of one *group* of steps."""
    if not statements:
        return ""
    phase, title = group[0].phase, group[0].table or "cluster"
    lines = ["BEGIN", *preamble(phase), *statements, "COMMIT"]
    return f"-- {_commented(title)}: {phase.name.lower()}\n" + ";\n".join(lines) + ";\n\n"


def _commented(text: str) -> str:
    return text.replace("\n", " ")


def _refuse_unclassified(known: list[Entry], catalog: Catalog) -> None:
    names = [entry.fullname for entry in known if entry.kind is TableKind.UNCLASSIFIED]
    if names:
        raise ConfigurationError(
            f"Unclassified tables: {', '.join(names)}. Give each a column "
            f"{catalog.tenant_column!r} (see `tenantguard migrate sql TABLE`), name its column in "
            "tenant_columns=, or declare it with a reason in shared= or untenanted=. Roles do not "
            "wait for that: `tenantguard rls roles --apply` creates them."
        )
