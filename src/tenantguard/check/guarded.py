"""What the database has of the guarded tables, and the policies that it should have."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantguard.check.sight import settings
from tenantguard.check.subject import NoDatabaseError
from tenantguard.rls.dialect import dialect_of
from tenantguard.rls.drift import derived_shapes
from tenantguard.rls.encrypted import watched_columns
from tenantguard.rls.forms import SEARCH_PATH, shape_of, stored_forms
from tenantguard.rls.names import literal, target_of
from tenantguard.rls.policies import wanted_policies
from tenantguard.rls.signed import VERIFIED, verified_call
from tenantguard.rls.signing_keys import read_signed
from tenantguard.rls.state import read_tables
from tenantguard.rls.views import is_view

if TYPE_CHECKING:
    from tenantguard.catalog import Entry
    from tenantguard.check.subject import Subject
    from tenantguard.rls.forms import Shape
    from tenantguard.rls.state import Facts, Run
    from tenantguard.rls.step import Policy, Target

__all__ = ["Guarded", "GuardedTable", "confined", "read_guarded"]


@dataclass(frozen=True, slots=True)
class GuardedTable:
    """A table that needs policies: what the database has of it, None without it, and which."""

    entry: Entry
    facts: Facts | None
    wanted: dict[str, Policy]


@dataclass(frozen=True, slots=True)
class Guarded:
    """The guarded tables, and the stored forms of their wanted policies and encrypted columns."""

    tables: dict[Target, GuardedTable]
    forms: dict[Shape, str | None]


def read_guarded(subject: Subject) -> Guarded:
    """Read the guarded tables of *subject*, and how PostgreSQL would store their policies.

    Who asks needs to be able to make temporary tables; what it makes is gone afterwards.
    """
    if subject.run is None:
        raise NoDatabaseError
    entries = {
        target_of(each): each
        for each in subject.entries
        if each.column is not None and not is_view(each)
    }
    columns = {
        target: each.column.name for target, each in entries.items() if each.column is not None
    }
    # Expressions are read and written under one search path.
    with settings(subject.run, {"search_path": SEARCH_PATH}):
        watched = {target: watched_columns(each) for target, each in entries.items()}
        found = read_tables(subject.run, columns, watched)
        uncallable = _uncallable(subject)
        tables = {
            target: GuardedTable(entry, facts, _wanted(entry, facts, subject, uncallable))
            for target, entry in entries.items()
            for facts in [found.get(target)]
        }
        return Guarded(tables, _forms(subject.run, tables))


def confined(subject: Subject) -> dict[str, set[str]]:
    """Return the roles whose policies apply to the application and to support, by what they are."""
    named = {subject.roles.application: "the application", subject.roles.support: "support"}
    question = f"""
    SELECT coalesce(json_object_agg(c.rolname, (SELECT json_agg(r.rolname)
        FROM pg_catalog.pg_roles r WHERE r.oid = c.oid
            OR (NOT c.rolsuper AND pg_catalog.pg_has_role(c.oid, r.oid, 'MEMBER')))), '{{}}')::text
    FROM pg_catalog.pg_roles c WHERE c.rolname IN ({", ".join(map(literal, named))})"""
    return {named[role]: set(found) for role, found in subject.ask(question).items()}


def _uncallable(subject: Subject) -> str | None:
    """Return the call of the function that proves a tenant, if the database does not have it."""
    if subject.run is None or not subject.catalog.signed:
        return None
    missing = VERIFIED not in read_signed(subject.run, subject.catalog)
    return verified_call(subject.catalog) if missing else None


def _wanted(
    entry: Entry, facts: Facts | None, subject: Subject, uncallable: str | None
) -> dict[str, Policy]:
    if facts is None or facts["type"] is None:
        return {}
    catalog = subject.catalog
    form = dialect_of(catalog).form
    wanted = wanted_policies(entry, subject.roles, verified_call(catalog), form)
    return {
        name: policy
        for name, policy in wanted.items()
        if uncallable is None or uncallable not in policy.expression
    }


def _forms(run: Run, tables: dict[Target, GuardedTable]) -> dict[Shape, str | None]:
    shapes = dict.fromkeys(
        shape_of(policy, table.facts)
        for table in tables.values()
        for policy in table.wanted.values()
        if table.facts is not None
    )
    shapes |= dict.fromkeys(
        shape for table in tables.values() for shape in derived_shapes(table.entry)
    )
    forms = stored_forms(run, shapes)
    if forms:
        # Whoever compares later in this transaction makes clones by the same names.
        clones = ", ".join(f"pg_temp.tg_clone_{number}" for number in range(len(forms)))
        run(f"DROP TABLE IF EXISTS {clones}")
    return forms
