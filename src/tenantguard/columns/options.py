"""What every function that declares an encrypted column takes, and the column it makes of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

from sqlalchemy.orm import MappedColumn, mapped_column
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql.elements import ClauseElement

from tenantguard.columns.field import Field
from tenantguard.columns.types import Encrypted
from tenantguard.errors import ConfigurationError
from tenantguard.keytable import MIGRATING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tenantguard.columns.kind import Kind
    from tenantguard.columns.reading import OnError
    from tenantguard.columns.search import Searches
    from tenantguard.crypto.padding import Padding

__all__ = ["Options", "declared"]

_KEYS = frozenset({"index", "primary_key", "unique"})
"""Refused too, in words that name the column, when it is in its table."""


class ColumnOptions(TypedDict, total=False):
    """What `mapped_column` takes too and an encrypted column can have."""

    name: str
    nullable: bool
    default: Any
    default_factory: Callable[[], Any]
    insert_default: Any
    init: bool
    repr: bool
    compare: bool
    kw_only: bool
    deferred: bool
    deferred_group: str
    deferred_raiseload: bool
    active_history: bool
    sort_order: int
    comment: str
    doc: str
    info: dict[Any, Any]


class Options(ColumnOptions, total=False):
    """And what says how the values are sealed, which `Field` takes.

    Attributes:
        label: The table and column, `patients.name`, that values are sealed for, if they are not to
            be today's names. A column that is renamed needs its old names here.
        padding: Hides a value's length: in bytes, of which the padded length is a multiple, or
            `pow2` for the next power of two, from 16 bytes on. It may be added, changed and taken
            away later; what is stored is read as it was written.
        bind: `row` for values that open in their row only; needs a primary key that Python gives.
        accepts: `column` to open values too that were sealed before `bind="row"` was added.
        migrating: The name of the table's column whose plaintext `tenantguard encrypt` brings here.
        reveal: The purposes that values are read for: for others they come back as `Masked`, and
            are not searched. None restricts nothing; docs/masks.md.
        on_error: With `placeholder` a value that cannot be opened comes back as `Unreadable`; with
            `raise`, the default, the error is raised.
    """

    label: str | None
    padding: Padding | None
    bind: Literal["column", "row"]
    accepts: Literal["column"] | None
    migrating: str | None
    reveal: Collection[str] | None
    on_error: OnError


_KNOWN = Options.__annotations__.keys()
_SEALING = _KNOWN - ColumnOptions.__annotations__.keys() - {"migrating"}


def declared(
    kind: Kind, search: Searches | None, options: Options, made: type[Encrypted] = Encrypted
) -> MappedColumn[Any]:
    """Return a column of *kind* whose type is *made*.

    Raises:
        ConfigurationError: If an option does not fit an encrypted column.
        TypeError: If an encrypted column has no such option.
    """
    _check(options)
    arguments: dict[str, Any] = dict(options)
    if "info" in arguments:
        # A copy: its labels stand there, and other columns may be given the same one.
        arguments["info"] = dict(arguments["info"])
    source = arguments.pop("migrating", None)
    if source is not None:
        arguments["info"] = {**arguments.get("info", {}), MIGRATING: source}
    name = arguments.pop("name", None)
    sealing = {each: arguments.pop(each) for each in _SEALING & arguments.keys()}
    type_ = made(Field(kind, search=search, **sealing))
    return mapped_column(*([name] if name else []), type_, **arguments)


def _check(options: Options) -> None:
    # At run time `**options` takes any name, and a default of the server's would be plaintext.
    unknown = min(options.keys() - _KNOWN - _KEYS, default=None)
    if unknown is not None:
        raise TypeError(
            f"An encrypted column takes no {unknown}=. It can have {', '.join(sorted(_KNOWN))}."
        )
    for default in (options.get("default"), options.get("insert_default")):
        if isinstance(default, ClauseElement | SchemaItem):
            raise ConfigurationError(
                "An encrypted column's default is a value or a function of Python: what the "
                "database computes is not encrypted."
            )
