"""In what the policies of a table differ from the generated ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tenantguard.catalog import SETTING
from tenantguard.findings import Finding
from tenantguard.rls.forms import same_policy, shape_of
from tenantguard.rls.names import qualified, quote
from tenantguard.rls.signed import VERIFIED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tenantguard.rls.forms import Shape
    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Policy, Target

__all__ = ["APPLY", "extra_policy", "floors_hold", "policy_findings"]

APPLY = "Run `tenantguard rls apply` with the owner's address."
"""What mends most of what is found in a database."""

_COMMANDS = {"r": "SELECT", "a": "INSERT", "w": "UPDATE", "d": "DELETE"}
_SETTINGS = re.compile(r"current_setting\('([^']*)'")
_EVERY_ROW = "true"


def policy_findings(
    target: Target,
    wanted: Mapping[str, Policy],
    facts: Facts,
    forms: Mapping[Shape, str | None],
) -> Iterator[Finding]:
    """Yield which of the *wanted* policies a table lacks, or has in another form, and in which.

    Args:
        target: The table.
        wanted: What is generated, by name.
        facts: What the database has of the table.
        forms: The stored forms of what is wanted.
    """
    table = ".".join(target)
    for name, policy in wanted.items():
        stored = facts["policies"].get(name)
        expected = forms[shape_of(policy, facts)]
        if expected is None:
            yield Finding(
                "could-not-compare",
                table,
                f"The tenant column of {table} has another type in the database than in the "
                "models.",
                "Change either type, then run `tenantguard rls apply`.",
            )
        elif stored is None:
            yield Finding("policy-missing", table, f"Policy {name} on {table} is missing.", APPLY)
        elif not same_policy(stored, policy, expected):
            yield Finding(
                "policy-changed",
                table,
                f"Policy {name} on {table} is not the generated one: "
                f"{'; '.join(_differences(stored, policy, expected))}.",
                APPLY,
            )


def floors_hold(
    wanted: Mapping[str, Policy], facts: Facts, forms: Mapping[Shape, str | None]
) -> bool:
    """Return whether the restrictive ones of *wanted*, at least one, are there and unchanged."""
    floors = {name: policy for name, policy in wanted.items() if not policy.permissive}
    return bool(floors) and all(
        name in facts["policies"]
        and (expected := forms[shape_of(policy, facts)]) is not None
        and same_policy(facts["policies"][name], policy, expected)
        for name, policy in floors.items()
    )


def extra_policy(
    target: Target, name: str, facts: Facts, *, held: bool, whom: str = "the application"
) -> Finding:
    """Return the finding of a permissive policy that was not generated and applies to *whom*.

    *held*: whether the generated restrictive policies stand against it, as by `floors_hold`.
    """
    table, stored = ".".join(target), facts["policies"]
    shows = ", and shows every row" if stored[name]["using"] == _EVERY_ROW else ""
    floor = (
        "The restrictive policy still holds; this one was not generated."
        if held
        else "It was not generated, and no restrictive policy is there unchanged to hold against "
        "it."
    )
    return Finding(
        "policy-extra",
        table,
        f"Policy {name!r} on {table} also applies to {whom}{shows}. {floor}",
        f"DROP POLICY {quote(name)} ON {qualified(target)}",
    )


def _differences(stored: Facts, policy: Policy, expected: str) -> Iterator[str]:
    """Yield what differs, by names: the text of an expression can hold values."""
    if stored["permissive"] is not policy.permissive:
        modes = ("permissive", "restrictive")
        has, wants = modes if stored["permissive"] else modes[::-1]
        yield f"it is {has}, not {wants}"
    if stored["command"] != "*":
        yield f"it is FOR {_COMMANDS[stored['command']]} alone, not FOR ALL"
    if stored["roles"] != [policy.role]:
        yield f"it is TO {', '.join(stored['roles'])}, not TO {policy.role}"
    for clause, has in (("USING", stored["using"]), ("WITH CHECK", stored["check"])):
        if has != expected:
            yield f"its {clause} {_expression(has, expected)}"


def _expression(has: str | None, expected: str) -> str:
    if has is None:
        return "is missing"
    if has == _EVERY_ROW:
        return "is (true), which holds for every row"
    if expected == _EVERY_ROW:
        return "does not hold for every row"
    return _comparison(has, expected)


def _comparison(has: str, expected: str) -> str:
    column = expected[1:].partition(" = ")[0]
    read = _SETTINGS.findall(has)
    faults = {
        f"does not compare the column {column}": not re.search(
            rf"(?<!\w){re.escape(column)}(?!\w)", has
        ),
        f"reads the setting {''.join(read[:1])}, not {SETTING}": read and SETTING not in read,
        f"does not read the setting {SETTING}": not read and "(" not in has.strip("()"),
        f"casts the column {column}, so that no index serves": f"({column})::" in has,
        "has an OR, beside which its comparison does not hold": " OR " in has,
        "does not ask whether the tenant is signed": VERIFIED in expected and VERIFIED not in has,
        "has no scalar sub-select, so the tenant is asked for once a row": (
            "SELECT" in expected and "SELECT" not in has
        ),
    }
    return next((fault for fault, is_so in faults.items() if is_so), "is another expression")
