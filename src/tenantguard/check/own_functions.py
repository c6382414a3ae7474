"""The functions and tables that tenantguard makes: whether they are still what it made."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.check import reach
from tenantguard.check.rule import Rule
from tenantguard.check.sight import settings
from tenantguard.check.subject import NoDatabaseError
from tenantguard.findings import Severity
from tenantguard.rls.compare import is_lookup
from tenantguard.rls.comparing import APPLY
from tenantguard.rls.forms import SEARCH_PATH
from tenantguard.rls.lookups import lookup_steps
from tenantguard.rls.signed import signing_target
from tenantguard.rls.signing_keys import keys_open, read_signed, signed_findings
from tenantguard.rls.state import read_functions, read_type_names
from tenantguard.rls.step import Lookup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding
    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Step, Target

__all__ = ["RULES"]


def _lookups_missing(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for step, _same, found in _lookups(subject):
        if not found:
            name = f"{step.target[0]}.{step.name}"
            yield rule.finding(
                name,
                f"The function {name}, which answers before the tenant is known, is missing.",
                APPLY,
            )


def _lookups_changed(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for step, same, found in _lookups(subject):
        if found and same != found:
            name = f"{step.target[0]}.{step.name}"
            yield rule.finding(
                name,
                f"The function {name}, which sees the rows of all tenants, is not the generated "
                "one, may be called by others, or is not the only one of that name.",
                f"{APPLY} One with other arguments has to be dropped by hand.",
            )


def _lookups(subject: Subject) -> Iterator[tuple[Step, int, int]]:
    """Yield each lookup with how many functions of its name are as generated, and how many are."""
    steps = list(lookup_steps(subject.catalog, subject.roles))
    functions, types = _functions(subject, steps)
    for step in steps:
        found = functions.get((step.target[0], step.name), [])
        wanted = step.wanted
        same = [
            each for each in found if isinstance(wanted, Lookup) and is_lookup(each, wanted, types)
        ]
        yield step, len(same), len(found)


def _functions(
    subject: Subject, steps: list[Step]
) -> tuple[dict[Target, list[Facts]], dict[str, str | None]]:
    names = {
        name for step in steps if isinstance(step.wanted, Lookup) for name in step.wanted.types
    }
    if subject.run is None:
        raise NoDatabaseError
    with settings(subject.run, {"search_path": SEARCH_PATH}):
        found = read_functions(subject.run, [(step.target[0], step.name) for step in steps])
        return found, read_type_names(subject.run, names)


def _signed(rule: Rule, subject: Subject) -> Iterator[Finding]:
    if subject.catalog.signed and subject.run is not None:
        found = read_signed(subject.run, subject.catalog)
        # Privileges are asked for by name; those of who asks say nothing of the application.
        every = signed_findings(found, subject.catalog, subject.roles, superuser=True)
        yield from (each for each in every if each.code == rule.id)


def _signing_keys(_rule: Rule, subject: Subject) -> Iterator[Finding]:
    if not subject.catalog.signed:
        return
    target = signing_target(subject.catalog)
    for role in subject.ask(f"""
    WITH {reach.confined(subject)}, {reach.relations("keys", [target])}
    SELECT coalesce(json_agg(c.role ORDER BY c.role), '[]')::text
    FROM keys k CROSS JOIN confined c
    WHERE pg_catalog.has_table_privilege(c.oid, k.oid, 'DELETE, TRUNCATE, TRIGGER')
        OR pg_catalog.has_any_column_privilege(
            c.oid, k.oid, 'SELECT, INSERT, UPDATE, REFERENCES')"""):
        yield keys_open(".".join(target), f"Role {role!r}")


RULES: tuple[Rule, ...] = (
    Rule("lookup-missing", Severity.ERROR, _lookups_missing),
    Rule("lookup-changed", Severity.ERROR, _lookups_changed),
    Rule("signing-missing", Severity.ERROR, _signed),
    Rule("signing-changed", Severity.ERROR, _signed),
    Rule("signing-keys-open", Severity.ERROR, _signing_keys),
)
