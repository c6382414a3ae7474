"""Steps of a migration that are a transaction each, so that none holds the lock of another."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from textwrap import indent, wrap
from typing import TYPE_CHECKING, Any, ClassVar

from alembic.autogenerate import render_op_text, renderers
from alembic.operations import Operations
from alembic.util import CommandError

from tenantguard.integrations.alembic.operation import TenantOperation, send
from tenantguard.rls.generate import LOCK_TIMEOUT
from tenantguard.rls.names import plain_literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alembic.autogenerate.api import AutogenContext
    from alembic.runtime.migration import MigrationContext

__all__ = ["OwnStep", "OwnTransaction", "RefuseDowngrade", "own_transaction"]

_WIDTH = 92
_SET = "SELECT pg_catalog.set_config({}, {}, true)"
_KEPT = "'tenantguard.lock_timeout'"


@Operations.register_operation("own_transaction")
class OwnTransaction:
    """`op.own_transaction`."""

    @classmethod
    def own_transaction(cls, operations: Operations, *, lock_timeout: str = LOCK_TIMEOUT) -> Any:
        """Commit what the migrations have done so far, and run the block in a new transaction.

        A lock is waited for *lock_timeout*, such as "3s". The next such block commits this one; the
        last is committed with the migration's own mark, so what was ended in between is run again.

        Raises:
            CommandError: If `env.py` runs migrations inside of a transaction that is not Alembic's.
        """
        return own_transaction(operations.migration_context, lock_timeout)


@contextmanager
def own_transaction(context: MigrationContext, lock_timeout: str = LOCK_TIMEOUT) -> Iterator[None]:
    """Commit, and run the block in a new transaction that waits *lock_timeout* for a lock."""
    _require_own(context)
    _commit(context)
    send(context, _SET.format(_KEPT, "pg_catalog.current_setting('lock_timeout')"))
    send(context, _SET.format("'lock_timeout'", plain_literal(lock_timeout)))
    yield
    send(context, _SET.format("'lock_timeout'", f"pg_catalog.current_setting({_KEPT})"))


def _commit(context: MigrationContext) -> None:
    # Such a block commits what was before it, and begins anew behind it.
    with context.autocommit_block():
        pass


def _require_own(context: MigrationContext) -> None:
    # Alembic's own test of it is an assertion without words.
    if not context.as_sql and getattr(context, "_transaction", None) is None:
        raise CommandError(
            "op.own_transaction() commits, and the transaction that is open is not Alembic's. Let "
            "env.py call context.begin_transaction() on a connection without one."
        )


@dataclass
class OwnStep(TenantOperation):
    """What autogenerate writes as a comment and a block of its own.

    Attributes:
        what: What it does.
        lock: The lock that it takes on the table, and for how long.
        operations: They, in order.
        alone: Whether PostgreSQL refuses them in a transaction.
        several: Whether the operations begin and end transactions themselves.
    """

    verb: ClassVar[str] = "own_transaction"

    what: str
    lock: str
    operations: Sequence[TenantOperation]
    alone: bool = field(default=False, kw_only=True)
    several: bool = field(default=False, kw_only=True)

    def statements(self) -> Iterator[str]:
        """Yield the statements of all."""
        for each in self.operations:
            yield from each.statements()


@dataclass
class RefuseDowngrade(TenantOperation):
    """What is written as a downgrade that cannot be."""

    verb: ClassVar[str] = "refuse_downgrade"

    message: str

    def statements(self) -> Iterator[str]:
        """Yield nothing."""
        yield from ()


@renderers.dispatch_for(OwnStep)
def _render_step(autogen_context: AutogenContext, step: OwnStep) -> str:
    prefix = autogen_context.opts["alembic_module_prefix"] or ""
    block = f"{prefix}own_transaction(lock_timeout={LOCK_TIMEOUT!r})"
    if step.alone:
        block = f"{prefix}get_context().autocommit_block()"
    lines = [line for text in (f"{step.what}.", f"Lock: {step.lock}.") for line in _wrapped(text)]
    body = "\n".join(render_op_text(autogen_context, each) for each in step.operations)
    steps = [body] if step.several else [f"with {block}:", indent(body, "    ")]
    return "\n".join([*(f"# {line}" for line in lines), *steps])


@renderers.dispatch_for(RefuseDowngrade)
def _render_refusal(autogen_context: AutogenContext, refusal: RefuseDowngrade) -> str:
    del autogen_context
    lines = wrap(refusal.message, _WIDTH - 12, drop_whitespace=False)
    return "\n".join(["raise NotImplementedError(", *(f"    {each!r}" for each in lines), ")"])


def _wrapped(text: str) -> list[str]:
    return wrap(text[0].upper() + text[1:], _WIDTH - 6, break_long_words=False)
