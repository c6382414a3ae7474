"""What stands in a statement for a value until the keys are there, and the type of what is sought.

A search asks for every index that a value can be stored with: two while its tenant's keys for
blind indexes are being changed, else one and the same twice. A list of values is sent as one array,
so that its length makes no other statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import UserDefinedType

from tenantguard.columns.field import Unsealed
from tenantguard.columns.masks import searching
from tenantguard.crypto.format import CANDIDATES, INDEX_SIZE
from tenantguard.errors import EncryptedQueryError, KeyUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import BindParameter, Dialect
    from sqlalchemy.sql.compiler import SQLCompiler

    from tenantguard.columns.blind_index import BlindIndex
    from tenantguard.columns.field import Field
    from tenantguard.crypto.tenant_keys import TenantKeys

    _List = list[bytes | None]

__all__ = ["SEALS", "Sealed", "SearchValue", "noting", "refuse_no_list"]

SEALS = "_tenantguard_seals"
"""Marks a dialect whose execution context seals values."""


class Sealed(UserDefinedType[Any]):
    """What the types have in common: bytes in the database, never a literal in SQL text."""

    render_bind_cast = True

    def __init__(self, field: Field) -> None:
        self.field = field

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.field.name!r})"

    def same_as(self, other: Sealed) -> bool:
        """Return whether a parameter that has this type can have *other* too."""
        return type(self) is type(other) and self.field.same_as(other.field)

    def get_col_spec(self, **_kwargs: Any) -> str:
        """Return the type of a stored value."""
        return "BYTEA"

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:  # noqa: ARG002
        """Refuse, before SQLAlchemy has the value: its own error would show it."""
        raise EncryptedQueryError(
            f"A value of column {self.field.name} was about to be written into SQL text. Execute "
            "the statement with parameters."
        )


class _Found(ColumnElement[Any]):
    """What a blind index is compared with: each of those that a parameter has.

    The array of a single value has elements that PostgreSQL can count. Of an array that comes as a
    parameter it expects ten, and so plans each search anew.
    """

    inherit_cache = False

    def __init__(self, bind: BindParameter[Any], type_: SearchValue) -> None:
        self.bind = bind
        self.listed, self.quantity = type_.listed, "ANY" if type_.equal else "ALL"


@compiles(_Found)
def _render(found: _Found, compiler: SQLCompiler, **kwargs: Any) -> str:
    sent = compiler.process(found.bind, **kwargs)
    if found.listed:
        return f"{found.quantity} ({sent})"
    parts = (f"substring({sent}, {1 + INDEX_SIZE * at}, {INDEX_SIZE})" for at in range(CANDIDATES))
    return f"{found.quantity} (ARRAY[{', '.join(parts)}])"


class SearchValue(Sealed):
    """A value to search for, or a list of them; their blind indexes are sent.

    Attributes:
        index: The blind index that is searched.
        listed: Whether it is a list.
        equal: Whether rows are sought that have it, not those that do not.
    """

    cache_ok = True

    # By position: SQLAlchemy's cache keys, and its copies, leave out what is keyword-only.
    def __init__(
        self,
        field: Field,
        index: BlindIndex,
        listed: bool,  # noqa: FBT001
        equal: bool,  # noqa: FBT001
    ) -> None:
        super().__init__(field)
        self.index = index
        self.listed = listed
        self.equal = equal

    def get_col_spec(self, **_kwargs: Any) -> str:
        """Return the type of what is sent."""
        return "BYTEA[]" if self.listed else "BYTEA"

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        """Return what stands in the statement for the parameter *bindvalue*."""
        return _Found(bindvalue, self)

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Unsealed | None]:
        """Note the value, so that its blind indexes are sent."""
        send: Callable[..., Any] = self._send
        if self.listed:
            # asyncpg takes no text for an array; what the others make of a list is slower.
            send = partial(self._send_list, _as_it_is if dialect.driver == "asyncpg" else _as_text)
        note = noting(send, self.field, dialect)
        return searching(self.field, note)

    def same_as(self, other: Sealed) -> bool:
        """Return whether a value has the same blind index for *other*."""
        return (
            isinstance(other, SearchValue)
            and (self.index.rule, self.listed) == (other.index.rule, other.listed)
            and super().same_as(other)
        )

    def _send(self, value: Any, keys: TenantKeys, _given: object) -> bytes:
        found = self.field.sought(self.index, keys, value)
        if len(found) == 1:
            return found[0] * CANDIDATES
        if len(found) > CANDIDATES:
            raise KeyUnavailableError(
                f"The tenant has more than {CANDIDATES} keys for blind indexes, and a search asks "
                f"for {CANDIDATES}. Run `tenantguard keys retire --purpose index`."
            )
        return b"".join(found)

    def _send_list(
        self, made: Callable[[_List], Any], values: Any, keys: TenantKeys, _given: object
    ) -> Any:
        refuse_no_list(self.field, values)
        found: _List = []
        for value in values:
            found += [None] if value is None else self.field.sought(self.index, keys, value)
        return made(found)


def noting(
    send: Callable[..., Any], field: Field, dialect: Dialect
) -> Callable[[Any], Unsealed | None]:
    """Return what notes a value of *field*, to be sent as *send* makes it; it refuses without keys.

    None stays None.
    """
    if hasattr(dialect, SEALS):
        return lambda value: None if value is None else Unsealed(send, value)

    def refuse(value: Any) -> None:
        if value is not None:
            raise KeyUnavailableError(
                f"A value of column {field.name} was about to be written or searched on an engine "
                "that has no keys. Use an engine that a guard with TenantGuard(keys=…) protects, "
                "inside tenant_context(); under system access leave the column out."
            )

    return refuse


def refuse_no_list(field: Field, values: Any) -> None:
    """Refuse *values* to be searched for in *field* unless they are a list.

    Raises:
        EncryptedQueryError: If they are not.
    """
    if isinstance(values, str | bytes | bytearray | Mapping) or not isinstance(values, Iterable):
        raise EncryptedQueryError(
            f"Column {field.name}: in_() takes a list of values, not one value."
        )


def _as_it_is(found: _List) -> _List:
    return found


def _as_text(found: _List) -> str:
    """Return *found* as PostgreSQL reads an array: hexadecimal digits, so nothing to escape."""
    parts = ("NULL" if each is None else f'"\\\\x{each.hex()}"' for each in found)
    return f"{{{','.join(parts)}}}"
