"""Having a rule's questions asked by a role that sees the rows of all tenants."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from tenantguard.check.subject import NoDatabaseError
from tenantguard.doctor.eyes import members_question, not_seen_whole
from tenantguard.doctor.subject import CouldNotLookError
from tenantguard.rls.names import literal
from tenantguard.rls.state import ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tenantguard.check.subject import Subject
    from tenantguard.rls.state import Run
    from tenantguard.rls.step import Target

__all__ = ["as_role", "seeing", "settings"]


@contextmanager
def settings(run: Run, wanted: Mapping[str, str]) -> Iterator[None]:
    """Have *wanted* set within the block, and what was set before it afterwards."""
    before = {
        name: run(f"SELECT pg_catalog.current_setting({literal(name)}, true)")[0][0]
        for name in wanted
    }
    try:
        for name, value in wanted.items():
            _set(run, name, value)
        yield
    finally:
        for name, value in reversed(before.items()):
            _set(run, name, value or "")


@contextmanager
def as_role(run: Run, role: str) -> Iterator[None]:
    """Be *role* within the block.

    Raises:
        CouldNotLookError: If the role of the address may not be it.
    """
    with settings(run, {"role": "none"}):
        try:
            _set(run, "role", role)
        except DBAPIError:
            raise CouldNotLookError(
                f"The role of the address cannot act as {role!r}. Give the address of a superuser, "
                "or of a login that is granted that role."
            ) from None
        yield


@contextmanager
def seeing(subject: Subject, targets: set[Target]) -> Iterator[tuple[Run, set[Target]]]:
    """Be the role that sees most of *targets* within the block; yield those that it misses, too.

    What is hidden from it is an error then and no wrong zero.

    Raises:
        NoDatabaseError: If only the models are looked at.
    """
    run = subject.run
    if run is None:
        raise NoDatabaseError
    wanted = (subject.roles.backup, subject.roles.maintenance)
    roles = ["none", *(name for [name] in run(members_question(wanted)))]
    hidden = {role: _hidden_from(run, role, targets) for role in roles}
    role = min(roles, key=lambda each: len(hidden[each]))
    with settings(run, _sight(role)):
        yield run, hidden[role]


def _hidden_from(run: Run, role: str, targets: set[Target]) -> set[Target]:
    try:
        with settings(run, _sight(role)):
            answer = ask(run, not_seen_whole(sorted(targets)))
    except DBAPIError:
        # A member that may not SET ROLE sees nothing that way.
        return targets
    return {(schema, name) for schema, name in answer}


def _sight(role: str) -> dict[str, str]:
    # A role that sees all by its own policy is one that policies restrict: off would be an error.
    return {"row_security": "off"} if role == "none" else {"role": role}


def _set(run: Run, name: str, value: str) -> None:
    run(f"SELECT pg_catalog.set_config({literal(name)}, {literal(value)}, true)")
