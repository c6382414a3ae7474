"""What once made values unreadable, or searches wrong, without an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    BindParameter,
    Column,
    Index,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
    bindparam,
    distinct,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from vault import A, B, Patient, Vault, build_vault, make_guard

from tenantguard import (
    ConfigurationError,
    EncryptedQueryError,
    KeyUnavailableError,
    TenantGuard,
    encrypted_str,
    tenant_context,
)
from tenantguard.keytable import ENCRYPTED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import URL

DRIVERS = ["psycopg", "psycopg2", "psycopg-async", "asyncpg"]


def _add(engine: Any, **values: Any) -> None:
    with tenant_context(A), Session(engine) as session:
        session.add(Patient(**values))
        session.commit()


def _names(engine: Any) -> list[str]:
    with tenant_context(A), Session(engine) as session:
        return list(session.scalars(select(Patient.name).order_by(Patient.id)))


def test_two_databases_of_one_guard_have_keys_of_their_own(
    new_database: Callable[[], URL], tmp_path: Path
) -> None:
    """A tenant that is in two shards is sealed in each with the keys that are there."""
    one = build_vault(new_database(), tmp_path)
    two = build_vault(new_database(), tmp_path, roles=one.guard.roles)
    first, second = one.engine(), two.protected_by(one.guard)
    _add(first, name="in one")
    _add(second, name="in two")
    assert two.run("SELECT count(*) FROM tenantguard_keys") == [(2,)]
    assert _names(two.fresh_engine()) == ["in two"]
    assert _names(one.fresh_engine()) == ["in one"]
    one.dispose()
    two.dispose()


def test_a_type_that_is_used_again_leaves_the_first_column_its_labels(vault: Vault) -> None:
    """A Table that takes over a mapped column's type has labels of its own."""
    engine = vault.fresh_engine()
    _add(engine, name="before", notes="kept")
    taken = Table("stage", MetaData(), Column("other", Patient.__table__.c.notes.type))
    assert taken.c.other.info[ENCRYPTED] == ("stage", "other")
    assert Patient.__table__.c.notes.info[ENCRYPTED] == ("patients", "notes")
    with tenant_context(A), Session(engine) as session:
        assert session.scalars(select(Patient.notes).where(Patient.name == "before")).all() == [
            "kept"
        ]
    vault.run("DELETE FROM patients")


def test_keys_are_not_taken_from_before_the_pool_was_replaced(vault: Vault) -> None:
    """After dispose(), as after a restore or a failover, the table is asked again."""
    engine = vault.fresh_engine()
    _add(engine, name="old")
    # The keys are kept from their second use on: the first has made them.
    _add(engine, name="old")
    vault.run("DELETE FROM patients")
    vault.run("DELETE FROM tenantguard_keys")
    engine.dispose()
    _add(engine, name="new")
    assert vault.run("SELECT count(*) FROM tenantguard_keys") == [(2,)]
    assert _names(vault.fresh_engine()) == ["new"]
    vault.run("DELETE FROM patients")


def test_keys_are_not_taken_from_before_a_connection_was_lost(vault: Vault) -> None:
    """An invalidated connection may mean another server: the table is asked again."""
    engine = vault.fresh_engine()
    _add(engine, name="old")
    # The keys are kept from their second use on: the first has made them.
    _add(engine, name="old")
    with tenant_context(A), engine.connect() as connection:
        connection.invalidate()
    vault.run("DELETE FROM patients")
    vault.run("DELETE FROM tenantguard_keys")
    _add(engine, name="new")
    assert _names(vault.fresh_engine()) == ["new"]
    vault.run("DELETE FROM patients")


def test_observing_does_not_seal(vault: Vault) -> None:
    """A statement that observing lets through could seal another tenant's row."""
    guard = make_guard(vault.guard.roles, vault.key_file, mode="observe")
    with pytest.raises(ConfigurationError, match=r"need mode='enforce'"):
        vault.protected_by(guard)


@pytest.mark.parametrize(
    "key",
    [
        lambda: UniqueConstraint("tenant_id", "email"),
        lambda: Index("by_email", "tenant_id", "email", unique=True),
        lambda: Index("by_email", "email"),
        lambda: postgresql.ExcludeConstraint(("email", "=")),
    ],
)
def test_a_key_over_ciphertext_is_refused(vault: Vault, key: Callable[[], Any]) -> None:
    """Equal values are stored unequal: a key that has them would never hold."""

    class Own(DeclarativeBase):
        pass

    class Practice(Own):
        __tablename__ = "practices"
        id: Mapped[int] = mapped_column(primary_key=True)

    class User(Own):
        __tablename__ = "users"
        __table_args__ = (key(),)
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int] = mapped_column(Integer)
        email: Mapped[str] = encrypted_str()

    guard = TenantGuard(Own.metadata, tenants="practices", keys=vault.guard.keys)
    with pytest.raises(ConfigurationError, match=r"users\.email is encrypted.*email_bidx"):
        guard.catalog.check()
    assert User.__table__.c.email.info[ENCRYPTED] == ("users", "email")


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    "statement",
    [
        lambda q: select(Patient.id).where(or_(Patient.name == q, Patient.phone == q)),
        lambda q: select(Patient.id).where(or_(Patient.phone == q, Patient.name == q)),
        lambda q: select(Patient.id).where(or_(Patient.name == q, Patient.city == q)),
        lambda q: insert(Patient).values(name=q, notes=q),
        lambda q: insert(Patient).values(name=q, city=q),
        lambda q: update(Patient).values(name=q).where(Patient.name == q),
    ],
)
@pytest.mark.parametrize("value", [bindparam("q"), literal("Zoe")])
def test_one_parameter_is_not_sealed_for_two_columns(
    vault: Vault, driver: str, statement: Callable[[Any], Any], value: Any
) -> None:
    """SQLAlchemy has one processor for a parameter: it would seal it for the wrong column."""
    engine = vault.engine(driver)
    before = vault.run("SELECT count(*) FROM patients")
    with tenant_context(A), engine.connect() as connection:
        with pytest.raises(EncryptedQueryError):
            connection.execute(statement(value), {"q": "Zoe"} if value.key == "q" else None)
        connection.rollback()
    assert vault.run("SELECT count(*) FROM patients") == before


@pytest.mark.parametrize("driver", DRIVERS)
def test_one_parameter_serves_one_column_twice(vault: Vault, driver: str) -> None:
    """The same column may be compared with the same parameter more than once."""
    engine = vault.engine(driver)
    _add(engine, name="Zoe")
    wanted: BindParameter[str] = bindparam("q")
    with tenant_context(A), engine.connect() as connection:
        twice = select(Patient.name).where(Patient.name == wanted, Patient.name == wanted)
        assert connection.execute(twice, {"q": "ZOE"}).scalars().all() == ["Zoe"]
    vault.run("DELETE FROM patients")


def test_a_lost_keyset_is_not_replaced(vault: Vault) -> None:
    """One row of two is a loss: another index keyset would hide that nothing is found."""
    _add(vault.fresh_engine(), name="Zoe")
    vault.run("CREATE TABLE kept AS TABLE tenantguard_keys")
    try:
        for purpose in ("index", "data"):
            vault.run("DELETE FROM tenantguard_keys WHERE purpose = :purpose", purpose=purpose)
            engine = vault.fresh_engine()
            with tenant_context(A), Session(engine) as session:
                with pytest.raises(KeyUnavailableError, match="one keyset of two"):
                    session.scalars(select(Patient).where(Patient.name == "Zoe")).all()
                session.rollback()
                with pytest.raises(KeyUnavailableError, match="one keyset of two"):
                    session.execute(insert(Patient).values(name="other"))
            with (
                vault.admin.connect() as admin,
                pytest.raises(KeyUnavailableError, match="one keyset of two"),
            ):
                vault.another_guard().create_keys(admin, A)
            vault.run("DELETE FROM tenantguard_keys")
            vault.run("INSERT INTO tenantguard_keys TABLE kept")
    finally:
        vault.run("DROP TABLE kept")
    assert _names(vault.fresh_engine()) == ["Zoe"]
    vault.run("DELETE FROM patients")


def test_a_stream_goes_on_when_another_session_sees_no_key(vault: Vault) -> None:
    """A second session that does not see the first one's new key does not take it away."""
    engine = vault.fresh_engine()
    with tenant_context(B), Session(engine) as first, Session(engine) as second:
        first.add_all([Patient(name="Zoe"), Patient(name="Yul")])
        first.flush()
        stream = first.scalars(select(Patient.name).execution_options(yield_per=1))
        assert next(stream) == "Zoe"
        assert second.scalars(select(Patient)).all() == []
        assert next(stream) == "Yul"
        stream.close()
        first.rollback()


@pytest.mark.parametrize(
    "statement",
    [
        lambda: select(func.row_to_json(select(Patient).subquery().table_valued())),
        lambda: select(Patient.id).order_by(Patient.__table__.alias().table_valued()),
        lambda: select(func.count(distinct(select(Patient.name).subquery().table_valued()))),
    ],
)
def test_a_row_as_one_value_is_refused(vault: Vault, statement: Callable[[], Any]) -> None:
    """A whole row that is compared, counted or turned into JSON has ciphertext in it."""
    with (
        tenant_context(A),
        vault.engine().connect() as connection,
        pytest.raises(EncryptedQueryError, match="stands where the database"),
    ):
        connection.execute(statement())


def test_an_unknown_name_in_an_upsert_is_refused(vault: Vault) -> None:
    """SQLAlchemy only warns of it, and would send the value as it is."""
    upsert = postgresql.insert(Patient).values(id=1, name="Zoe")
    upsert = upsert.on_conflict_do_update(index_elements=["id"], set_={"Name": "Zoe"})
    with (
        tenant_context(A),
        vault.engine().connect() as connection,
        pytest.raises(EncryptedQueryError, match="set_= names 'Name'"),
    ):
        connection.execute(upsert)


@pytest.mark.parametrize("element", ["email", Patient.email, Patient.__table__.c.email])
def test_a_conflict_is_not_found_by_ciphertext(vault: Vault, element: Any) -> None:
    """Each value is sealed differently; the message names what is equal."""
    upsert = postgresql.insert(Patient).values(id=1, name="Zoe")
    upsert = upsert.on_conflict_do_nothing(index_elements=["tenant_id", element])
    with (
        tenant_context(A),
        vault.engine().connect() as connection,
        pytest.raises(EncryptedQueryError, match="email_bidx"),
    ):
        connection.execute(upsert)


def test_keys_are_not_made_for_a_tenant_that_has_lost_them(vault: Vault) -> None:
    """New keys would hide that the old values cannot be opened, and are not found."""
    _add(vault.fresh_engine(), name="Zoe")
    vault.run("CREATE TABLE kept AS TABLE tenantguard_keys")
    vault.run("DELETE FROM tenantguard_keys")
    engine = vault.fresh_engine()
    try:
        with tenant_context(A), Session(engine) as session:
            session.add(Patient(name="another"))
            with pytest.raises(KeyUnavailableError, match="were lost"):
                session.flush()
        with (
            vault.admin.connect() as admin,
            pytest.raises(KeyUnavailableError, match="were lost"),
        ):
            vault.another_guard().create_keys(admin, A)
        assert vault.run("SELECT * FROM tenantguard_keys") == []
    finally:
        vault.run("INSERT INTO tenantguard_keys TABLE kept")
        vault.run("DROP TABLE kept")
    assert _names(engine) == ["Zoe"]
    vault.run("DELETE FROM patients")


@pytest.mark.parametrize("values", ["Zoe", b"Zoe", {"Zoe": 1}])
def test_one_value_is_no_list(values: Any) -> None:
    """in_() of a text would search for its letters."""
    with pytest.raises(EncryptedQueryError, match="takes a list of values"):
        Patient.name.in_(values)
