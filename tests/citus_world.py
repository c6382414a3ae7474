"""A database for the dialect of Citus on plain PostgreSQL, with stand-ins for its functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from locks import unique_roles
from sqlalchemy import (
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Uuid,
    create_engine,
)

from tenantguard import TenantGuard, rls

if TYPE_CHECKING:
    from sqlalchemy import URL

METADATA = MetaData()
PRACTICES = Table("practices", METADATA, Column("id", Uuid, primary_key=True))
MATERIALS = Table("materials", METADATA, Column("id", Integer, primary_key=True))
PATIENTS = Table(
    "patients",
    METADATA,
    Column("tenant_id", ForeignKey("practices.id"), nullable=False),
    Column("id", Integer),
    Column("name", String),
    PrimaryKeyConstraint("tenant_id", "id"),
)
ORDERS = Table(
    "orders",
    METADATA,
    Column("tenant_id", ForeignKey("practices.id"), nullable=False),
    Column("id", Integer),
    Column("patient_id", Integer),
    PrimaryKeyConstraint("tenant_id", "id"),
    ForeignKeyConstraint(["tenant_id", "patient_id"], ["patients.tenant_id", "patients.id"]),
)
STAND_INS = """
SET allow_system_table_mods = on;
CREATE TABLE pg_catalog.pg_dist_partition (
    logicalrelid regclass, partkey text, repmodel "char", colocationid int);
CREATE FUNCTION pg_catalog.column_to_column_name(regclass, text) RETURNS text
    LANGUAGE sql AS 'SELECT $2';
CREATE FUNCTION pg_catalog.create_reference_table(regclass) RETURNS void
    LANGUAGE sql AS $$ INSERT INTO pg_dist_partition VALUES ($1, NULL, 't', 1) $$;
CREATE FUNCTION pg_catalog.create_distributed_table(
    regclass, text, kind text DEFAULT 'hash', colocate_with text DEFAULT 'default') RETURNS void
    LANGUAGE sql AS $$ INSERT INTO pg_dist_partition SELECT $1, $2, 's',
        CASE WHEN $4 = 'none' THEN 2 ELSE (SELECT p.colocationid FROM pg_dist_partition p
            WHERE p.logicalrelid = $4::regclass) END $$;
RESET allow_system_table_mods;
"""


class Cluster:
    """A database with the models' tables and stand-ins for what Citus adds."""

    def __init__(self, url: URL) -> None:
        self.admin = create_engine(url)
        self.guard = TenantGuard(
            METADATA,
            tenants="practices",
            shared={"materials": "price list of the trade association"},
            roles=unique_roles(),
            dialect="citus",
        )
        self.app_url = url.set(username=self.guard.roles.application)
        METADATA.create_all(self.admin)

    def run(self, statement: str) -> list[Any]:
        with self.admin.begin() as connection:
            result = connection.exec_driver_sql(statement)
            return [tuple(row) for row in result] if result.returns_rows else []

    def apply(self, **options: Any) -> list[rls.Step]:
        return rls.apply(self.admin, self.guard.catalog, self.guard.roles, **options)
