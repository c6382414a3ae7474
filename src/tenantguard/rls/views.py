"""Views of the models, and what reads a guarded table beside its policies.

Policies stand on tables. A view asks as its owner unless it says otherwise, a materialised view is
a copy without policies, and a partition has policies of its own or none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.errors import ConfigurationError
from tenantguard.findings import Finding
from tenantguard.rls.names import qualified, target_of
from tenantguard.rls.step import Kind, Phase, Step, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Entry
    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Target

__all__ = [
    "is_view",
    "materialised_view",
    "open_part",
    "refuse_other_relation",
    "view_findings",
    "view_of_owner",
    "view_steps",
    "way_findings",
]

_INVOKER_VERSION = 150000
_VIEWS = {"v": "view", "m": "materialised view"}


def is_view(entry: Entry) -> bool:
    """Return whether the models say that *entry* is a view: in `info`, or by SQLAlchemy 2.1."""
    table = entry.table
    return table is not None and bool(table.info.get("is_view") or getattr(table, "is_view", False))


def view_steps(entry: Entry) -> Iterator[Step]:
    """Yield the step that lets the policies of the tables below hold for who asks the view."""
    if not entry.guarded:
        return
    target = target_of(entry)
    alter = f"ALTER VIEW {qualified(target)}"
    yield Step(
        phase=Phase.PROTECTION,
        target=target,
        kind=Kind.INVOKER,
        name="",
        up=(f"{alter} SET (security_invoker = true)",),
        down=(f"{alter} RESET (security_invoker)",),
        wanted=Value("INVOKER"),
    )


def refuse_other_relation(entry: Entry, facts: Facts, version: int) -> None:
    """Raise a `ConfigurationError` unless the database has what the models say *entry* is."""
    found = _VIEWS.get(facts["kind"])
    if is_view(entry) != (found is not None):
        raise ConfigurationError(
            f"{entry.fullname} is a {found or 'table'} in the database, and a "
            f"{'view' if is_view(entry) else 'table'} in the models. "
            "Table(…, info={'is_view': True}) says that it is a view."
        )
    if not entry.guarded or found is None:
        return
    if facts["kind"] == "m":
        raise ConfigurationError(
            f"{entry.fullname} is a materialised view, which is a copy without policies. Declare "
            "it in untenanted= with a reason and read it with system access, or make it a table."
        )
    if version < _INVOKER_VERSION:
        raise ConfigurationError(
            f"{entry.fullname} is a view, which asks as its owner before PostgreSQL 15. Upgrade "
            "the server, or declare it in untenanted= with a reason."
        )


def view_findings(entry: Entry, facts: Facts) -> Iterator[Finding]:
    """Yield what lets a guarded view of the models show more than its caller may see."""
    name = ".".join(target_of(entry))
    if facts["kind"] != "v":
        yield (
            materialised_view(target_of(entry))
            if facts["kind"] == "m"
            else Finding(
                "view-missing",
                name,
                f"{name} is a table in the database, and a view in the models.",
                "Correct either; Table(…, info={'is_view': True}) says that it is a view.",
            )
        )
    elif not facts["invoker"]:
        yield view_of_owner(target_of(entry))


def way_findings(facts: Facts, in_models: set[Target]) -> Iterator[Finding]:
    """Yield what the application reaches around the policies of one guarded table.

    What is in the models is looked at on its own, as what they declare it to be.
    """
    for way in facts["ways"]:
        target = (way["s"], way["t"])
        if target in in_models:
            continue
        if way["kind"] == "v":
            yield view_of_owner(target)
        elif way["kind"] == "m":
            yield materialised_view(target)
        else:
            yield open_part(target)


def view_of_owner(target: Target, who: str = "the application") -> Finding:
    """Return the finding of a view that reads guarded tables with its owner's rights, for *who*."""
    return Finding(
        "view-of-owner",
        ".".join(target),
        f"The view {'.'.join(target)} reads guarded tables as its owner, not as {who}.",
        f"ALTER VIEW {qualified(target)} SET (security_invoker = true), from PostgreSQL 15 on; "
        f"before, revoke it from {who}'s role. A view that all tenants may read belongs "
        "into the models and into shared=, with the reason.",
    )


def materialised_view(target: Target, who: str = "the application") -> Finding:
    """Return the finding of a copy of guarded rows that *who* reaches."""
    return Finding(
        "view-materialised",
        ".".join(target),
        f"The materialised view {'.'.join(target)} holds rows of guarded tables, has no policies, "
        f"and {who} reaches it.",
        f"REVOKE ALL ON {qualified(target)} FROM {who}'s role and from PUBLIC.",
    )


def open_part(target: Target, who: str = "the application") -> Finding:
    """Return the finding of a partition or child that *who* reaches by its own name."""
    return Finding(
        "partition-open",
        ".".join(target),
        f"{'.'.join(target)} is a part of a guarded table, has no row-level security of its own, "
        f"and {who} reaches it by its own name.",
        f"REVOKE ALL ON {qualified(target)} FROM {who}'s role and from PUBLIC.",
    )
