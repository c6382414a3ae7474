"""Declares tables with encrypted columns, and says what is made of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, MetaData, Table
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateIndex, CreateTable

from tenantguard import Exact, encrypted_str
from tenantguard.keytable import ENCRYPTED, encrypted_columns

DIALECT = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]


def new_base(metadata: MetaData | None = None) -> type[DeclarativeBase]:
    """Return a base with tables of its own."""
    namespace = {"metadata": metadata or MetaData(), "__module__": __name__}
    return type("Base", (DeclarativeBase,), namespace)


def table_of(model: Any) -> Table:
    assert isinstance(model.__table__, Table)
    return model.__table__


def ddl(table: Table) -> str:
    """Return the statements that make *table*, a line for each part."""
    indexes = sorted(table.indexes, key=lambda index: str(index.name))
    made: list[Any] = [CreateTable(table), *map(CreateIndex, indexes)]
    lines = "\n".join(str(each.compile(dialect=DIALECT)) for each in made).splitlines()
    return "\n".join(line.strip(" \t,") for line in lines if line.strip())


def parts(table: Table) -> list[str]:
    """Return the lines of `ddl`; a copied table has its constraints in any order."""
    return sorted(ddl(table).splitlines())


def checks(table: Table) -> set[str]:
    return {str(each.name) for each in table.constraints if isinstance(each, CheckConstraint)}


def labels(metadata: MetaData) -> dict[str, tuple[str, str]]:
    return {
        f"{column.table.fullname}.{column.name}": column.info[ENCRYPTED]
        for column in encrypted_columns(metadata)
    }


def patient(base: type[DeclarativeBase] | None = None) -> Any:
    class Patient(base or new_base()):  # type: ignore[misc]
        __tablename__ = "patients"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int]
        name: Mapped[str] = encrypted_str(search=Exact())
        notes: Mapped[str | None] = encrypted_str()

    return Patient
