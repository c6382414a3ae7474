"""Whether a table, role or function that is new in a script is protected as the others are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.report.script_policies import EVERY, is_bound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.report.script_facts import Fact, Facts

__all__ = ["New"]


class New:
    """Judges what *head* has and *base* has not, by what *base* gives each role already."""

    def __init__(self, base: Facts, head: Facts) -> None:
        self._head = head
        self._everywhere = _seeing_every_row(base)
        self._held = {fact[1] for fact in _policies(head)} - _seeing_every_row(head)
        self._most: dict[str, set[str]] = {}
        for (kind, _, name), fact in base.known.items():
            if kind == "privileges":
                self._most.setdefault(name, set()).update(fact)

    def judged(self, at: str) -> Iterator[str]:
        """Yield what is weak about *at*."""
        of = _Object(at, self._head)
        if "function" in self._head.kinds(at):
            yield "runs with its owner's rights: read it"
        if of.attributes - {"LOGIN", "NOLOGIN"}:
            yield f"is a role with {' '.join(sorted(of.attributes))}"
        yield from self._shown(of)
        if of.policies and not of.switched:
            yield "its policies are not switched on"
        yield from self._reached(of)

    def _shown(self, of: _Object) -> Iterator[str]:
        """Yield the permissive policies that show a role more than elsewhere."""
        for name, (mode, role, using, check) in of.policies.items():
            known = using == check == EVERY and role in self._everywhere
            if mode == "PERMISSIVE" and not known and not (is_bound(using) and is_bound(check)):
                yield f"its policy {name} shows {role} more than a tenant's rows"

    def _reached(self, of: _Object) -> Iterator[str]:
        """Yield the roles that have new privileges, or that nothing holds here."""
        for grantee, privileges in of.privileges.items():
            if grantee == "PUBLIC" or not set(privileges) <= self._most.get(grantee, set()):
                yield f"gives {grantee} {', '.join(privileges)}, which it has nowhere else"
            elif grantee in self._held and of.is_table and not of.holds(grantee):
                yield f"{grantee} reaches it without row-level security: has it rows of tenants?"


def _policies(facts: Facts) -> list[Fact]:
    return [fact for (kind, _, _), fact in facts.known.items() if kind == "policy"]


def _seeing_every_row(facts: Facts) -> set[str]:
    return {fact[1] for fact in _policies(facts) if fact[0] == "PERMISSIVE" and fact[2] == EVERY}


class _Object:
    """What a script makes of one table, schema, role or function."""

    def __init__(self, at: str, facts: Facts) -> None:
        known = facts.objects[at]
        self.policies = {name: fact for (kind, name), fact in known.items() if kind == "policy"}
        self.privileges = {n: fact for (kind, n), fact in known.items() if kind == "privileges"}
        self.attributes = set(known.get(("role", ""), ()))
        self.is_table = "." in at
        self.invoker = ("switch", "security_invoker") in known
        self.switched = {("switch", "ENABLE"), ("switch", "FORCE")} <= set(known)

    def holds(self, role: str) -> bool:
        """Return whether row-level security holds *role* here."""
        policies = any(fact[1] == role for fact in self.policies.values())
        return self.invoker or (self.switched and policies)
