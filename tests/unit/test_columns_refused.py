"""Which declarations of encrypted columns are refused, and what is said instead."""

from __future__ import annotations

from typing import Any

import pytest
from declaring import new_base, patient, table_of
from sqlalchemy import (
    Column,
    ColumnDefault,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Sequence,
    Table,
    UniqueConstraint,
    func,
    select,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from tenantguard import (
    ConfigurationError,
    Exact,
    Last,
    Prefix,
    encrypted_bool,
    encrypted_bytes,
    encrypted_int,
    encrypted_json,
    encrypted_str,
)
from tenantguard.catalog import Catalog
from tenantguard.columns.types import Encrypted


@pytest.mark.parametrize("option", ["primary_key", "unique", "index"])
def test_key_options_are_refused(option: str) -> None:
    """Equal values are sealed differently, so a key or a unique column would hold nothing."""
    wrong: Any = {option: True}
    body = {"id": mapped_column(Integer, primary_key=True), "name": encrypted_str(**wrong)}
    with pytest.raises(ConfigurationError, match=r"rows\.name is encrypted.*search=Exact\(\)"):
        type("Row", (new_base(),), {"__tablename__": "rows", "__module__": __name__, **body})


def test_foreign_key_is_refused() -> None:
    """Ciphertext refers to nothing."""
    type_: Any = table_of(patient()).c.notes.type
    with pytest.raises(ConfigurationError, match=r"rows\.name is encrypted"):
        Table("rows", MetaData(), Column("name", type_.copy(), ForeignKey("a.b")))
    declare: Any = encrypted_str
    with pytest.raises(TypeError):
        declare(ForeignKey("a.b"))


@pytest.mark.parametrize(
    "option", ["server_default", "server_onupdate", "onupdate", "key", "autoincrement", "typo"]
)
def test_options_that_would_write_plaintext_are_refused(option: str) -> None:
    """An option that an encrypted column does not have is an error, with the list of those."""
    wrong: Any = {option: text("'x'")}
    with pytest.raises(TypeError, match=rf"no {option}=\. It can have .*active_history, .*doc"):
        encrypted_str(**wrong)


COMPUTED = [
    func.now(),
    text("'x'"),
    select(1).scalar_subquery(),
    Sequence("numbers"),
    ColumnDefault(func.now()),
]


@pytest.mark.parametrize("option", ["default", "insert_default"])
@pytest.mark.parametrize("value", COMPUTED, ids=lambda value: type(value).__name__)
def test_default_of_the_databases_is_refused(option: str, value: Any) -> None:
    """What the database computes is not encrypted."""
    wrong: Any = {option: value}
    with pytest.raises(ConfigurationError, match="a value or a function of Python"):
        encrypted_str(**wrong)


def test_boolean_search_needs_a_reason() -> None:
    """An index of two values tells them by their frequency."""
    for search in (Exact(), Exact(few_values="  ")):
        with pytest.raises(ConfigurationError, match=r"Exact\(few_values='…'\)"):
            encrypted_bool(search=search)
    assert encrypted_bool(search=Exact(few_values="two of a thousand rows are true"))


def test_json_takes_no_search() -> None:
    """Two documents that are equal need not be written alike."""
    wrong: Any = {"search": Exact()}
    with pytest.raises(TypeError, match="search"):
        encrypted_json(**wrong)


@pytest.mark.parametrize("declare", [encrypted_bytes, encrypted_int])
def test_normaliser_is_for_text(declare: Any) -> None:
    """A number has no case."""
    with pytest.raises(ConfigurationError, match=r"Exact\(normalize=…\) is for text"):
        declare(search=Exact(normalize="digits"))
    for part in (Last(4), Prefix(3)):
        with pytest.raises(ConfigurationError, match=r"(Last|Prefix) is for text, not for a"):
            declare(search=part)


@pytest.mark.parametrize("characters", [0, -1, 65, 2.0, True, "4", None])
def test_part_has_a_number_of_characters(characters: Any) -> None:
    """A part of no characters is every value's."""
    for part in (Last, Prefix):
        with pytest.raises(ConfigurationError, match="takes a number of characters, from 1 to 64"):
            encrypted_str(search=part(characters))


def test_search_of_one_character_needs_a_reason() -> None:
    """There are so few that their frequency tells them."""
    for part in (Last, Prefix):
        with pytest.raises(ConfigurationError, match=rf"{part.__name__}\(few_values='…'\)"):
            encrypted_str(search=part(1))
        assert encrypted_str(search=part(1, few_values="a register by first letters"))
        assert encrypted_str(search=part(2))


@pytest.mark.parametrize(
    ("searches", "message"),
    [
        ([], "takes one search, or a list of up to 16"),
        ([Last(each) for each in range(2, 19)], "takes one search, or a list of up to 16"),
        ([Exact(), Exact(normalize="digits")], "have the same name"),
        ([Last(4), Last(4, normalize="digits")], "have the same name"),
        ([Last(4), Prefix(3, name="last4")], "have the same name"),
        ([Exact(), Exact(name="again")], "would have the same blind indexes"),
        ([Last(4), Last(4, name="end")], "would have the same blind indexes"),
        ([Exact(normalize="digits"), Exact("digits-v1", name="a")], "the same blind indexes"),
        ([Exact(), "last4"], r"takes an Exact\(\), a Last\(\) or a Prefix\(\)"),
        ({"last4": Last(4)}, r"takes an Exact\(\), a Last\(\) or a Prefix\(\)"),
        (Last(4, kept_by="hand"), r"Last\(kept_by=…\) is 'generation' or 'trigger'"),  # type: ignore[arg-type]
        (Exact(name="Last 4"), r"Exact\(name=…\) becomes part of a column's name"),
        (Last(4, name=""), r"Last\(name=…\) becomes part of a column's name"),
        (Prefix(3, normalize="soundex"), "there are digits-v1, email-v1"),
    ],
)
def test_searches_that_do_not_go_together_are_refused(searches: Any, message: str) -> None:
    """Each has a name and blind indexes of its own."""
    with pytest.raises(ConfigurationError, match=message):
        encrypted_str(search=searches)


@pytest.mark.parametrize("padding", [0, 1, -16, 65537, 16.0, True, "16", "pow3"])
def test_padding_is_a_size_or_powers_of_two(padding: Any) -> None:
    """What would hide nothing, or is no number, is refused where it stands."""
    with pytest.raises(ConfigurationError, match="padding= is a number of bytes from 2 to 65536"):
        encrypted_str(padding=padding)


def test_unknown_normaliser_and_label_are_refused_where_they_stand() -> None:
    """The mistake is told when the module is imported, not when a row is written."""
    with pytest.raises(ConfigurationError, match="there are digits-v1, email-v1"):
        encrypted_str(search=Exact(normalize="soundex"))
    with pytest.raises(ConfigurationError, match="label= names a table and a column"):
        encrypted_str(label="name")


# -- the catalog --------------------------------------------------------------------------------


def catalog_of(table: str, *columns: Any, label: str | None = None, **options: Any) -> Catalog:
    """Return the catalog of a registry and a table whose columns are encrypted."""
    base = new_base()
    Table("practices", base.metadata, Column("id", Integer, primary_key=True))
    body: dict[str, Any] = {name: encrypted_str(label=label) for name in ("name", "notes")}
    body |= {"__tablename__": table, "__module__": __name__, "__annotations__": {}}
    body["id"] = mapped_column(Integer, primary_key=True)
    type("Row", (base,), body)
    for column in columns:
        base.metadata.tables[table].append_column(column)
    return Catalog(base.metadata, "practices", **options)


def test_labels_that_two_columns_share_are_refused() -> None:
    """Their values could be swapped; the message names both columns."""
    tenant = Column("tenant_id", Integer)
    with pytest.raises(ConfigurationError, match=r"patients\.name and patients\.notes have the sa"):
        catalog_of("patients", tenant, label="patients.name").check()
    catalog_of("patients", Column("tenant_id", Integer)).check()


@pytest.mark.parametrize(
    "options", [{"shared": {"drugs": "a list"}}, {"untenanted": {"drugs": "jobs"}}, {}]
)
def test_table_without_tenants_is_refused(options: Any) -> None:
    """Without a tenant there is no key."""
    with pytest.raises(
        ConfigurationError, match=r"Column drugs\.name is encrypted, and 'drugs' is"
    ):
        catalog_of("drugs", **options).check()


def test_registry_with_an_encrypted_column_is_refused() -> None:
    """The registry is read before a tenant is known."""
    base = new_base()

    class Practice(base):  # type: ignore[misc, valid-type]
        __tablename__ = "practices"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = encrypted_str()

    assert isinstance(table_of(Practice).c.name.type, Encrypted)
    with pytest.raises(ConfigurationError, match=r"practices\.name is encrypted.*is registry"):
        Catalog(base.metadata, "practices").check()


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("names", [["tenant_id", "name"], ["notes"]])
def test_key_of_the_table_is_refused(names: list[str], *, unique: bool) -> None:
    """A constraint or an index beside the columns would hold nothing either."""
    catalog = catalog_of("patients", Column("tenant_id", Integer))
    table = catalog.metadata.tables["patients"]
    if unique:
        table.append_constraint(UniqueConstraint(*names))
    else:
        Index("by_name", *(table.c[name] for name in names))
    with pytest.raises(ConfigurationError, match="a key or an index of the table has it"):
        catalog.check()
