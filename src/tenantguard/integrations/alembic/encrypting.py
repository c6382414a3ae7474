"""Operations by which an encrypted column takes a plain one's place, and gives it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tenantguard.integrations.alembic.operation import OfTable, TenantOperation, operation
from tenantguard.rls.names import do_block, plain_literal, qualified, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DropOwnIndex", "RestoreNotNull", "RunSql", "ValidateOrDropCheck"]


@operation
@dataclass
class RunSql(TenantOperation):
    """Run one statement exactly as it is written: colons and per cent signs mean nothing else."""

    verb: ClassVar[str] = "run_sql"

    sql: str

    def statements(self) -> Iterator[str]:
        """Yield it."""
        yield self.sql


@operation
@dataclass
class DropOwnIndex(OfTable):
    """Drop the index *name* if it is there and is the table's, such as one half made."""

    verb: ClassVar[str] = "drop_own_index"

    name: str

    def statements(self) -> Iterator[str]:
        """Yield what drops it."""
        index = qualified((self.schema, self.name))
        yield do_block(
            "BEGIN\n"
            "    IF EXISTS (SELECT FROM pg_catalog.pg_index\n"
            f"            WHERE indexrelid = pg_catalog.to_regclass({plain_literal(index)})\n"
            f"            AND indrelid = {plain_literal(self.on)}::regclass) THEN\n"
            f"        DROP INDEX {index};\n"
            "    END IF;\n"
            "END"
        )


@operation
@dataclass
class ValidateOrDropCheck(OfTable):
    """Validate the check *name*; if a row does not fulfil it, drop it, so that it refuses nothing.

    `require_sealed` in the next transaction then stops.
    """

    verb: ClassVar[str] = "validate_or_drop_check"

    name: str

    def statements(self) -> Iterator[str]:
        """Yield the block."""
        alter = f"ALTER TABLE {self.on}"
        yield do_block(
            "BEGIN\n"
            f"    {alter} VALIDATE CONSTRAINT {quote(self.name)};\n"
            "EXCEPTION WHEN check_violation THEN\n"
            f"    {alter} DROP CONSTRAINT {quote(self.name)};\n"
            "END"
        )


@operation
@dataclass
class RestoreNotNull(OfTable):
    """Demand a value of every row again, or warn where rows have none."""

    verb: ClassVar[str] = "restore_not_null"

    column: str

    def statements(self) -> Iterator[str]:
        """Yield the block."""
        said = "tenantguard: rows are without plaintext, so its column does not become NOT NULL"
        yield do_block(
            "BEGIN\n"
            f"    ALTER TABLE {self.on} ALTER COLUMN {quote(self.column)} SET NOT NULL;\n"
            "EXCEPTION WHEN not_null_violation THEN\n"
            f"    RAISE WARNING USING MESSAGE = {plain_literal(said)};\n"
            "END"
        )
