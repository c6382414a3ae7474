"""Operations for indexes and keys that contain the tenant."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tenantguard.integrations.alembic.operation import OfTable, Unprotecting, operation
from tenantguard.rls.keys import lifted
from tenantguard.rls.names import DEFAULT_SCHEMA, column_list, qualified, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "CreateTenantForeignKey",
    "CreateTenantIndex",
    "CreateTenantKey",
    "DropTenantForeignKey",
    "DropTenantIndex",
    "DropTenantKey",
    "ValidateTenantForeignKey",
]


@dataclass
class _Named(OfTable):
    name: str


@operation
@dataclass
class CreateTenantKey(_Named):
    """Make a unique key that begins with the tenant, so that foreign keys can contain it.

    *replaces* says that an index of that name goes first.
    """

    verb: ClassVar[str] = "create_tenant_key"

    columns: Sequence[str]
    replaces: bool = field(default=False, kw_only=True)

    def statements(self) -> Iterator[str]:
        """Yield what makes it."""
        if self.replaces:
            yield f"DROP INDEX IF EXISTS {qualified((self.schema, self.name))}"
        columns = column_list(self.columns)
        yield f"ALTER TABLE {self.on} ADD CONSTRAINT {quote(self.name)} UNIQUE ({columns})"


@operation
@dataclass
class DropTenantKey(_Named):
    """Drop a unique key; *former* is the definition of the index that it replaced."""

    verb: ClassVar[str] = "drop_tenant_key"

    former: str | None = field(default=None, kw_only=True)

    def statements(self) -> Iterator[str]:
        """Yield what drops it, whether a constraint or an index alone."""
        yield f"ALTER TABLE {self.on} DROP CONSTRAINT IF EXISTS {quote(self.name)}"
        yield f"DROP INDEX IF EXISTS {qualified((self.schema, self.name))}"
        if self.former is not None:
            yield self.former


@operation
@dataclass
class CreateTenantIndex(CreateTenantKey):
    """Make an index that begins with the tenant; *replaces* as for keys."""

    verb: ClassVar[str] = "create_tenant_index"

    def statements(self) -> Iterator[str]:
        """Yield what makes it."""
        if self.replaces:
            yield f"DROP INDEX IF EXISTS {qualified((self.schema, self.name))}"
        table, columns = self.on, column_list(self.columns)
        yield f"CREATE INDEX {quote(self.name)} ON {table} ({columns})"


@operation
@dataclass
class DropTenantIndex(_Named):
    """Drop an index; *former* is the definition of the one that it replaced."""

    verb: ClassVar[str] = "drop_tenant_index"

    former: str | None = field(default=None, kw_only=True)

    def statements(self) -> Iterator[str]:
        """Yield what drops it."""
        yield f"DROP INDEX IF EXISTS {qualified((self.schema, self.name))}"
        if self.former is not None:
            yield self.former


@dataclass
class _OfForeignKey(_Named):
    parent_schema: str = field(default=DEFAULT_SCHEMA, kw_only=True)

    def _validate(self, parent: str) -> str:
        both = [self.target, (self.parent_schema, parent)]
        return lifted(both, f"ALTER TABLE {self.on} VALIDATE CONSTRAINT {quote(self.name)}")


@operation
@dataclass
class CreateTenantForeignKey(_OfForeignKey):
    """Make a foreign key and check it against all rows, also those that FORCE hides.

    Attributes:
        table: The table that refers.
        name: The constraint's name.
        columns: The table's columns.
        parent: The table that it refers to.
        parent_columns: That table's columns, in the same order.
        on_delete: What becomes of the row, such as "CASCADE" or 'SET NULL ("order_id")'.
        options: What else stands in the constraint, such as "DEFERRABLE".
        replaces: Whether a constraint of that name goes first.
        schema: The table's schema.
        parent_schema: The parent's schema.
    """

    verb: ClassVar[str] = "create_tenant_foreign_key"

    columns: Sequence[str]
    parent: str
    parent_columns: Sequence[str]
    on_delete: str = field(default="", kw_only=True)
    options: str = field(default="", kw_only=True)
    replaces: bool = field(default=False, kw_only=True)

    def statements(self) -> Iterator[str]:
        """Yield what adds it for new rows, and what checks the others."""
        if self.replaces:
            yield f"ALTER TABLE {self.on} DROP CONSTRAINT IF EXISTS {quote(self.name)}"
        on_delete = f" ON DELETE {self.on_delete}" if self.on_delete else ""
        parent = qualified((self.parent_schema, self.parent))
        yield (
            f"ALTER TABLE {self.on} ADD CONSTRAINT {quote(self.name)}\n"
            f"    FOREIGN KEY ({column_list(self.columns)})\n"
            f"    REFERENCES {parent} ({column_list(self.parent_columns)})"
            f"{on_delete}{self.options} NOT VALID"
        )
        yield self._validate(self.parent)


@operation
@dataclass
class ValidateTenantForeignKey(_OfForeignKey):
    """Check a foreign key against all rows, also those that FORCE hides."""

    verb: ClassVar[str] = "validate_tenant_foreign_key"

    parent: str

    def statements(self) -> Iterator[str]:
        """Yield what checks it."""
        yield self._validate(self.parent)


@operation
@dataclass
class DropTenantForeignKey(_Named, Unprotecting):
    """Drop a foreign key; *former* is the definition of the one that was there before."""

    verb: ClassVar[str] = "drop_tenant_foreign_key"

    former: str | None = field(default=None, kw_only=True)

    def statements(self) -> Iterator[str]:
        """Yield what drops it, and adds the former."""
        yield f"ALTER TABLE {self.on} DROP CONSTRAINT IF EXISTS {quote(self.name)}"
        if self.former is not None:
            yield f"ALTER TABLE {self.on} ADD CONSTRAINT {quote(self.name)} {self.former}"
