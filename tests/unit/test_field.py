"""A field says what it takes and what it cannot open, and never the value."""

from __future__ import annotations

import copy
import re
import traceback
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sealing import exact, field_of, new_keys, repeatable
from test_kinds import ALL, DOCUMENTS, PAIR, REFUSED, SEVERITY, VALUES, Severity, each_kind

from tenantguard.columns import kinds
from tenantguard.columns.field import Field, Unsealed
from tenantguard.columns.search import Exact, Last, Prefix
from tenantguard.errors import (
    ConfigurationError,
    DecryptionError,
    EncryptedQueryError,
    EncryptedValueError,
    TamperedError,
)

KEYS, OTHERS = new_keys("a"), new_keys("b")


# -- sealing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "value"), REFUSED, ids=range(len(REFUSED)))
def test_unfit_values_are_refused_in_words(kind: kinds.Kind, value: Any) -> None:
    """The message names the column and both types; neither it nor its cause shows the value."""
    name = re.escape(kind.name)
    for field in (field_of(kind), field_of(kind, exact(kind))):
        with pytest.raises(EncryptedValueError, match=rf"patients\.name takes {name}") as info:
            field.seal(KEYS, value)
        assert type(value).__name__ in str(info.value)
        assert info.value.__cause__ is info.value.__context__ is None


def test_error_shows_no_value() -> None:
    """Not even the part of a text that cannot be encoded."""
    field = field_of(kinds.STR, Exact(normalize="nfc-casefold"))
    # Not written out: a traceback quotes this line.
    value = "Geheim\udcff".lower()
    for act in (field.seal, field.index):
        with pytest.raises(EncryptedValueError) as info:
            act(KEYS, value)
        assert "geheim" not in "".join(traceback.format_exception(info.value))


def test_deep_documents_are_refused() -> None:
    """A document that Python cannot write down, or read, is not stored."""
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    with pytest.raises(EncryptedValueError, match="cannot be stored"):
        field_of(kinds.JSON).seal(KEYS, deep)


@pytest.mark.parametrize(
    ("search", "plain", "stored"),
    [(None, 0, 38), (Exact(), 0, 54), (None, 11, 49), (None, 99, 137)],
)
def test_length_is_what_the_documentation_says(
    search: Exact | None, plain: int, stored: int
) -> None:
    """A text takes 38 bytes more, 54 with a blind index."""
    assert len(field_of(kinds.STR, search).seal(KEYS, "x" * plain)) == stored


@pytest.mark.parametrize(
    ("padding", "sizes"),
    [
        (16, {0: 16, 14: 16, 15: 32, 30: 32, 31: 48}),
        ("pow2", {0: 16, 14: 16, 15: 32, 30: 32, 31: 64, 62: 64, 63: 128}),
    ],
)
def test_padded_length_tells_a_range(padding: Any, sizes: dict[int, int]) -> None:
    """The stored length is that of the bucket; a column may gain, change and lose its padding."""
    padded = Field(kinds.STR, padding=padding)
    padded.attach("patients", "name")
    plain = field_of(kinds.STR)
    for length, size in sizes.items():
        stored = padded.seal(KEYS, "x" * length)
        assert len(stored) == 37 + size
        assert stored[:4] == padded.header
        for field in (padded, plain, padded.copy()):
            field.attach("patients", "name")
            assert field.open(KEYS, stored) == "x" * length
            assert field.open(KEYS, plain.seal(KEYS, "y" * length)) == "y" * length
    assert plain.seal(KEYS, "")[:4] == plain.header != padded.header


# -- opening ------------------------------------------------------------------------------------


@given(data=st.data())
@repeatable
def test_another_types_values_are_refused(data: st.DataObject) -> None:
    """A column that was declared anew does not open the old type's values as something else."""
    old, new = data.draw(st.sampled_from(ALL)), data.draw(st.sampled_from(ALL))
    value = data.draw(VALUES[old])
    stored = field_of(old).seal(KEYS, value)
    if old is new:
        assert field_of(new).open(KEYS, stored) == value
        return
    with pytest.raises(DecryptionError, match=r"patients\.name holds .* another type") as info:
        field_of(new).open(KEYS, stored)
    assert info.value.__cause__ is info.value.__context__ is None


@pytest.mark.parametrize("packed", [b"\x0a" + b"[" * 200_000, b"\x0aNaN", b"\x0b", b""])
def test_what_no_value_becomes_is_refused_in_words(packed: bytes) -> None:
    """Authentic bytes of no type are an error of ours too."""
    field = field_of(kinds.JSON)
    assert field.context is not None
    stored = KEYS.seal(field.context, field.header, packed)
    with pytest.raises(DecryptionError, match="sealed as another type than what JSON can hold"):
        field.open(KEYS, stored)


def test_name_that_an_enumeration_no_longer_has() -> None:
    """The message says what to do with the enumeration; it names no member."""
    field = field_of(kinds.member_of(Enum("Severity", ["MILD", "SECRET"])))
    stored = field.seal(KEYS, field.kind.python_type["SECRET"])
    with pytest.raises(
        DecryptionError, match=r"does not have\. If the member was ren.*OLD = NEW in"
    ):
        field_of(kinds.member_of(Severity)).open(KEYS, stored)
    with pytest.raises(DecryptionError) as info:
        field_of(kinds.member_of(Severity)).open(KEYS, stored)
    assert "SECRET" not in str(info.value)
    assert info.value.__cause__ is info.value.__context__ is None


# -- searching ----------------------------------------------------------------------------------

moment = datetime(2026, 11, 22, 12, tzinfo=UTC)
SAMPLES: dict[kinds.Kind, Any] = {
    kinds.STR: "x",
    kinds.BYTES: b"x",
    kinds.INT: 1,
    kinds.DECIMAL: Decimal(1),
    kinds.DATE: date(2026, 1, 1),
    kinds.FLOAT: 1.0,
    kinds.DATETIME: moment,
    kinds.TIME: time(12),
    SEVERITY: Severity.MILD,
    kinds.BOOL: True,
    kinds.UUID_: UUID(int=1),
    PAIR: ("x", Decimal(1)),
}


@pytest.mark.parametrize(
    ("kind", "search", "one", "other"),
    [
        (kinds.STR, Exact("nfc-casefold"), "MÜLLER", "Mu\u0308ller"),
        (kinds.STR, Exact("digits"), "+49 (0)30 12-34", "4903012 34"),
        (kinds.STR, Exact("email"), " A@B.de", "a@b.DE"),
        (kinds.DECIMAL, Exact(), Decimal("1.10"), Decimal("1.1")),
        (kinds.DATETIME, Exact(), moment, moment.astimezone(timezone(timedelta(hours=5)))),
        (kinds.BYTES, Exact(), b"ab", bytearray(b"ab")),
    ],
)
def test_equal_values_share_an_index(kind: kinds.Kind, search: Exact, one: Any, other: Any) -> None:
    """What is searched for is found in its other forms, and the stored value has that index."""
    field = field_of(kind, search)
    index = field.index(KEYS, one)
    assert field.index(KEYS, other) == index
    assert field.seal(KEYS, other)[4:20] == index
    assert len(index) == 16


@each_kind
def test_index_is_of_one_tenant_column_and_normaliser(kind: kinds.Kind) -> None:
    """Equal values cannot be recognised across tenants or columns."""
    if kind.equal is None:
        assert kind in DOCUMENTS
        with pytest.raises(ConfigurationError, match="JSON cannot be searched"):
            field_of(kind, Exact())
        return
    value, search = SAMPLES[kind], exact(kind)
    columns = [field_of(kind, search), field_of(kind, search, column="city")]
    if kind is kinds.STR:
        columns += [field_of(kind, Exact(each)) for each in ("nfc-casefold", "digits", "email")]
    indexes = [field.index(keys, value) for field in columns for keys in (KEYS, OTHERS)]
    assert len(set(indexes)) == len(indexes)


SEVERAL = (
    Exact(),
    Exact("digits", name="digits"),
    Last(4, normalize="digits"),
    Last(4, name="end"),
    Last(3, normalize="digits"),
    Prefix(4, normalize="digits"),
    Prefix(4, name="start"),
    Prefix(4, normalize="nfc-casefold", name="folded"),
)


def test_no_two_indexes_of_a_value_coincide() -> None:
    """Kind, number of characters and normaliser are part of what an index is computed of."""
    field, city = field_of(kinds.STR, SEVERAL), field_of(kinds.STR, SEVERAL, column="city")
    # Each search takes the whole of it, and leaves it as it is.
    for value in ("1234", "123"):
        stored = [each.seal(keys, value) for each in (field, city) for keys in (KEYS, OTHERS)]
        found = [each[place : place + 16] for each in stored for place in range(4, 132, 16)]
        assert len(set(found)) == len(found) == 4 * len(SEVERAL)


@pytest.mark.parametrize(
    ("search", "value", "sought", "missed"),
    [
        (Last(4, normalize="digits"), "+49 30 / 12-34", "12 34", "1235"),
        (Last(4, normalize="digits"), "\u0661\u0662\u0663\u0664\u0665", "2345", "1234"),
        (Last(4), "Straße", "raße", "rasse"[1:]),
        (Prefix(3, normalize="nfc-casefold"), "Mu\u0308ller", "MÜL", "MUL"),
        (Prefix(3, normalize="nfc-casefold"), "Maßstab", "mas", "MAß"[:2] + "t"),
        (Prefix(3), "Mu\u0308ller", "Mu\u0308", "Mül"),
        (Prefix(2, normalize="email"), " Anna@example.org", "aN", "na"),
    ],
)
def test_parts_are_found_after_normalisation(
    search: Any, value: str, sought: str, missed: str
) -> None:
    """What the last or first characters are is said of the normalised text."""
    field = field_of(kinds.STR, search)
    (index,) = field.indexes
    stored = field.seal(KEYS, value)[4:20]
    assert field.sought(index, KEYS, sought) == [stored]
    assert field.sought(index, KEYS, missed) != [stored]


@pytest.mark.parametrize("search", [Last(4, normalize="digits"), Prefix(4, normalize="digits")])
def test_shorter_values_have_an_index_and_no_search_finds_them(search: Any) -> None:
    """What is too short is stored; what is looked for has the number of characters, or is wrong."""
    field = field_of(kinds.STR, search)
    (index,) = field.indexes
    for value in ("", "1", "12-3"):
        assert field.open(KEYS, field.seal(KEYS, value)) == value
    for sought in ("", "123", "12345", "12-345-67", "(123)"):
        with pytest.raises(EncryptedQueryError, match=rf"'{index.name}'.* 4 characters.*exactly 4"):
            field.sought(index, KEYS, sought)
    with pytest.raises(EncryptedValueError, match="takes a str; a value of type int"):
        field.sought(index, KEYS, 1234)


def test_search_of_another_name_is_refused() -> None:
    """The message names those that there are, and how one is used."""
    field = field_of(kinds.STR, [Last(4), Prefix(3)])
    with pytest.raises(EncryptedQueryError, match=r"no search without a name.*'last4', 'prefix3'"):
        field.index(KEYS, "x")
    with pytest.raises(EncryptedQueryError, match=r"no search called 'last3'.*searched\(…, name\)"):
        field.search_named("last3")
    with pytest.raises(EncryptedQueryError, match=r"no search called 'last4'\. Search it by =="):
        field_of(kinds.STR, Exact()).search_named("last4")


def test_exact_search_tells_forms_apart() -> None:
    """Without a normaliser, case and composition count."""
    field = field_of(kinds.STR, Exact())
    forms = ("Müller", "müller", "Mu\u0308ller", "Müller ")
    assert len({field.index(KEYS, form) for form in forms}) == len(forms)


def test_column_without_search_has_no_index() -> None:
    """The message says how it gets one."""
    with pytest.raises(EncryptedQueryError, match=r"Declare it with search=Exact\(\)"):
        field_of(kinds.STR).index(KEYS, "Anna")


def test_normalised_search_takes_text_only() -> None:
    """A number is not looked up as its digits."""
    field = field_of(kinds.STR, Exact("digits"))
    with pytest.raises(EncryptedValueError, match="takes a str; a value of type int"):
        field.index(KEYS, 123)


# -- what a field is ----------------------------------------------------------------------------


def test_field_without_its_column_is_refused() -> None:
    """A type that is not a column's has no labels."""
    field = Field(kinds.STR, search=None, label=None)
    for act in (lambda: field.labels, lambda: field.seal(KEYS, "x"), lambda: field.open(KEYS, b"")):
        with pytest.raises(ConfigurationError, match="Take it from a mapped column"):
            act()


@pytest.mark.parametrize(
    ("label", "labels"),
    [
        (None, ("public.visits", "reason")),
        ("patients.name", ("patients", "name")),
        ("clinic.patients.name", ("clinic.patients", "name")),
    ],
)
def test_labels_are_given_or_the_names(label: str | None, labels: tuple[str, str]) -> None:
    """A label outlives the names, and messages have the names of today."""
    field = Field(kinds.STR, search=None, label=label)
    field.attach("public.visits", "reason")
    assert field.labels == labels
    assert repr(field) == "<Field public.visits.reason>"
    assert field.bind_name == "reason"


def test_renamed_column_opens_with_its_label() -> None:
    """After a rename the old names as label= open, find and index the old values."""
    old, new = field_of(kinds.STR, Exact()), Field(kinds.STR, search=Exact(), label="patients.name")
    new.attach("clients", "full_name")
    stored = old.seal(KEYS, "Anna")
    assert new.open(KEYS, stored) == "Anna"
    assert new.index(KEYS, "Anna") == stored[4:20]
    assert new.same_as(old)
    with pytest.raises(TamperedError, match=r"give the column its old names as label="):
        field_of(kinds.STR, Exact(), column="full_name").open(KEYS, stored)


def test_fields_are_the_same_by_labels_and_type() -> None:
    """Values can be moved between columns of the same labels and type only."""
    field = field_of(kinds.STR)
    assert field.same_as(field_of(kinds.STR, Exact()))
    assert not field.same_as(field_of(kinds.BYTES))
    assert not field.same_as(field_of(kinds.STR, column="city"))
    loose = field.copy()
    assert loose.same_as(loose)
    assert not loose.same_as(field)
    assert not field.same_as(loose)


@pytest.mark.parametrize("label", ["", "name", ".name", "patients.", "."])
def test_label_without_table_or_column_is_refused(label: str) -> None:
    """Half a label would be another column's."""
    with pytest.raises(ConfigurationError, match=r"label='patients\.name'"):
        Field(kinds.STR, search=None, label=label)


def test_unsealed_value_shows_nothing() -> None:
    """A value on its way can be printed, and copied, without being seen."""
    unsealed = Unsealed(field_of(kinds.STR).send, "geheim")
    assert repr(unsealed) == str(unsealed) == "<Unsealed>"
    assert repr(copy.copy(unsealed)) == "<Unsealed>"
