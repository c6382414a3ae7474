"""References between rows of tenants where a table has no tenant column.

Such a table's rows are the tenant's whose row they refer to. No key in the database can hold those
references to one tenant, so that the statement itself looks for the row that is referred to. The
queries that are built here are scoped when they are compiled, as any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import String, Text, case, cast, func, literal, null, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.elements import BindParameter, ColumnClause, Null

from tenantguard.errors import UnscopedStatementError

if TYPE_CHECKING:
    from sqlalchemy.sql.elements import ColumnElement
    from sqlalchemy.sql.expression import FromClause
    from sqlalchemy.types import TypeEngine

    from tenantguard.catalog import Parent

__all__ = ["FOREIGN", "Reference", "through"]

FOREIGN = (
    "A row refers to one that does not exist or belongs to another tenant. Load the row to refer "
    "to under the active tenant."
)
"""What a division by zero in a checked reference means."""

_POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key that a statement writes.

    Attributes:
        column: The column in the statement's own construct of the table.
        parent: The row that it has to name.
    """

    column: ColumnClause[Any]
    parent: Parent

    def checked(self, value: Any, source: FromClause | None = None) -> ColumnElement[Any]:
        """Return *value*, which fails by a division by zero unless it names a row of the tenant.

        Args:
            value: What the statement gives the column: a value, its bind parameter, or a column of
                *source*.
            source: The sub-query that an INSERT selects from.

        Raises:
            UnscopedStatementError: If it is another SQL expression.
        """
        given = self._given(value, source)
        if given is None:
            return null()
        if source is not None:
            return self._found(given, source)
        # In a query of its own, because asyncpg counts each place of a parameter as one more.
        once = select(cast(given, self._written).label("value")).subquery()
        return select(self._found(once.c.value, once)).correlate(None).scalar_subquery()

    def _found(self, given: ColumnElement[Any], source: FromClause) -> ColumnElement[Any]:
        # One parameter needs one type in all its places, which PostgreSQL cannot always infer. What
        # is looked for is what the column will hold: a numeric rounded, a char(n) padded.
        # Text is not cast to a length where it is written: what is too long stays an error.
        written = cast(given, self._written)
        held = cast(written, self._type) if self._is_text else written
        rows = self.parent.key.table.alias()
        count = select(func.count()).select_from(rows).where(rows.c[self.parent.key.key] == held)
        found = count.correlate(source).scalar_subquery()
        return case((held.is_(None), null()), (literal(1) / found == literal(1), written))

    @property
    def _type(self) -> TypeEngine[Any]:
        # A lightweight construct may not say.
        own = self.column.type
        return self.parent.key.type if own._isnull else own  # noqa: SLF001

    @property
    def _written(self) -> TypeEngine[Any]:
        return Text() if self._is_text else self._type

    @property
    def _is_text(self) -> bool:
        plain = self._type._unwrapped_dialect_impl(_POSTGRESQL)  # noqa: SLF001
        return isinstance(plain, String) and not isinstance(plain, postgresql.ENUM)

    def refuse_default(self) -> None:
        """Raise `UnscopedStatementError` if the column fills itself: nothing would check that."""
        filled = ("default", "server_default", "onupdate", "server_onupdate")
        columns = (self.column, self.parent.column)
        if any(getattr(each, name, None) is not None for each in columns for name in filled):
            raise UnscopedStatementError(
                f"Column {self.column.name!r} refers to a tenant's row and has a default, which "
                "cannot be checked. Give the column a value in the statement."
            )

    def _given(self, value: Any, source: FromClause | None) -> ColumnElement[Any] | None:
        if value is None or isinstance(value, Null):
            return None
        if isinstance(value, BindParameter):
            untyped = value.type._isnull  # noqa: SLF001
            return value._with_binary_element_type(self._type) if untyped else value  # noqa: SLF001
        if source is not None:
            return value  # type: ignore[no-any-return]
        if hasattr(value, "__clause_element__") or hasattr(value, "_compiler_dispatch"):
            raise UnscopedStatementError(
                f"Column {self.column.name!r} refers to a tenant's row and was given an SQL "
                "expression, which cannot be checked. Give it a value."
            )
        return BindParameter(None, value, type_=self._type, unique=True)


def through(parent: Parent, source: FromClause | None) -> ColumnElement[bool]:
    """Return what says that a row of *source* refers to one of the tenant's rows."""
    column: ColumnClause[Any] = ColumnClause(
        parent.column.name, parent.key.type, _selectable=source
    )
    rows = parent.key.table.alias()
    return column.in_(select(rows.c[parent.key.key]).correlate(None))
