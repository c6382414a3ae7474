"""Which table is whose, read from the application's MetaData.

Every table is exactly one of: the *registry* of tenants, *scoped* by its tenant column, *shared*
(all tenants read it, none writes it), *untenanted* (never reached in a tenant's name), a *child*
whose rows belong to the tenant of the scoped row that they refer to, or *unclassified*, which is an
error wherever it matters. The MetaData is read and never changed. With
encrypted columns in it, the table of the tenants' keys belongs to the catalog too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, ForeignKeyConstraint, MetaData, Table, UniqueConstraint
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.sql.expression import FromClause, TableClause
from sqlalchemy.types import TypeEngine

from tenantguard.classification import (
    DIALECTS,
    SETTING,
    WRITTEN,
    Dialect,
    Entry,
    IdentityLookup,
    Kind,
    Parent,
    Roles,
    TenantLookup,
)
from tenantguard.context import TenantId
from tenantguard.errors import ConfigurationError, UnknownTenantError
from tenantguard.keytable import KEY_TABLE, check_encrypted, encrypted_columns, key_table
from tenantguard.tenant_ids import affinity, canonical, to_text

__all__ = [
    "DIALECTS",
    "SETTING",
    "WRITTEN",
    "Catalog",
    "Dialect",
    "Entry",
    "IdentityLookup",
    "Kind",
    "Parent",
    "Roles",
    "TenantLookup",
]

_SYSTEM_SCHEMAS = frozenset({"pg_catalog", "information_schema"})


@dataclass(slots=True)
class Catalog:
    """The classification of every table in *metadata*.

    Args:
        metadata: The application's tables.
        tenants: Name of the registry table, with its schema if it has one.
        tenant_column: Name of the tenant column in the database.
        tenant_columns: The same for tables that differ, by table name.
        shared: Table name to the reason why all tenants may read it.
        untenanted: Table name to the reason why no tenant needs it.
        signed: Whether row-level security believes a tenant only with the application's signature.
        dialect: What the database is: `postgres`, or `citus` for PostgreSQL spread over nodes.
    """

    metadata: MetaData
    tenants: str
    tenant_column: str = "tenant_id"
    tenant_columns: Mapping[str, str] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    untenanted: Mapping[str, str] = field(default_factory=dict)
    lookups: list[IdentityLookup | TenantLookup] = field(default_factory=list)
    signed: bool = False
    dialect: Dialect = "postgres"
    _entries: dict[tuple[str | None, str], Entry] = field(default_factory=dict)
    _to_database: Callable[[Any], Any] | None = None
    _key_table: Table | None = None
    _resolving: list[Table] = field(default_factory=list)
    _references: dict[Table, tuple[int, tuple[Parent, ...]]] = field(default_factory=dict)
    _application_only: tuple[int, list[Entry]] = (0, [])

    def __iter__(self) -> Iterator[Entry]:
        """Yield an entry for every table, ordered by name."""
        # Not by dependency: tables that refer to each other have no such order.
        for table in self.tables():
            yield self.entry(table)

    def tables(self) -> list[Table]:
        """Return every table, ordered by name; the keys' table last."""
        tables = [table for _, table in sorted(self.metadata.tables.items())]
        return [*tables, self.key_table] if self.encrypts else tables

    @property
    def application_only(self) -> list[Entry]:
        """The tables that row-level security cannot hold, because they have no tenant column."""
        count, found = self._application_only
        if count != len(self.metadata.tables):
            found = [entry for entry in self if entry.kind is Kind.CHILD]
            self._application_only = len(self.metadata.tables), found
        return found

    @property
    def encrypts(self) -> bool:
        """Whether the MetaData has encrypted columns."""
        return any(True for _ in encrypted_columns(self.metadata))

    @property
    def key_table(self) -> Table:
        """The table of the tenants' keys, in the registry's schema."""
        if self._key_table is None:
            registry = self._registry_table()
            self._key_table = key_table(self.tenant_type, registry.schema)
        return self._key_table

    def check(self) -> None:
        """Raise a `ConfigurationError` unless the configuration fits the MetaData.

        Unclassified tables are not an error here: they are refused where they are used.
        """
        self.check_dialect()
        registry = self.registry
        declared = {**self.shared, **self.untenanted, **dict.fromkeys(self.tenant_columns, "-")}
        for name, reason in declared.items():
            if not reason.strip():
                raise ConfigurationError(f"Table {name!r} is declared without a reason.")
        for name in {*self.shared, *self.tenant_columns}:
            if name not in self.metadata.tables:
                raise ConfigurationError(
                    f"Table {name!r} is declared to the guard, but the MetaData does not have it. "
                    "Correct the name, or import the module that defines the model first."
                )
        twice = set(self.shared) & set(self.untenanted)
        if twice:
            raise ConfigurationError(
                f"Table {min(twice)!r} is declared both shared and untenanted; choose one."
            )
        for entry in self:
            column = entry.column
            if column is not None and affinity(column.type) is not affinity(self.tenant_type):
                raise ConfigurationError(
                    f"Column {entry.fullname}.{column.name} has another type than the primary key "
                    f"of {registry.fullname}; a tenant column has the registry's type."
                )
        for column in encrypted_columns(self.metadata):
            entry = self.entry(column.table)
            if entry.kind is not Kind.SCOPED:
                raise ConfigurationError(
                    f"Column {entry.fullname}.{column.name} is encrypted, and {entry.fullname!r} "
                    f"is {entry.kind.value}: only a scoped table's rows have a tenant, whose key "
                    "they need."
                )
        check_encrypted(self.metadata)

    def check_dialect(self) -> None:
        """Raise a `ConfigurationError` unless the database's kind can be what the options ask."""
        if self.dialect not in DIALECTS:
            raise ConfigurationError(
                f"TenantGuard(dialect=…) takes {' or '.join(map(repr, DIALECTS))}."
            )
        if self.signed and self.dialect == "citus":
            raise ConfigurationError(
                "With Citus no node could verify a signed tenant: the table of its keys is on "
                "another. Leave out signed_setting=True, or dialect='citus'."
            )

    @property
    def registry(self) -> Entry:
        """The registry's entry."""
        return self.entry(self._registry_table())

    @property
    def tenant_type(self) -> TypeEngine[Any]:
        """The SQLAlchemy type of a tenant id."""
        return _single_key(self._registry_table()).type

    def registry_key(self) -> tuple[Table, Column[Any]]:
        """Return the registry table and its primary key."""
        table = self._registry_table()
        return table, _single_key(table)

    def entry(self, table: FromClause) -> Entry:
        """Return the classification of *table*, found by schema and name.

        A lightweight `table()` or a Table of another MetaData gets the entry of the table it names.
        """
        if not isinstance(table, TableClause):
            raise ConfigurationError("Only tables are classified.")
        schema = getattr(table, "schema", None)
        key = (schema, table.name)
        found = self._entries.get(key)
        if found is None:
            found = self._classify(schema, table.name)
            if found.kind is not Kind.UNCLASSIFIED:
                self._entries[key] = found
        return found

    def canonical(self, given: TenantId) -> TenantId:
        """Return *given* as the registry's primary key would hold it.

        Raises:
            UnknownTenantError: If *given* is not of the registry's type.
        """
        try:
            return canonical(given, self.tenant_type)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UnknownTenantError(
                "The tenant's id does not have the type of the primary key of "
                f"{self.registry.fullname}. Pass the id as the registry has it, or its text."
            ) from None

    def text(self, tenant: TenantId) -> str:
        """Return a canonical *tenant* as the text that PostgreSQL compares its columns with."""
        if self._to_database is None:
            self._to_database = to_text(self.tenant_type)
        return str(self._to_database(tenant))

    def _registry_table(self) -> Table:
        table = self.metadata.tables.get(self.tenants)
        if table is None:
            raise ConfigurationError(
                f"The registry table {self.tenants!r} is not in the MetaData. Name it in "
                "TenantGuard(tenants=…), or import the module that defines it first."
            )
        return table

    def _classify(self, schema: str | None, name: str) -> Entry:
        fullname = f"{schema}.{name}" if schema else name
        if schema in _SYSTEM_SCHEMAS:
            return Entry(name, schema, Kind.SYSTEM, "PostgreSQL's own catalog")
        table = self.metadata.tables.get(fullname)
        if fullname == self.tenants and table is not None:
            key = _single_key(table)
            return Entry(name, schema, Kind.REGISTRY, "the registry of tenants", table, key)
        if name == KEY_TABLE and self.encrypts and schema == self.key_table.schema:
            keys = self.key_table
            reason = "the tenants' wrapped keys"
            return Entry(name, schema, Kind.KEYS, reason, keys, keys.c.tenant_id)
        if fullname in self.shared:
            return Entry(name, schema, Kind.SHARED, self.shared[fullname], table)
        if fullname in self.untenanted:
            return Entry(name, schema, Kind.UNTENANTED, self.untenanted[fullname], table)
        return self._by_column(schema, name, table)

    def _by_column(self, schema: str | None, name: str, table: Table | None) -> Entry:
        fullname = f"{schema}.{name}" if schema else name
        wanted = self.tenant_columns.get(fullname, self.tenant_column)
        column = _column_named(table, wanted)
        if column is not None:
            return Entry(name, schema, Kind.SCOPED, f"column {wanted}", table, column)
        if fullname in self.tenant_columns:
            raise ConfigurationError(
                f"Table {fullname!r} has no column {wanted!r}, which tenant_columns names."
            )
        parents = self._parents(table)
        if parents:
            through = ", ".join(parent.column.name for parent in parents)
            reason = f"through {through}; application only"
            return Entry(name, schema, Kind.CHILD, reason, table, parents=parents)
        return Entry(name, schema, Kind.UNCLASSIFIED, f"no column {wanted}, not declared", table)

    def references(self, entry: Entry) -> tuple[Parent, ...]:
        """Return the foreign keys of *entry* that no composite key in the database can hold.

        Those are all to rows of tenants where either table has no tenant column.

        Raises:
            ConfigurationError: If one of them has several columns.
        """
        table = entry.table
        if table is None or entry.kind not in WRITTEN:
            return ()
        known = len(self.metadata.tables)
        count, found = self._references.get(table, (0, ()))
        if count != known:
            # A model that is imported later may make a reference one to a tenant's row.
            keys = [key for key in parent_keys(table) if self._open(entry, key)]
            found = tuple(self._reference(entry, key) for key in keys)
            self._references[table] = known, found
        return found

    def _open(self, entry: Entry, key: ForeignKeyConstraint) -> bool:
        try:
            kinds = {entry.kind, self.entry(key.referred_table).kind}
        except NoReferenceError:
            # No model has that table, so nothing says that its rows are a tenant's.
            return False
        return Kind.CHILD in kinds and kinds <= WRITTEN

    def _reference(self, entry: Entry, key: ForeignKeyConstraint) -> Parent:
        if len(key.elements) > 1:
            raise ConfigurationError(
                f"The foreign key of {entry.fullname} to {key.referred_table.fullname} has several "
                "columns and no tenant, so it cannot be checked. `tenantguard migrate sql TABLE` "
                "gives a table its tenant column."
            )
        return _parent(key)

    def _parents(self, table: Table | None) -> tuple[Parent, ...]:
        """Return where the rows of *table* get their tenant from; empty if that is not certain."""
        if table is None or table in self._resolving:
            return ()
        self._resolving.append(table)
        try:
            if any(self._is_registry(key.referred_table) for key in parent_keys(table)):
                # Perhaps its tenant column by another name, which a parent's tenant need not agree
                # with.
                return ()
            owned = [key for key in parent_keys(table) if self._is_owned(key.referred_table)]
            if not all(map(_names_one_row, owned)):
                return ()
        except NoReferenceError:
            return ()
        finally:
            self._resolving.remove(table)
        return tuple(_parent(key) for key in owned if not next(iter(key.columns)).nullable)

    def _is_registry(self, table: Table) -> bool:
        return table.fullname == self.tenants

    def _is_owned(self, table: Table) -> bool:
        return self.entry(table).kind in WRITTEN


def _names_one_row(key: ForeignKeyConstraint) -> bool:
    """Return whether *key* is of one column, which no two tenants' rows can have in common."""
    return len(key.elements) == 1 and has_unique_key(key.elements[0].column)


def _parent(key: ForeignKeyConstraint) -> Parent:
    return Parent(next(iter(key.columns)), key.elements[0].column)


def _column_named(table: Table | None, name: str) -> Column[Any] | None:
    if table is None:
        return None
    return next((column for column in table.columns if column.name == name), None)


def _single_key(table: Table) -> Column[Any]:
    keys = list(table.primary_key.columns)
    if len(keys) != 1:
        raise ConfigurationError(
            f"The registry table {table.fullname!r} needs a primary key of exactly one column."
        )
    return keys[0]


def parent_keys(table: Table) -> Iterator[ForeignKeyConstraint]:
    """Yield the foreign keys of *table*, ordered by name and columns."""
    yield from sorted(
        table.foreign_key_constraints,
        key=lambda key: (str(key.name or ""), [column.name for column in key.columns]),
    )


def has_unique_key(column: Column[Any]) -> bool:
    """Return whether *column* alone is unique in its table."""
    table = column.table
    return bool(
        column.unique
        or [column] == list(table.primary_key.columns)
        or any(
            isinstance(constraint, UniqueConstraint) and [column] == list(constraint.columns)
            for constraint in getattr(table, "constraints", ())
        )
        or any(
            index.unique
            and [column] == list(index.columns)
            and index.dialect_options["postgresql"]["where"] is None
            for index in getattr(table, "indexes", ())
        )
    )
