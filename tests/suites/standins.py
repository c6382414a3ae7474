"""Guards that any suite's tables can be put under, although none of them has a tenant.

`observe` is the guard as users have it, in observe mode. The two others enforce, with a catalog in
place of theirs: to `bare` every table is known and nobody's, so that every hook runs and has
nothing to add; `scoped` adds a predicate to whatever is read, changed and deleted, which is true of
every row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from sqlalchemy import Column, Integer, MetaData, Table

from tenantguard import TenantGuard
from tenantguard.binding.state import Binding
from tenantguard.catalog import Catalog, Entry, Kind
from tenantguard.scoping.compiler import TenantCompiler
from tenantguard.scoping.execution import TenantExecution

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Engine
    from sqlalchemy.sql.expression import FromClause

__all__ = ["FORMS", "TENANT", "Form", "attach", "make_guard"]

Form = Literal["observe", "bare", "scoped"]
FORMS: tuple[str, ...] = get_args(Form)

TENANT = 0


class _Above(Integer):
    """The type of a tenant that no row has: `column == tenant` is rendered as `column > tenant`."""

    class comparator_factory(Integer.Comparator[int]):  # noqa: N801  (SQLAlchemy's name)
        def __eq__(self, other: object) -> ColumnElement[bool]:  # type: ignore[override]
            return cast("ColumnElement[bool]", self > other)

        __hash__ = None  # type: ignore[assignment]


class _Nobodys(Catalog):
    """Every table is known and has no tenant."""

    @property
    def tenant_type(self) -> Integer:
        return Integer()

    def entry(self, table: FromClause) -> Entry:
        entry = super().entry(table)
        if entry.kind is Kind.SYSTEM:
            return entry
        return Entry(entry.name, entry.schema, Kind.SCOPED, "stand-in", column=self.column())

    def column(self) -> Column[Any] | None:
        return None


class _Everybodys(_Nobodys):
    """Every table has PostgreSQL's hidden column for its tenant, which is above zero."""

    @property
    def tenant_type(self) -> Integer:
        return _Above()

    def column(self) -> Column[Any] | None:
        return Column("tableoid", _Above())


def make_guard(form: Form) -> TenantGuard:
    """Return the guard of *form*; those that enforce let pass what no suite can do without."""
    metadata = MetaData()
    Table("tenantguard_tenants", metadata, Column("id", Integer, primary_key=True))
    mode: Literal["observe", "enforce"] = "observe" if form == "observe" else "enforce"
    guard = TenantGuard(metadata, tenants="tenantguard_tenants", mode=mode)
    if form == "observe":
        return guard
    stand_in = _Nobodys if form == "bare" else _Everybodys
    guard.catalog = stand_in(metadata, "tenantguard_tenants")
    # As if the registry had been asked: there is none.
    guard._registry.answered(str(TENANT), 1)
    _let_pass(form)
    return guard


def attach(guard: TenantGuard, engine: Engine) -> None:
    """Put *guard* onto *engine*, as far as it can be.

    Enforcing, without the second lock, for which there are no policies; on SQLite without the
    binding too.
    """
    on_postgresql = engine.dialect.name == "postgresql"
    if on_postgresql and guard.mode == "observe":
        guard.protect(engine, show_parameters=True)
        return
    if on_postgresql:
        guard._bind(engine, verify=lambda *_: None)
    guard._scope(engine, text_allowed=lambda: True)


def _let_pass(form: Form) -> None:
    """Let pass tables being made and dropped, and AUTOCOMMIT, on the engine under test."""
    refuse = TenantExecution._refuse

    def refuse_others(self: TenantExecution, kind: str, message: str) -> None:
        if kind != "schema change":
            refuse(self, kind, message)

    TenantExecution._refuse = refuse_others  # type: ignore[method-assign]
    Binding.refuse_autocommit = _pass  # type: ignore[method-assign]
    if form == "scoped":
        _scope_without_stamps()


def _scope_without_stamps() -> None:
    """Leave INSERT alone: the suite's tables do not name the hidden column."""
    TenantCompiler._writable = lambda *_: None  # type: ignore[method-assign]


def _pass(self: Binding) -> None:
    pass
