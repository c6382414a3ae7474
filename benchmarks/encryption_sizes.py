"""What is stored for a text of 16 bytes: the value, its row, and the index that finds it.

Each table has an id, a tenant, and a name in one of three forms. Names are written in no order, and
the indexes are as the writing left them. Pages are counted, so that their headers and free room
belong to the row.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from encryption_data import Base, clinic, tenant
from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from tenantguard import Exact, encrypted_str

if TYPE_CHECKING:
    from encryption_data import Clinic

ROWS, BATCH = 50_000, 5_000
MEASURE = """
SELECT (SELECT avg(octet_length(name)) FROM {table}),
       pg_relation_size('{table}'::regclass) / {rows}.0,
       coalesce(sum(pg_relation_size(indexrelid)), 0) / {rows}.0
FROM pg_index WHERE indrelid = '{table}'::regclass AND indnkeyatts = 2
"""


class PlainName(Base):
    __tablename__ = "plain_names"
    __table_args__ = (Index("ix_plain_names_name", "tenant_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[Any] = mapped_column(ForeignKey("practices.id"))
    name: Mapped[str]


class SealedName(Base):
    __tablename__ = "sealed_names"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[Any] = mapped_column(ForeignKey("practices.id"))
    name: Mapped[str] = encrypted_str()


class SearchedName(Base):
    __tablename__ = "searched_names"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[Any] = mapped_column(ForeignKey("practices.id"))
    name: Mapped[str] = encrypted_str(search=Exact())


TABLES: dict[str, type[Base]] = {
    "plaintext, index": PlainName,
    "encrypted": SealedName,
    "encrypted, search=Exact()": SearchedName,
}


def measured(built: Clinic, model: type[Base]) -> tuple[float, float, float]:
    """Return the bytes of a value, a row of the table, and a row of the index."""
    numbers = list(range(ROWS))
    random.Random(1).shuffle(numbers)
    rows = [{"tenant_id": tenant(0), "name": f"patient {number:08}"} for number in numbers]
    for first in range(0, ROWS, BATCH):
        built.write(model, rows[first : first + BATCH])
    ((value, row, index),) = built.run(MEASURE.format(table=model.__tablename__, rows=ROWS))
    return float(value), float(row), float(index)


def main() -> None:
    with clinic(1) as built:
        print(f"Bytes for a text of 16 bytes, {ROWS} rows of an id, a tenant and the text")
        print(f"  {'':<28} {'value':>8} {'row':>8} {'its index':>10}")
        for name, model in TABLES.items():
            value, row, index = measured(built, model)
            print(f"  {name:<28} {value:8.0f} {row:8.0f} {index:10.0f}", flush=True)
