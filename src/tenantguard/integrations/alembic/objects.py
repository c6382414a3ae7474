"""Operations for what is SQL of its own: functions, options of views, what encryption needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tenantguard.integrations.alembic.operation import TenantOperation, Unprotecting, operation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "CreateTenantObject",
    "DropTenantObject",
    "KeepTenantObject",
]

_SETTING = "SELECT pg_catalog.set_config({}, {}, true)"


@dataclass
class _OfObject(TenantOperation):
    kind: str
    name: str
    sql: Sequence[str] = field(kw_only=True)

    def statements(self) -> Iterator[str]:
        """Yield the SQL, with row-level security as it is elsewhere."""
        yield from _with_row_security(self.sql)


@operation
@dataclass
class CreateTenantObject(_OfObject):
    """Run the SQL that makes *name*: a function, a view's option, or what encryption needs."""

    verb: ClassVar[str] = "create_tenant_object"


@operation
@dataclass
class DropTenantObject(_OfObject, Unprotecting):
    """Run the SQL that restores what was there before *name*."""

    verb: ClassVar[str] = "drop_tenant_object"


@operation
@dataclass
class KeepTenantObject(TenantOperation):
    """Do nothing: *name* stays, for the reason that is given."""

    verb: ClassVar[str] = "keep_tenant_object"

    kind: str
    name: str
    reason: str = field(kw_only=True)

    def statements(self) -> Iterator[str]:
        """Yield nothing."""
        yield from ()


def _with_row_security(statements: Sequence[str]) -> Iterator[str]:
    """Yield *statements* between what restores `row_security` and sets it back to what it was.

    Under `off`, PostgreSQL refuses the body of a function that reads protected tables.
    """
    if not statements:
        return
    yield _SETTING.format("'tenantguard.row_security'", "current_setting('row_security')")
    yield _SETTING.format("'row_security'", "'on'")
    yield from statements
    yield _SETTING.format("'row_security'", "current_setting('tenantguard.row_security')")
