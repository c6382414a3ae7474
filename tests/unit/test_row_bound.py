"""Values of every type that are bound to their row open there, and nowhere else."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sealing import exact, new_keys, repeatable
from sqlalchemy import (
    CHAR,
    Column,
    Date,
    Enum,
    ForeignKey,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    create_engine,
    func,
    select,
)
from sqlalchemy.dialects import postgresql
from test_kinds import VALUES, each_kind

from tenantguard import (
    ConfigurationError,
    EncryptedQueryError,
    EncryptedValueError,
    TamperedError,
    TenantGuard,
    encrypted_str,
)
from tenantguard.columns import kinds
from tenantguard.columns.execution import attach_encryption
from tenantguard.columns.field import Field
from tenantguard.columns.row_keys import RowKey
from tenantguard.columns.types import Encrypted
from tenantguard.crypto.format import is_bound
from tenantguard.errors import DecryptionError, NotEncryptedError

if TYPE_CHECKING:
    from tenantguard.columns.kind import Kind

KEYS, OTHERS = new_keys("a"), new_keys("b")
ROW, OTHER_ROW = b"\0" * 16, b"\0" * 15 + b"\1"


def field_of(kind: Kind, *, bound: bool, searched: bool = False, **labels: str) -> Field:
    search = exact(kind) if searched else None
    field = Field(kind, search=search, bind="row" if bound else "column")
    field.attach(labels.get("table", "patients"), labels.get("column", "name"))
    return field


@each_kind
@given(data=st.data())
@repeatable
def test_a_value_opens_where_it_was_sealed_only(kind: Kind, data: st.DataObject) -> None:
    """Moved to another row, column, table or tenant, or altered, no value opens, in both modes."""
    value, searched = data.draw(VALUES[kind]), data.draw(st.booleans())
    for bound, row, other in ((True, ROW, OTHER_ROW), (False, None, None)):
        made = partial(field_of, kind, searched=searched)
        field = made(bound=bound)
        stored = field.seal(KEYS, value, row)
        assert is_bound(stored) is bound
        field.open(KEYS, stored, row)
        if bound:
            with pytest.raises(TamperedError):
                field.open(KEYS, stored, other)
        for elsewhere in (made(bound=bound, column="x"), made(bound=bound, table="x")):
            with pytest.raises(TamperedError):
                elsewhere.open(KEYS, stored, row)
        with pytest.raises(DecryptionError):
            field.open(OTHERS, stored, row)
        with pytest.raises(TamperedError):
            made(bound=not bound).open(KEYS, stored, None if bound else ROW)
        position = data.draw(st.integers(0, len(stored) - 1))
        altered = bytearray(stored)
        altered[position] ^= 1 << data.draw(st.integers(0, 7))
        with pytest.raises(DecryptionError):
            field.open(KEYS, bytes(altered), row)


def test_a_bound_field_does_nothing_without_a_row() -> None:
    """Neither sealing nor opening falls back to the column, nor does a column take a row."""
    kind = kinds.STR
    for bound, row in ((True, None), (False, ROW)):
        field = field_of(kind, bound=bound)
        stored = field.seal(KEYS, "x", None if row else ROW)
        acts: Any = ((field.seal, "x"), (field.open, stored))
        for act, value in acts:
            with pytest.raises(EncryptedQueryError, match=r"patients\.name was to be sealed or"):
                act(KEYS, value, row)


def test_values_from_before_are_opened_if_that_is_said() -> None:
    """With accepts="column" old values open, and new ones are bound all the same."""
    old, new = field_of(kinds.STR, bound=False), field_of(kinds.STR, bound=True)
    stored = old.seal(KEYS, "x")
    with pytest.raises(TamperedError, match="accept it with accepts='column' until all are"):
        new.open(KEYS, stored, ROW)
    both = Field(kinds.STR, bind="row", accepts="column").copy()
    both.attach("patients", "name")
    assert both.open(KEYS, stored, ROW) == "x"
    moved = both.seal(KEYS, "y", ROW)
    assert both.open(KEYS, moved, ROW) == new.open(KEYS, moved, ROW) == "y"
    with pytest.raises(TamperedError):
        both.open(KEYS, moved, OTHER_ROW)
    assert not new.same_as(old)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"bind": "rows"}, "bind= is 'column', or 'row'"),
        ({"accepts": "column"}, "is for a column with bind='row'"),
        ({"bind": "row", "accepts": "row"}, "is for a column with bind='row'"),
    ],
    ids=str,
)
def test_unknown_options_are_refused(options: Any, says: str) -> None:
    """What is not understood is refused when the column is declared."""
    with pytest.raises(ConfigurationError, match=says):
        encrypted_str(**options)


# -- the primary key ----------------------------------------------------------------------------


class Lowered(TypeDecorator[str]):
    """A key that the database changes on its way in."""

    impl = Text
    cache_ok = True

    def bind_expression(self, bindparam: Any) -> Any:
        return func.lower(bindparam)


UNFIT = [
    Date(),
    Numeric(),
    CHAR(8),
    Enum("a", "b", name="letters"),
    String(collation="C"),
    postgresql.CITEXT(),
    postgresql.BYTEA(),
    Uuid(native_uuid=False),
    Lowered(),
]


def table_of(*keys: Any) -> Table:
    columns = [Column(f"k{n}", type_, primary_key=True) for n, type_ in enumerate(keys)]
    field = Field(kinds.STR, bind="row")
    return Table("t", MetaData(), *columns, Column("name", Encrypted(field)))


@pytest.mark.parametrize("type_", UNFIT, ids=repr)
def test_keys_without_bytes_that_both_agree_on_are_refused(type_: Any) -> None:
    """A key that PostgreSQL may keep in other bytes than Python sends is no key to bind to."""
    with pytest.raises(ConfigurationError, match="none whose bytes PostgreSQL and Python agree on"):
        RowKey(table_of(Integer(), type_), "name")


def test_a_table_without_a_key_has_no_rows_to_bind_to() -> None:
    """It is refused where the column is first used, also where its values are only selected."""
    with pytest.raises(ConfigurationError, match="no primary key that says which row"):
        str(select(table_of().c.name))


@pytest.mark.parametrize("keys", [(), (Date(),)], ids=["none", "a date"])
def test_a_table_without_such_a_key_is_refused_when_the_engine_is_protected(keys: Any) -> None:
    """The application does not start, instead of failing at its first statement."""
    table = table_of(*keys)
    Table("tenants", table.metadata, Column("id", Uuid, primary_key=True))
    table.append_column(Column("tenant_id", ForeignKey("tenants.id"), nullable=False))
    guard = TenantGuard(table.metadata, tenants="tenants")
    with pytest.raises(ConfigurationError, match=r"Column t\.name is bound to its row, and"):
        guard.protect(create_engine("postgresql+psycopg://"))


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (Uuid(), "no uuid"),
        (Uuid(), None),
        (Uuid(), 7),
        (Integer(), True),
        (Integer(), "7"),
        (Integer(), 2**63),
        (Integer(), 1.0),
        (Text(), b"x"),
        (Text(), "\ud800"),
        (String(2), "a  "),
    ],
    ids=repr,
)
def test_values_that_the_key_cannot_have_are_refused(type_: Any, value: Any) -> None:
    """A key is packed as the database will have it, or not at all; errors do not show it."""
    with pytest.raises(EncryptedValueError, match="primary key is given as something") as error:
        RowKey(table_of(type_), "name").pack([value])
    assert error.value.__context__ is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ident", "with another key they would not open"),
        ("id_db", "with another key they would not open"),
        ("note_db", "set_= names 'note_db', which is no column"),
    ],
)
def test_an_upsert_knows_columns_by_both_their_names(name: str, says: str) -> None:
    """SQLAlchemy takes a name in the database too, only warns, and knows no type for its value."""
    key: Any = Column("id_db", Integer, key="ident", primary_key=True)
    note: Any = Column("note_db", Encrypted(Field(kinds.STR)), key="note")
    bound: Any = Column("name", Encrypted(Field(kinds.STR, bind="row")))
    table = Table("t", MetaData(), key, note, bound, Column("city", Text))
    upsert = postgresql.insert(table).values(ident=1, name="x")
    changed = upsert.on_conflict_do_update(index_elements=["city"], set_={name: "7"})
    engine = create_engine("postgresql+psycopg://")
    attach_encryption(engine.dialect, lambda *_: KEYS)
    with pytest.raises(EncryptedQueryError, match=says):
        changed.compile(engine)


def test_what_is_too_short_for_a_key_is_refused() -> None:
    """Bytes that cannot be a value and a key are an error of their own."""
    for key, sent in ((Uuid(), b"x" * 15), (Text(), b"abc"), (Text(), b"a\0\0\0\2")):
        with pytest.raises(NotEncryptedError, match="too short for a sealed value"):
            RowKey(table_of(key), "name").split(sent)
