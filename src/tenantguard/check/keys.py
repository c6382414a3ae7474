"""Tenant columns and keys that let rows of two tenants meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.catalog import Kind
from tenantguard.check import tenant_columns, uniques
from tenantguard.check.rule import Rule
from tenantguard.check.sight import seeing, settings
from tenantguard.check.structure import structure_of
from tenantguard.doctor.eyes import hidden_reason
from tenantguard.doctor.keys import constraint_findings, crossing_findings, crossing_rows
from tenantguard.doctor.links import links_of
from tenantguard.doctor.subject import CouldNotLookError, reason_of
from tenantguard.findings import Severity
from tenantguard.rls.comparing import APPLY
from tenantguard.rls.names import quote, target_of
from tenantguard.rls.state import ask
from tenantguard.rls.views import is_view

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ForeignKeyConstraint

    from tenantguard.check.subject import Subject
    from tenantguard.doctor.links import Link
    from tenantguard.findings import Finding
    from tenantguard.rls.state import Facts, Run
    from tenantguard.rls.step import Target

__all__ = ["RULES"]

_AT_ONCE = 100
"""So many keys are counted in one statement; a function takes no more arguments than that."""

_EMPTIES = {"n": "SET NULL", "d": "SET DEFAULT"}


def _links(subject: Subject) -> list[Link]:
    guarded = [each for each in subject.entries if each.guarded and not is_view(each)]
    return links_of(subject.catalog, guarded, structure_of(subject))


def _of_constraints(rule: Rule, subject: Subject) -> Iterator[Finding]:
    """Find what `tenantguard doctor` finds under the same code."""
    for link in _links(subject):
        yield from (each for each in constraint_findings(link) if each.code == rule.id)


def _crossed(_rule: Rule, subject: Subject) -> Iterator[Finding]:
    """Count rows that cross, because a key that was validated under FORCE saw none."""
    there = structure_of(subject).keys()
    links = [each for each in _links(subject) if _targets(each) <= there]
    missed: list[str] = []
    with seeing(subject, {target for link in links for target in _targets(link)}) as (run, hidden):
        seen = [link for link in links if not hidden & _targets(link)]
        for start in range(0, len(seen), _AT_ONCE):
            for link, wrong in _counted(run, seen[start : start + _AT_ONCE]):
                if isinstance(wrong, Exception):
                    missed.append(f"{link}: {reason_of(wrong)}")
                else:
                    yield from crossing_findings(link, wrong)
    # What was found before stays found.
    if hidden or missed:
        raise CouldNotLookError(" ".join([*missed, *([hidden_reason(hidden)] if hidden else [])]))


def _counted(run: Run, links: list[Link]) -> Iterator[tuple[Link, int | Exception]]:
    """Yield for each of *links* how many rows cross, or why they could not be counted."""
    counts = ", ".join(f"(SELECT count(*) FROM {crossing_rows(each)})" for each in links)  # noqa: S608
    try:
        # Many small plans look to the planner like one that is worth compiling.
        with settings(run, {"jit": "off"}):
            found = ask(run, f"SELECT json_build_array({counts})::text")
    except Exception as error:  # noqa: BLE001  (any driver's error, named by its class)
        if len(links) == 1:
            yield links[0], error
            return
        # One that fails must not hide what the others hold.
        for each in links:
            yield from _counted(run, [each])
    else:
        yield from zip(links, found, strict=True)


def _targets(link: Link) -> set[Target]:
    return {target_of(link.child), target_of(link.parent)}


def _registry_key_missing(rule: Rule, subject: Subject) -> Iterator[Finding]:
    registry = target_of(subject.catalog.registry)
    held = {
        target_of(link.child)
        for link in _links(subject)
        if target_of(link.parent) == registry
        and any(link.child.column.name in dict(each.pairs) for each in link.constraints)  # type: ignore[union-attr]
    }
    for target in structure_of(subject):
        entry = subject.by_target[target]
        if entry.kind in {Kind.SCOPED, Kind.KEYS} and target not in held:
            table = ".".join(target)
            yield rule.finding(
                table,
                f"No foreign key holds the tenant of {table} to {'.'.join(registry)}: rows outlive "
                "their tenant, and a later tenant with its id would get them.",
                APPLY,
                entry.column.name if entry.column is not None else None,
            )


def _empties_tenant(rule: Rule, subject: Subject) -> Iterator[Finding]:
    found = dict.fromkeys(_emptied_by_models(subject))
    if subject.run is not None:
        found |= dict.fromkeys(_emptied_in_database(subject))
    for table, tenant, columns, action in found:
        yield rule.finding(
            table,
            f"The foreign key ({', '.join(columns)}) of {table} has {action}, which empties the "
            "tenant column too.",
            "Take the tenant out of the key in the models, where the generator adds its own; or "
            f"name the columns that are emptied: {action} "
            f"({', '.join(quote(each) for each in columns if each != tenant) or '…'}).",
            tenant,
        )


_Emptied = tuple[str, str, tuple[str, ...], str]
"""Table, tenant column, the key's columns, and what the key does."""


def _emptied_by_models(subject: Subject) -> Iterator[_Emptied]:
    for entry in subject.entries:
        if entry.kind is not Kind.SCOPED or entry.table is None or entry.column is None:
            continue
        for key in sorted(entry.table.foreign_key_constraints, key=_columns_of):
            for action in _actions(key):
                if entry.column.name in _columns_of(key):
                    yield ".".join(target_of(entry)), entry.column.name, _columns_of(key), action


def _columns_of(key: ForeignKeyConstraint) -> tuple[str, ...]:
    return tuple(column.name for column in key.columns)


def _actions(key: ForeignKeyConstraint) -> Iterator[str]:
    for event, action in (("DELETE", key.ondelete), ("UPDATE", key.onupdate)):
        # With a list of columns it empties those.
        if (action or "").upper() in _EMPTIES.values():
            yield f"ON {event} {(action or '').upper()}"


def _emptied_in_database(subject: Subject) -> Iterator[_Emptied]:
    for target, facts in structure_of(subject).items():
        column = subject.by_target[target].column
        for key in facts["keys"]:
            if column is not None and column.name in key["columns"]:
                for action in _stored_actions(key, column.name):
                    yield ".".join(target), column.name, tuple(key["columns"]), action


def _stored_actions(key: Facts, tenant: str) -> Iterator[str]:
    if key["delete"] in _EMPTIES and tenant in (key["delete_columns"] or key["columns"]):
        yield f"ON DELETE {_EMPTIES[key['delete']]}"
    if key["update"] in _EMPTIES:
        yield f"ON UPDATE {_EMPTIES[key['update']]}"


RULES = (
    *tenant_columns.RULES,
    Rule("registry-key-missing", Severity.WARNING, _registry_key_missing),
    Rule("key-without-tenant", Severity.ERROR, _of_constraints),
    Rule("key-switched-off", Severity.ERROR, _of_constraints),
    Rule("key-not-valid", Severity.WARNING, _of_constraints),
    Rule("key-crossed", Severity.ERROR, _crossed),
    Rule("key-empties-tenant", Severity.ERROR, _empties_tenant, offline=True),
    *uniques.RULES,
)
