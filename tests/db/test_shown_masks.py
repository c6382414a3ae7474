"""The Python that docs/masks.md shows, run as it stands."""

from __future__ import annotations

import uuid  # noqa: TC003  (SQLAlchemy evaluates the annotations)
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from shown import ROOT, blocks, halves
from sqlalchemy import ARRAY, Text, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from vault import A

from tenantguard import is_masked, tenant_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shown import Shown

# A further block on the page needs a test here.
BEGINNING, ASKING, REVEALING, LISTENER, PLACEHOLDER, BROKEN = blocks(ROOT / "docs" / "masks.md")
ALLERGIES = 'allergies: Mapped[str | None] = encrypted_str(reveal={"treatment"})\n'


class Audit(DeclarativeBase):
    pass


class Revealed(Audit):
    """The table of the listener's, which the page leaves to its reader."""

    __tablename__ = "revealed"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[uuid.UUID]
    columns: Mapped[list[str]] = mapped_column(ARRAY(Text))
    reason: Mapped[str]
    actor: Mapped[str | None]
    purpose: Mapped[str | None]


@pytest.fixture
def page(shown: Shown) -> Shown:
    """A stored patient with all columns that the page speaks of."""
    declared, _ = halves(BEGINNING)
    shown.run(declared.rstrip() + f"\n    {PLACEHOLDER}    {ALLERGIES}")
    engine = shown.protect()
    values = {"email": "anna@example.com", "notes": "caries", "letter": "x", "allergies": "latex"}
    with tenant_context(A), Session(engine) as session:
        session.add(shown.names["Patient"](id=1, **values))
        session.commit()
    shown.names.update(practice=A, tenant=A, user=SimpleNamespace(id="u1"))
    return shown


@pytest.fixture
def supported(page: Shown) -> Iterator[Shown]:
    """The page's application, used by who may read none of the restricted columns."""
    with tenant_context(A, actor="u1", purpose="support"):
        yield page


def test_a_purpose_reads_its_columns_and_gets_masks_for_others(page: Shown) -> None:
    """Billing reads the address; of the notes it gets what the page says."""
    _, used = halves(BEGINNING)
    page.run(used)
    patient = page.names["patient"]
    assert patient.email == "anna@example.com"
    assert f"{patient.notes}" == "•••"


@pytest.mark.parametrize(
    ("purpose", "said"), [("billing", "not for your role"), ("treatment", "latex")]
)
def test_a_mask_is_asked_for_first(page: Shown, purpose: str, said: str) -> None:
    """Each branch of the page's `if` is reached by whom it is for."""
    heard: list[str] = []
    page.names.update(show=heard.append, warn=heard.append)
    with tenant_context(A, purpose=purpose):
        page.names["patient"] = page.names["session"].get(page.names["Patient"], 1)
        page.run(ASKING)
    assert heard == [said]


def test_a_column_is_revealed_with_a_reason(supported: Shown) -> None:
    """The value is read in the block, and in the database only by its listener's row."""
    audit_engine = create_engine(supported.admin.url)
    Audit.metadata.create_all(audit_engine)
    supported.names.update(Revealed=Revealed, audit_engine=audit_engine)
    supported.run(LISTENER)
    supported.run(REVEALING)
    assert supported.names["patient"].notes == "caries"
    assert is_masked(supported.names["patient"].allergies)
    with Session(audit_engine) as session:
        event = session.scalars(select(Revealed)).one()
        assert (event.tenant, event.columns, event.reason) == (A, ["patients.notes"], "ticket 4711")
        assert (event.actor, event.purpose) == ("u1", "support")
    audit_engine.dispose()


def test_rows_that_cannot_be_read_are_listed(supported: Shown) -> None:
    """The page's loop finds the row whose letter was altered, and no other."""
    supported.run(BROKEN)
    assert supported.names["broken"] == []
    last = "length(letter) - 1"
    altered = f"UPDATE patients SET letter = set_byte(letter, {last}, get_byte(letter, {last}) # 1)"
    with supported.admin.begin() as connection:
        connection.execute(text(altered))
    supported.run(BROKEN)
    assert supported.names["broken"] == [1]
