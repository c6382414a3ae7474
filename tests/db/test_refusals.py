"""Each refusal, by its words: what cannot be scoped, written or shared between tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from practice import A, B, Base, Material, Migration, Order, Patient, Practice
from sqlalchemy import (
    Column,
    FromClause,
    Integer,
    MetaData,
    Table,
    column,
    create_engine,
    func,
    insert,
    inspect,
    literal_column,
    select,
    table,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, ObjectNotExecutableError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.elements import quoted_name

from tenantguard import (
    ConfigurationError,
    CrossTenantError,
    PolicyDriftError,
    TenantGuard,
    UnsafeRoleError,
    UnscopedStatementError,
    rls,
    tenant_context,
)
from tenantguard.binding.state import ConnectionState
from tenantguard.scoping.writes import Writes

if TYPE_CHECKING:
    from locks import Locks

PATIENTS: Any = Patient.__table__
CANARY = "Kanarienvogel-4711"


class Hidden(FromClause):
    """A construct of the application's that renders a table the guard is not told of."""

    inherit_cache = False
    named_with_column = False


@compiles(Hidden)
def _render_hidden(_element: Hidden, compiler: Any, **kwargs: Any) -> str:
    kwargs["asfrom"] = True
    return str(compiler.process(PATIENTS, **kwargs))


WRONG: dict[str, tuple[Any, str]] = {
    "unplaced table": (select(text("name")).select_from(Hidden()), "stands where tenantguard can"),
    "unplaced beside placed": (
        select(PATIENTS.c.id).select_from(Hidden()),
        "stands where tenantguard can",
    ),
    "undecided table": (select(table("leftovers", column("id"))), "is not classified"),
    "untenanted table": (select(Migration), "declared untenanted"),
    "shared table": (insert(Material).values(name="x"), r"\(shared\) is read only"),
    "registry": (update(Practice).values(name="x"), r"\(registry\) is read only"),
    "catalog": (
        update(table("pg_class", column("relname"), schema="pg_catalog")).values(relname="x"),
        r"\(system\) is read only",
    ),
    "no tenant column": (
        insert(table("patients", column("name"))).values(name="x"),
        "lacks its column 'tenant_id'",
    ),
    "full join with a hint": (
        select(PATIENTS.c.id)
        .select_from(PATIENTS.join(Order.__table__, full=True))
        .with_hint(PATIENTS, "ONLY"),
        "stands under a FULL JOIN",
    ),
    "join written": (
        update(PATIENTS.join(Order.__table__)).values({PATIENTS.c.name: "x"}),
        "Only tables can be written",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_scoped_is_refused(locks: Locks, wrong: str) -> None:
    """The error names the table, and what to do instead."""
    statement, message = WRONG[wrong]
    with (
        tenant_context(A),
        locks.both().connect() as connection,
        pytest.raises(UnscopedStatementError, match=message),
    ):
        connection.execute(statement)


def _selecting(tenant: Any) -> Any:
    return insert(PATIENTS).from_select(["name", "tenant_id"], select(PATIENTS.c.name, tenant))


@pytest.mark.parametrize(
    "statement",
    [
        insert(PATIENTS).values(name="x", tenant_id=select(Practice.id).scalar_subquery()),
        _selecting(func.coalesce(PATIENTS.c.tenant_id)),
        _selecting(literal_column("tenant_id")),
        _selecting(PATIENTS.c.name),
        _selecting(Material.name),
    ],
)
def test_tenant_given_as_an_expression_is_refused(locks: Locks, statement: Any) -> None:
    """An expression could be anything, so the tenant column takes none."""
    with (
        tenant_context(A),
        locks.both().connect() as connection,
        pytest.raises(CrossTenantError, match="given an SQL expression"),
    ):
        connection.execute(statement)


@pytest.mark.parametrize("rows", [{"name": "x"}, [{"name": "x"}, {"name": "y"}]])
def test_tenant_given_as_none_is_filled_in(locks: Locks, rows: Any) -> None:
    """As SQLAlchemy's own defaults are not, because a row without a tenant is nobody's."""
    given = rows if isinstance(rows, list) else [rows]
    given = [{**row, "tenant_id": None} for row in given]
    with tenant_context(A), locks.both().connect() as connection:
        connection.execute(insert(PATIENTS), given if isinstance(rows, list) else given[0])
        names = [row["name"] for row in given]
        found = select(PATIENTS.c.tenant_id).where(PATIENTS.c.name.in_(names))
        assert connection.scalars(found).all() == [A] * len(given)


def test_what_nobody_owns_stays_whole(locks: Locks) -> None:
    """A shared table under a FULL JOIN and PostgreSQL's statistics are read as they are."""
    ordered = select(Material.name).join(Order, Order.material_id == Material.id, full=True)
    statistics = table("pg_stats", column("tablename"), schema="pg_catalog")
    with tenant_context(A), locks.both().connect() as connection:
        assert connection.scalars(ordered.where(Material.name.is_not(None))).all() == ["Zirkon"]
        connection.execute(select(statistics.c.tablename))


def test_tenant_taken_off_an_object_is_refused(locks: Locks) -> None:
    """A row cannot be left without its tenant either."""
    with tenant_context(A), Session(locks.both()) as session:
        patient = session.scalars(select(Patient)).first()
        assert patient is not None
        patient.tenant_id = None  # type: ignore[assignment]
        with pytest.raises(CrossTenantError, match=r"never change|another tenant"):
            session.flush()


def test_an_object_is_told_its_tenant(locks: Locks) -> None:
    """What the statement fills in, the object has as well, without being read again."""
    with tenant_context(A), Session(locks.both()) as session:
        patient = Patient(name="x")
        session.add(patient)
        session.flush()
        assert inspect(patient).dict["tenant_id"] == A


def test_tenant_of_an_object_may_be_given_as_text(locks: Locks) -> None:
    """It is compared as the registry would hold it."""
    with tenant_context(A), Session(locks.both()) as session:
        patient = Patient(name="x", tenant_id=str(A))
        session.add(patient)
        session.flush()
        patient.tenant_id = A
        session.flush()
        session.add(Patient(name="x", tenant_id=str(B)))
        with pytest.raises(CrossTenantError, match="of another tenant is in this session's flush"):
            session.flush()


def test_the_predicate_stands_once_for_each_table(locks: Locks) -> None:
    """Twice would find the same rows, and cost the planner more."""
    joined = select(PATIENTS.c.id).join(Order.__table__).compile(locks.both())
    assert str(joined).count("tenant_id = ") == 2


@pytest.mark.parametrize("lock", ["both", "first_alone"])
def test_expunge_all_does_not_unpin_a_session(locks: Locks, lock: str) -> None:
    """A session emptied in mid-transaction is pinned again by what it loads next."""
    with Session(getattr(locks, lock)()) as session:
        with tenant_context(A):
            key = session.scalars(select(Patient.id)).first()
            session.expunge_all()
            mine = session.get_one(Patient, key)
            mine.name = "changed"
        with tenant_context(B):
            with pytest.raises(CrossTenantError, match="already served another tenant"):
                session.get(Patient, key)
            with pytest.raises(CrossTenantError, match="already served another tenant"):
                session.dirty  # noqa: B018
        with tenant_context(A):
            assert session.get(Patient, key) is mine


def test_a_statement_compiled_for_another_guard_is_refused(locks: Locks) -> None:
    """Only what this engine's guard compiled is taken for scoped."""
    observing = TenantGuard(
        Base.metadata, tenants="practices", roles=locks.world.guard.roles, mode="observe"
    )
    other = locks._engine(locks.world.app_url, {})
    observing.protect(other)
    compiled = select(PATIENTS.c.name).compile(other)
    with (
        tenant_context(A),
        locks.both().connect() as connection,
        # SQLAlchemy 2.1 does not execute compiled statements any more.
        pytest.raises(
            (UnscopedStatementError, ObjectNotExecutableError),
            match=r"compiled without the guard|Not an executable object",
        ),
    ):
        connection.execute(compiled)  # type: ignore[call-overload]


def test_open_transaction_from_the_pool_is_refused(locks: Locks) -> None:
    """With reset_on_return=None a connection could bring another tenant's transaction along."""
    engine = locks.both(pool_size=1, max_overflow=0, pool_reset_on_return=None)
    with tenant_context(A):
        raw = engine.raw_connection()
        raw.cursor().execute("SELECT 1")
        raw.close()
        with pytest.raises(UnscopedStatementError, match="transaction is still open"):
            engine.raw_connection()


# -- what the database says ---------------------------------------------------------------------


def test_new_connections_see_row_security_switched_off(locks: Locks) -> None:
    """After the first check, each new connection still asks whether the policies are on."""
    world = locks.world
    engine = locks.both()
    with tenant_context(A), engine.connect():
        with world.admin.begin() as admin:
            admin.execute(text("ALTER TABLE patients DISABLE ROW LEVEL SECURITY"))
        try:
            with pytest.raises(PolicyDriftError, match=r"off, or not forced, on public\.patients"):
                engine.connect()
        finally:
            rls.apply(world.admin, world.guard.catalog, world.guard.roles)


def test_a_new_pool_is_verified_anew(locks: Locks) -> None:
    """dispose() may mean another server; the policies are compared again."""
    world = locks.world
    engine = locks.both()
    with tenant_context(A), engine.connect():
        pass
    with world.admin.begin() as admin:
        admin.execute(text("CREATE POLICY stray ON patients USING (true)"))
    try:
        engine.dispose()
        with tenant_context(A), pytest.raises(PolicyDriftError, match="'stray'"):
            engine.connect()
    finally:
        with world.admin.begin() as admin:
            admin.execute(text("DROP POLICY stray ON patients"))


def test_a_pools_later_connections_are_not_compared_whole(locks: Locks) -> None:
    """Only the first is; each is asked for its role, and whether the policies are on."""
    compared: list[bool] = []
    engine = locks._engine(locks.world.app_url, {"poolclass": NullPool})
    locks.world.guard._bind(engine, verify=lambda _, whole: compared.append(whole))
    for _ in range(2):
        with tenant_context(A):
            engine.connect().close()
            engine.connect().close()
        engine.dispose()
    assert compared == [True, False, True, False]


def test_reachable_support_role_is_refused(locks: Locks) -> None:
    """An application that may become support could use policies that nobody compared."""
    world = locks.world
    support, application = world.guard.roles.support, world.guard.roles.application
    with world.admin.begin() as admin:
        admin.execute(text(f'GRANT "{support}" TO "{application}"'))
    try:
        with tenant_context(A), pytest.raises(UnsafeRoleError, match="the support role"):
            locks.both().connect()
    finally:
        with world.admin.begin() as admin:
            admin.execute(text(f'REVOKE "{support}" FROM "{application}"'))


def test_privilege_on_an_undecided_table_is_refused(locks: Locks) -> None:
    """A table nobody classified has no policy, so the application may have no right to it."""
    world = locks.world
    metadata = MetaData()
    for each in Base.metadata.tables.values():
        each.to_metadata(metadata)
    Table("leftovers", metadata, Column("id", Integer, primary_key=True))
    guard = TenantGuard(
        metadata,
        tenants="practices",
        shared={"materials": "price list"},
        untenanted={"schema_versions": "migration state"},
        roles=world.guard.roles,
    )
    engine = locks._engine(world.app_url, {})
    guard.protect(engine)
    with world.admin.begin() as admin:
        admin.execute(text("CREATE TABLE leftovers (id int)"))
        admin.execute(text(f'GRANT SELECT ON leftovers TO "{guard.roles.application}"'))
    try:
        with tenant_context(A), pytest.raises(PolicyDriftError, match=r"leftovers.*unclassified"):
            engine.connect()
    finally:
        with world.admin.begin() as admin:
            admin.execute(text("DROP TABLE leftovers"))


# -- nothing shows ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["derived before", "derived protected", "derived after"])
def test_derived_engines_hide_parameters_too(locks: Locks, order: str) -> None:
    """Whatever engine of a family runs the statement, its error shows no value."""
    engine = locks._engine(locks.world.app_url, {})
    derived = engine.execution_options(logging_token="x")
    locks.world.guard.protect(derived if order == "derived protected" else engine)
    if order == "derived after":
        derived = engine.execution_options(logging_token="y")
    failing = select(PATIENTS.c.id).where(PATIENTS.c.name != CANARY, func.sqrt(-1) == 1)
    for each in (engine, derived):
        with tenant_context(A), each.connect() as connection, pytest.raises(DBAPIError) as caught:
            connection.execute(failing)
        assert CANARY not in f"{caught.value!r} {caught.value}"


def test_no_repr_shows_a_tenant(locks: Locks) -> None:
    """A dump of local variables shows neither the bound tenant nor a supplied one."""
    engine = locks.both()
    with tenant_context(A), engine.connect() as connection:
        connection.execute(select(PATIENTS.c.id))
        state = connection.connection.dbapi_connection.tenantguard  # type: ignore[union-attr]
        assert isinstance(state, ConnectionState)
        assert state.bound == str(A)
        assert str(A) not in repr(state)
    assert "supplied" not in repr(Writes())
    assert "bbbb" not in repr(locks.world.guard)


def test_the_cache_of_known_tenants_is_bounded(locks: Locks) -> None:
    """Nothing grows with the number of tenants."""
    guard = TenantGuard(Base.metadata, tenants="practices", roles=locks.world.guard.roles)
    for number in range(10_050):
        guard._registry.answered(str(number), 1)
    assert len(guard._registry._known) == 10_000
    assert guard._registry.is_unknown("0")
    assert not guard._registry.is_unknown("10049")


# -- observe and off ----------------------------------------------------------------------------


def test_observe_leaves_names_and_odd_values_alone(locks: Locks) -> None:
    """What enforce would refuse or quote runs as it did before."""
    guard = TenantGuard(
        Base.metadata, tenants="practices", roles=locks.world.guard.roles, mode="observe"
    )
    engine = locks._engine(locks.world.app_url, {})
    guard.protect(engine)
    folded: Any = select(column(quoted_name("NAME", quote=False))).select_from(PATIENTS)
    with tenant_context(A), engine.connect() as connection:
        assert len(connection.execute(folded).all()) == 3
        with pytest.raises(Exception, match=r"[Tt]ype|cannot adapt|hex|uuid"):
            connection.execute(insert(PATIENTS), {"name": "x", "tenant_id": {"a": 1}})


def test_off_leaves_the_system_engine_alone() -> None:
    """A guard that is off listens to nothing."""
    engine = create_engine("sqlite://")
    TenantGuard(Base.metadata, tenants="practices", mode="off", system_engine=engine)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


# -- system access ------------------------------------------------------------------------------


def test_system_access_ends_with_its_block(locks: Locks) -> None:
    """A connection, or an object, kept from the block is of no use outside it."""
    system = locks.none()
    guard = TenantGuard(
        Base.metadata, tenants="practices", roles=locks.world.guard.roles, system_engine=system
    )
    with guard.system_access(reason="nightly billing") as engine:
        connection = engine.connect()
        session = Session(engine)
        keys = session.scalars(select(Patient.id)).all()
        assert len([session.get(Patient, key) for key in keys]) == 6
        session.add_all([Practice(name="made by the system"), Patient(name="x", tenant_id=B)])
        session.flush()
    for block in (tenant_context(A), tenant_context(B)):
        with block:
            with pytest.raises(CrossTenantError, match=r"outside system_access\(\)"):
                connection.execute(select(PATIENTS.c.id))
            with pytest.raises(CrossTenantError, match=r"outside system_access\(\)"):
                session.get(Patient, keys[0])
    session.close()
    connection.close()


def test_system_engine_is_needed() -> None:
    """system_access() without an engine says what to give."""
    guard = TenantGuard(Base.metadata, tenants="practices")
    with (
        pytest.raises(ConfigurationError, match="system_engine="),
        guard.system_access(reason="nightly billing"),
    ):
        pass
