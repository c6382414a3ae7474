"""Functions that run as somebody else, or that leave the tenant's place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tenantguard.catalog import SETTING
from tenantguard.check import helpers, own_functions
from tenantguard.check.routines import is_pinned, routines, setting_of
from tenantguard.check.rule import Rule
from tenantguard.doctor.relations import definer_function
from tenantguard.findings import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding

__all__ = ["RULES"]

_OFF = {"off", "false", "no", "0"}

# Names of settings and of functions are read in any case, and may be quoted.
_SETS = re.compile(
    r"\bset_config\b|\b(?:re)?set\s+(?:local\s+|session\s+)?\"?tenantguard\"?\s*\.", re.IGNORECASE
)


def _definers(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for each in routines(subject):
        # A trigger's function is not called; the triggers are looked at.
        if each.definer and each.unheld and each.callers and not each.triggered:
            yield definer_function(each.facts, each.who)
        elif each.rules and each.callers and not each.triggered:
            yield rule.finding(
                each.name,
                f"{each.who[0].upper()}{each.who[1:]} may call {each.name}, which runs commands as "
                f"{each.owner!r}, who owns guarded tables and can turn their policies off.",
                f"Read it; then REVOKE EXECUTE ON ROUTINE {each.signature} FROM PUBLIC, or ALTER "
                f"ROUTINE {each.signature} OWNER TO a role that owns none of them.",
            )


def _search_paths(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for each in routines(subject):
        if each.definer and each.runs and not each.policies and not is_pinned(each):
            yield rule.finding(
                each.name,
                f"{each.name} runs as {each.owner!r}, and reads whatever its caller's search path "
                "or temporary tables put in the place of what it names.",
                f"ALTER ROUTINE {each.signature} SET search_path = pg_catalog, pg_temp; and "
                "qualify every other name in it.",
            )


def _leakproof(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for each in routines(subject):
        if each.leakproof and each.callers:
            yield rule.finding(
                each.name,
                f"{each.name} is LEAKPROOF and {each.who} may call it, so it may be given the rows "
                "of other tenants before the policy takes them out.",
                f"ALTER FUNCTION {each.signature} NOT LEAKPROOF, unless it has no effects, raises "
                "no errors and tells nothing of what it is given.",
            )


def _switching(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for each in routines(subject):
        preset = setting_of(each, SETTING) is not None
        named = each.names_tenant and _SETS.search(each.body)
        if each.runs and (preset or named or each.sets_any):
            sets = SETTING if preset or named else f"a setting that may be {SETTING}"
            yield rule.finding(
                each.name,
                f"{each.name} sets {sets}: what runs in it, or after it, acts for another "
                "tenant than the one that the transaction was begun for.",
                f"Take the setting out of it (ALTER ROUTINE {each.signature} RESET {SETTING}, if "
                "it is an option), and enter the tenant with tenant_context() in Python.",
            )


def _row_security(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for each in routines(subject):
        if each.runs and (setting_of(each, "row_security") or "on").lower() in _OFF:
            yield rule.finding(
                each.name,
                f"{each.name} has SET row_security = off: on guarded tables it fails for everybody "
                "whom policies restrict, and works in tests that run as a superuser.",
                f"ALTER ROUTINE {each.signature} RESET row_security",
            )


RULES: tuple[Rule, ...] = (
    Rule("function-definer", Severity.WARNING, _definers),
    Rule("function-search-path", Severity.WARNING, _search_paths),
    Rule("function-leakproof", Severity.WARNING, _leakproof),
    Rule("function-sets-tenant", Severity.ERROR, _switching),
    Rule("function-row-security", Severity.WARNING, _row_security),
    *helpers.RULES,
    *own_functions.RULES,
)
