"""Type checkers know what an encrypted attribute is.

The type checkers of the lint step read this file: each line that says `type: ignore` is wrong, and
if it was not reported, the unused comment would be. At run time the same is asked of the functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar, assert_type, get_origin, get_type_hints
from uuid import UUID

import pytest
from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedColumn, aliased, mapped_column

import tenantguard
from tenantguard import (
    Exact,
    Last,
    Prefix,
    both,
    encrypted_bool,
    encrypted_bytes,
    encrypted_compound,
    encrypted_date,
    encrypted_datetime,
    encrypted_decimal,
    encrypted_dict,
    encrypted_enum,
    encrypted_float,
    encrypted_int,
    encrypted_json,
    encrypted_list,
    encrypted_str,
    encrypted_time,
    encrypted_uuid,
    searched,
)
from tenantguard.columns.search import Searches
from tenantguard.columns.types import Encrypted

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import InstrumentedAttribute

    from tenantguard.columns.searched import Searched


class Base(DeclarativeBase):
    pass


class Severity(Enum):
    MILD = 1
    SEVERE = 2


class Colour(Enum):
    RED = 1


class Right(Base):
    """Every type, and optional."""

    __tablename__ = "right"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = encrypted_str(search=Exact(normalize="email"), label="a.b")
    data: Mapped[bytes] = encrypted_bytes(deferred=True)
    number: Mapped[int] = encrypted_int(default=0)
    amount: Mapped[Decimal] = encrypted_decimal(nullable=False)
    day: Mapped[date] = encrypted_date(comment="when")
    moment: Mapped[datetime] = encrypted_datetime(name="at")
    truth: Mapped[bool] = encrypted_bool(search=Exact(few_values="it is a test"))
    key: Mapped[UUID] = encrypted_uuid(info={"a": 1})
    phone: Mapped[str | None] = encrypted_str(
        search=[Exact(), Last(4, normalize="digits"), Prefix(3, name="area")], padding="pow2"
    )
    weight: Mapped[float] = encrypted_float(search=(Exact(name="a"),), padding=16)
    wakes: Mapped[time] = encrypted_time()
    severity: Mapped[Severity] = encrypted_enum(Severity, default=Severity.MILD)
    extras: Mapped[dict[str, Any]] = encrypted_dict(insert_default=dict)
    tags: Mapped[list[Any]] = encrypted_list(label="a.tags")
    document: Mapped[dict[str, Any]] = encrypted_json(insert_default=dict)
    optional_severity: Mapped[Severity | None] = encrypted_enum(Severity)
    optional_extras: Mapped[dict[str, Any] | None] = encrypted_dict()
    optional_text: Mapped[str | None] = encrypted_str()
    optional_number: Mapped[int | None] = encrypted_int()
    optional_document: Mapped[list[int] | None] = encrypted_json()
    both: Mapped[tuple[str, date] | None] = encrypted_compound(
        "text", "day", normalize={"text": "email"}, search=Exact(tenant_column="practice_id")
    )


class Wrong(Base):
    """Assignments that a type checker reports; SQLAlchemy does not see them."""

    __tablename__ = "wrong"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[int] = encrypted_str()  # type: ignore[assignment]
    optional_text: Mapped[int | None] = encrypted_str()  # type: ignore[assignment]
    data: Mapped[str] = encrypted_bytes()  # type: ignore[assignment]
    number: Mapped[str] = encrypted_int()  # type: ignore[assignment]
    amount: Mapped[float] = encrypted_decimal()  # type: ignore[assignment]
    day: Mapped[datetime] = encrypted_date()  # type: ignore[assignment]
    moment: Mapped[str] = encrypted_datetime()  # type: ignore[assignment]
    truth: Mapped[str] = encrypted_bool()  # type: ignore[assignment]
    key: Mapped[str] = encrypted_uuid()  # type: ignore[assignment]
    weight: Mapped[int] = encrypted_float()  # type: ignore[assignment]
    wakes: Mapped[datetime] = encrypted_time()  # type: ignore[assignment]
    severity: Mapped[Colour] = encrypted_enum(Severity)  # type: ignore[arg-type]
    extras: Mapped[list[Any]] = encrypted_dict()  # type: ignore[assignment]
    tags: Mapped[dict[str, Any]] = encrypted_list()  # type: ignore[assignment]
    both: Mapped[str] = encrypted_compound("text", "day")  # type: ignore[assignment]


class Migrating(Base):
    """Attributes of two columns."""

    __tablename__ = "migrating"
    id: Mapped[int] = mapped_column(primary_key=True)
    plain_text: Mapped[str | None] = mapped_column("text")
    sealed_text: Mapped[str | None] = encrypted_str(name="text_sealed", migrating="text")
    text: Mapped[str | None] = both(sealed_text, plain_text)
    plain_day: Mapped[date] = mapped_column("day")
    sealed_day: Mapped[date] = encrypted_date(name="day_sealed", migrating="day")
    day: Mapped[date] = both("sealed_day", "plain_day")
    number: Mapped[int] = both(sealed_text, plain_text)  # type: ignore[arg-type]


def wrong_options() -> None:
    """Options that a type checker reports, and that are refused at run time too."""
    encrypted_str(server_default="x")  # type: ignore[call-arg]
    encrypted_str(search="email")  # type: ignore[arg-type]
    encrypted_json(search=Exact())  # type: ignore[call-arg]
    encrypted_str(label=1)  # type: ignore[arg-type]
    encrypted_str(search=["email"])  # type: ignore[list-item]
    encrypted_str(padding="pow3")  # type: ignore[arg-type]
    Last("4")  # type: ignore[arg-type]
    Prefix(normalize="digits")  # type: ignore[call-arg]
    encrypted_int(primary_key=True)  # type: ignore[call-arg]
    encrypted_dict(search=Exact())  # type: ignore[call-arg]
    encrypted_list(search=Exact())  # type: ignore[call-arg]
    encrypted_enum()  # type: ignore[call-arg]
    encrypted_enum(str)  # type: ignore[type-var]
    encrypted_compound("text", 1)  # type: ignore[arg-type]
    encrypted_compound("text", "day", normalize="email")  # type: ignore[arg-type]
    encrypted_compound("text", "day", search=[Exact()])  # type: ignore[arg-type]
    encrypted_compound("text", "day", unique=True)  # type: ignore[call-arg]


def attributes(row: Right) -> None:
    """What a checker takes the attributes for, on rows and on the class."""
    assert_type(row.text, str)
    assert_type(row.data, bytes)
    assert_type(row.number, int)
    assert_type(row.amount, Decimal)
    assert_type(row.day, date)
    assert_type(row.moment, datetime)
    assert_type(row.truth, bool)
    assert_type(row.key, UUID)
    assert_type(row.weight, float)
    assert_type(row.wakes, time)
    assert_type(row.severity, Severity)
    assert_type(row.extras, dict[str, Any])
    assert_type(row.tags, list[Any])
    assert_type(row.document, dict[str, Any])
    assert_type(row.optional_severity, Severity | None)
    assert_type(row.optional_text, str | None)
    assert_type(row.optional_number, int | None)
    assert_type(row.optional_document, list[int] | None)
    assert_type(row.both, tuple[str, date] | None)
    if TYPE_CHECKING:
        assert_type(searched(Right.phone, "last4"), Searched[str | None])
        assert_type(searched(aliased(Right).text, "a"), Searched[str])
        assert_type(searched(Right.phone, "last4") == "1234", ColumnElement[bool])
        select(Right).where(searched(Right.phone, "last4").in_(["1234"]))
        select(Right).where(searched(Right.phone, "last4").not_in([1]))  # type: ignore[list-item]
        select(Right).where(searched(Right.phone, 4) == "1234")  # type: ignore[arg-type]
        _ = searched(Right.phone, "last4") < "1234"  # type: ignore[operator]
        searched(Right.phone, "last4").like("12%")  # type: ignore[attr-defined]
        searched("phone", "last4")  # type: ignore[arg-type]
        assert_type(Right.text, InstrumentedAttribute[str])
        assert_type(Right.both == ("a", row.day), ColumnElement[bool])
        select(Right).where(Right.both.in_([("a", row.day)]))
        row.text = 1  # type: ignore[assignment]
        row.number = None  # type: ignore[assignment]
        row.severity = "MILD"  # type: ignore[assignment]
        row.tags = {}  # type: ignore[assignment]


def migrating(row: Migrating) -> None:
    """What a checker takes attributes of two columns for."""
    assert_type(row.text, str | None)
    assert_type(row.day, date)
    if TYPE_CHECKING:
        assert_type(Migrating.text, InstrumentedAttribute[str | None])
        assert_type(aliased(Migrating).day == date(2026, 1, 2), ColumnElement[bool])
        select(Migrating).where(Migrating.day.in_([date(2026, 1, 2)]))
        row.text = 1  # type: ignore[assignment]
        row.day = None  # type: ignore[assignment]
        both(Migrating.sealed_text, 1)  # type: ignore[call-overload]
        both(Migrating.sealed_text, Migrating.plain_text, search=Exact())  # type: ignore[call-overload]


FACTORIES = {
    name: getattr(tenantguard, name) for name in dir(tenantguard) if name[:10] == "encrypted_"
}

GIVEN: dict[str, Any] = {"encrypted_enum": (Severity,), "encrypted_compound": ("text", "day")}
UNTOLD = {"encrypted_enum": Severity, "encrypted_json": object}
"""The types of values of functions whose annotation leaves them to the attribute's."""


def test_functions_return_the_type_of_their_values() -> None:
    """The annotation that checkers see is the type that the column takes, for each function."""
    assert len(FACTORIES) == 15
    types = (date, datetime, time, Decimal, UUID, MappedColumn)
    for name, factory in FACTORIES.items():
        column = factory(*GIVEN.get(name, ()))
        localns = {
            **{each.__name__: each for each in types},
            "Searches": Searches,
            "Mapping": Mapping,
        }
        annotated = get_type_hints(factory, localns=localns)["return"]
        (given,) = annotated.__args__
        assert annotated.__origin__ is MappedColumn
        assert isinstance(column.column.type, Encrypted)
        python_type = column.column.type.python_type
        if given is Any or isinstance(given, TypeVar):
            assert python_type is UNTOLD[name], name
        else:
            assert (get_origin(given) or given) is python_type, name


def test_what_checkers_report_is_refused_or_harmless() -> None:
    """SQLAlchemy takes the wrong annotations; the column's type is the function's."""
    for name in {*Wrong.__table__.c.keys()} - {"id", "optional_text"}:
        right, wrong = Right.__table__.c, Wrong.__table__.c
        column = right["at" if name == "moment" else name]
        assert column.type.python_type is wrong[name].type.python_type
    assert select(Right.text).selected_columns.keys() == ["text"]
    with pytest.raises(TypeError, match="takes no server_default="):
        wrong_options()


def test_rows_have_the_attributes_of_two_columns() -> None:
    """As checkers see them."""
    row = Migrating(text="a", day=date(2026, 1, 2))
    migrating(row)
    assert (row.text, row.day) == ("a", date(2026, 1, 2))


def test_rows_have_the_attributes_that_checkers_see() -> None:
    """A row can be made with every attribute, and has them."""
    now = datetime(2026, 11, 22)  # noqa: DTZ001  (any datetime)
    row = Right(text="a", data=b"b", number=1, amount=Decimal(1), day=now.date(), moment=now)
    row.truth, row.key, row.document = True, UUID(int=1), {}
    row.weight, row.wakes, row.severity = 1, now.time(), Severity.SEVERE
    row.extras, row.tags = {"a": 1}, [1]
    row.optional_text = row.optional_number = row.optional_document = None
    row.optional_severity = None
    attributes(row)
    assert (row.text, row.key, row.optional_document) == ("a", UUID(int=1), None)
