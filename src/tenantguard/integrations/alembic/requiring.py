"""Operations that stop where a migration of plaintext would lose values.

A migration has no keys and compares nothing: what has to hold of the rows, a check holds, which
PostgreSQL looks at below policies.
"""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from alembic.operations import Operations

from tenantguard.integrations.alembic.operation import (
    OfTable,
    flagged,
    operation,
    send,
)
from tenantguard.rls.names import do_block, object_name, plain_literal, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["UNCOMPARED", "RequirePlaintext", "RequireSealed", "RequireTriggers"]

UNCOMPARED = "tenantguard: the plaintext is from before a contract, and was not compared since"
"""The comment of a trigger whose plain column was away for a time."""

_FLAG = "allow_loss"
_FIRST = (
    "Run `tenantguard encrypt expand`, or apply the revision that it writes. Where `contract` was "
    "run by hand already, `alembic stamp` this revision."
)
_NO_TRIGGERS = (
    "tenantguard: the triggers that keep plaintext and sealed value together are not there, or "
    "disabled, so nothing says that what is sealed is what was written last"
)
_SEAL = (
    "Run `tenantguard encrypt backfill` and `tenantguard encrypt verify` with this database, once "
    "every application writes sealed values; then run the migration again. Nothing was dropped."
)
_LOST = "tenantguard: rows have a sealed value and no plaintext, which would be lost"
_BACK = (
    "Run `tenantguard encrypt backfill --decrypt` and `tenantguard encrypt verify` first. To lose "
    f"the values, run it with `alembic -x {_FLAG}=true`."
)
_STALE = (
    "tenantguard: the plaintext was put away by a contract with --keep and is back; what was "
    "sealed meanwhile may be newer, and would be lost"
)
_COMPARE = (
    "Run `tenantguard encrypt verify`: if it holds, nothing is lost, and you can run this with "
    f"`alembic -x {_FLAG}=true`."
)


@dataclass
class _WithTriggers(OfTable):
    triggers: Sequence[str] = field(kw_only=True)

    def _without_triggers(self, more: str = "") -> str:
        """Return what stops unless all triggers are there and enabled."""
        names = ", ".join(plain_literal(each) for each in self.triggers)
        return (
            "    IF (SELECT count(*) FROM pg_catalog.pg_trigger\n"
            f"            WHERE tgrelid = {plain_literal(self.on)}::regclass\n"
            f"            AND tgname IN ({names}) AND tgenabled IN ('O', 'A'){more}\n"
            f"        ) <> {len(self.triggers)} OR EXISTS (\n"
            "            SELECT FROM pg_catalog.pg_partition_tree("
            f"{plain_literal(self.on)}::regclass) d\n"
            "            JOIN pg_catalog.pg_trigger t ON t.tgrelid = d.relid\n"
            f"            WHERE t.tgname IN ({names}) AND t.tgenabled NOT IN ('O', 'A')) THEN\n"
            f"        {_raise(_NO_TRIGGERS, _FIRST)}\n"
            "    END IF;\n"
        )


@operation
@dataclass
class RequireTriggers(_WithTriggers):
    """Stop unless the *triggers* of a migration are there and enabled."""

    verb: ClassVar[str] = "require_triggers"

    def statements(self) -> Iterator[str]:
        """Yield the block."""
        yield do_block(f"BEGIN\n{self._without_triggers()}END")


@operation
@dataclass
class RequireSealed(_WithTriggers):
    """Stop unless the database itself holds that no row has plaintext without a sealed value.

    Attributes:
        table: The table.
        check: The name of the check that says so, which has to be validated.
        triggers: Those that have to be there still.
        schema: The table's schema.
    """

    verb: ClassVar[str] = "require_sealed"

    check: str

    def statements(self) -> Iterator[str]:
        """Yield the block."""
        said = "tenantguard: rows have no sealed value, so their plaintext stays"
        yield do_block(
            "BEGIN\n"
            "    IF NOT EXISTS (SELECT FROM pg_catalog.pg_constraint\n"
            f"            WHERE conrelid = {plain_literal(self.on)}::regclass\n"
            f"            AND conname = {plain_literal(self.check)} AND convalidated) THEN\n"
            f"        {_raise(said, _SEAL)}\n"
            "    END IF;\n"
            f"{self._without_triggers()}"
            "END"
        )


@operation
@dataclass
class RequirePlaintext(_WithTriggers):
    """Stop if dropping the encrypted column would lose values; *allow_loss* says why it may.

    Attributes:
        table: The table.
        plain: The column of plaintext.
        sealed: The encrypted column.
        triggers: Those that have kept the two together.
        allow_loss: Why values may be lost; `-x allow_loss=true` says it without a reason.
        schema: The table's schema.
    """

    verb: ClassVar[str] = "require_plaintext"

    plain: str
    sealed: str
    allow_loss: str = field(default="", kw_only=True)

    def statements(self) -> Iterator[str]:
        """Yield the block; the check scans all rows, below policies."""
        plain, sealed = quote(self.plain), quote(self.sealed)
        name = quote(object_name(self.table, self.sealed, "back"))
        alter = f"ALTER TABLE {self.on}"
        yield do_block(
            "BEGIN\n"
            f"{self._without_triggers()}{self._uncompared()}"
            f"    {alter} ADD CONSTRAINT {name} CHECK ({sealed} IS NULL OR {plain} IS NOT NULL);\n"
            f"    {alter} DROP CONSTRAINT {name};\n"
            "EXCEPTION WHEN check_violation THEN\n"
            f"    {_raise(_LOST, _BACK)}\n"
            "END"
        )

    def _uncompared(self) -> str:
        names = ", ".join(plain_literal(each) for each in self.triggers)
        return (
            "    IF EXISTS (SELECT FROM pg_catalog.pg_trigger\n"
            f"            WHERE tgrelid = {plain_literal(self.on)}::regclass\n"
            f"            AND tgname IN ({names})\n"
            "            AND pg_catalog.obj_description(oid, 'pg_trigger') =\n"
            f"                {plain_literal(UNCOMPARED)}) THEN\n"
            f"        {_raise(_STALE, _COMPARE)}\n"
            "    END IF;\n"
        )


@Operations.implementation_for(RequirePlaintext)
def _require_plaintext(operations: Operations, wanted: RequirePlaintext) -> None:
    context = operations.migration_context
    if wanted.allow_loss.strip() or flagged(context, _FLAG):
        return
    for statement in wanted.statements():
        send(context, statement)


def _raise(said: str, hint: str) -> str:
    return (
        f"RAISE EXCEPTION USING MESSAGE = {plain_literal(said)},\n            "
        f"HINT = {plain_literal(hint)};"
    )
