"""What all operations have in common: how they are run, written, compared and undone."""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from alembic.autogenerate import renderers
from alembic.operations import MigrateOperation, Operations
from alembic.util import CommandError

from tenantguard.rls.names import DEFAULT_SCHEMA, qualified, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from alembic.autogenerate.api import AutogenContext
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

    from tenantguard.rls.step import Target

__all__ = [
    "PUBLIC",
    "OfTable",
    "TenantOperation",
    "Unprotecting",
    "autocommits",
    "flagged",
    "grantees",
    "operation",
    "send",
]

FLAG = "allow_unprotected"
PUBLIC = "public"

_WIDTH = 88
_Made = TypeVar("_Made", bound="type[TenantOperation]")


@dataclass
class TenantOperation(MigrateOperation):  # type: ignore[misc, unused-ignore]
    """An operation that carries everything it needs, and never looks at today's models.

    Attributes:
        undo: What restores the state that the database had when the operation was written.
    """

    verb: ClassVar[str]

    undo: TenantOperation | None = field(default=None, repr=False, compare=False, kw_only=True)

    @classmethod
    def invoke(cls, operations: Operations, *args: Any, **kwargs: Any) -> None:
        """Run it, as `op` does."""
        operations.invoke(cls(*args, **kwargs))

    def statements(self) -> Iterator[str]:
        """Yield the SQL, in order."""
        raise NotImplementedError

    def reverse(self) -> MigrateOperation:
        """Return what restores the former state."""
        if self.undo is None:
            raise CommandError(
                f"op.{self.verb}() does not know what was there before. Write the downgrade by "
                "hand, or let `tenantguard rls revision` write both."
            )
        return self.undo

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """Return what `alembic check` shows."""
        return (self.verb, *(getattr(self, each.name) for each in _positional(self)))


@dataclass
class OfTable(TenantOperation):
    """An operation on a table of a schema."""

    table: str
    schema: str = field(default=DEFAULT_SCHEMA, kw_only=True)

    @property
    def target(self) -> Target:
        """Schema and name."""
        return (self.schema, self.table)

    @property
    def on(self) -> str:
        """The table, quoted and with its schema."""
        return qualified(self.target)


@dataclass
class Unprotecting(TenantOperation):
    """An operation that takes protection away; *allow_unprotected* is the reason why it may."""

    allow_unprotected: str = field(default="", kw_only=True)


def grantees(roles: Iterable[str]) -> str:
    """Return *roles* quoted and separated by commas; "public" is everybody."""
    return ", ".join("PUBLIC" if role == PUBLIC else quote(role) for role in roles)


def operation(made: _Made) -> _Made:
    """Register *made* on `op`, under its verb."""
    Operations.register_operation(made.verb, "invoke")(made)
    return made


def send(context: MigrationContext, statement: str) -> None:
    """Run *statement*, or write it where Alembic writes SQL."""
    if context.as_sql:
        context.impl.static_output(statement + context.impl.command_terminator)
    elif context.connection is not None:
        # Without parameters, drivers leave per cent signs alone.
        context.connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _refuse(what: str, reason: str, context: MigrationContext) -> None:
    """Raise a `CommandError`, unless *reason* or `-x allow_unprotected=true` allows *what*."""
    if not reason.strip() and not flagged(context, FLAG):
        raise CommandError(
            f"{what} takes protection from tenants' rows, and nothing says that it may. Run it "
            f"with `alembic -x {FLAG}=true …`, or give the operation {FLAG}='the reason'."
        )


def autocommits(connection: Connection) -> bool:
    """Return whether each statement on *connection* is a transaction of its own."""
    return bool(getattr(connection.connection.dbapi_connection, "autocommit", False))


def flagged(context: MigrationContext, flag: str) -> bool:
    """Return whether Alembic was run with `-x flag=true`."""
    environment = context.environment_context
    if environment is None:
        return False
    given = environment.get_x_argument(as_dictionary=True)
    return given.get(flag) == "true"


@Operations.implementation_for(TenantOperation)
def _run(operations: Operations, wanted: TenantOperation) -> None:
    context = operations.migration_context
    if isinstance(wanted, Unprotecting):
        names = ", ".join(repr(getattr(wanted, each.name)) for each in _positional(wanted))
        _refuse(f"op.{wanted.verb}({names})", wanted.allow_unprotected, context)
    for statement in wanted.statements():
        send(context, statement)


@renderers.dispatch_for(TenantOperation)
def _render(autogen_context: AutogenContext, wanted: TenantOperation) -> str:
    prefix = autogen_context.opts["alembic_module_prefix"] or ""
    arguments = [_literal(getattr(wanted, each.name), 4) for each in _positional(wanted)]
    arguments += [
        f"{each.name}={_literal(getattr(wanted, each.name), 4)}"
        for each in fields(wanted)
        if each.name != "undo" and each not in _positional(wanted) and _given(wanted, each)
    ]
    return _call(f"{prefix}{wanted.verb}", arguments)


def _positional(wanted: TenantOperation) -> list[Field[Any]]:
    return [each for each in fields(wanted) if not each.kw_only]


def _given(wanted: TenantOperation, each: Field[Any]) -> bool:
    return each.default is MISSING or getattr(wanted, each.name) != each.default


def _call(name: str, arguments: list[str]) -> str:
    line = f"{name}({', '.join(arguments)})"
    if len(line) <= _WIDTH and "\n" not in line:
        return line
    return "\n".join([f"{name}(", *(f"    {each}," for each in arguments), ")"])


def _literal(value: Any, indent: int) -> str:
    """Return *value* as Python; text of several lines stays one literal a line.

    Alembic indents what it writes, so a line break inside a literal would change the text.
    """
    items: list[str]
    if isinstance(value, str) and "\n" in value.rstrip("\n"):
        items = [repr(line) for line in value.splitlines(keepends=True)]
        return _block("(", items, ")", indent, separator="")
    if isinstance(value, dict):
        items = [f"{key!r}: {_literal(each, indent + 4)}" for key, each in value.items()]
        return _fitting("{", items, "}", indent)
    if isinstance(value, list | tuple):
        return _fitting("[", [_literal(each, indent + 4) for each in value], "]", indent)
    return repr(value)


def _fitting(begin: str, items: list[str], end: str, indent: int) -> str:
    line = f"{begin}{', '.join(items)}{end}"
    if len(line) + indent <= _WIDTH and "\n" not in line:
        return line
    return _block(begin, items, end, indent, separator=",")


def _block(begin: str, items: list[str], end: str, indent: int, *, separator: str) -> str:
    margin = " " * indent
    return "\n".join([begin, *(f"{margin}    {each}{separator}" for each in items), margin + end])
