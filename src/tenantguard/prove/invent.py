"""Rows that did not exist: valid for their table, with the parents that they need."""

# ruff: noqa: S608  (statements are put together from quoted names and escaped literals)

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tenantguard.prove.solve import Unsolvable, solved
from tenantguard.prove.values import base_of
from tenantguard.prove.wishes import (
    DEFAULT,
    PARTITION,
    Tries,
    conditions,
    groups,
    open_key,
    wished,
)
from tenantguard.rls.names import column_list, literal, qualified, quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tenantguard.prove.session import Refusal, Session
    from tenantguard.prove.shape import Check, Column, Reference, Shape, Table
    from tenantguard.rls.step import Target

__all__ = ["Inventor", "NotProvableError", "Owned", "Row"]

_TRIES = 40
_HOPELESS = ("25", "42", "53", "54", "55", "57", "58", "XX")
"""Classes of errors that no other value mends."""

Values = dict[str, str]
"""SQL expressions by column."""


class NotProvableError(Exception):
    """A table cannot be tried; the text says why, and what would help."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row that is in the database: every column as a literal."""

    target: Target
    values: Values


@dataclass(frozen=True, slots=True)
class Owned:
    """Whose the rows of the tables are.

    Attributes:
        columns: The tenant column of each table that has one, the registry's key included.
        children: The tables whose rows are a tenant's through another table.
    """

    columns: Mapping[Target, str]
    children: frozenset[Target]

    def is_owned(self, target: Target) -> bool:
        """Return whether each row of *target* is one tenant's."""
        return target in self.columns or target in self.children


@dataclass(slots=True)
class Inventor:
    """Makes one row a table and tenant, in one transaction.

    Attributes:
        existing: Whether rows that are there are taken before any is invented.
        lifts: Whether FORCE has to be lifted from a table before the admin can write to it.
    """

    session: Session
    shape: Shape
    owned: Owned
    existing: bool = False
    lifts: bool = False
    _rows: dict[tuple[Target, str], Row] = field(default_factory=dict)
    _planned: dict[tuple[Target, str], Values] = field(default_factory=dict)
    _lifted: set[Target] = field(default_factory=set)

    def row(self, target: Target, tenant: str) -> Row:
        """Return *tenant*'s row of *target*, made if need be.

        Raises:
            NotProvableError: If none can be made.
        """
        key = (target, tenant if self.owned.is_owned(target) else "")
        if key not in self._rows:
            table = self._table(target)
            self._lift(table)
            found = self._found(table, tenant) if self.existing or not key[1] else None
            self._rows[key] = found or self._keyed(table, tenant)
        return self._rows[key]

    def chosen_tenant(self, registry: Target) -> str:
        """Return, as text, a key for a row of the registry; the row is not made."""
        chosen = self._chosen(self._table(registry), {}, Tries())
        return str(self.session.one(f"SELECT ({chosen[self.owned.columns[registry]]})::text"))

    def shown(self, view: Table, tenant: str) -> Row:
        """Return a row of *tenant*'s that *view* shows, once its tables have one each."""
        for target in view.reads:
            if self.owned.is_owned(target):
                self.row(target, tenant)
        row = self._found(view, tenant)
        if row is None:
            raise NotProvableError(
                f"The view {'.'.join(view.target)} shows no row of those that were made in its "
                "tables."
            )
        return row

    def _table(self, target: Target) -> Table:
        table = self.shape.tables.get(target)
        if table is None:
            raise NotProvableError(f"The database has no table {'.'.join(target)}.")
        if table.kind not in ("r", "p"):
            raise NotProvableError(f"{'.'.join(target)} is no table, so no row can be put into it.")
        return table

    def _lift(self, table: Table) -> None:
        if self.lifts and table.forced and table.target not in self._lifted:
            self._lifted.add(table.target)
            self.session.run(f"ALTER TABLE {qualified(table.target)} NO FORCE ROW LEVEL SECURITY")

    def _found(self, table: Table, tenant: str) -> Row | None:
        column = self.owned.columns.get(table.target)
        if column is None and table.target in self.owned.children:
            return None
        where = f" WHERE {quote(column)} = {literal(tenant)}" if column else ""
        rows = self.session.run(
            f"SELECT {_literals(table)} FROM {qualified(table.target)}{where} LIMIT 1"
        )
        return _row(table, rows[0]) if rows else None

    def _keyed(self, table: Table, tenant: str) -> Row:
        """Make a row whose key has no NULL, or any row if there is none such."""
        names = open_key(table, self.owned.columns.get(table.target))
        made = self._attempted(table, tenant, names) if names else None
        return made or self._made(table, tenant, Tries())

    def _attempted(self, table: Table, tenant: str, keyed: frozenset[str]) -> Row | None:
        """Make a row with the columns *keyed*, or nothing: neither it nor its parents."""
        before = dict(self._rows), dict(self._planned), set(self._lifted)
        self.session.run("SAVEPOINT tenantguard_keyed")
        made = None
        try:
            made = self._made(table, tenant, Tries(keyed=keyed))
        except NotProvableError:
            self.session.run("ROLLBACK TO SAVEPOINT tenantguard_keyed")
            self._rows, self._planned, self._lifted = before
        self.session.run("RELEASE SAVEPOINT tenantguard_keyed")
        return made

    def _made(self, table: Table, tenant: str, tries: Tries) -> Row:
        key = (table.target, tenant)
        refusal: Refusal | None = None
        for tries.number in range(_TRIES):
            self._planned[key] = self._keys(table, tenant, tries)
            values = self._values(table, tenant, tries)
            self.session.run("SAVEPOINT tenantguard_try")
            reply = self.session.attempt(_insert(table, values))
            if reply.error is None:
                del self._planned[key]
                if not reply.rows:
                    raise NotProvableError("A trigger or a rule keeps the invented row out.")
                return _row(table, reply.rows[0])
            self.session.run("ROLLBACK TO SAVEPOINT tenantguard_try")
            refusal = reply.error
            if not self._learned(table, refusal, tries):
                break
        raise NotProvableError(
            f"No valid row could be invented for {'.'.join(table.target)}: {refusal}."
        )

    def _keys(self, table: Table, tenant: str, tries: Tries) -> Values:
        """Choose what other rows may refer to before there is the row: cycles need it."""
        given = self._own(table, tenant)
        referring = {name for each in table.references for name in each.columns}
        checked = {name for check in table.checks for name in check.columns}
        for name in dict.fromkeys(name for key in table.keys for name in key.columns):
            column = table.columns[name]
            if name not in referring | checked | given.keys() and not column.generated:
                listed = wished(table, column, tries, self.shape.types)
                fit = [each for each in listed if each != DEFAULT]
                if (fit and column.default is None) or column.counts:
                    given[name] = fit[0]
        return given

    def _own(self, table: Table, tenant: str) -> Values:
        column = self.owned.columns.get(table.target)
        return {column: literal(tenant)} if column else {}

    def _values(self, table: Table, tenant: str, tries: Tries) -> Values:
        fixed = dict(self._planned[table.target, tenant])
        for reference in table.references:
            if self._is_wanted(table, reference, fixed, tries):
                self._refer(table, reference, tenant, fixed, tries)
        return self._chosen(table, fixed, tries)

    def _is_wanted(self, table: Table, reference: Reference, fixed: Values, tries: Tries) -> bool:
        open_ = [table.columns[each] for each in reference.columns if each not in fixed]
        if any(each.not_null or each.name in tries.filled for each in open_):
            return True
        if any(each.name in tries.keyed for each in open_) and self._is_there(table, reference):
            return True
        return bool(open_) and tries.everything

    def _is_there(self, table: Table, reference: Reference) -> bool:
        """Return whether the parent is there before *table*'s row, or is that row: no cycle."""
        begun = {target for target, _ in self._planned}
        return reference.parent == table.target or reference.parent not in begun

    def _refer(
        self, table: Table, reference: Reference, tenant: str, fixed: Values, tries: Tries
    ) -> None:
        parent, key = reference.parent, (reference.parent, tenant)
        planned = self._planned.get(key)
        if planned is not None:
            if not set(reference.parent_columns) <= planned.keys():
                if any(table.columns[each].not_null for each in reference.columns):
                    raise NotProvableError(
                        f"{'.'.join(table.target)} refers by {reference.name} to a row that needs "
                        "it in turn, and whose key cannot be chosen beforehand."
                    )
                return
            values = planned
        elif tries.fresh and not self.owned.is_owned(parent):
            values = self._made(self._table(parent), "", Tries()).values
        else:
            values = self.row(parent, tenant).values
        for name, of in zip(reference.columns, reference.parent_columns, strict=True):
            fixed.setdefault(name, values[of])

    def _chosen(self, table: Table, fixed: Values, tries: Tries) -> Values:
        listed: dict[str, list[str]] = {}
        for column in table.columns.values():
            if column.generated:
                continue
            given = fixed.get(column.name)
            values = [given] if given else wished(table, column, tries, self.shape.types)
            if not values:
                raise NotProvableError(
                    f"No value is known for column {column.name} of {'.'.join(table.target)}, "
                    f"whose type is {column.type}."
                )
            listed[column.name] = values
        chosen = {name: values[0] for name, values in listed.items()}
        for group in groups(conditions(table, tries, self.shape.types)):
            chosen |= self._fitting(table, group, listed, tries)
        return chosen

    def _fitting(
        self, table: Table, group: list[Check], listed: dict[str, list[str]], tries: Tries
    ) -> Values:
        names = [name for name in listed if any(name in each.columns for each in group)]
        generated = any(name not in listed for each in group for name in each.columns)
        if generated or all(len(listed[name]) == 1 for name in names):
            # Nothing to choose, or only PostgreSQL can say what is generated.
            return {}
        asked = {
            name: [self._asked(table.columns[name], each) for each in listed[name]]
            for name in names
        }
        try:
            found = solved(self.session, asked, [each.expression for each in group])
        except Unsolvable:
            if any(each.name == PARTITION for each in group) and not tries.any_partition:
                tries.any_partition = True
                rest = [each for each in group if each.name != PARTITION]
                return self._fitting(table, rest, listed, tries) if rest else {}
            raise NotProvableError(_unfit(table, group)) from None
        return {name: listed[name][asked[name].index(value)] for name, value in found.items()}

    def _asked(self, column: Column, value: str) -> str:
        if value == DEFAULT:
            return f"({column.default})"
        return f"({value})::{base_of(column.type_id, column.type, self.shape.types)}"

    def _learned(self, table: Table, refusal: Refusal, tries: Tries) -> bool:
        """Take from *refusal* what the next try does otherwise; return whether there is one."""
        if refusal.state.startswith(_HOPELESS):
            return False
        columns = _columns_of(table, refusal.constraint)
        if refusal.state == "23502" and refusal.column in table.columns:
            tries.filled.add(refusal.column)
        elif refusal.state == "23514" and refusal.constraint is None and table.partitioned:
            return self._add_partition(table, refusal)
        elif columns:
            tries.turn(columns)
            tries.fresh = tries.fresh or refusal.state in ("23505", "23P01")
        else:
            tries.everything = not tries.everything
            tries.turn(tuple(table.columns))
        return True

    def _add_partition(self, table: Table, refusal: Refusal) -> bool:
        """Make a default partition, which the transaction takes away again."""
        schema, name = table.target[0], refusal.table or table.target[1]
        part = qualified((schema, "tenantguard_prove_part"))
        with_default = f"CREATE TABLE {part} PARTITION OF {qualified((schema, name))} DEFAULT"
        return self.session.attempt(with_default).error is None


def _unfit(table: Table, group: list[Check]) -> str:
    names = ", ".join(sorted({each.name for each in group}))
    columns = ", ".join(sorted({name for each in group for name in each.columns}))
    return (
        f"No value was found for {columns} of {'.'.join(table.target)} that fulfils its check "
        f"({names})."
    )


def _insert(table: Table, values: Values) -> str:
    return (
        f"INSERT INTO {qualified(table.target)} ({column_list(values)}) OVERRIDING SYSTEM VALUE "
        f"VALUES ({', '.join(values.values())}) RETURNING {_literals(table)}"
    )


def _literals(table: Table) -> str:
    return ", ".join(f"quote_nullable({quote(name)}::text)" for name in table.columns)


def _row(table: Table, found: tuple[str, ...]) -> Row:
    return Row(table.target, dict(zip(table.columns, found, strict=True)))


def _columns_of(table: Table, constraint: str | None) -> tuple[str, ...]:
    everything: Iterator[Check | Reference] = iter((*table.checks, *table.references))
    named = {each.name: each.columns for each in (*everything, *table.keys)}
    return named.get(constraint or "", ())
