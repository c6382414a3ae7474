"""What a compound is of, which declarations are refused, and what its bytes are."""

from __future__ import annotations

import uuid
from datetime import date
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any

import pytest
from declaring import ddl, labels, new_base, parts, table_of
from sealing import new_keys
from sqlalchemy import (
    CHAR,
    NCHAR,
    BigInteger,
    Boolean,
    Column,
    Computed,
    Date,
    DateTime,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Text,
    TypeDecorator,
    Uuid,
    func,
    inspect,
)
from sqlalchemy import Enum as SqlEnum
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    configure_mappers,
    mapped_column,
)

from tenantguard import (
    ConfigurationError,
    DecryptionError,
    Exact,
    Last,
    encrypted_bool,
    encrypted_compound,
    encrypted_date,
    encrypted_enum,
    encrypted_int,
    encrypted_json,
    encrypted_str,
)
from tenantguard.columns import kinds
from tenantguard.columns.compound_kind import compound_of
from tenantguard.columns.field import Field

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = new_keys("a")
DAY = date(1980, 1, 2)


class Severity(Enum):
    MILD = 1


def table(*columns: Column[Any] | Any, compound: Any) -> Any:
    """Return the table of a class with *columns*, called a, b and so on, and *compound*."""
    named = dict(zip("abcd", columns, strict=False))
    namespace = {
        "__tablename__": "t",
        "__module__": __name__,
        "id": mapped_column(Integer, primary_key=True),
        "tenant_id": mapped_column(Integer),
        **named,
        "both": compound,
    }
    return table_of(type("T", (new_base(),), namespace))


def field(*columns: Any, **options: Any) -> Field:
    names = "abcd"[: len(columns)]
    made: Field = table(*columns, compound=encrypted_compound(*names, **options)).c.both.type.field
    return made


# -- declaring ----------------------------------------------------------------------------------


def test_a_compound_is_an_encrypted_column() -> None:
    """Its table has a check, a generated column and an index for it, and nothing for its parts."""
    made = table(encrypted_str(), encrypted_date(), compound=encrypted_compound("a", "b"))
    assert ddl(made) == (
        "CREATE TABLE t (\n"
        "id SERIAL NOT NULL\n"
        "tenant_id INTEGER\n"
        "a BYTEA\n"
        "b BYTEA\n"
        '"both" BYTEA\n'
        'both_bidx BYTEA GENERATED ALWAYS AS (substring("both", 5, 16)) STORED\n'
        "PRIMARY KEY (id)\n"
        "CONSTRAINT t_a_sealed CHECK (substring(a, 1, 2) = '\\x9e54'::bytea)\n"
        "CONSTRAINT t_b_sealed CHECK (substring(b, 1, 2) = '\\x9e54'::bytea)\n"
        "CONSTRAINT t_both_sealed CHECK (substring(\"both\", 1, 2) = '\\x9e54'::bytea "
        'AND length("both") >= 20 AND get_bit("both", 24) = 1)\n'
        ")\n"
        "CREATE INDEX ix_t_both_bidx ON t (tenant_id, both_bidx)"
    )
    assert made.c.both.type.python_type is tuple
    assert labels(made.metadata)["t.both"] == ("t", "both")
    copy = made.to_metadata(MetaData(), name="archive")
    assert len(parts(copy)) == len(parts(made))
    assert copy.c.both.type.field.kind is made.c.both.type.field.kind
    assert labels(copy.metadata)["archive.both"] == ("archive", "both")


def test_each_table_of_a_mixin_has_its_own() -> None:
    """The parts are those of the table, also where their types differ."""
    base = new_base()

    class Named:
        name: Mapped[str] = encrypted_str(sort_order=-2)
        both: Mapped[Any] = encrypted_compound("name", "born")

    class Patient(Named, base):  # type: ignore[misc, valid-type]
        __tablename__ = "patients"
        born: Mapped[date] = encrypted_date(sort_order=-1)
        id: Mapped[int] = mapped_column(primary_key=True)

    class Doctor(Named, base):  # type: ignore[misc, valid-type]
        __tablename__ = "doctors"
        born: Mapped[int] = mapped_column(sort_order=-1)
        id: Mapped[int] = mapped_column(primary_key=True)

    types: list[Any] = [table_of(each).c.both.type for each in (Patient, Doctor)]
    names = [each.field.kind.name for each in types]
    assert names == ["a tuple of (a str, a date)", "a tuple of (a str, an int)"]


def test_dataclasses_and_children() -> None:
    """A dataclass leaves the compound out of its arguments; a child of the table may have one."""

    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "people"
        id: Mapped[int] = mapped_column(primary_key=True, init=False)
        kind: Mapped[str] = mapped_column(init=False)
        name: Mapped[str] = encrypted_str()
        __mapper_args__ = {"polymorphic_on": "kind"}  # noqa: RUF012  (as users write it)

    class Doctor(Person):
        licence: Mapped[str | None] = encrypted_str(default=None)
        both: Mapped[tuple[str, str] | None] = encrypted_compound("name", "licence", init=False)
        __mapper_args__ = {"polymorphic_identity": "doctor"}  # noqa: RUF012

    configure_mappers()
    assert Doctor("Anna", "x").licence == "x"
    assert inspect(Doctor).attrs.both.deferred
    type_: Any = table_of(Person).c.both.type
    assert type_.field.kind.name == "a tuple of (a str, a str)"


def test_a_class_maps_all_parts_or_no_compound() -> None:
    """What is left out of a class would not be followed in its objects."""
    made = table(encrypted_str(), encrypted_date(), compound=encrypted_compound("a", "b"))

    class Partly(new_base(made.metadata)):  # type: ignore[misc]
        __table__ = made
        __mapper_args__ = {"exclude_properties": ["b"]}  # noqa: RUF012

    with pytest.raises(ConfigurationError, match="class Partly does not map"):
        Partly.registry.configure()
    Partly.registry.dispose()


PLAIN = [
    (String(20), "a str"),
    (Text(), "a str"),
    (Integer(), "an int"),
    (BigInteger(), "an int"),
    (Date(), "a date"),
    (Boolean(), "a bool"),
    (Uuid(), "a UUID"),
    (LargeBinary(), "bytes"),
]


@pytest.mark.parametrize(("type_", "name"), PLAIN, ids=str)
def test_plain_parts(type_: Any, name: str) -> None:
    """Columns whose values the database keeps as they are may be parts too."""
    made = field(mapped_column(type_), encrypted_str())
    assert made.kind.name == f"a tuple of ({name}, a str)"


class Upper(TypeDecorator[str]):
    impl = String


class Lower(String):
    """A type of the application's own, which may convert."""


OTHERS = [
    *(CHAR(3), Float(), Numeric(5, 2), DateTime(), SqlEnum(Severity), Uuid(as_uuid=False)),
    *(Upper(), Lower(), NCHAR(3), String().with_variant(CHAR(3), "postgresql")),
]


@pytest.mark.parametrize("type_", OTHERS, ids=str)
def test_types_that_the_database_changes_are_no_parts(type_: Any) -> None:
    """What it rounds, pads or converts would not be what the compound was made of."""
    with pytest.raises(ConfigurationError, match=r"cannot follow t\.a: the database may store"):
        field(mapped_column(type_), encrypted_str())


COMPUTED: dict[str, Any] = {
    "generated": lambda: mapped_column(Integer, Computed("1")),
    "server's default": lambda: mapped_column(Integer, server_default="1"),
    "SQL's default": lambda: mapped_column(Integer, default=func.random()),
    "onupdate": lambda: mapped_column(Integer, onupdate=1),
    "server's onupdate": lambda: mapped_column(Integer, server_onupdate=Computed("1")),
    "primary key": lambda: mapped_column(Integer, primary_key=True),
    "foreign key": lambda: mapped_column(Integer, ForeignKey("t.id")),
    "being migrated": lambda: encrypted_int(migrating="id"),
}


@pytest.mark.parametrize("case", COMPUTED)
def test_parts_get_their_values_from_python(case: str) -> None:
    """What the database gives a column, the compound would not follow."""
    with pytest.raises(ConfigurationError, match=r"t\.both cannot follow 'a'"):
        field(COMPUTED[case](), encrypted_str())


def test_plaintext_that_is_being_encrypted_is_no_part() -> None:
    """It goes away in the end, and triggers empty it before."""
    with pytest.raises(ConfigurationError, match=r"t\.both cannot follow 'a'"):
        field(mapped_column(String), encrypted_str(migrating="a"))


# As an application without a type checker may declare it.
untyped: Any = encrypted_compound
REFUSED: list[tuple[Any, str]] = [
    (encrypted_compound, "takes the names of two or more"),
    (lambda: encrypted_compound("a"), "takes the names of two or more"),
    (lambda: encrypted_compound("a", "a"), "takes the names of two or more"),
    (lambda: encrypted_compound("a", ""), "takes the names of two or more"),
    (lambda: untyped("a", encrypted_str()), "takes the names of two or more"),
    (lambda: encrypted_compound("a", "b", normalize={"c": "digits"}), "none of its parts; they"),
    (lambda: encrypted_compound("a", "b", normalize={"a": "upper"}), "there are digits-v1"),
    (lambda: encrypted_compound("a", "b", normalize={"b": "digits"}), "only text is normalised"),
    (lambda: encrypted_compound("a", "b", default=1), "it takes no default"),
    (lambda: encrypted_compound("a", "b", insert_default=1), "it takes no default"),
    (lambda: encrypted_compound("a", "b", migrating="a"), "it takes no default"),
    (lambda: untyped("a", "b", search=Last(2)), "takes one Exact"),
    (lambda: untyped("a", "b", search=[Exact()]), "takes one Exact"),
    (lambda: encrypted_compound("a", "b", search=Exact(name="x")), "takes one Exact"),
    (lambda: encrypted_compound("a", "b", search=Exact("digits")), "is for text"),
    (lambda: encrypted_compound("a", "c"), "has no such column before it"),
    (lambda: encrypted_compound("a", "both"), "by which nothing can be searched"),
    (lambda: untyped("a", "b", index=True), "cannot be a key"),
]


@pytest.mark.parametrize(("declare", "why"), REFUSED, ids=range(len(REFUSED)))
def test_wrong_declarations_are_refused(declare: Any, why: str) -> None:
    """Where they are made, or when the table is."""
    with pytest.raises(ConfigurationError, match=why):
        table(encrypted_str(), encrypted_date(), compound=declare())


def test_what_cannot_be_searched_is_no_part() -> None:
    """JSON, and a compound; of few values only together with others, or with a reason."""
    parts_refused: list[Callable[[], Any]] = [
        encrypted_json,
        lambda: encrypted_compound("a", "b"),
    ]
    for part in parts_refused:
        columns = encrypted_str(), encrypted_date(), part()
        with pytest.raises(ConfigurationError, match="by which nothing can be searched"):
            table(*columns, compound=encrypted_compound("a", "c"))
    few = encrypted_bool, lambda: encrypted_enum(Severity)
    with pytest.raises(ConfigurationError, match="so few values"):
        field(*(each() for each in few))
    assert field(*(each() for each in few), search=Exact(few_values="a test")).kind.few
    assert not field(encrypted_bool(), encrypted_str()).kind.few


@pytest.mark.parametrize("option", [{"bind": "row"}, {"padding": 16}], ids=str)
def test_a_compound_gives_away_nothing_that_a_part_hides(option: Any) -> None:
    """Values that are bound to their row, or whose length is hidden, are so in the compound."""
    with pytest.raises(ConfigurationError, match=rf"t\.both follows t\.b.*{next(iter(option))}="):
        field(encrypted_str(), encrypted_str(**option))
    assert field(encrypted_str(), encrypted_str(**option), **option).header[3] > 1


def test_length_is_what_the_documentation_says() -> None:
    """54 bytes, and 5 for each part beside its own."""
    found = field(encrypted_str(), encrypted_str(), encrypted_str())
    assert len(found.seal(KEYS, ("ab", "", "c"))) == 54 + 3 * 5 + 3


def test_parts_restrict_who_reads() -> None:
    """Whoever may not read a part does not read the compound; the fewest of all may."""
    purposes = [
        field(encrypted_str(reveal={"x", "y"}), encrypted_str(reveal={"y", "z"})).reading.purposes,
        field(encrypted_str(), encrypted_str(), reveal={"x"}).reading.purposes,
        field(encrypted_str(reveal={"x"}), encrypted_str(reveal={"z"})).reading.purposes,
        field(encrypted_str(), encrypted_str()).reading.purposes,
    ]
    assert purposes == [{"y"}, {"x"}, frozenset(), None]


def test_without_its_table_a_compound_seals_nothing() -> None:
    """What its parts are is known with the table only."""
    type_: Any = encrypted_compound("a", "b").column.type
    with pytest.raises(ConfigurationError, match="used without its table"):
        type_.field.kind.pack(("a", "b"))


# -- values -------------------------------------------------------------------------------------


def test_parts_are_equal_as_each_is_searched() -> None:
    """By their types' own equality, and by the normaliser that each is given."""
    found = field(encrypted_str(), encrypted_str(), normalize={"a": "nfc-casefold"})
    index = found.index(KEYS, ("Müller", "x"))
    assert index == found.index(KEYS, ("MU\u0308LLER", "x"))
    assert index != found.index(KEYS, ("Müller", "X"))
    other = field(encrypted_str(), encrypted_str())
    assert other.index(KEYS, ("müller", "x")) != found.index(KEYS, ("müller", "x"))
    assert found.open(KEYS, found.seal(KEYS, ("Müller", "x"))) == ("Müller", "x")


def test_parts_do_not_run_into_each_other() -> None:
    """Where one ends and the next begins is part of what is indexed, and so is their order."""
    found = field(encrypted_str(), encrypted_str(), encrypted_str())
    values = [("ab", "c", ""), ("a", "bc", ""), ("", "ab", "c"), ("c", "ab", ""), ("abc", "", "")]
    assert len({found.index(KEYS, value) for value in values}) == len(values)


def test_members_of_an_enumeration_in_a_compound() -> None:
    """A name that is not there any more is another type's value, of the whole column."""
    kind, gone = (
        compound_of(("a", "b"), (None, None), (kinds.STR, kinds.member_of(enum)))
        for enum in (Severity, StrEnum("Other", ["SEVERE"]))
    )
    packed = kind.pack(("x", Severity.MILD))
    assert kind.unpack(packed) == ("x", Severity.MILD)
    with pytest.raises(ValueError):  # noqa: PT011  (it has no text: the value must not be in it)
        gone.unpack(packed)
    sealed, opened = (Field(each) for each in (kind, gone))
    for each in (sealed, opened):
        each.attach("t", "both")
    with pytest.raises(DecryptionError, match="sealed as another type than a tuple of"):
        opened.open(KEYS, sealed.seal(KEYS, ("x", Severity.MILD)))


@pytest.mark.parametrize("cut", range(1, 40))
def test_bytes_that_are_cut_are_refused(cut: int) -> None:
    """Neither fewer nor more parts, nor shorter ones, are unpacked."""
    kind = compound_of(("a", "b"), (None, None), (kinds.STR, kinds.UUID_))
    packed = kind.pack(("name", uuid.UUID(int=1)))
    for wrong in (packed[:-cut], packed + packed[1 : cut + 1], packed[:1] + packed[cut + 1 :]):
        with pytest.raises(ValueError):  # noqa: PT011
            kind.unpack(wrong)
