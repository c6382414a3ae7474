"""Declaring an attribute of two columns: what fits is taken, everything else refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from declaring import DIALECT, new_base
from sqlalchemy import Computed, Integer, Text, func, select, text
from sqlalchemy.orm import Mapped, MappedAsDataclass, declared_attr, mapped_column, relationship

from tenantguard import ConfigurationError, Exact, both, encrypted_str
from tenantguard.columns.compiler import encryption_compiler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import DeclarativeBase


@pytest.fixture
def base() -> Iterator[type[DeclarativeBase]]:
    """A base whose classes are forgotten: one that is refused would be refused to all tests."""
    made = new_base()
    yield made
    made.registry.dispose()


def plain(*args: Any, **options: Any) -> Any:
    return mapped_column("name", Text, *args, **{"nullable": True, **options})


def sealed(**options: Any) -> Any:
    return encrypted_str(**{"name": "name_sealed", "migrating": "name", **options})


def declare(base: type[DeclarativeBase], **attributes: Any) -> Any:
    """Declare a class of text columns that are called as their attributes, and configure it."""
    namespace = {
        "__tablename__": "patients",
        "__module__": __name__,
        "id": mapped_column(primary_key=True),
        "__annotations__": {"id": Mapped[int]},
    }
    declared: Any = type("Patient", (base,), {**namespace, **attributes})
    base.registry.configure()
    return declared


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "the wrong way round": (
        {"p": plain(), "s": sealed(), "name": both("p", "s")},
        r"both\(sealed, plain\) takes an encrypted column",
    ),
    "no migrating": (
        {"p": plain(), "s": sealed(migrating=None), "name": both("s", "p")},
        "that says migrating=",
    ),
    "another column": (
        {"p": plain(), "o": mapped_column("other", Text, nullable=True), "s": sealed()}
        | {"name": both("s", "o")},
        "column of plaintext of the same table that this names",
    ),
    "two encrypted": (
        {"s": sealed(), "o": encrypted_str(name="name"), "name": both("s", "o")},
        "column of plaintext",
    ),
    "a default of one": (
        {"p": plain(default="x"), "s": sealed(), "name": both("s", "p")},
        "it would be written alone",
    ),
    "a default of the other": (
        {"p": plain(), "s": sealed(default="x"), "name": both("s", "p")},
        "it would be written alone",
    ),
    "functions": (
        {"p": plain(default=str), "s": sealed(default=str), "name": both("s", "p")},
        "Give both the same value",
    ),
    "a default of the server": (
        {"p": plain(server_default=text("''")), "s": sealed(), "name": both("s", "p")},
        "that the database computes",
    ),
    "computed": (
        {"p": plain(Computed("'a'")), "s": sealed(), "name": both("s", "p")},
        "that the database computes",
    ),
    "onupdate": (
        {"p": plain(onupdate="x"), "s": sealed(), "name": both("s", "p")},
        "onupdate=",
    ),
    "normalised": (
        {"p": plain(), "s": sealed(search=Exact(normalize="email")), "name": both("s", "p")},
        "alike=func.lower",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_pair_is_refused(base: type[DeclarativeBase], name: str) -> None:
    """When the classes are configured, in words that name the attribute."""
    attributes, message = REFUSED[name]
    with pytest.raises(ConfigurationError, match=rf"Patient\.name.*{message}"):
        declare(base, **attributes)


def test_both_can_have_the_same_default(base: type[DeclarativeBase]) -> None:
    """It is written into both."""
    made = declare(base, p=plain(default="x"), s=sealed(default="x"), name=both("s", "p"))
    assert made().name is None


def test_a_relationship_is_no_column(base: type[DeclarativeBase]) -> None:
    """It is refused as well."""
    with pytest.raises(ConfigurationError, match=r"both\(sealed, plain\)"):
        declare(
            base,
            other_id=mapped_column("other_id", Integer, nullable=True),
            p=relationship("Patient", primaryjoin="foreign(Patient.other_id) == Patient.id"),
            s=sealed(),
            name=both("s", "p"),
        )


def test_a_mixin_names_the_attributes(base: type[DeclarativeBase]) -> None:
    """Its columns are copied to each class; the subclass of one reads them too."""

    class Named:
        plain_name: Mapped[str | None] = mapped_column("name")
        sealed_name: Mapped[str | None] = encrypted_str(
            name="name_sealed", search=Exact(normalize="email"), migrating="name"
        )

        @declared_attr
        def name(cls) -> Mapped[str | None]:  # noqa: N805
            return both("sealed_name", "plain_name", alike=func.lower)

    class Patient(Named, base):  # type: ignore[misc, valid-type]
        __tablename__ = "patients"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        __mapper_args__ = {"polymorphic_on": "kind"}  # noqa: RUF012

    class Child(Patient):
        __mapper_args__ = {"polymorphic_identity": "child"}  # noqa: RUF012

    child = Child(name="Ada")
    assert (child.plain_name, child.sealed_name, child.name) == ("Ada", "Ada", "Ada")
    compiler: Any = encryption_compiler(DIALECT.statement_compiler)
    found = compiler(DIALECT, select(Child.id).where(Child.name == "Ada"))
    assert "lower(patients.name) = lower(" in found.string
    assert "patients.name_sealed_bidx = " in found.string


def test_a_dataclass_takes_the_attribute_alone(base: type[DeclarativeBase]) -> None:
    """Its two columns are left out of the constructor, and all of it out of its text."""

    class Patient(MappedAsDataclass, base, kw_only=True):  # type: ignore[misc, valid-type]
        __tablename__ = "patients"
        id: Mapped[int] = mapped_column(primary_key=True)
        plain_name: Mapped[str | None] = mapped_column("name", init=False, repr=False)
        sealed_name: Mapped[str | None] = encrypted_str(
            name="name_sealed", migrating="name", init=False, repr=False
        )
        name: Mapped[str | None] = both(sealed_name, plain_name, default=None, repr=False)

    ada = Patient(id=1, name="Ada")
    assert (ada.plain_name, ada.sealed_name) == ("Ada", "Ada")
    assert Patient(id=1).name is None
    assert "Ada" not in repr(ada)
