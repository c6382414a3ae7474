"""A migration as a script with comments."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from tenantguard.migrate.steps import MigrationStep, migration
from tenantguard.rls.generate import LOCK_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Catalog, Roles

__all__ = ["sql"]

_HEAD = """\
-- Gives {table} its tenant column. Review it, then run it step by step as the tables' owner,
-- with autocommit (psql's default): CREATE INDEX CONCURRENTLY refuses a transaction.
-- {roles}
-- Tables that this one refers to come first. Foreign keys of other tables to this one are added by
-- their own scripts, or by `tenantguard rls apply`, which comes last and completes what is missing.
-- A step that fails changes nothing and can be repeated; later steps rely on it.
"""


_MUST_EXIST = "The roles that it names must exist: `tenantguard rls roles --apply` creates them."
_CREATED = "Step 1 creates the roles that it names, unless they exist."


def sql(
    catalog: Catalog,
    roles: Roles,
    table: str,
    *,
    from_parent: str | None = None,
    create_roles: bool = False,
) -> str:
    """Return the commented script that gives *table* its tenant column.

    Each step says which lock it takes and whether it runs in a transaction.

    Raises:
        ConfigurationError: As `migration`.
    """
    steps = migration(catalog, roles, table, from_parent=from_parent, create_roles=create_roles)
    head = _HEAD.format(
        table=" ".join(table.split()), roles=_CREATED if create_roles else _MUST_EXIST
    )
    return "\n".join([head, *(_block(number, step) for number, step in enumerate(steps, 1))])


def _block(number: int, step: MigrationStep) -> str:
    where = "in a transaction" if step.transaction else "outside a transaction"
    lines = [
        *_comment(f"Step {number}. {step.title}."),
        *_comment(f"Lock: {step.lock}."),
        *_comment(f"Runs {where}."),
        *(f"{line};" for line in _framed(step)),
    ]
    return "\n".join(lines) + "\n"


def _framed(step: MigrationStep) -> list[str]:
    if not step.transaction:
        return list(step.statements)
    settings = [f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"]
    if step.guarded:
        settings.append("SET LOCAL row_security = off")
    return ["BEGIN", *settings, *step.statements, "COMMIT"]


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(" ".join(text.split()), width=94, break_long_words=False):
        yield f"-- {line}"
