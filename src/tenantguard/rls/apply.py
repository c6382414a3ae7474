"""Bring a database to what the models ask for."""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from tenantguard.errors import (
    LOCK_NOT_AVAILABLE,
    ConfigurationError,
    CrossTenantError,
    TenantGuardError,
    sqlstate,
)
from tenantguard.rls.generate import LOCK_TIMEOUT, entries, preamble, transactions
from tenantguard.rls.names import qualified, quote, target_of
from tenantguard.rls.plan import missing_roles, plan
from tenantguard.rls.step import Derived, Key, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from tenantguard.catalog import Catalog, Roles
    from tenantguard.rls.step import Step, Target

    Progress = Callable[[int, int, Step], None]
    Names = dict[Target, str]

__all__ = ["apply", "apply_roles"]

_SUPERUSERS = {Kind.ROLE, Kind.SEARCH_TRIGGER}
"""What others than the tables' owner may have made; a superuser hands it over."""

_DEADLOCK = "40P01"
_FOREIGN_KEY_VIOLATION = "23503"
_NOT_NULL_VIOLATION = "23502"
_CHECK_VIOLATION = "23514"
_INSUFFICIENT_PRIVILEGE = "42501"

# Classes of errors whose message speaks of names, and never of rows.
_WITHOUT_VALUES = ("0A", "2B", "3F", "42", "55")


def apply(
    engine: Engine,
    catalog: Catalog,
    roles: Roles,
    *,
    create_roles: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    attempts: int = 5,
) -> list[Step]:
    """Make what is missing in *engine*'s database and return the steps that were taken.

    Each table has transactions of its own, so that an interrupted run is finished by the next one.
    If all is there already, nothing is sent but questions.

    Args:
        engine: Of the tables' owner or a superuser.
        catalog: The application's tables.
        roles: The roles to grant to.
        create_roles: Create those of *roles* that do not exist. Passwords are never set.
        dry_run: Return the steps without taking them.
        progress: Called after each step with how many are done, how many there are, and the step.
        attempts: How often a transaction that cannot get its lock within 3 seconds is tried.

    Raises:
        ConfigurationError: As `plan`, or if the engine's role may not do it.
        CrossTenantError: If rows point at another tenant's rows already.
        TenantGuardError: If a table stays locked.
    """
    with engine.connect() as connection:
        steps = plan(connection, catalog, roles, create_roles=create_roles)
    if dry_run:
        return steps
    names = {target_of(entry): entry.fullname for entry in entries(catalog)}
    done = 0
    for group in transactions(steps):
        _commit(engine, group, names, attempts)
        for step in group:
            done += 1
            if progress is not None:
                progress(done, len(steps), step)
    return steps


def apply_roles(engine: Engine, roles: Roles, *, attempts: int = 5) -> list[Step]:
    """Create those of *roles* that do not exist, and return the steps that were taken.

    Tables play no part in it, so it works before any of them is classified. All roles are created
    in one transaction; passwords are never set.

    Args:
        engine: Of a superuser.
        roles: The roles to create.
        attempts: As `apply`.

    Raises:
        ConfigurationError: If the engine's role may not create them.
        TenantGuardError: If the roles stay locked.
    """
    with engine.connect() as connection:
        steps = missing_roles(connection, roles)
    for group in transactions(steps):
        _commit(engine, group, {}, attempts)
    return steps


def _commit(engine: Engine, group: list[Step], names: Names, attempts: int) -> None:
    for attempt in range(1, attempts + 1):
        try:
            _run(engine, group, names)
        except _LockedError:
            if attempt < attempts:
                time.sleep(0.1 * 2**attempt)
        else:
            return
    raise TenantGuardError(
        f"{group[0].table or 'The cluster'} stayed locked by other transactions ({attempts} "
        f"attempts of {LOCK_TIMEOUT}); nothing was changed there. "
        "Run the command again at a quieter time."
    )


def _run(engine: Engine, group: list[Step], names: Names) -> None:
    options = {"no_parameters": True}
    with engine.begin() as connection:
        for statement in preamble(group[0].phase):
            connection.exec_driver_sql(statement, execution_options=options)
        for step in group:
            try:
                for statement in step.up:
                    connection.exec_driver_sql(statement, execution_options=options)
            except DBAPIError as error:
                # The driver's error shows rows; what follows shows names.
                raise _translated(error, step, names) from None


class _LockedError(TenantGuardError):
    """A lock was not to be had in time."""


def _translated(error: DBAPIError, step: Step, names: Names) -> TenantGuardError:
    original: Any = error.orig
    code = sqlstate(error) or "unknown"
    if code in {LOCK_NOT_AVAILABLE, _DEADLOCK}:
        return _LockedError(step.table)
    if code == _FOREIGN_KEY_VIOLATION and isinstance(step.wanted, Key):
        return _crossing(step, step.wanted)
    if code == _NOT_NULL_VIOLATION and step.kind is Kind.NOT_NULL:
        name = names[step.target]
        return ConfigurationError(
            f"Table {name} has rows without a tenant, so {step.name} cannot be NOT NULL. NULL "
            "never means all tenants: rows for all of them belong into a table of their own, "
            f"declared in shared=. `tenantguard migrate sql {name}` prints the steps that fill the "
            "others."
        )
    if code == _CHECK_VIOLATION and isinstance(step.wanted, Derived):
        return _of_another_format(step, step.wanted)
    if code == _INSUFFICIENT_PRIVILEGE:
        who = "a superuser" if step.kind in _SUPERUSERS else "the tables' owner or as a superuser"
        return ConfigurationError(
            f"The role of the admin address may not make {step}: {_primary(original, code)}. "
            f"Connect as {who}."
        )
    return ConfigurationError(f"PostgreSQL refused {step} ({code}): {_primary(original, code)}.")


def _primary(original: Any, code: str) -> str:
    message = getattr(getattr(original, "diag", None), "message_primary", None)
    return str(message) if message and code[:2] in _WITHOUT_VALUES else type(original).__name__


def _of_another_format(step: Step, wanted: Derived) -> ConfigurationError:
    if wanted.kept:
        return ConfigurationError(
            f"Table {step.table} has rows in which {wanted.column!r} is not filled yet, which "
            "searches would miss: they were written before the trigger was there. Run `tenantguard "
            f"encrypt rewrite {step.table}.{wanted.source}`, which fills it, then this again"
        )
    values = (
        "without a blind index for each search, which that would not find: they were written "
        "before the column was searchable, or searched so, or not by tenantguard. No value was "
        "changed. `tenantguard encrypt rewrite` seals them anew (docs/rls.md), or empty them"
        if wanted.searched
        else "that tenantguard did not write. Nothing was changed in it. Encrypt or empty them"
    )
    return ConfigurationError(
        f"Table {step.table} has values in the encrypted column {wanted.source!r} {values}. Find "
        f"them with: SELECT * FROM {qualified(step.target)} WHERE NOT ({wanted.expression})"
    )


def _crossing(step: Step, key: Key) -> CrossTenantError:
    child, parent = qualified(step.target), qualified(key.parent or step.target)
    pairs = list(zip(key.columns, key.parent_columns, strict=True))
    if len(pairs) == 1:
        own, theirs = pairs[0]
        return CrossTenantError(
            f"Table {step.table} holds rows of tenants that the registry does not have "
            f"(constraint {step.name}). Find them with: SELECT * FROM {child} c WHERE NOT EXISTS "
            f"(SELECT FROM {parent} p WHERE p.{quote(theirs)} = c.{quote(own)})"
        )
    on = " AND ".join(f"c.{quote(own)} = p.{quote(theirs)}" for own, theirs in pairs[1:])
    own, theirs = pairs[0]
    return CrossTenantError(
        f"Table {step.table} holds rows that point at another tenant's rows "
        f"(constraint {step.name}). Nothing was changed in it. Find them with: SELECT c.* "
        f"FROM {child} c JOIN {parent} p ON {on} "
        f"WHERE c.{quote(own)} IS DISTINCT FROM p.{quote(theirs)}"
    )
