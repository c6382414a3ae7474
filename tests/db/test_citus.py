"""The dialect of Citus on plain PostgreSQL, where its functions are stand-ins that take notes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from citus_world import PATIENTS, PRACTICES, STAND_INS, Cluster
from drivers import DRIVERS, engine_of
from practice import A, B
from proxy import proxy
from sqlalchemy import Engine, create_engine, insert, select, text

from tenantguard import (
    ConfigurationError,
    CrossTenantError,
    PolicyDriftError,
    TenantGuard,
    tenant_context,
)
from tenantguard.binding.state import AHEAD, Binding, ConnectionState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from locks import Locks
    from sqlalchemy import URL

SPREAD = (
    "SELECT logicalrelid::text, partkey, colocationid FROM pg_dist_partition "
    "ORDER BY logicalrelid::text"
)
SETTINGS = text(
    "SELECT current_setting('citus.propagate_set_commands', true), "
    "current_setting('tenantguard.tenant', true)"
)


@pytest.fixture
def cluster(new_database: Callable[[], URL]) -> Iterator[Cluster]:
    made = Cluster(new_database())
    made.run(STAND_INS)
    yield made
    made.admin.dispose()


@pytest.fixture
def applied(cluster: Cluster) -> Cluster:
    with cluster.admin.begin() as connection:
        connection.execute(insert(PRACTICES), [{"id": A}, {"id": B}])
        rows = [{"tenant_id": each, "id": 1, "name": f"of {each}"} for each in (A, B)]
        connection.execute(insert(PATIENTS), rows)
    cluster.apply(create_roles=True)
    return cluster


def test_apply_distributes_every_table_once(applied: Cluster) -> None:
    """Tenants' tables are in the registry's group, shared ones on every node; once is enough."""
    assert applied.run(SPREAD) == [
        ("materials", None, 1),
        ("orders", "tenant_id", 2),
        ("patients", "tenant_id", 2),
        ("practices", "id", 2),
    ]
    assert applied.apply() == []


def test_another_distribution_is_not_taken_for_ours(applied: Cluster) -> None:
    """A table that is spread by another column, or alone, stops it with what to do."""
    for change in ("partkey = 'id'", "partkey = 'tenant_id', colocationid = 7", "repmodel = 't'"):
        applied.run(
            f"UPDATE pg_dist_partition SET {change} WHERE logicalrelid = 'orders'::regclass"
        )
        with pytest.raises(ConfigurationError, match=r"public\.orders is spread .* undistribute"):
            applied.apply()


def test_a_server_without_citus_is_told(new_database: Callable[[], URL]) -> None:
    """On plain PostgreSQL nothing is applied."""
    plain = Cluster(new_database())
    with pytest.raises(ConfigurationError, match="does not have the extension citus"):
        plain.apply(create_roles=True)
    plain.admin.dispose()


@pytest.mark.parametrize("driver", DRIVERS)
def test_tenants_are_kept_apart(applied: Cluster, driver: str) -> None:
    """The policies are found to hold, and text without a predicate reaches one tenant's rows."""
    engine = engine_of(applied.app_url, driver)
    applied.guard.protect(engine)
    everything = text("SELECT name FROM patients")
    for tenant in (A, B):
        with tenant_context(tenant), engine.begin() as connection:
            assert connection.scalars(select(PATIENTS.c.name)).all() == [f"of {tenant}"]
            assert connection.scalars(everything).all() == [f"of {tenant}"]
    foreign = text(f"INSERT INTO patients VALUES ('{B}', 2, 'x')")
    with tenant_context(A), pytest.raises(CrossTenantError), engine.begin() as connection:
        connection.execute(foreign)
    engine.dispose()


def test_policies_of_the_other_dialect_are_found(applied: Cluster) -> None:
    """What stands on the coordinator has to be what the shards can hold, sub-select or not."""
    applied.run(
        "ALTER POLICY tenantguard_application ON patients USING (tenant_id = (SELECT "
        "nullif(current_setting('tenantguard.tenant', true), '')::uuid))"
    )
    engine = create_engine(applied.app_url)
    applied.guard.protect(engine)
    with (
        tenant_context(A),
        pytest.raises(PolicyDriftError, match=r"tenantguard_application on public\.patients"),
        engine.connect(),
    ):
        pass
    engine.dispose()


# -- the pair on the begin ----------------------------------------------------------------------


def bound(locks: Locks, url: URL) -> Engine:
    """An engine on *url* that binds as for Citus, on a database that is plain."""
    engine = locks._engine(url, {})
    guard = locks.world.guard
    other = TenantGuard(
        guard.catalog.metadata,
        tenants="practices",
        shared=guard.catalog.shared,
        untenanted=guard.catalog.untenanted,
        roles=guard.roles,
        dialect="citus",
    )
    other._bind(engine, verify=lambda *_: None)
    return engine


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_pair_rides_on_the_begin(locks: Locks, driver: str) -> None:
    """Both settings are there for the first statement at no additional round trip."""
    del driver
    world = locks.world
    seen, trips = [], []
    with proxy(world.app_url) as counted, tenant_context(A):
        engine = bound(locks, counted.url(world.app_url))
        for _ in range(3):
            before = counted.round_trips
            with engine.begin() as connection:
                seen.append(tuple(connection.execute(SETTINGS).one()))
            trips.append(counted.round_trips - before)
        engine.dispose()
    assert seen == [("local", str(A))] * 3
    # BEGIN, the statement, COMMIT.
    assert trips[-1] == 3


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_nothing_of_the_pair_stays(locks: Locks, driver: str, end: str) -> None:
    """After the transaction neither is set, for what is sent unbound on the same connection."""
    del driver
    engine = bound(locks, locks.world.app_url)
    with engine.connect() as connection, tenant_context(A):
        assert tuple(connection.execute(SETTINGS).one()) == ("local", str(A))
        getattr(connection, end)()
        driven: Any = connection.connection.driver_connection
        driven.tenantguard.check_outs = 0
        assert tuple(connection.execute(SETTINGS).one()) == ("", "")
        driven.tenantguard.check_outs = 1


def test_workers_are_told_to_listen_before_the_tenant_is_named() -> None:
    """In the other order the tenant would stay on the coordinator, and shards would show no row."""
    binding = Binding(
        tenant=lambda: "a'b",
        unknown=lambda _: True,
        answered=lambda *_: None,
        registry_query=lambda literal: f"SELECT {literal}",
        vouches=lambda _: True,
        ahead=AHEAD["citus"],
    )
    for scrubbed in (False, True):
        state = ConnectionState(binding, ["RESET ALL"], dirty=scrubbed, bound="a'b")
        commands = state.begin("BEGIN ISOLATION LEVEL SERIALIZABLE").commands
        assert commands[-4:] == [
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "SET LOCAL citus.propagate_set_commands = 'local'",
            "SET LOCAL tenantguard.tenant = E'a''b'",
            "SELECT E'a''b'",
        ]
        assert ("RESET ALL" in commands) is scrubbed
