"""Whether rows point at other tenants' rows, counted, because a validated key may not know.

Under FORCE, VALIDATE CONSTRAINT and ADD FOREIGN KEY as the tables' owner see no rows, succeed on
crossing data, and store `convalidated = true`.
"""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tenantguard.catalog import Kind
from tenantguard.doctor.eyes import Eyes
from tenantguard.doctor.links import links_of
from tenantguard.doctor.tally import Count, tally
from tenantguard.findings import Finding, Severity
from tenantguard.rls.comparing import APPLY
from tenantguard.rls.generate import entries
from tenantguard.rls.names import qualified, quote, target_of
from tenantguard.rls.state import read_structure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.doctor.links import Link
    from tenantguard.doctor.subject import Look, Subject

__all__ = ["constraint_findings", "crossing_findings", "crossing_rows", "look_at_keys"]


def look_at_keys(subject: Subject) -> Look:
    """Find keys that do not hold the tenant, and count the rows that cross; one scan a key."""
    guarded = [entry for entry in entries(subject.catalog) if entry.guarded]
    eyes = Eyes(subject, map(target_of, guarded))
    with eyes.transaction() as run:
        structure = read_structure(run, {target_of(entry): "" for entry in guarded}, {})
    links = links_of(subject.catalog, guarded, structure)
    counts = [
        Count(
            str(link),
            frozenset({target_of(link.child), target_of(link.parent)}),
            _question(link),
            partial(crossing_findings, link),
        )
        for link in links
    ]
    look = tally(subject, eyes, counts, unit="keys between tables", holds="none crosses")
    missing = [finding for link in links for finding in constraint_findings(link)]
    return replace(look, findings=[*missing, *look.findings])


def constraint_findings(link: Link) -> Iterator[Finding]:
    """Yield what is wrong with the foreign keys of *link*, whatever the rows say."""
    table = ".".join(target_of(link.child))
    # Nothing is generated for the registry's own keys, and a key to it holds the tenant itself.
    between_scoped = Kind.REGISTRY not in (link.child.kind, link.parent.kind)
    if between_scoped and not link.carries_tenant:
        yield Finding(
            "key-without-tenant",
            table,
            f"Rows of {table} can point at another tenant's rows of "
            f"{'.'.join(target_of(link.parent))}: no foreign key from {_columns(link)} holds the "
            "tenant.",
            APPLY
            if link.modelled
            else "Declare the foreign key in the models, then run `tenantguard rls apply`; or drop "
            "it.",
            column=_column(link),
        )
    alter = f"ALTER TABLE {qualified(target_of(link.child))}"
    for constraint in link.constraints:
        if not constraint.checked:
            yield Finding(
                "key-switched-off",
                table,
                f"Foreign key {constraint.name} of {table} is not enforced, or its triggers are "
                "disabled, so new rows can point anywhere.",
                f"As a superuser, for {table} and {'.'.join(target_of(link.parent))}: ALTER TABLE "
                f"… ENABLE TRIGGER ALL; for a key that is NOT ENFORCED: {alter} ALTER CONSTRAINT "
                f"{quote(constraint.name)} ENFORCED. Then look for rows that crossed meanwhile.",
                column=_column(link),
            )
        elif not constraint.valid:
            yield Finding(
                "key-not-valid",
                table,
                f"Foreign key {constraint.name} of {table} is not validated, so it says nothing "
                "about older rows.",
                APPLY
                if link.modelled and constraint.pairs == link.pairs
                else f"As a superuser: {alter} VALIDATE CONSTRAINT {quote(constraint.name)}",
                Severity.WARNING,
                _column(link),
            )


def crossing_findings(link: Link, wrong: int) -> Iterator[Finding]:
    """Yield that *wrong* rows of *link* point at nothing, or at another tenant's row."""
    if not wrong:
        return
    table = ".".join(target_of(link.child))
    valid = [each.name for each in link.constraints if each.valid]
    although = f", although {', '.join(valid)} is validated" if valid else ""
    what = (
        "that does not exist"
        if link.parent.kind is Kind.REGISTRY
        else "that does not exist or belongs to another tenant"
    )
    yield Finding(
        "key-crossed",
        table,
        f"{wrong:,} rows of {table} point at a row of {'.'.join(target_of(link.parent))} "
        f"{what}{although}.",
        f"Find them as the maintenance role: SELECT c.* FROM {crossing_rows(link)}",
        column=_column(link),
    )


def _question(link: Link) -> str:
    child = qualified(target_of(link.child))
    return (
        f"SELECT json_build_array((SELECT count(*) FROM {child} c WHERE {_points(link)}), "
        f"(SELECT count(*) FROM {crossing_rows(link)}))::text"
    )


def crossing_rows(link: Link) -> str:
    """Return what follows FROM in a question for the rows of *link* that cross, called c."""
    match = " AND ".join(f"p.{quote(their)} = c.{quote(own)}" for own, their in sorted(link.pairs))
    return (
        f"{qualified(target_of(link.child))} c WHERE {_points(link)} AND NOT EXISTS "
        f"(SELECT FROM {qualified(target_of(link.parent))} p WHERE {match})"
    )


def _points(link: Link) -> str:
    # A row without a tenant is a finding of its own; a key with an empty part points nowhere.
    return " AND ".join(f"c.{quote(own)} IS NOT NULL" for own, _ in sorted(link.pairs))


def _columns(link: Link) -> str:
    return ", ".join(_own_columns(link))


def _column(link: Link) -> str | None:
    return next(iter(_own_columns(link)), None)


def _own_columns(link: Link) -> list[str]:
    """Return the columns of the child but the tenant's, which names the registry alone."""
    tenant = link.child.column.name if link.child.column is not None else ""
    own = sorted(own for own, _ in link.pairs)
    return [each for each in own if each != tenant] or own
