"""Whether the database has what a step makes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tenantguard.rls.citus import is_distributed
from tenantguard.rls.drift import checked, is_search_column
from tenantguard.rls.forms import Shape, derived_shape, same_policy, shape_of
from tenantguard.rls.kept import is_keeper
from tenantguard.rls.keys import lifted
from tenantguard.rls.names import qualified, quote
from tenantguard.rls.step import (
    Derived,
    Grants,
    Keeper,
    Key,
    Kind,
    Lookup,
    Policy,
    Signed,
    Step,
    Value,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Target

__all__ = ["State", "remaining"]

_ACTIONS = {"": "a", "NO ACTION": "a", "RESTRICT": "r", "CASCADE": "c"}
_SWITCHES = {Kind.ENABLE: "enabled", Kind.FORCE: "forced", Kind.INVOKER: "invoker"}
_LOOKUP_CONFIG = ["search_path=pg_catalog, pg_temp"]


@dataclass(frozen=True, slots=True)
class State:
    """What the database has; *forms* are the stored forms of what is wanted.

    *absent* are the tables that steps make and the database does not have. *signed* is what it has
    of the signed setting, *distribution* how it spreads tables over nodes.
    """

    version: int
    roles: set[str]
    confined: frozenset[str]
    granted: tuple[str, ...]
    tables: dict[Target, Facts]
    structure: dict[Target, Facts]
    schemas: dict[str, dict[str, Facts]]
    functions: dict[Target, list[Facts]]
    types: dict[str, str | None]
    forms: dict[Shape, str | None]
    absent: frozenset[Target] = frozenset()
    signed: frozenset[str] = frozenset()
    distribution: dict[Target, Facts] = field(default_factory=dict)


def remaining(step: Step, state: State) -> Step | None:
    """Return what is left of *step* to do, None if the database has it."""
    wanted = step.wanted
    if step.target in state.absent:
        return step
    if isinstance(wanted, Key):
        return _rest_of_key(step, wanted, state)
    if isinstance(wanted, Derived):
        return _rest_of_derived(step, wanted, state)
    if isinstance(wanted, Keeper):
        found = state.tables[step.target]["keepers"].get(step.name)
        return None if is_keeper(found, wanted.body) else step
    if isinstance(wanted, Signed):
        return None if step.name in state.signed else step
    return None if _has(step, wanted, state) else step


def _has(step: Step, wanted: Policy | Grants | Lookup | Value, state: State) -> bool:
    if isinstance(wanted, Policy):
        return _has_policy(step, wanted, state)
    if isinstance(wanted, Grants):
        return _has_grants(step, wanted, state)
    if isinstance(wanted, Lookup):
        return _has_lookup(step, wanted, state)
    # A table that steps make is absent, or there.
    return step.kind is Kind.TABLE or _has_value(step, wanted, state)


def _has_policy(step: Step, wanted: Policy, state: State) -> bool:
    facts = state.tables[step.target]
    stored = facts["policies"].get(step.name)
    expected = state.forms.get(shape_of(wanted, facts))
    return stored is not None and expected is not None and same_policy(stored, wanted, expected)


def _has_value(step: Step, wanted: Value, state: State) -> bool:
    if step.kind is Kind.ROLE:
        return wanted.text in state.roles
    if step.kind is Kind.SCHEMA:
        return _has_schema(state.schemas.get(wanted.text, {}), state)
    if step.kind is Kind.DISTRIBUTION:
        return is_distributed(step, wanted, state.distribution)
    table, structure = state.tables[step.target], state.structure[step.target]
    if step.kind in _SWITCHES:
        return bool(table[_SWITCHES[step.kind]])
    if step.kind is Kind.NOT_NULL:
        return bool(structure["not_null"])
    shape = Shape(wanted.column, table["type"], wanted.text, "default")
    return bool(structure["default"] == state.forms[shape])


def _has_schema(by_role: dict[str, Facts], state: State) -> bool:
    return all(
        role in by_role
        and by_role[role]["usage"]
        and not (role in state.confined and by_role[role]["create"])
        for role in state.granted
    )


def _rest_of_key(step: Step, wanted: Key, state: State) -> Step | None:
    structure = state.structure[step.target]
    if step.kind is Kind.FOREIGN_KEY:
        return _rest_of_foreign_key(step, wanted, structure["keys"])
    usable = [index for index in structure["indexes"] if index["valid"] and index["whole"]]
    if step.kind is Kind.UNIQUE:
        found = any(
            index["unique"] and set(index["columns"]) == set(wanted.columns) for index in usable
        )
    else:
        found = any(
            index["columns"][: len(wanted.columns)] == list(wanted.columns) for index in usable
        )
    if found:
        return None
    if any(index["name"] == step.name for index in structure["indexes"]):
        # What CREATE INDEX CONCURRENTLY leaves behind when it fails.
        drop = f"DROP INDEX {qualified((step.target[0], step.name))}"
        return replace(step, up=(drop, *step.up))
    return step


def _rest_of_foreign_key(step: Step, wanted: Key, keys: list[Facts]) -> Step | None:
    found = next((key for key in keys if _same_key(key, wanted)), None)
    alter = f"ALTER TABLE {qualified(step.target)}"
    if found is None:
        if any(key["name"] == step.name for key in keys):
            return replace(step, up=(f"{alter} DROP CONSTRAINT {quote(step.name)}", *step.up))
        return step
    if found["valid"] or wanted.parent is None:
        return None
    validate = f"{alter} VALIDATE CONSTRAINT {quote(found['name'])}"
    return replace(step, name=found["name"], up=(lifted([step.target, wanted.parent], validate),))


def _rest_of_derived(step: Step, wanted: Derived, state: State) -> Step | None:
    expected = state.forms[derived_shape(wanted)]
    if step.kind is Kind.SEARCH_COLUMN:
        found = state.tables[step.target]["columns"].get(wanted.column)
        kept = wanted.kept
        return None if found and is_search_column(found, expected, kept=kept) else step
    return _rest_of_check(step, checked(state.tables[step.target], expected))


def _rest_of_check(step: Step, same: list[Facts]) -> Step | None:
    if not same:
        return step
    if same[0]["valid"]:
        return None
    alter, name = f"ALTER TABLE {qualified(step.target)}", str(same[0]["name"])
    return replace(step, name=name, up=(f"{alter} VALIDATE CONSTRAINT {quote(name)}",))


def _same_key(key: Facts, wanted: Key) -> bool:
    pairs = set(zip(key["columns"], key["parent_columns"], strict=True))
    return (
        pairs == set(zip(wanted.columns, wanted.parent_columns, strict=True))
        and tuple(key["parent"]) == wanted.parent
        # Without a tenant to keep, as in the key to the registry, any action will do.
        and (len(pairs) == 1 or _same_action(key, wanted))
    )


def _same_action(key: Facts, wanted: Key) -> bool:
    if not wanted.on_delete.startswith("SET"):
        return bool(key["delete"] == _ACTIONS[wanted.on_delete])
    action = "n" if wanted.on_delete.startswith("SET NULL") else "d"
    return key["delete"] == action and set(key["delete_columns"] or ()) == set(wanted.columns[1:])


def _has_grants(step: Step, wanted: Grants, state: State) -> bool:
    if wanted.optional and step.target not in state.tables:
        return True
    structure = state.structure[step.target]
    return (
        _by_role(structure["acl"], state) == wanted.table
        and not any(_by_role(acl, state) for acl in structure["column_acl"])
        and all(
            granted <= _by_role(sequence["acl"], state).get(role, frozenset())
            for sequence in structure["sequences"]
            for role, granted in wanted.sequences.items()
        )
    )


def _by_role(acl: Iterable[tuple[str, str]], state: State) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for role, privilege in acl:
        if role in {"public", *state.granted}:
            found[role] = found.get(role, frozenset()) | {privilege}
    return found


def _has_lookup(step: Step, wanted: Lookup, state: State) -> bool:
    return any(
        is_lookup(function, wanted, state.types)
        for function in state.functions.get((step.target[0], step.name), ())
    )


def is_lookup(function: Facts, wanted: Lookup, names: dict[str, str | None]) -> bool:
    """Return whether *function* is the one that is *wanted*; *names* are PostgreSQL's of types."""
    key, *types = [names[name] for name in wanted.types]
    result = ", ".join(f"{name} {type_}" for name, type_ in zip(wanted.names, types, strict=True))
    return bool(
        function["arguments"] == f"key {key}"
        and function["result"] == f"TABLE({result})"
        and function["body"] == wanted.body
        and function["definer"]
        and function["volatile"] == "s"
        and function["config"] == _LOOKUP_CONFIG
        and function["owner"] == wanted.owner
        and {role for role, _ in function["acl"]} <= {wanted.owner, wanted.caller}
        and [wanted.caller, "EXECUTE"] in function["acl"]
    )
