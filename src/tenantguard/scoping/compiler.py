"""The compiler that writes the tenant predicate into every statement.

The predicate is part of the compiled text, so SQLAlchemy's statement cache keeps working; only the
tenant's value is filled in at each execution, in `construct_params`. Whether a statement is scoped
never depends on the tenant that was active when it was compiled.

The hooks used here are partly private to SQLAlchemy. `scoping_compiler` checks that each exists,
and a table that reaches the output without its predicate placed is an error: a change in SQLAlchemy
makes statements fail, not leak.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import and_
from sqlalchemy.sql.elements import BindParameter, ColumnClause

from tenantguard.catalog import Entry, Kind
from tenantguard.errors import ConfigurationError, UnscopedStatementError
from tenantguard.scoping.reads import Reads, leaf_of, mentions, nullable_leaves, where_leaves
from tenantguard.scoping.references import Reference, through
from tenantguard.scoping.statements import closed, compiled_as, copy_with, with_where
from tenantguard.scoping.text import TextWatch
from tenantguard.scoping.writes import Target, Writes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.elements import ColumnElement
    from sqlalchemy.sql.expression import FromClause, TableClause

    from tenantguard.catalog import Parent
    from tenantguard.scoping.scope import Scope

__all__ = ["TenantCompiler", "scoping_compiler"]

_STATISTICS = "pg_stats"

_UPSERT = "ON CONFLICT hit a row of another tenant. Name a unique key that contains the tenant."

_HOOKS = (
    "_compose_select_body",
    "_generate_prefixes",
    "construct_params",
    "render_bind_cast",
    "visit_column",
    "visit_cte",
    "visit_custom_op_binary",
    "visit_custom_op_unary_modifier",
    "visit_custom_op_unary_operator",
    "visit_delete",
    "visit_extract",
    "visit_function",
    "visit_insert",
    "visit_join",
    "visit_on_conflict_do_update",
    "visit_table",
    "visit_table_valued_alias",
    "visit_textclause",
    "visit_typeclause",
    "visit_update",
)


class TenantCompiler(TextWatch):
    """Mixed in before a dialect's own statement compiler by `scoping_compiler`."""

    tenantguard: Scope

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.tenant_bind: BindParameter[Any] | None = None
        self.division_says = ""
        self.touches_tenants = False
        self.notes: list[tuple[str, str]] = []
        self.writes = Writes()
        self._placed: Counter[int] = Counter()
        self._inline: set[int] = set()
        self._looked_up: set[str] = set()
        self._inserts = 0
        super().__init__(*args, **kwargs)

    # -- executions ---------------------------------------------------------------------------

    def construct_params(self, params: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Fill in the tenant, after everything else, so that no parameter can overrule it."""
        values = super().construct_params(params, *args, **kwargs)
        if self.touches_tenants and self._enforcing:
            tenant = self.tenantguard.tenant()
            extracted = args[0] if args else kwargs.get("extracted_parameters")
            self.writes.check(self, params or {}, extracted, self.tenantguard, tenant)
            names = self.bind_names
            for bind in (self.tenant_bind, *self.writes.stamps):
                if bind is not None and bind in names:
                    values[names[bind]] = tenant
        return values

    # -- reads --------------------------------------------------------------------------------

    def _compose_select_body(
        self, text: str, select: Any, compile_state: Any, columns: Any, froms: Any, *args: Any
    ) -> str:
        predicates = self._place(where_leaves(froms), select._where_criteria)  # noqa: SLF001
        select = with_where(select, predicates)
        return cast(
            "str",
            super()._compose_select_body(text, select, compile_state, columns, froms, *args),
        )

    def visit_join(self, join: Any, *args: Any, **kwargs: Any) -> str:
        """Render a join; a LEFT JOIN's right side is scoped in its ON."""
        reads = nullable_leaves(join)
        reads.where = [leaf for leaf in reads.where if id(leaf.rendered) not in self._inline]
        predicates = self._place(reads, (join.onclause,))
        if predicates:
            join = copy_with(join, onclause=and_(*predicates, *closed([join.onclause])))
        return cast("str", super().visit_join(join, *args, **kwargs))

    def visit_table(self, table: TableClause, *args: Any, **kwargs: Any) -> str:
        """Render a table's name; one whose predicate was not placed is an error."""
        rendered = cast("str", super().visit_table(table, *args, **kwargs))
        if not kwargs.get("asfrom"):
            return rendered
        alias = kwargs.get("enclosing_alias")
        aliased = alias is not None and alias.element is table
        source = alias if aliased else table
        if id(source) in self._inline:
            self._inline.discard(id(source))
            if not aliased and (table in (kwargs.get("fromhints") or ()) or self._schema(table)):
                self._refuse(
                    f"Table {table.name!r} has a schema or a hint and stands under a FULL JOIN; "
                    "use aliased() or .alias() for it there."
                )
            return self._filtered(table, rendered, aliased=aliased)
        if not self._placed[id(source)]:
            self._refuse(
                f"Table {table.name!r} stands where tenantguard cannot scope it. "
                "Rewrite the statement as a plain select, join, update or delete."
            )
        self._placed[id(source)] -= 1
        return rendered

    def _place(self, reads: Reads, criteria: Iterable[Any]) -> list[ColumnElement[bool]]:
        """Note that *reads* are scoped; return the predicates their statement has to take.

        *criteria* are what the statement has there already; observing compares with them.
        """
        for leaf in reads.inline:
            if self._entry(leaf.table).owned and self._enforcing:
                self._inline.add(id(leaf.rendered))
            else:
                self._placed[id(leaf.rendered)] += 1
        predicates = []
        for leaf in reads.where:
            self._placed[id(leaf.rendered)] += 1
            entry = self._entry(leaf.table)
            if self._enforcing:
                predicates += self._predicates(entry, leaf.source)
            elif entry.column is not None and not mentions(criteria, leaf, entry.column.name):
                self._note("unscoped", f"table {leaf.table.name!r} is used without its tenant")
        return predicates

    def _predicates(self, entry: Entry, source: FromClause | None) -> list[ColumnElement[bool]]:
        """Return what says that a row of *source* is the tenant's; without one, unqualified."""
        if entry.column is None:
            self._look_up(entry.parents)
            return [through(parent, source) for parent in entry.parents]
        own: ColumnClause[Any] = ColumnClause(
            entry.column.name, self.tenantguard.catalog.tenant_type, _selectable=source
        )
        return [own == self._tenant()]

    def _look_up(self, parents: Iterable[Parent]) -> None:
        """Note that *parents* say whose a row is; a CTE of their name would answer instead."""
        tables = [parent.key.table for parent in parents]
        self._looked_up |= {str(table.name) for table in tables if not self._schema(table)}
        self._refuse_shadows()

    def visit_cte(self, cte: Any, *args: Any, **kwargs: Any) -> Any:
        """Render a CTE, whose name must not stand before a table that says whose a row is."""
        rendered = super().visit_cte(cte, *args, **kwargs)
        self._refuse_shadows()
        return rendered

    def _refuse_shadows(self) -> None:
        # There is none before the first CTE.
        ctes = getattr(self, "ctes_by_level_name", ())
        named = {str(name).casefold() for _, name in ctes}
        shadows = sorted(name for name in self._looked_up if name.casefold() in named)
        if shadows:
            self._refuse(
                f"A CTE is called {shadows[0]!r}, like the table by which other rows are scoped. "
                "Give the CTE another name."
            )

    def _filtered(self, table: TableClause, rendered: str, *, aliased: bool) -> str:
        """Return *rendered*, a table's name, as a filtered sub-select under the same name."""
        name = self.preparer.format_table(table)
        given = rendered[len(name) :]
        suffix = given if aliased or given else f" AS {self.preparer.quote(table.name)}"
        predicate = self.process(and_(*self._predicates(self._entry(table), None)))
        return f"(SELECT * FROM {name} WHERE {predicate}){suffix}"  # noqa: S608  (quoted names)

    def _schema(self, table: TableClause) -> str | None:
        schema: str | None = self.preparer.schema_for_object(cast("Any", table))
        return schema

    def _entry(self, table: TableClause) -> Entry:
        """Return the table's classification, refusing what no tenant's statement may touch."""
        entry = self.tenantguard.catalog.entry(table)
        if entry.kind is Kind.SYSTEM:
            if self.schema_translate_map:
                self._refuse("PostgreSQL's own tables cannot be read under a schema_translate_map.")
            if entry.name.startswith(_STATISTICS) and self.tenantguard.catalog.application_only:
                self._refuse(
                    "PostgreSQL's statistics show values of tables that row-level security does "
                    "not hold. Give those their tenant column (`tenantguard migrate sql TABLE`), "
                    "or read statistics in system_access(reason=…)."
                )
            return entry
        self.touches_tenants = True
        if entry.kind is Kind.UNCLASSIFIED:
            self._refuse(
                f"Table {entry.fullname!r} is not classified: {entry.reason}. Give it the tenant "
                "column, or declare it in TenantGuard(shared=…) or (untenanted=…) with a reason. "
                "`tenantguard tables` lists all of them."
            )
        if entry.kind is Kind.UNTENANTED:
            self._refuse(
                f"Table {entry.fullname!r} is declared untenanted and is never reached in a "
                "tenant's name. Use system_access(reason=…)."
            )
        return entry

    @property
    def _enforcing(self) -> bool:
        return self.tenantguard.observe is None

    def _refuse(self, message: str) -> None:
        if self._enforcing:
            raise UnscopedStatementError(message)
        self._note("refused", message)

    def _note(self, kind: str, message: str) -> None:
        if (kind, message) not in self.notes:
            self.notes.append((kind, message))

    def _tenant(self) -> BindParameter[Any]:
        if self._inserts:
            # SQLAlchemy counts each place of a parameter in VALUES as one more.
            return self.writes.stamp(self._tenant_parameter())
        if self.tenant_bind is None:
            self.tenant_bind = self._tenant_parameter()
        return self.tenant_bind

    def _tenant_parameter(self) -> BindParameter[Any]:
        # The value stays None outside an execution of ours, and `= NULL` finds no row.
        return BindParameter(
            "tenantguard_tenant",
            None,
            type_=self.tenantguard.catalog.tenant_type,
            unique=True,
            required=False,
        )

    # -- writes -------------------------------------------------------------------------------

    def visit_insert(self, insert_stmt: Any, *args: Any, **kwargs: Any) -> str:
        """Render an INSERT whose tenant column takes the active tenant."""
        target = self._writable(insert_stmt.table)
        if target is not None and self._enforcing:
            insert_stmt = self.writes.stamped_insert(self, insert_stmt, target, kwargs)
        elif target is not None:
            self._observe_insert(insert_stmt, target)
        self._inserts += 1
        try:
            return cast("str", super().visit_insert(insert_stmt, *args, **kwargs))
        finally:
            self._inserts -= 1

    def visit_on_conflict_do_update(self, on_conflict: Any, **kwargs: Any) -> str:
        """Render DO UPDATE so that hitting another tenant's row is an error, not a silent no-op."""
        table = cast("Any", self.stack[-1]["selectable"]).table
        target = self._writable(table)
        if target is not None and self._enforcing:
            own = self._predicates(target.entry, table)
            on_conflict = self.writes.guarded_upsert(on_conflict, target, and_(*own))
            self.division_says = _UPSERT
        # PostgreSQL's dialect has this visitor; the base class does not.
        return cast("str", super().visit_on_conflict_do_update(on_conflict, **kwargs))  # type: ignore[misc]

    def visit_update(self, update_stmt: Any, *args: Any, **kwargs: Any) -> str:
        """Render an UPDATE of the tenant's rows only, which leaves the tenant column as it is."""
        return self._visit_change(update_stmt, args, kwargs, super().visit_update)

    def visit_delete(self, delete_stmt: Any, *args: Any, **kwargs: Any) -> str:
        """Render a DELETE of the tenant's rows only."""
        return self._visit_change(delete_stmt, args, kwargs, super().visit_delete)

    def _visit_change(self, statement: Any, args: Any, kwargs: Any, render: Any) -> str:
        written = self._writable(statement.table)
        state = statement._compile_state_factory(statement, self, **kwargs)  # noqa: SLF001
        target = state.statement.table
        others = [source for source in state._extra_froms if source is not target]  # noqa: SLF001
        criteria = state.statement._where_criteria  # noqa: SLF001
        predicates = self._place(where_leaves([target, *others]), criteria)
        if written is not None and self._enforcing and state.isupdate:
            self.writes.keep_tenant(self, state, written)
        state.statement = with_where(state.statement, predicates)
        return cast("str", render(compiled_as(statement, state), *args, **kwargs))

    def _writable(self, table: FromClause) -> Target | None:
        """Return what is written of a tenant's, or None where no tenant's rows are written."""
        leaf = leaf_of(table)
        if leaf is None:
            self._refuse("Only tables can be written on a protected engine.")
            return None
        entry = self._entry(leaf.table)
        if entry.kind in (Kind.REGISTRY, Kind.SHARED, Kind.SYSTEM, Kind.KEYS):
            self._refuse(
                f"Table {entry.fullname!r} ({entry.kind.value}) is read only in a tenant's name. "
                "Use system_access(reason=…) to write it."
            )
        if not entry.owned:
            return None
        column = None if entry.column is None else self._own(leaf.table, entry.column.name)
        parents = self.tenantguard.catalog.references(entry)
        self._look_up(parents)
        references = [
            Reference(own, parent)
            for parent in parents
            if (own := self._own(leaf.table, parent.column.name)) is not None
        ]
        return Target(entry, column, references)

    def _own(self, table: TableClause, name: str) -> ColumnClause[Any] | None:
        """Return the column *name* of *table*, which a lightweight construct may lack."""
        own = next((one for one in table.c if one.name == name), None)
        if own is None and self._enforcing:
            raise UnscopedStatementError(
                f"The construct for table {table.name!r} lacks its column {name!r}, by which "
                "rows are checked; add it there."
            )
        return own

    def _observe_insert(self, insert: Any, target: Target) -> None:
        """Note an INSERT that leaves the tenant to the guard; a given one is compared later."""
        if target.column is None:
            return
        if not self.writes.note_supplied(self, insert, target.column):
            self._note("unscoped", f"a row of {self.writes.table!r} is inserted without its tenant")


def scoping_compiler(base: type[SQLCompiler], scope: Scope) -> type[TenantCompiler]:
    """Return *base* with the tenant predicate compiled in for *scope*.

    Raises:
        ConfigurationError: If this version of SQLAlchemy lacks a hook that scoping needs.
    """
    hooks = [hook for hook in _HOOKS if hook != "visit_on_conflict_do_update"]
    missing = [hook for hook in hooks if not callable(getattr(base, hook, None))]
    if missing:
        raise ConfigurationError(
            f"This version of SQLAlchemy has no compiler hook {missing[0]}; "
            "tenantguard supports sqlalchemy>=2.0.30,<2.2."
        )
    return type(f"Tenant{base.__name__}", (TenantCompiler, base), {"tenantguard": scope})
