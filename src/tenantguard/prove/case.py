"""A table with a row of each of two tenants, and what the application gets to see of them."""

# ruff: noqa: S608  (statements are put together from quoted names and escaped literals)

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from tenantguard.rls.names import literal, qualified, quote

if TYPE_CHECKING:
    from tenantguard.prove.invent import Inventor, Row
    from tenantguard.prove.session import Refusal, Reply, Session
    from tenantguard.prove.shape import Table

__all__ = ["NOTHING", "REACHED", "REFUSED", "Case", "Seen", "What"]

_INSUFFICIENT_PRIVILEGE = "42501"
_INTEGRITY = "23"


class What(Enum):
    """What an act came to."""

    NOTHING = "nothing"
    REFUSED = "refused"
    REACHED = "reached"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Seen:
    """What an act came to, and the error where that says neither yes nor no."""

    what: What
    refusal: Refusal | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing of the other tenant was seen or changed."""
        return self.what in (What.NOTHING, What.REFUSED)


NOTHING, REFUSED, REACHED = Seen(What.NOTHING), Seen(What.REFUSED), Seen(What.REACHED)


@dataclass(frozen=True, slots=True)
class Case:
    """Tenants *a* and *b* with a row each; *column* says whose a row is. *a* is the one that tries.

    Attributes:
        stranger: A tenant without rows; whatever its statements meet is another's.
        tables: The tables that keep the rows: the table itself, or those that a view reads.
    """

    session: Session
    table: Table
    column: str
    a: str
    b: str
    stranger: str
    row_a: Row
    row_b: Row
    inventor: Inventor
    tables: tuple[Table, ...]

    @property
    def name(self) -> str:
        """The table's name in SQL."""
        return qualified(self.table.target)

    def owned_by(self, tenant: str) -> str:
        """Return the condition that a row is *tenant*'s."""
        return f"{quote(self.column)} = {literal(tenant)}"

    def is_row(self, row: Row) -> str:
        """Return the condition that finds *row* by its key."""
        names = self.table.primary or (self.column,)
        return " AND ".join(f"{quote(name)} = {row.values[name]}" for name in names)

    def written(self, row: Row) -> dict[str, str]:
        """Return the values of *row* that a statement may give."""
        generated = [each.name for each in self.table.columns.values() if each.generated]
        return {name: value for name, value in row.values.items() if name not in generated}

    def asks(self, question: str) -> Seen:
        """Return whether *a* is told "true" at the end of *question*."""
        reply = self.session.attempt_as(self.a, question)
        return judged(reply, reached=bool(reply.rows and reply.rows[0][0]))

    def reads(self, condition: str, where: str = "", *, tenant: str | None = None) -> Seen:
        """Return whether *tenant*, or *a*, reads a row with *condition*."""
        question = (
            f"SELECT coalesce(bool_or({condition}), false) FROM {self.name}"
            f"{' WHERE ' + where if where else ''}"
        )
        reply = self.session.attempt_as(self.a if tenant is None else tenant, question)
        return judged(reply, reached=bool(reply.rows and reply.rows[0][0]))

    def writes(self, statement: str, *, tenant: str | None = None, of: str | None = None) -> Seen:
        """Return whether *tenant*, or *a*, changes rows of tenant *of*, or of *b*."""
        victim = self.b if of is None else of
        before = self._print(victim)
        reply = self.session.attempt_as(self.a if tenant is None else tenant, statement)
        if reply.error is not None:
            return judged(reply, reached=reply.error.state.startswith(_INTEGRITY))
        return judged(reply, reached=self._print(victim) != before)

    def sweeps(self, statement: str) -> Seen:
        """Return whether *statement*, which has no WHERE, changes rows of *b*.

        Where *a*'s own row cannot be changed, because another refers to it say, the stranger tries.
        """
        with self.session.undone():
            seen = self._sweeps(statement, self.a)
        if seen.refusal is None:
            return seen
        seen = self._sweeps(statement, self.stranger)
        return seen if seen.refusal is None else REACHED

    def _sweeps(self, statement: str, tenant: str) -> Seen:
        before = self._print(self.b)
        reply = self.session.attempt_as(tenant, statement)
        if reply.error is not None:
            return judged(reply, reached=False)
        returned = any(row[0] for row in reply.rows)
        return judged(reply, reached=returned or self._print(self.b) != before)

    def _print(self, tenant: str) -> str:
        """Return what changes when any row of *tenant* does."""
        return str(
            self.session.one_as_admin(
                "SELECT coalesce(md5(string_agg(concat(tableoid, ctid, xmin), ',' "
                f"ORDER BY tableoid, ctid)), '') FROM {self.name} WHERE {self.owned_by(tenant)}"
            )
        )


def judged(reply: Reply, *, reached: bool) -> Seen:
    """Return what *reply* says; a violated constraint comes after the policies let pass."""
    if reached:
        return REACHED
    if reply.error is None:
        return NOTHING
    if reply.error.state == _INSUFFICIENT_PRIVILEGE:
        return REFUSED
    return Seen(What.UNCLEAR, reply.error)
