"""The Python that docs/encryption.md shows, run as it stands."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING
from unittest.mock import Mock

import pytest
from alembic import context
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from shown import ROOT, blocks, halves
from sqlalchemy import text
from vault import A

from tenantguard import TamperedError, tenant_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shown import Shown

# A further block on the page needs a test here.
BEGINNING, ENV, SEARCHES, COMPOUND, REFILL, BOUND = blocks(ROOT / "docs" / "encryption.md")
BORN = date(1970, 1, 2)


@pytest.fixture(autouse=True)
def _as_a_tenant() -> Iterator[None]:
    with tenant_context(A):
        yield


def test_a_patient_is_declared_stored_and_found(shown: Shown) -> None:
    """The page's first lines: what is stored is no plaintext, and is found in another case."""
    declared, used = halves(BEGINNING)
    shown.run(declared)
    shown.protect(shown.names["guard"])
    add, find = used.splitlines()
    shown.run(add)
    found = shown.evaluate(find).one()
    assert (found.name, found.born) == ("Müller", BORN)
    shown.names["session"].commit()
    with shown.admin.connect() as connection:
        [stored] = connection.scalars(text("SELECT name FROM patients"))
    assert stored[:2] == b"\x9e\x54"


def test_autogenerate_has_nothing_to_do(shown: Shown) -> None:
    """With the options of env.py, what `rls apply` has made stays, the table of keys first."""
    shown.run(halves(BEGINNING)[0])
    shown.protect(shown.names["guard"])
    shown.names["context"] = Mock(spec=context)
    shown.run(ENV)
    options = dict(shown.names["context"].configure.call_args.kwargs)
    metadata = shown.names["Base"].metadata
    with shown.admin.connect() as connection:
        without = MigrationContext.configure(connection)
        assert "tenantguard_keys" in str(compare_metadata(without, metadata))
        migrating = MigrationContext.configure(connection, opts=options)
        assert "tenantguard_keys" not in str(compare_metadata(migrating, metadata))


def test_several_searches_of_one_column_find(shown: Shown) -> None:
    """Each of the three finds its row and not the other."""
    declared, used = halves(SEARCHES)
    shown.run_in_class(declared, "Patient")
    shown.protect()
    session, patient = shown.names["session"], shown.names["Patient"]
    session.add_all([patient(phone="030/123 45 67"), patient(phone="0170 000")])
    for query in used.splitlines():
        [found] = session.scalars(shown.evaluate(query))
        assert found.phone == "030/123 45 67"


def test_a_compound_finds_and_is_filled_anew(shown: Shown) -> None:
    """By both parts; and where SQL has set it to NULL, the page's loop makes it again."""
    declared, used = halves(COMPOUND)
    shown.run(f"from datetime import date\n{declared}")
    shown.protect()
    session, patient = shown.names["session"], shown.names["Patient"]
    session.add_all([patient(name="Müller", born=BORN), patient(name="Ann", born=BORN)])
    session.commit()
    shown.names["day"] = BORN
    first, second = used.splitlines()
    assert [each.name for each in session.scalars(shown.evaluate(first))] == ["Müller"]
    assert session.scalars(shown.evaluate(second)).all() != []
    with shown.admin.begin() as connection:
        connection.execute(text("UPDATE patients SET name_and_born = NULL"))
    session.rollback()
    assert session.scalars(shown.evaluate(first)).all() == []
    shown.run(REFILL)
    assert [each.name for each in session.scalars(shown.evaluate(first))] == ["Müller"]


def test_a_bound_value_opens_in_its_row_only(shown: Shown) -> None:
    """Copied to another row, by whoever writes the database, it does not open."""
    shown.run(BOUND)
    shown.protect()
    session, diagnosis = shown.names["session"], shown.names["Diagnosis"]
    one, other = diagnosis(text="caries"), diagnosis(text="healthy")
    session.add_all([one, other])
    session.commit()
    table = diagnosis.__tablename__
    copied = f"UPDATE {table} SET text = (SELECT text FROM {table} WHERE id = :one)"
    with shown.admin.begin() as connection:
        connection.execute(text(copied), {"one": one.id})
    session.expire_all()
    assert one.text == "caries"
    with pytest.raises(TamperedError):
        _ = other.text
