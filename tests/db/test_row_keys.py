"""PostgreSQL and Python make the same bytes of a row's primary key."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    Unicode,
    Uuid,
    cast,
    create_engine,
    literal,
    select,
)
from sqlalchemy.dialects import postgresql

from tenantguard.columns.row_keys import RowKey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

STORED = b"\x9eT\x01\x02 what is stored"
repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=60)


class Reference(TypeDecorator[str]):
    """A key that the application has as text, and the database as a UUID."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> Any:
        return dialect.type_descriptor(postgresql.UUID(as_uuid=False))


# No NUL, which PostgreSQL has in no text, and no halves of characters.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
numbers = st.integers(-(2**31), 2**31 - 1)
PARTS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Uuid(), st.uuids()),
    (postgresql.UUID(as_uuid=False), st.uuids().map(str)),
    (Reference(), st.uuids().map(lambda each: str(each).upper())),
    (Integer(), numbers),
    (BigInteger(), st.integers(-(2**63), 2**63 - 1)),
    (SmallInteger(), st.integers(-(2**15), 2**15 - 1)),
    (Text(), texts),
    (String(20), texts),
    (Unicode(), texts),
]


@pytest.fixture(scope="module")
def connection(admin_url: URL) -> Iterator[Connection]:
    engine = create_engine(admin_url)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def made_by_both(connection: Connection, key: list[tuple[Any, Any]]) -> tuple[RowKey, bytes, bytes]:
    """What PostgreSQL sends for the values of *key*, and the key's bytes as Python makes them."""
    columns = [Column(f"k{n}", type_, primary_key=True) for n, (type_, _) in enumerate(key)]
    row_key = RowKey(Table("t", MetaData(), *columns), "name")
    given = [
        cast(literal(value, type_), type_).label(f"k{n}") for n, (type_, value) in enumerate(key)
    ]
    source = select(*given).subquery()
    sent = connection.scalar(select(row_key.sent_with(literal(STORED, LargeBinary), source)))
    assert sent is not None
    return row_key, bytes(sent), row_key.pack([value for _, value in key])


@st.composite
def keys(draw: Any) -> list[tuple[Any, Any]]:
    chosen = draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3))
    return [(type_, draw(values)) for type_, values in chosen]


@given(key=keys())
@repeatable
@example(key=[(Text(), "")])
@example(key=[(Text(), "e\u0301\U0001f9b7 '\\\n"), (String(20), " ")])
@example(key=[(Uuid(), uuid.UUID(int=0)), (Integer(), -1), (Text(), "\x00\x00"[:0])])
def test_both_make_the_same_bytes(connection: Connection, key: list[tuple[Any, Any]]) -> None:
    """Whatever a key is made of, what is sealed by Python is opened with PostgreSQL's bytes."""
    row_key, sent, packed = made_by_both(connection, key)
    assert row_key.split(sent) == (STORED, packed)


@given(key=keys(), data=st.data())
@repeatable
def test_other_keys_have_other_bytes(key: list[tuple[Any, Any]], data: st.DataObject) -> None:
    """Two keys of one table are never the same bytes."""
    columns = [Column(f"k{n}", type_, primary_key=True) for n, (type_, _) in enumerate(key)]
    row_key = RowKey(Table("t", MetaData(), *columns), "name")
    strategies = [values for type_, _ in key for made, values in PARTS if made is type_]
    other = [data.draw(values) for values in strategies]
    given_ = [value for _, value in key]
    assert (row_key.pack(given_) == row_key.pack(other)) is (given_ == other)
