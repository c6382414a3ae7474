"""Names that need quoting, in a schema of their own, go through both locks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from locks import unique_roles
from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from tenantguard import CrossTenantError, TenantGuard, rls, tenant_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

SCHEMA = 'Sa"les'
metadata = MetaData(schema=SCHEMA)
registry = Table("Mandant", metadata, Column("Id", String(40), primary_key=True))
parents = Table(
    "user",
    metadata,
    Column("select", Integer, primary_key=True),
    Column("Tenant Id", ForeignKey(registry.c.Id), key="tenant"),
    Column("na'me", String, key="name"),
)
orders = Table(
    "order",
    metadata,
    Column("id", Integer, primary_key=True),
    Column('Ten"ant', ForeignKey(registry.c.Id), key="owner"),
    Column("user", ForeignKey(parents.c.select, ondelete="CASCADE")),
    Column("group", String),
)


@pytest.fixture(scope="module")
def engine(admin_url: URL) -> Iterator[Engine]:
    admin = create_engine(admin_url)
    with admin.begin() as connection:
        connection.execute(text('CREATE SCHEMA "Sa""les"'))
        metadata.create_all(connection)
        for number, tenant in enumerate(("it's A", 'it"s B'), start=1):
            connection.execute(insert(registry).values(Id=tenant))
            connection.execute(insert(parents).values(tenant=tenant, name=f"user {number}"))
            connection.execute(insert(orders).values(owner=tenant, user=number, group="g"))
    guard = TenantGuard(
        metadata,
        tenants=f"{SCHEMA}.Mandant",
        tenant_column="Tenant Id",
        tenant_columns={f"{SCHEMA}.order": 'Ten"ant'},
        roles=unique_roles(),
    )
    rls.apply(admin, guard.catalog, guard.roles, create_roles=True)
    assert rls.apply(admin, guard.catalog, guard.roles) == []
    protected = create_engine(admin_url.set(username=guard.roles.application))
    guard.protect(protected)
    yield protected
    protected.dispose()
    admin.dispose()


READS: dict[str, Any] = {
    "table": select(parents.c.name),
    "join": select(parents.c.name).join(orders),
    "outer join": select(parents.c.name).outerjoin(orders),
    "full join of aliases": select((p := parents.alias("P")).c.name).select_from(
        p.join(orders.alias("O"), text('"O"."user" = "P"."select"'), full=True)
    ),
    "registry": select(func.concat("user ", func.count())).select_from(registry),
    "text": text("""SELECT "na'me" FROM "Sa""les"."user" """),
}


@pytest.mark.parametrize("read", READS)
def test_reads_are_scoped(engine: Engine, read: str) -> None:
    """Each tenant reads its own user, whatever the tables are called."""
    with tenant_context("it's A"), engine.connect() as connection:
        assert connection.scalars(READS[read]).all() == ["user 1"]


def test_writes_are_stamped_and_scoped(engine: Engine) -> None:
    """Insert, upsert, update and delete write own rows, and foreign ones are refused."""
    with tenant_context('it"s B'), engine.connect() as connection:
        inserted = insert(orders).values(user=2, group="mine").returning(orders.c.owner)
        assert connection.scalar(inserted) == 'it"s B'
        assert connection.execute(update(orders).values(group="x")).rowcount == 2
        assert connection.execute(delete(orders)).rowcount == 2
        conflict = upsert(orders).values(id=1, user=2, group="stolen")
        conflict = conflict.on_conflict_do_update(index_elements=["id"], set_={"group": "stolen"})
        with pytest.raises(CrossTenantError, match="ON CONFLICT hit a row of another"):
            connection.execute(conflict)
        connection.rollback()
        with pytest.raises(IntegrityError, match="foreign key"):
            connection.execute(insert(orders).values(user=1, group="foreign parent"))
        connection.rollback()
        with pytest.raises(CrossTenantError, match="another tenant than the active one"):
            connection.execute(insert(orders).values(owner="it's A", user=2))
