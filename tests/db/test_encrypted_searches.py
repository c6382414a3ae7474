"""A column with several searches is found by each of them, and by nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from drivers import DRIVERS
from sqlalchemy import (
    bindparam,
    delete,
    event,
    func,
    insert,
    lambda_stmt,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, aliased
from vault import A, B, Patient

from tenantguard import EncryptedQueryError, EncryptedValueError, searched, tenant_context
from tenantguard.crypto.format import LAYOUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vault import Vault

    Find = Callable[[str], Any]

every_driver = pytest.mark.parametrize("driver", DRIVERS)
TABLE: Any = Patient.__table__
ALIAS = aliased(Patient)
POLICIES = {1: "AOK 12/34-5678", 2: "aok 9/5678", 3: "TK 1234", 4: "99", 5: None}


@pytest.fixture(scope="module", autouse=True)
def rows(vault: Vault) -> Iterator[None]:
    """Five patients of A, and one of B who has what the first has."""
    for tenant, policies in ((A, POLICIES), (B, {9: POLICIES[1]})):
        with tenant_context(tenant), Session(vault.engine()) as session:
            session.add_all(
                Patient(id=number, name="x", policy=policy) for number, policy in policies.items()
            )
            session.commit()
    yield
    vault.run("DELETE FROM patients")


@pytest.fixture
def session(vault: Vault, driver: str) -> Iterator[Session]:
    engine = vault.engine(driver)
    with tenant_context(A), Session(engine) as opened:
        yield opened
    engine.dispose()


def _sub() -> Any:
    return select(Patient.id, Patient.policy).subquery()


FINDS: dict[str, Find] = {
    "entity": lambda n: select(Patient.id).where(searched(Patient.policy, "last4") == n),
    "table": lambda n: select(TABLE.c.id).where(searched(TABLE.c.policy, "last4") == n),
    "alias": lambda n: select(ALIAS.id).where(searched(ALIAS.policy, "last4") == n),
    "table's alias": lambda n: select((t := TABLE.alias()).c.id).where(
        searched(t.c.policy, "last4") == n
    ),
    "in": lambda n: select(Patient.id).where(searched(Patient.policy, "last4").in_([n, "0000"])),
    "not unequal": lambda n: select(Patient.id).where(~(searched(Patient.policy, "last4") != n)),
    "not not in": lambda n: select(Patient.id).where(
        ~searched(Patient.policy, "last4").not_in([n])
    ),
    "parameter": lambda n: select(Patient.id).where(
        searched(Patient.policy, "last4") == bindparam("x", n)
    ),
    "expanding parameter": lambda n: select(Patient.id).where(
        searched(Patient.policy, "last4").in_(bindparam("x", [n], expanding=True))
    ),
    "lambda": lambda n: lambda_stmt(
        lambda: select(Patient.id).where(searched(Patient.policy, "last4") == n)
    ),
    "sub-query": lambda n: select((s := _sub()).c.id).where(searched(s.c.policy, "last4") == n),
    "alias of a union": lambda n: select(
        (
            p := aliased(
                Patient,
                union_all(
                    select(Patient).where(Patient.id < 3), select(Patient).where(Patient.id >= 3)
                ).subquery(),
            )
        ).id
    ).where(searched(p.policy, "last4") == n),
    "exists": lambda n: select(Patient.id).where(
        select(ALIAS.id)
        .where(ALIAS.id == Patient.id, searched(ALIAS.policy, "last4") == n)
        .exists()
    ),
}


@every_driver
@pytest.mark.parametrize("find", FINDS)
def test_part_is_found(session: Session, find: str) -> None:
    """Whatever the query's shape; another tenant's row is not."""
    for sought, expected in (("5678", [1, 2]), ("12 34", [3]), ("1235", []), ("0099", [])):
        assert sorted(session.scalars(FINDS[find](sought))) == expected


@every_driver
def test_searches_go_together(session: Session) -> None:
    """Each of a column's searches has an index of its own, and `==` uses the one without a name."""
    last, first = searched(Patient.policy, "last4"), searched(Patient.policy, "prefix3")
    for condition, expected in (
        (first == "AOK", [1, 2]),
        (first.in_(["tk ", "aok"]), [1, 2, 3]),
        (first != "aok", [3, 4]),
        (last.not_in(["5678"]), [3, 4]),
        ((first == "aok") & (last == "5678") & (Patient.policy == "95678"), [2]),
        (or_(Patient.policy == "1234", last == "1234"), [3]),
        (Patient.policy == "99", [4]),
        (Patient.policy.is_(None), [5]),
    ):
        assert sorted(session.scalars(select(Patient.id).where(condition))) == expected


@every_driver
def test_changes_follow(session: Session) -> None:
    """A value that is written anew has new indexes; updates and deletes search by them."""
    last = searched(Patient.policy, "last4")
    session.execute(update(Patient).where(last == "5678").values(policy="TK 1111"))
    counted = select(func.count()).select_from(Patient)
    assert session.scalar(counted.where(last == "1111")) == 2
    assert session.scalar(counted.where(searched(Patient.policy, "prefix3") == "aok")) == 0
    session.execute(delete(Patient).where(last == "1111"))
    assert session.scalar(counted) == 3


@every_driver
@pytest.mark.parametrize("sought", ["", "123", "12345", "12-345"])
def test_wrong_number_of_characters_is_refused(session: Session, sought: str) -> None:
    """It would find nothing, ever; the error shows no value."""
    last = searched(Patient.policy, "last4")
    for condition in (last == sought, last.in_(["1234", sought]), last == bindparam("x", sought)):
        with pytest.raises(EncryptedQueryError, match=r"'last4'.*policy.*exactly 4") as raised:
            session.execute(select(Patient.id).where(condition))
        assert not sought or sought not in str(raised.value)
    wrong: Any = 1234
    with pytest.raises(EncryptedValueError, match="takes a str; a value of type int"):
        session.execute(select(Patient.id).where(last == wrong))


def test_other_questions_are_refused() -> None:
    """A name that is not there, None, an expression, and columns that are not encrypted."""
    last: Any = searched(Patient.policy, "last4")
    with pytest.raises(EncryptedQueryError, match=r"no search called 'last5'.*'last4', 'prefix3'"):
        searched(Patient.policy, "last5")
    with pytest.raises(EncryptedQueryError, match=r"None is looked for by is_\(None\)"):
        _ = last == None  # noqa: E711
    with pytest.raises(EncryptedQueryError, match="cannot order, compare"):
        _ = last == Patient.policy
    with pytest.raises(EncryptedQueryError, match="takes a list of values"):
        last.in_("1234")
    for other in (Patient.city, TABLE.c.policy_bidx, "policy"):
        with pytest.raises(EncryptedQueryError, match=r"searched\(\) takes an encrypted"):
            searched(other, "last4")  # type: ignore[arg-type]
    asks: list[Callable[[], Any]] = [
        lambda: select(last),
        lambda: select(Patient).order_by(last),
    ]
    for ask in asks:
        with pytest.raises(EncryptedQueryError, match=r"is compared by ==, !=, in_\(\) and not_in"):
            ask()
    with pytest.raises(EncryptedQueryError, match="takes a search's name as text"):
        searched(Patient.policy, 4)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _ = last < "1234"
    assert repr(last) == "<Searched patients.policy last4>"


@every_driver
def test_one_parameter_is_not_for_two_searches(session: Session) -> None:
    """The blind index of one is no index of the other; twice the same may share it."""
    sought: Any = bindparam("x")
    last, first = searched(Patient.policy, "last4"), searched(Patient.policy, "prefix3")
    for other in (first == sought, Patient.policy == sought):
        with pytest.raises(EncryptedQueryError, match="Give each its own parameter"):
            session.execute(select(Patient.id).where(last == sought, other), {"x": "1234"})
    twice = select(Patient.id).where(last == sought, searched(Patient.policy, "last4") == sought)
    assert session.scalars(twice, {"x": "1234"}).all() == [3]


@every_driver
def test_each_search_uses_its_index(vault: Vault, session: Session) -> None:
    """Under row-level security too: the plan has the index that begins with the tenant."""
    numbers = ({"id": each, "name": "x", "policy": f"{each:08}"} for each in range(100, 3000))
    session.execute(insert(Patient), list(numbers))
    session.commit()
    vault.run("ANALYZE patients")
    engine: Any = session.get_bind()

    def explain(*args: Any) -> Any:
        return f"EXPLAIN {args[2]}", args[3]

    event.listen(engine, "before_cursor_execute", explain, retval=True)
    last, whole = searched(Patient.policy, "last4") == "1234", Patient.policy == "00001234"
    plans = [
        "\n".join(str(row[0]) for row in session.execute(select(Patient.id).where(each)))
        for each in (last, whole)
    ]
    event.remove(engine, "before_cursor_execute", explain)
    vault.run("DELETE FROM patients WHERE id >= 100")
    for plan, name in zip(plans, ("policy_last4_bidx", "policy_bidx"), strict=True):
        assert f"ix_patients_{name}" in plan
        assert "Seq Scan" not in plan


def test_value_with_fewer_indexes_is_refused_by_the_database(vault: Vault) -> None:
    """A search would not find it: whoever writes it, and whatever its length is."""
    [(stored,)] = vault.run("SELECT policy FROM patients WHERE id = 1")
    layout = LAYOUTS[bytes(stored[:4])]
    assert (layout.end, layout.padded) == (4 + 3 * 16, True)
    for header in (header for header, other in LAYOUTS.items() if other.end < layout.end):
        with pytest.raises(DBAPIError, match="patients_policy_sealed"):
            vault.run("UPDATE patients SET policy = :value WHERE id = 1", value=header + stored[4:])


def test_stored_length_is_the_buckets(vault: Vault) -> None:
    """Policies of different lengths are stored alike."""
    found = vault.run("SELECT DISTINCT length(policy) FROM patients WHERE policy IS NOT NULL")
    assert found == [(4 + 3 * 16 + 33 + 16,)]
