"""Steps of the generator as operations: policies, switches and what is SQL of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tenantguard.integrations.alembic.objects import (
    CreateTenantObject,
    DropTenantObject,
    KeepTenantObject,
)
from tenantguard.integrations.alembic.operation import PUBLIC
from tenantguard.integrations.alembic.policies import (
    CreateTenantPolicy,
    DisableTenantIsolation,
    DropTenantPolicy,
    EnableTenantIsolation,
)
from tenantguard.integrations.alembic.privileges import RestoreTenantPrivileges
from tenantguard.keytable import KEY_TABLE
from tenantguard.rls.kept import unkeeping
from tenantguard.rls.lookups import hand_over
from tenantguard.rls.names import column_list, plain_literal, qualified, quote
from tenantguard.rls.step import Kind, Lookup, Policy, Signed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Catalog
    from tenantguard.integrations.alembic.former import Former
    from tenantguard.integrations.alembic.operation import TenantOperation
    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Step, Target

__all__ = ["Before", "as_object", "as_policy", "as_switch"]

_GOES_TOO = "the migration made the table, and drops it"
_KEPT = "losing keys is losing data"
_FIRES = "O"
_ENABLED = {"D": "DISABLE", "A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}


@dataclass
class Before:
    """What the operations are written from: the former state, the models and the roles."""

    former: Former
    catalog: Catalog
    roles: tuple[str, ...]
    switched: set[Target] = field(default_factory=set)

    def reason(self, *targets: Target) -> str:
        """Return why protection may go: because one of the tables was not there before."""
        new = any(self.former.table(each) is None and each[1] != KEY_TABLE for each in targets)
        return _GOES_TOO if new else ""


def as_policy(step: Step, before: Before) -> TenantOperation | None:
    """Return the operation that creates the policy of *step*."""
    wanted = step.wanted
    if not isinstance(wanted, Policy):
        return None
    schema, table = step.target
    facts = before.former.table(step.target)
    former: Any = None if facts is None else facts["policies"].get(step.name)
    undo = DropTenantPolicy(
        table,
        step.name,
        schema=schema,
        former=former,
        allow_unprotected=before.reason(step.target),
    )
    return CreateTenantPolicy(
        table,
        step.name,
        schema=schema,
        to=[wanted.role],
        using=wanted.expression,
        permissive=wanted.permissive,
        undo=undo,
    )


def as_switch(step: Step, before: Before) -> TenantOperation | None:
    """Return the operation that switches both on; None for the second of both."""
    if step.target in before.switched:
        return None
    before.switched.add(step.target)
    schema, table = step.target
    facts = before.former.table(step.target) or {"enabled": False, "forced": False}
    undo = DisableTenantIsolation(
        table,
        schema=schema,
        enabled=facts["enabled"],
        forced=facts["forced"],
        allow_unprotected=before.reason(step.target),
    )
    return EnableTenantIsolation(table, schema=schema, undo=undo)


def as_object(step: Step, before: Before) -> TenantOperation:
    """Return the operation that runs *step*'s own SQL."""
    kind, name = step.kind.value, ".".join(part for part in (step.table, step.name) if part)
    undo: TenantOperation
    if step.kind is Kind.TABLE:
        undo = KeepTenantObject(kind, name, reason=_KEPT)
    else:
        reason = before.reason(step.target)
        undo = DropTenantObject(kind, name, sql=_undone(step, before), allow_unprotected=reason)
    return CreateTenantObject(kind, name, sql=list(step.up), undo=undo)


def _undone(step: Step, before: Before) -> list[str]:
    functions = before.former.functions((step.target[0], step.name))
    if step.kind is Kind.SEARCH_TRIGGER:
        return [*_without_trigger(step, before, functions)]
    if functions:
        return [line for each in functions for line in _function(each, step, before)]
    facts = before.former.table(step.target)
    return list(step.down) if facts is None else list(_of_table(step, facts, before))


def _without_trigger(step: Step, before: Before, functions: list[Facts]) -> Iterator[str]:
    """Yield what puts back what was there of a trigger; its check refuses writes without it."""
    alter, name = f"ALTER TABLE {qualified(step.target)}", quote(step.name)
    function = qualified((step.target[0], step.name))
    trigger, *rest = unkeeping(qualified(step.target), function, step.name)
    yield trigger
    yield from () if functions else rest
    for each in functions:
        yield from _function(each, step, before)
    former, enabled = (before.former.table(step.target) or {"keepers": {}})["keepers"].get(
        step.name, ("", _FIRES)
    )
    if former:
        yield former
        yield from (f"{alter} {_ENABLED[enabled]} TRIGGER {name}",) if enabled != _FIRES else ()


def _of_table(step: Step, facts: Facts, before: Before) -> Iterator[str]:
    """Yield what puts back something of a table that was there."""
    alter = f"ALTER TABLE {qualified(step.target)}"
    if step.kind is Kind.INVOKER and facts["invoker"] is not None:
        value = plain_literal(facts["invoker"])
        yield f"ALTER VIEW {qualified(step.target)} SET (security_invoker = {value})"
    elif step.kind is Kind.FORMAT:
        yield f"{alter} DROP CONSTRAINT IF EXISTS {quote(step.name)}"
        if step.name in facts["constraints"]:
            yield f"{alter} ADD CONSTRAINT {quote(step.name)} {facts['constraints'][step.name]}"
    elif step.kind is Kind.SEARCH_INDEX:
        yield f"DROP INDEX IF EXISTS {qualified((step.target[0], step.name))}"
    elif step.kind is Kind.SEARCH_COLUMN:
        yield f"{alter} DROP COLUMN IF EXISTS {quote(step.name)}"
    elif step.kind is Kind.SIGNED and step.name == step.target[1]:
        yield from _privileges(step, facts, before)
    else:
        yield from step.down


def _privileges(step: Step, facts: Facts, before: Before) -> Iterator[str]:
    everybody = (PUBLIC, *before.roles)
    former = {role: [each for who, each in facts["acl"] if who == role] for role in everybody}
    schema, table = step.target
    yield from RestoreTenantPrivileges(table, former, schema=schema).statements()


def _function(facts: Facts, step: Step, before: Before) -> list[str]:
    """Return what puts a function back as it was, with its owner and its privileges."""
    signature, owner = facts["signature"], facts["owner"]
    granted = [role for role, privilege in facts["acl"] if privilege == "EXECUTE"]
    # What its present owner may do, the former may do once it is handed over.
    keeper = step.wanted.owner if isinstance(step.wanted, Lookup | Signed) else ""
    everybody = f"PUBLIC, {column_list(role for role in before.roles if role != keeper)}"
    # Policies depend on a function of the signed setting, so that one is replaced.
    return [
        *(step.down if step.kind is Kind.LOOKUP else ()),
        facts["sql"].rstrip("\n"),
        f"REVOKE ALL ON FUNCTION {signature} FROM {everybody}",
        *(
            f"GRANT EXECUTE ON FUNCTION {signature} TO {_grantee(role)}"
            for role in granted
            if role != owner
        ),
        hand_over(step.target[0], signature, owner),
    ]


def _grantee(role: str) -> str:
    return "PUBLIC" if role == "public" else quote(role)
