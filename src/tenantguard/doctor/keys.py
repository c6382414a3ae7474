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
from tenantguard.rls.generate import entries
from tenantguard.rls.names import qualified, quote, target_of
from tenantguard.rls.state import read_structure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.doctor.links import Link
    from tenantguard.doctor.subject import Look, Subject

__all__ = ["look_at_keys"]

_APPLY = "Run `tenantguard rls apply` with the owner's address."


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
            partial(_crossing, link),
        )
        for link in links
    ]
    look = tally(subject, eyes, counts, unit="keys between tables", holds="none crosses")
    missing = [finding for link in links for finding in _constraints(link)]
    return replace(look, findings=[*missing, *look.findings])


def _constraints(link: Link) -> Iterator[Finding]:
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
            _APPLY
            if link.modelled
            else "Declare the foreign key in the models, then run `tenantguard rls apply`; or drop "
            "it.",
        )
    for constraint in link.constraints:
        if not constraint.valid:
            alter = f"ALTER TABLE {qualified(target_of(link.child))}"
            yield Finding(
                "key-not-valid",
                table,
                f"Foreign key {constraint.name} of {table} is not validated, so it says nothing "
                "about older rows.",
                _APPLY
                if link.modelled and constraint.pairs == link.pairs
                else f"As a superuser: {alter} VALIDATE CONSTRAINT {quote(constraint.name)}",
                Severity.WARNING,
            )


def _crossing(link: Link, wrong: int) -> Iterator[Finding]:
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
        f"Find them as the maintenance role: SELECT c.* FROM {_wrong(link)}",
    )


def _question(link: Link) -> str:
    child = qualified(target_of(link.child))
    return (
        f"SELECT json_build_array((SELECT count(*) FROM {child} c WHERE {_points(link)}), "
        f"(SELECT count(*) FROM {_wrong(link)}))::text"
    )


def _wrong(link: Link) -> str:
    match = " AND ".join(f"p.{quote(their)} = c.{quote(own)}" for own, their in sorted(link.pairs))
    return (
        f"{qualified(target_of(link.child))} c WHERE {_points(link)} AND NOT EXISTS "
        f"(SELECT FROM {qualified(target_of(link.parent))} p WHERE {match})"
    )


def _points(link: Link) -> str:
    # A row without a tenant is a finding of its own; a key with an empty part points nowhere.
    return " AND ".join(f"c.{quote(own)} IS NOT NULL" for own, _ in sorted(link.pairs))


def _columns(link: Link) -> str:
    tenant = link.child.column.name if link.child.column is not None else ""
    return ", ".join(sorted(own for own, _ in link.pairs if own != tenant))
