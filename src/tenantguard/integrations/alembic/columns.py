"""Operations on the tenant column."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tenantguard.integrations.alembic.operation import OfTable, Unprotecting, operation
from tenantguard.rls.names import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "DropTenantDefault",
    "DropTenantNotNull",
    "SetTenantDefault",
    "SetTenantNotNull",
]


@dataclass
class _OfColumn(OfTable):
    column: str

    @property
    def _alter_column(self) -> str:
        return f"ALTER TABLE {self.on} ALTER COLUMN {quote(self.column)}"


@operation
@dataclass
class SetTenantDefault(_OfColumn):
    """Give the tenant column its default, an SQL expression, for raw SQL."""

    verb: ClassVar[str] = "set_tenant_default"

    expression: str

    def statements(self) -> Iterator[str]:
        """Yield what sets it."""
        yield f"{self._alter_column} SET DEFAULT {self.expression}"


@operation
@dataclass
class DropTenantDefault(_OfColumn):
    """Drop a column's default; *former* is the one that was there before, which comes back."""

    verb: ClassVar[str] = "drop_tenant_default"

    former: str | None = field(default=None, kw_only=True)

    def statements(self) -> Iterator[str]:
        """Yield what drops it, or sets the former."""
        change = "DROP DEFAULT" if self.former is None else f"SET DEFAULT {self.former}"
        yield f"{self._alter_column} {change}"


@operation
@dataclass
class SetTenantNotNull(_OfColumn):
    """Demand a tenant of every row."""

    verb: ClassVar[str] = "set_tenant_not_null"

    def statements(self) -> Iterator[str]:
        """Yield what demands it."""
        yield f"{self._alter_column} SET NOT NULL"


@operation
@dataclass
class DropTenantNotNull(_OfColumn, Unprotecting):
    """Let rows be without a tenant again."""

    verb: ClassVar[str] = "drop_tenant_not_null"

    def statements(self) -> Iterator[str]:
        """Yield what allows it."""
        yield f"{self._alter_column} DROP NOT NULL"
