"""What is said of an encrypted column: the errors, by the names of columns and classes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantguard.columns.kind import UnknownMember
from tenantguard.columns.masks import is_masked, unmasked
from tenantguard.errors import (
    DecryptionError,
    EncryptedQueryError,
    EncryptedValueError,
    KeyUnavailableError,
    MaskedError,
    TenantNotSetError,
)

if TYPE_CHECKING:
    from tenantguard.columns.blind_index import BlindIndex
    from tenantguard.columns.field import Field

__all__ = [
    "no_keys",
    "not_searchable",
    "not_unpacked",
    "unanswerable",
    "unfit",
    "unplaced",
    "without_row",
    "wrong_length",
]


def not_unpacked(field: Field, error: ValueError) -> DecryptionError:
    """Return the error for an opened value that the column's type did not take."""
    if not isinstance(error, UnknownMember):
        return DecryptionError(
            f"Column {field.name} holds a value that was sealed as another type than "
            f"{field.kind.name}. Declare the column as it was, or encrypt its values anew."
        )
    enum = field.kind.python_type.__name__
    return DecryptionError(
        f"Column {field.name} holds the name of a member that {enum} does not have. If the "
        f"member was renamed, give it its old name too, as OLD = NEW in {enum}; if it was "
        "removed, put it back until no row has it."
    )


def not_searchable(field: Field, name: str | None) -> EncryptedQueryError:
    """Return the error for a search called *name* that the column does not have."""
    if not field.indexes:
        declare = "Declare it with search=Exact(), or load" if field.kind.equal else "Load"
        return EncryptedQueryError(
            f"Column {field.name} is encrypted without a blind index, so it cannot be "
            f"searched. {declare} the rows and compare in Python."
        )
    names = ", ".join(repr(each.name) for each in field.indexes if each.name)
    asked = "without a name" if name is None else f"called {name!r}"
    return EncryptedQueryError(
        f"Column {field.name} has no search {asked}. "
        + (f"searched(…, name) takes {names}" if names else "Search it by == and in_()")
        + "; or declare one in search=."
    )


def wrong_length(field: Field, index: BlindIndex) -> EncryptedQueryError:
    """Return the error for a value that *index*, of some characters, cannot find."""
    what, number = index.rule[:2]
    which = "last" if what == "last" else "first"
    return EncryptedQueryError(
        f"The search {index.name!r} of column {field.name} finds values by their {which} "
        f"{number} characters, and was asked for more or fewer, after normalisation. Give it "
        f"exactly {number}; to find whole values, declare an Exact() too."
    )


def without_row(field: Field) -> EncryptedQueryError:
    """Return the error for a value to be written whose row a statement does not tell."""
    return EncryptedQueryError(
        f"Column {field.name} is bound to its row, and the statement does not tell which "
        "row the value is for. A new row needs its primary key from Python: default=uuid4, "
        "or a number fetched from its sequence before. A change has to compare the whole "
        "primary key with values, as a flush of a loaded row does. After ON CONFLICT take "
        "the value of excluded."
    )


def unplaced(field: Field) -> EncryptedQueryError:
    """Return the error for a value that came without its row, or with one it has no use for."""
    return EncryptedQueryError(
        f"A value of column {field.name} was to be sealed or opened, and its row is not known, "
        "or the column is not bound to one. Read and write it through its mapped column."
    )


def unfit(field: Field, value: Any) -> EncryptedValueError | MaskedError:
    """Return the error for a value that is not of the column's type.

    Raise it outside of the block that failed: the cause would show the value.
    """
    if is_masked(value):
        return unmasked(field.name)
    return EncryptedValueError(
        f"Column {field.name} takes {field.kind.name}; a value of type {type(value).__name__} "
        "was given that is none, or that cannot be stored."
    )


def unanswerable(field: Field) -> EncryptedQueryError:
    """Return the error for what the database would have to do with values."""
    return EncryptedQueryError(
        f"Column {field.name} is encrypted: the database cannot order, compare, group or change "
        "its values. Use ==, != or IN with search=Exact(), is_(None), or load the rows and do it "
        "in Python."
    )


def no_keys(field: Field, *, tenant: bool) -> TenantNotSetError | KeyUnavailableError:
    """Return the error for a value fetched with no *tenant* active, or without its keys."""
    if not tenant:
        return TenantNotSetError(
            f"A value of column {field.name} was fetched while no tenant is active, and its key is "
            "its tenant's. Fetch inside tenant_context(); under system access leave the column "
            "out, with load_only() or defer()."
        )
    return KeyUnavailableError(
        f"A value of column {field.name} was fetched from an engine that has no keys, or for "
        "another tenant than its statement was executed for. Protect the engine with a guard that "
        "has TenantGuard(keys=…), and fetch where you execute."
    )
