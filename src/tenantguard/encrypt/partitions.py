"""The index of a partitioned table, made beside writes.

PostgreSQL refuses CREATE INDEX CONCURRENTLY on the table itself: the index is made there without
its partitions, then on each of them, and theirs are attached to it. With the last it is valid.
"""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tenantguard.encrypt.statements import BESIDE, Statements
from tenantguard.rls.names import column_list, object_name, plain_literal, qualified, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tenantguard.rls.step import Target

    Ask = Callable[[str], Sequence[Any]]

__all__ = ["Partition", "partitioned_index", "partitions_of"]


@dataclass(frozen=True, slots=True)
class Partition:
    """A partitioned table, or one of its partitions.

    Attributes:
        target: Its schema and name.
        parent: Schema and name of what it is a partition of; None for the table itself.
        leaf: Whether it has rows itself, and not partitions.
        indexes: Names of its indexes, and whether each is valid.
        attached: Its indexes by the name of the parent's that they are attached to.
    """

    target: Target
    parent: Target | None
    leaf: bool
    indexes: dict[str, bool] = field(default_factory=dict)
    attached: dict[str, str] = field(default_factory=dict)


def partitions_of(ask: Ask, table: str) -> tuple[Partition, ...]:
    """Return *table*, quoted, and all its partitions; nothing if it has none."""
    tree = f"pg_catalog.pg_partition_tree({plain_literal(table)}::regclass)"
    rows = ask(
        "SELECT c.oid::bigint, n.nspname::text, c.relname::text, t.parentrelid::oid::bigint, "
        f"t.isleaf FROM {tree} t JOIN pg_catalog.pg_class c ON c.oid = t.relid "
        "JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
        "ORDER BY t.level, n.nspname, c.relname"
    )
    if not rows or rows[0][4]:
        return ()
    targets: dict[int, Target] = {oid: (schema, name) for oid, schema, name, _, _ in rows}
    found = {
        oid: Partition(targets[oid], targets.get(parent), leaf) for oid, _, _, parent, leaf in rows
    }
    indexes = ask(
        "SELECT i.indrelid::bigint, x.relname::text, i.indisvalid, (SELECT p.relname::text "
        "FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class p ON p.oid = h.inhparent "
        "WHERE h.inhrelid = i.indexrelid) FROM pg_catalog.pg_index i "
        "JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid "
        f"WHERE i.indrelid IN (SELECT relid FROM {tree})"
    )
    for oid, name, valid, parent in indexes:
        found[oid].indexes[name] = valid
        if parent is not None:
            found[oid].attached[parent] = name
    return tuple(found.values())


def partitioned_index(
    partitions: Sequence[Partition], name: str, columns: Sequence[str]
) -> Iterator[Statements]:
    """Yield what the index *name* of *columns* lacks; the first of *partitions* is the table."""
    yield from _Index(partitions, columns).of(partitions[0], name)


@dataclass(frozen=True, slots=True)
class _Index:
    partitions: Sequence[Partition]
    columns: Sequence[str]

    def of(self, table: Partition, name: str) -> Iterator[Statements]:
        """Yield what *table* lacks, which has partitions."""
        if name not in table.indexes:
            yield Statements(
                "make the search's index, to which those of the partitions are attached",
                (f"CREATE INDEX {quote(name)} ON ONLY {self._on(table)}",),
                "SHARE",
                "an instant",
            )
        for each in self.partitions:
            if each.parent == table.target:
                yield from self._attached(each, (table.target[0], name))

    def _attached(self, partition: Partition, parent: Target) -> Iterator[Statements]:
        schema, table = partition.target
        there = partition.attached.get(parent[1])
        name = there or object_name(table, *self.columns, "idx")
        if not partition.leaf:
            yield from self.of(partition, name)
        elif there is None and not partition.indexes.get(name):
            yield self._made(partition, name)
        if there is None:
            attach = f"ALTER INDEX {qualified(parent)} ATTACH PARTITION {qualified((schema, name))}"
            what = "attach the index of a partition"
            yield Statements(what, (attach,), "ACCESS EXCLUSIVE on the index", "an instant")

    def _made(self, partition: Partition, name: str) -> Statements:
        create = f"CREATE INDEX CONCURRENTLY {quote(name)} ON {self._on(partition)}"
        # An interrupted CREATE INDEX CONCURRENTLY leaves an index that serves nobody.
        drop = f"DROP INDEX CONCURRENTLY IF EXISTS {qualified((partition.target[0], name))}"
        sql = (drop, create) if name in partition.indexes else (create,)
        what = "make the search's index of a partition"
        return Statements(what, sql, BESIDE, "two scans, beside writes", alone=True)

    def _on(self, table: Partition) -> str:
        return f"{qualified(table.target)} ({column_list(self.columns)})"
