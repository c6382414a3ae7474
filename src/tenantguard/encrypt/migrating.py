"""A column of plaintext, and the encrypted one beside it that takes its place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenantguard.errors import ConfigurationError
from tenantguard.keytable import ENCRYPTED, MIGRATING, SEARCHES, encrypted_columns
from tenantguard.rls.names import object_name, qualified, quote, target_of

if TYPE_CHECKING:
    from sqlalchemy import Column

    from tenantguard.catalog import Catalog, Entry

__all__ = ["Migration", "migration_of"]


@dataclass(frozen=True, slots=True)
class Migration:
    """The plaintext of *plain* comes into *sealed*, columns of the table of *entry*."""

    entry: Entry
    sealed: Column[Any]
    plain: Column[Any]

    @property
    def name(self) -> str:
        """What the commands call it: the table and the encrypted column."""
        return f"{self.entry.fullname}.{self.sealed.name}"

    @property
    def table(self) -> str:
        """The table's quoted, qualified name."""
        return qualified(target_of(self.entry))

    @property
    def guardian(self) -> str:
        """The name of the trigger that keeps the columns together, and of its function."""
        # Triggers fire in the order of their names: this one sees what the others have changed.
        name = object_name(self.entry.name, self.sealed.name, "migrating")
        return f"zz_tg_migrating_{name[-8:]}"

    @property
    def marker(self) -> str:
        """The name of the trigger that notes that plaintext is written; it fires before."""
        return self.guardian.replace("migrating", "marking")

    @property
    def function(self) -> str:
        """The quoted, qualified name of the triggers' function."""
        return f"{quote(target_of(self.entry)[0])}.{quote(self.guardian)}"

    @property
    def index_column(self) -> Column[Any] | None:
        """The generated column that is searched, if there is one."""
        for column in self.sealed.table.columns:
            if column.info.get(SEARCHES) == self.sealed.name:
                return column
        return None


def migration_of(catalog: Catalog, name: str) -> Migration:
    """Return the migration that *name* means: TABLE.COLUMN, of the plain or the encrypted column.

    Raises:
        ConfigurationError: If no encrypted column says that it takes that one's place, or there is
            no such plain column in its table.
    """
    found = [
        (column, source)
        for column in encrypted_columns(catalog.metadata)
        if (source := column.info.get(MIGRATING)) is not None
    ]
    for column, source in found:
        entry = catalog.entry(column.table)
        if name in {f"{entry.fullname}.{column.name}", f"{entry.fullname}.{source}"}:
            return Migration(entry, column, _plain(column, source))
    known = ", ".join(f"{catalog.entry(c.table).fullname}.{c.name}" for c, _ in found)
    raise ConfigurationError(
        f"No encrypted column takes the place of {name!r}. Declare one beside it, such as "
        'encrypted_str(name="name_sealed", migrating="name"). '
        + (f"There are {known}." if known else "There is none yet.")
    )


def _plain(column: Column[Any], source: str) -> Column[Any]:
    plain = next((each for each in column.table.columns if each.name == source), None)
    if plain is None or ENCRYPTED in plain.info:
        raise ConfigurationError(
            f"Column {column} takes the place of {source!r}, and the model has no such column of "
            f'plaintext. Keep it in the model, as plain_{source} = mapped_column("{source}"), '
            "until the migration has ended."
        )
    return plain
