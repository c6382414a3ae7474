"""What `reveal=` and `on_error=` of an encrypted column take, and that copies keep it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenantguard import ConfigurationError, encrypted_str
from tenantguard.columns.restricted import has_restricted, restricted_fields


class Base(DeclarativeBase):
    pass


class Restricted:
    notes: Mapped[str] = encrypted_str(reveal=["treatment"], on_error="placeholder")


class Patient(Restricted, Base):
    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[int]
    name: Mapped[str] = encrypted_str()


@pytest.mark.parametrize("reveal", ["treatment", b"treatment", 1, [""], [None], [1], {"": "x"}])
def test_purposes_are_a_collection_of_names(reveal: Any) -> None:
    """A single text would be a purpose for each of its letters."""
    with pytest.raises(ConfigurationError, match="reveal= takes a collection of purposes"):
        encrypted_str(reveal=reveal)


@pytest.mark.parametrize("on_error", ["ignore", "", None, True])
def test_errors_are_raised_or_replaced(on_error: Any) -> None:
    """Nothing else can become of them."""
    with pytest.raises(ConfigurationError, match="on_error= takes 'raise' or 'placeholder'"):
        encrypted_str(on_error=on_error)


def test_copies_are_restricted_too() -> None:
    """A mixin's column, and that of a table copied to another MetaData."""
    copied = Patient.__table__.to_metadata(other := MetaData())  # type: ignore[attr-defined]
    for table in (Patient.__table__, copied):
        reading = table.c.notes.type.field.reading  # type: ignore[union-attr]
        assert (reading.purposes, reading.on_error) == ({"treatment"}, "placeholder")
        assert table.c.name.type.field.reading.purposes is None  # type: ignore[union-attr]
    assert has_restricted(other)
    assert not has_restricted(MetaData())


def test_values_of_other_readers_are_not_mixed() -> None:
    """A column without the restriction does not open another's values, even with its label."""

    class Open(Base):
        __tablename__ = "open"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int]
        notes: Mapped[str] = encrypted_str(label="patients.notes")

    (field,) = restricted_fields([Patient])
    other: Any = Open.__table__.c.notes.type
    assert not field.same_as(other.field)
    assert not other.field.same_as(field)
