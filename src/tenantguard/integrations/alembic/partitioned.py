"""The operation that makes the index of a partitioned table, beside writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from alembic.operations import Operations
from alembic.util import CommandError

from tenantguard.encrypt.partitions import partitioned_index, partitions_of
from tenantguard.integrations.alembic.operation import OfTable, operation, send
from tenantguard.integrations.alembic.transactions import own_transaction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

__all__ = ["CreatePartitionedIndex"]


@operation
@dataclass
class CreatePartitionedIndex(OfTable):
    """Make an index on each partition that there is when it runs, and attach it to the table's.

    Whatever is there already is left as it is, so it can be run again.
    """

    verb: ClassVar[str] = "create_partitioned_index"

    name: str
    columns: Sequence[str]

    def statements(self) -> Iterator[str]:
        """Yield nothing: which partitions there are, only the database knows."""
        yield from ()


@Operations.implementation_for(CreatePartitionedIndex)
def _create(operations: Operations, wanted: CreatePartitionedIndex) -> None:
    context = operations.migration_context
    if context.as_sql or context.connection is None:
        raise CommandError(
            "op.create_partitioned_index() asks the database which partitions there are, so "
            "--sql cannot write it. Run `alembic upgrade` with the database."
        )
    partitions = partitions_of(_asking(context.connection), wanted.on)
    if not partitions:
        raise CommandError(
            f"Table {wanted.table!r} has no partitions here. Make its index by CREATE INDEX "
            "CONCURRENTLY in an autocommit block; `tenantguard encrypt expand --revision` writes "
            "it for the database that it is run with."
        )
    for step in partitioned_index(partitions, wanted.name, wanted.columns):
        with context.autocommit_block() if step.alone else own_transaction(context):
            for statement in step.sql:
                send(context, statement)


def _asking(connection: Connection) -> Any:
    def ask(statement: str) -> Sequence[Any]:
        options = {"no_parameters": True}
        return connection.exec_driver_sql(statement, execution_options=options).fetchall()

    return ask
