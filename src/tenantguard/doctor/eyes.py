"""Reading all tenants' rows, or knowing that one does not.

Under FORCE the tables' owner sees no rows and is told nothing of it, so a count as the owner would
be a wrong zero. A role is chosen that policies do not restrict, its sight is asked of PostgreSQL
for each table, and `row_security = off` turns what would still be hidden into an error.
"""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from tenantguard.doctor.subject import (
    Absence,
    CouldNotLookError,
    is_refused,
    present,
    unreachable,
)
from tenantguard.rls.generate import LOCK_TIMEOUT
from tenantguard.rls.names import literal, quote
from tenantguard.rls.state import as_recordset, ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tenantguard.doctor.subject import Subject
    from tenantguard.rls.state import Run
    from tenantguard.rls.step import Target

__all__ = ["Eyes", "hidden_reason", "members_question", "not_seen_whole"]

_PREAMBLE = ("SET TRANSACTION READ ONLY", f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")

_NAMED = 5
"""So many hidden tables are named; the others are counted."""


class Eyes:
    """Transactions in which all rows of *targets* are seen, except of those in `hidden`.

    Raises:
        CouldNotLookError: If there is no admin address, or it cannot be reached.
    """

    def __init__(self, subject: Subject, targets: Iterable[Target]) -> None:
        self._engine = present(subject.admin)
        self._targets = set(targets)
        self._role: str | None = None
        try:
            candidates = self._candidates(subject)
            hidden = {role: self._hidden_from(role) for role in candidates}
        except DBAPIError as error:
            reason = unreachable(error, "admin")
            if is_refused(error):
                subject.admin = Absence(reason)
            raise CouldNotLookError(reason) from None
        self._role = min(candidates, key=lambda role: len(hidden[role]))
        self.hidden = hidden[self._role]

    def missed(self) -> list[str]:
        """Return the reason why tables are hidden, if any are."""
        return [hidden_reason(self.hidden)] if self.hidden else []

    @contextmanager
    def transaction(self) -> Iterator[Run]:
        """Yield a function that runs SQL in a read-only transaction, which is rolled back."""
        with self._engine.connect() as connection:

            def run(statement: str) -> Sequence[Any]:
                result = connection.exec_driver_sql(
                    statement, execution_options={"no_parameters": True}
                )
                return result.fetchall() if result.returns_rows else ()

            for statement in (*_PREAMBLE, *_as(self._role)):
                run(statement)
            try:
                yield run
            finally:
                connection.rollback()

    def _candidates(self, subject: Subject) -> list[str | None]:
        wanted = (subject.roles.backup, subject.roles.maintenance)
        with self.transaction() as run:
            member_of = {name for [name] in run(members_question(wanted))}
        return [None, *(role for role in wanted if role in member_of)]

    def _hidden_from(self, role: str | None) -> set[Target]:
        self._role = role
        try:
            with self.transaction() as run:
                answer = ask(run, not_seen_whole(sorted(self._targets)))
        except DBAPIError:
            # A member that may not SET ROLE sees nothing that way.
            if role is None:
                raise
            return self._targets
        return {(schema, name) for schema, name in answer}


def _as(role: str | None) -> tuple[str, ...]:
    # A role that sees all by its own policy is one that policies restrict: off would be an error.
    return ("SET LOCAL row_security = off",) if role is None else (f"SET LOCAL ROLE {quote(role)}",)


def hidden_reason(hidden: Iterable[Target]) -> str:
    """Return why rows of the tables *hidden* cannot be counted, and what to do."""
    names = [".".join(target) for target in sorted(hidden)]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        f"Policies or missing privileges hide rows of {', '.join(names[:_NAMED])}{more} from the "
        "role of the admin address. Give the address of a superuser, or of a login that is granted "
        "the backup or the maintenance role."
    )


def members_question(roles: Iterable[str]) -> str:
    """Return the question for those of *roles* that the current role is a member of."""
    return (
        "SELECT r.rolname FROM pg_catalog.pg_roles r "
        f"WHERE r.rolname IN ({', '.join(map(literal, roles))}) "
        "AND pg_catalog.pg_has_role(r.oid, 'MEMBER')"
    )


def not_seen_whole(targets: list[Target]) -> str:
    """Return the question for those of *targets* of which the current role may miss rows."""
    wanted = as_recordset(({"s": s, "t": t} for s, t in targets), "s text, t text")
    applies = (
        "EXISTS (SELECT FROM unnest(p.polroles) g(oid) WHERE g.oid = 0 OR "
        "CASE WHEN g.oid <> 0 THEN pg_catalog.pg_has_role(g.oid, 'USAGE') END)"
    )
    policies = (
        "SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = k.oid AND p.polcmd IN ('r', '*') "
        f"AND {applies}"
    )
    return f"""
    SELECT coalesce(json_agg(json_build_array(w.s, w.t)), '[]')::text
    FROM {wanted}
    JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
    JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t
    WHERE NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE')
        OR NOT pg_catalog.has_table_privilege(k.oid, 'SELECT')
        OR (pg_catalog.row_security_active(k.oid) AND (
            pg_catalog.current_setting('row_security') = 'off'
            OR NOT EXISTS ({policies} AND p.polpermissive
                AND pg_catalog.pg_get_expr(p.polqual, p.polrelid) = 'true')
            OR EXISTS ({policies} AND NOT p.polpermissive)))"""
