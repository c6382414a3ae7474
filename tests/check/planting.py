"""Planting a fault into a clean database: its rule finds it, and not what only looks like it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from tenantguard.check import RULES, Subject, examine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from locks import World
    from sqlalchemy import Connection

    from tenantguard.findings import Result

RULE = {rule.id: rule for rule in RULES}


@dataclass(frozen=True, slots=True)
class Plant:
    """A fault in SQL, and what looks like it and is none.

    Both may name roles: `{application}`, `{owner}`, `{maintenance}`, `{support}`, `{backup}`.

    Attributes:
        rule: The id of the rule that finds it.
        fault: Run by a superuser in the clean database.
        at: The object that the finding names.
        fine: The same in its harmless form; nothing may be found.
        label: Tells two plants of one rule apart.
        column: The column that the finding names, if it names one.
    """

    rule: str
    fault: str
    at: str | None
    fine: str
    label: str = ""
    column: str | None = None

    def __str__(self) -> str:
        return f"{self.rule}{' ' if self.label else ''}{self.label}"

    def is_found(self, world: World) -> None:
        """Fail unless the rule finds the fault where it is, and nothing else of its own."""
        with planted(world, self.fault) as subject:
            result = examine(subject, [RULE[self.rule]])
        assert result.unseen == ()
        assert {(each.code, each.object) for each in result.findings} == {(self.rule, self.at)}
        assert {each.column for each in result.findings} == {self.column}

    def is_not_found(self, world: World) -> None:
        """Fail if the rule finds anything in what is harmless."""
        with planted(world, self.fine) as subject:
            result = examine(subject, [RULE[self.rule]])
        assert result.unseen == ()
        assert result.findings == ()


@contextmanager
def planted(world: World, script: str) -> Iterator[Subject]:
    """Yield the database of *world* with *script* run in it; it is as before afterwards."""
    roles = world.guard.roles
    names = {
        each: getattr(roles, each)
        for each in ("application", "owner", "maintenance", "support", "backup")
    }
    for name, role in names.items():
        script = script.replace(f"{{{name}}}", role)
    with world.admin.connect() as connection:
        if script:
            connection.execute(text(script.replace(":", "\\:")))
        yield subject_of(world, connection)
        connection.rollback()


def subject_of(world: World, connection: Connection) -> Subject:
    def run(statement: str) -> object:
        with connection.begin_nested():
            result = connection.exec_driver_sql(
                statement, execution_options={"no_parameters": True}
            )
            return result.fetchall() if result.returns_rows else ()

    return Subject(world.guard.catalog, roles=world.guard.roles, run=run)  # type: ignore[arg-type]


def found(result: Result) -> set[tuple[str, str | None]]:
    return {(each.code, each.object) for each in result.findings}
