"""What the guard refuses at the first connection, its modes, and who may act without a tenant."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from drivers import ASYNC, address
from locks import unique_roles
from practice import A, B, Base, Material, Order, Patient, Practice, User, make_guard, order_tags
from sqlalchemy import (
    Engine,
    and_,
    create_engine,
    delete,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from tenantguard import (
    ConfigurationError,
    CrossTenantError,
    PolicyDriftError,
    TenantGuard,
    TenantNotSetError,
    UnsafeRoleError,
    UnscopedStatementError,
    rls,
    tenant_context,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from locks import Locks, World

PATIENTS: Any = Patient.__table__
CANARY = "Kanarienvogel-4711"


@contextmanager
def planted(world: World, fault: str, mend: str) -> Iterator[None]:
    """Plant *fault* in the database for the block, and mend it afterwards."""
    role = world.guard.roles.application
    with world.admin.begin() as connection:
        connection.execute(text(fault.format(role=f'"{role}"')))
    try:
        yield
    finally:
        with world.admin.begin() as connection:
            connection.execute(text(mend.format(role=f'"{role}"')))
        rls.apply(world.admin, world.guard.catalog, world.guard.roles)


# -- before the first use -----------------------------------------------------------------------


def test_the_tests_run_as_a_harmless_role(locks: Locks) -> None:
    """The suite proves nothing as a superuser, so this connection is not one and owns nothing."""
    query = text(
        "SELECT rolsuper, rolbypassrls, (SELECT count(*) FROM pg_class WHERE relowner = r.oid) "
        "FROM pg_roles r WHERE rolname = current_user"
    )
    with tenant_context(A), locks.both().connect() as connection:
        assert tuple(connection.execute(query).one()) == (False, False, 0)


def test_superuser_is_refused(locks: Locks) -> None:
    """A role that no policy holds cannot serve an application."""
    engine = locks.none()
    locks.world.guard.protect(engine)
    with tenant_context(A), pytest.raises(UnsafeRoleError, match=r"superuser.*Mend:"):
        engine.connect()


@pytest.mark.parametrize(
    ("fault", "mend", "error", "message"),
    [
        (
            "ALTER ROLE {role} BYPASSRLS",
            "ALTER ROLE {role} NOBYPASSRLS",
            UnsafeRoleError,
            "BYPASSRLS",
        ),
        (
            "ALTER TABLE patients OWNER TO {role}",
            "ALTER TABLE patients OWNER TO CURRENT_USER",
            UnsafeRoleError,
            "own",
        ),
        (
            "ALTER TABLE patients DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE patients ENABLE ROW LEVEL SECURITY",
            PolicyDriftError,
            r"not enabled on public\.patients.*tenantguard rls apply",
        ),
        (
            "ALTER TABLE patients NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE patients FORCE ROW LEVEL SECURITY",
            PolicyDriftError,
            r"not forced on public\.patients.*tenantguard rls apply",
        ),
        (
            "CREATE POLICY forgotten ON patients TO {role} USING (true)",
            "DROP POLICY forgotten ON patients",
            PolicyDriftError,
            r"'forgotten' on public\.patients.*DROP POLICY",
        ),
    ],
    ids=["bypassrls", "owner", "disabled", "not forced", "extra policy"],
)
def test_unsafe_database_is_refused(
    locks: Locks, fault: str, mend: str, error: type[Exception], message: str
) -> None:
    """Each fault is refused at the first connection, with the command that mends it."""
    with planted(locks.world, fault, mend):
        engine = locks.both()
        with tenant_context(A), pytest.raises(error, match=message):
            engine.connect()
    with tenant_context(A), locks.both().connect() as connection:
        assert connection.scalar(select(func.count()).select_from(PATIENTS)) == 3


def test_role_is_checked_on_every_new_connection(locks: Locks) -> None:
    """A role that becomes unsafe while the application runs is refused with the next connection."""
    engine = locks.both()
    with tenant_context(A):
        with engine.connect() as connection:
            connection.execute(select(PATIENTS.c.id))
        with (
            planted(locks.world, "ALTER ROLE {role} BYPASSRLS", "ALTER ROLE {role} NOBYPASSRLS"),
            engine.connect(),
            pytest.raises(UnsafeRoleError, match="BYPASSRLS"),
        ):
            engine.connect()


def test_unreachable_database_is_sqlalchemys_own_error(locks: Locks) -> None:
    """The guard adds nothing to, and hides nothing of, a failed connection."""
    url = locks.world.app_url.update_query_dict({"host": "/nowhere"})
    engine = locks._engine(url, {})
    locks.world.guard.protect(engine)
    with tenant_context(A), pytest.raises(Exception, match="connection is bad") as caught:
        engine.connect()
    assert type(caught.value).__name__ == "OperationalError"


# -- targets ------------------------------------------------------------------------------------


def test_sessionmaker_and_option_engines_are_covered(locks: Locks) -> None:
    """An engine is protected with all engines derived from it, before and after."""
    engine = locks._engine(locks.world.app_url, {})
    before = engine.execution_options(logging_token="before")
    locks.world.guard.protect(sessionmaker(engine))
    after = engine.execution_options(logging_token="after")
    for derived in (engine, before, after):
        with tenant_context(A), derived.connect() as connection:
            assert connection.scalar(select(func.count()).select_from(PATIENTS)) == 3
        with pytest.raises(TenantNotSetError), derived.connect() as connection:
            connection.execute(select(PATIENTS.c.id))


def test_statements_compiled_before_are_forgotten(locks: Locks) -> None:
    """What the engine and the mappers compiled before protect() is compiled anew afterwards."""
    engine = locks.none()
    counted = select(func.count()).select_from(PATIENTS)
    with Session(engine) as session:
        assert session.scalar(counted) == 6
        session.add(Patient(tenant_id=A, name="before"))
        session.flush()
    guard = locks.world.guard
    guard._bind(engine, verify=lambda *_: None)
    guard._scope(engine, text_allowed=bool)
    with tenant_context(A), Session(engine) as session:
        assert session.scalar(counted) == 3
        patient = Patient(name="after")
        session.add(patient)
        session.flush()
        assert patient.tenant_id == A


@pytest.mark.parametrize("native", ASYNC)
@pytest.mark.parametrize("kind", ["engine", "maker"])
def test_asynchronous_engines_are_protected(world: World, native: str, kind: str) -> None:
    """protect() takes an AsyncEngine, or the sessionmaker that has one."""

    async def names() -> list[str]:
        engine = create_async_engine(address(world.app_url, native))
        maker = async_sessionmaker(engine)
        world.guard.protect(engine if kind == "engine" else maker)
        with tenant_context(A):
            async with maker() as session:
                found = list(await session.scalars(select(Patient.name)))
        await engine.dispose()
        return found

    assert asyncio.run(names()) == ["patient a0", "patient a1", "patient a2"]


@pytest.mark.parametrize("native", ASYNC)
def test_system_access_yields_the_asynchronous_engine(world: World, native: str) -> None:
    """system_engine= takes an AsyncEngine and gives it back, refused outside of the block."""

    async def count() -> int:
        engine = create_async_engine(address(world.admin.url, native))
        guard = TenantGuard(
            Patient.metadata, tenants="practices", roles=world.guard.roles, system_engine=engine
        )
        with pytest.raises(CrossTenantError, match="outside system_access"):
            await engine.connect()
        with guard.system_access(reason="count all patients") as system:
            assert system is engine
            async with system.connect() as connection:
                found = await connection.scalar(select(func.count()).select_from(Patient))
        await engine.dispose()
        return int(found or 0)

    assert asyncio.run(count()) == 6


@pytest.mark.parametrize("target", [None, "engine", object(), sessionmaker()])
def test_what_is_no_engine_is_refused(locks: Locks, target: Any) -> None:
    """protect() says what it takes."""
    with pytest.raises(ConfigurationError, match=r"protect\(\) takes an Engine"):
        locks.world.guard.protect(target)


def test_other_databases_are_refused(locks: Locks) -> None:
    """A driver that cannot bind a tenant is no protected engine."""
    with pytest.raises(ConfigurationError, match="cannot bind a tenant with sqlite"):
        locks.world.guard.protect(create_engine("sqlite://"))


def test_schema_changes_are_refused(locks: Locks) -> None:
    """create_all() on the application's engine is a mistake; it names the owner's engine."""
    with tenant_context(A), pytest.raises(UnscopedStatementError, match="the owner's engine"):
        Base.metadata.drop_all(locks.both())


# -- modes --------------------------------------------------------------------------------------


def observing(locks: Locks, mode: Any = "observe") -> tuple[TenantGuard, Engine]:
    guard = TenantGuard(
        Base.metadata,
        tenants="practices",
        shared={"materials": "price list"},
        roles=locks.world.guard.roles,
        mode=mode,
    )
    engine = locks._engine(locks.world.app_url, {})
    guard.protect(engine)
    return guard, engine


def test_observe_binds_counts_and_changes_nothing(
    locks: Locks, caplog: pytest.LogCaptureFixture
) -> None:
    """What would be scoped or refused is counted with its place in the code, and runs as it was."""
    guard, engine = observing(locks)
    with caplog.at_level(logging.WARNING), tenant_context(A), engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(PATIENTS)) == 3
        connection.execute(select(PATIENTS.c.id).where(PATIENTS.c.tenant_id == A))
        connection.execute(text("SELECT 1"))
    assert guard.observations.counts == {"unscoped": 1, "text": 1}
    assert {place.rsplit("/", 1)[-1].split(":")[0] for _, place in guard.observations.places} == {
        "test_guard.py"
    }
    assert "table 'patients' is used without its tenant" in caplog.text


def test_observe_never_refuses(locks: Locks) -> None:
    """No tenant, a foreign tenant's row, an undecided table, AUTOCOMMIT: all counted, all run."""
    guard, engine = observing(locks)
    with engine.connect() as connection:
        assert connection.execute(select(PATIENTS.c.id)).all() == []
    assert guard.observations.counts["refused"] == 1
    with tenant_context("malformed"), engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    with tenant_context(A), engine.connect() as connection:
        with pytest.raises(Exception, match="row-level security") as caught:
            connection.execute(insert(PATIENTS).values(name="x", tenant_id=B))
        assert type(caught.value).__name__ == "ProgrammingError"
    assert guard.observations.counts["refused"] >= 2
    before = guard.observations.counts["autocommit"]
    options = {"isolation_level": "AUTOCOMMIT"}
    with tenant_context(A), engine.connect().execution_options(**options) as connection:
        connection.execute(text("SELECT 1"))
    assert guard.observations.counts["autocommit"] > before


def test_off_does_nothing(locks: Locks) -> None:
    """The engine stays exactly as it was."""
    _, engine = observing(locks, "off")
    untouched = create_engine(locks.world.app_url)
    assert engine.dialect.statement_compiler is untouched.dialect.statement_compiler
    with engine.connect() as connection:
        assert connection.execute(select(PATIENTS.c.id)).all() == []


# -- without a tenant ---------------------------------------------------------------------------


def test_identity_lookup_answers_one_key_and_nothing_else(locks: Locks) -> None:
    """Sign-in learns id, tenant and password hash of one address, with no tenant active."""
    find_user = locks.world.guard.identity_lookup(User, by="email")
    engine = locks.both()
    with engine.connect() as connection:
        found = find_user(connection, "b@lab.example")
        assert found is not None
        assert (found.tenant, found.secret) == (B, "hash-b")
        assert find_user(connection, "nobody@lab.example") is None
        assert find_user(connection, "%") is None
        assert repr(found) == "Identity()"
    with Session(engine) as session:
        assert find_user(session, "a@lab.example").tenant == A  # type: ignore[union-attr]
    assert locks.world.guard.counts["identity_lookup"] >= 4


@pytest.mark.parametrize(
    ("model", "by", "message"),
    [
        (User, "nickname", "has no column 'nickname'"),
        (User, "password_hash", "needs a unique constraint"),
        (Material, "name", "has no tenant column"),
        (object, "email", "takes a mapped class or a Table"),
    ],
)
def test_identity_lookup_declares_only_what_is_safe(model: Any, by: str, message: str) -> None:
    """A lookup that could answer with two users, or without a tenant, is refused."""
    with pytest.raises(ConfigurationError, match=message):
        make_guard(unique_roles()).identity_lookup(model, by=by)


def test_the_system_engine_hides_parameters(locks: Locks) -> None:
    """An error in system access shows no values either."""
    system = locks.none()
    guard = TenantGuard(
        Patient.metadata, tenants="practices", roles=locks.world.guard.roles, system_engine=system
    )
    failing = select(func.to_date(literal(CANARY), literal("YYYY")))
    with (
        guard.system_access(reason="test") as engine,
        engine.connect() as connection,
        pytest.raises(DBAPIError, match="parameters hidden"),
    ):
        connection.execute(failing)


def test_system_access_yields_its_own_engine(locks: Locks) -> None:
    """Inside, the protected engine is refused; outside, the system's."""
    system = locks.none()
    guard = TenantGuard(
        Base.metadata,
        tenants="practices",
        shared={"materials": "price list"},
        roles=locks.world.guard.roles,
        system_engine=system,
    )
    protected = locks._engine(locks.world.app_url, {})
    guard.protect(protected)
    with guard.system_access(reason="nightly billing") as engine:
        with engine.connect() as connection:
            assert connection.scalar(select(func.count()).select_from(PATIENTS)) == 6
        with (
            protected.connect() as connection,
            pytest.raises(CrossTenantError, match=r"used inside system_access\(\)"),
        ):
            connection.execute(select(PATIENTS.c.id))
    with pytest.raises(CrossTenantError, match=r"used outside system_access\(\)"):
        system.connect()
    with pytest.raises(ConfigurationError, match="system engine cannot be protected"):
        guard.protect(system)
    with (
        pytest.raises(ConfigurationError, match="needs TenantGuard"),
        locks.world.guard.system_access(reason="x"),
    ):
        pass


# -- text that the second lock allows -----------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        select(PATIENTS.c.name).where(text("1 = 1 OR 1 = 1")),
        select(PATIENTS.c.name).where(and_(text("1 = 1 OR 1 = 1"), PATIENTS.c.id > 0)),
        select(PATIENTS.c.name)
        .select_from(Practice.__table__.outerjoin(PATIENTS, text("1 = 1 OR 1 = 1")))
        .where(PATIENTS.c.id > 0),
    ],
    ids=["where", "inside and_", "on"],
)
def test_or_in_a_text_does_not_reach_past_the_tenant(locks: Locks, statement: Any) -> None:
    """Where text may run, the first lock's predicate holds all the same."""
    engine = locks.first_alone(text_allowed=True)
    with tenant_context(A), engine.connect() as connection:
        assert sorted(connection.scalars(statement)) == ["patient a0", "patient a1", "patient a2"]


# -- what errors show ---------------------------------------------------------------------------


def test_errors_show_no_value_and_no_tenant(locks: Locks, caplog: pytest.LogCaptureFixture) -> None:
    """Neither our errors, nor SQLAlchemy's, nor the log contain a parameter or a tenant id."""
    engine = locks.both(echo=True)
    texts = []

    def attempt(statement: Any) -> None:
        with tenant_context(A), engine.connect() as connection, pytest.raises(Exception) as caught:  # noqa: PT011
            connection.execute(statement)
        error: BaseException | None = caught.value
        texts.append(f"{error!r} {error}")

    with caplog.at_level(logging.INFO):
        attempt(insert(PATIENTS).values(name=CANARY, tenant_id=B))
        attempt(select(PATIENTS).where(PATIENTS.c.name == CANARY, text("1/0 = 1")))
        attempt(update(PATIENTS).values(name=CANARY, tenant_id=B))
        attempt(text("SELECT 1/0, :value").bindparams(value=CANARY))
    everything = " ".join([*texts, caplog.text])
    assert len(texts) == 4
    for secret in (CANARY, str(A), str(B), A.hex, B.hex):
        assert secret not in everything


def test_show_parameters_opts_out(locks: Locks) -> None:
    """Whoever asks for parameters in errors gets them."""
    engine = locks._engine(locks.world.app_url, {})
    locks.world.guard.protect(engine, show_parameters=True)
    with (
        tenant_context(A),
        engine.connect() as connection,
        pytest.raises(Exception, match=CANARY),
    ):
        connection.execute(select(PATIENTS).where(PATIENTS.c.name == CANARY, text("1/0 = 1")))


# -- the database's own net ---------------------------------------------------------------------


def test_foreign_parent_is_refused_by_the_database(locks: Locks) -> None:
    """A child cannot point at another tenant's parent, although foreign keys ignore policies."""
    theirs = locks.world.rows("patients", B)[0][0]
    with (
        tenant_context(A),
        Session(locks.both()) as session,
        pytest.raises(IntegrityError, match="foreign key"),
    ):
        session.execute(insert(Order).values(patient_id=theirs, what="crown"))


def test_cascade_does_not_cross(locks: Locks) -> None:
    """Deleting all of A's patients removes A's orders and leaves B's alone."""
    counted = select(func.count()).select_from(Order)
    with tenant_context(A), locks.both().connect() as connection:
        connection.execute(delete(order_tags))
        connection.execute(delete(PATIENTS))
        assert connection.scalar(counted) == 0
        connection.rollback()
        assert connection.scalar(counted) == 3
    assert len(locks.world.rows("orders", B)) == 3
