"""Declaring one attribute for a column of plaintext and the encrypted one that takes its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, cast, overload

from sqlalchemy.orm import mapped_column

from tenantguard.columns.pair_attribute import Both

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Mapped

__all__ = ["Both", "both"]

_Value = TypeVar("_Value")


class DataclassOptions(TypedDict, total=False):
    """What an attribute of a dataclass takes, as `mapped_column` does."""

    init: bool
    repr: bool
    compare: bool
    kw_only: bool
    default: Any
    default_factory: Callable[[], Any]


@overload
def both(
    sealed: Mapped[_Value],
    plain: Mapped[Any],
    /,
    *,
    alike: Callable[[Any], Any] | None = None,
    **options: Unpack[DataclassOptions],
) -> Mapped[_Value]: ...


@overload
def both(
    sealed: str,
    plain: str,
    /,
    *,
    alike: Callable[[Any], Any] | None = None,
    **options: Unpack[DataclassOptions],
) -> Mapped[Any]: ...


def both(
    sealed: Mapped[Any] | str,
    plain: Mapped[Any] | str,
    /,
    *,
    alike: Callable[[Any], Any] | None = None,
    **options: Unpack[DataclassOptions],
) -> Mapped[Any]:
    """Declare the attribute that reads, writes and finds both columns while one is encrypted.

    It gives the sealed value, and the plaintext where nothing is sealed; what it is given, it
    writes into both. It is compared by `==`, `!=`, `in_`, `not_in`, `is_`, `is_not`. What each way
    of writing does: docs/encrypt-existing.md.

    Args:
        sealed: The encrypted column, declared with `migrating=`; in a mixin, its attribute's name.
        plain: The column of plaintext that `migrating=` names, in the same way.
        alike: What SQL makes of plaintext before it is compared, such as `func.lower`. Needed if
            the search of *sealed* has `normalize=`, because PostgreSQL has no such function;
            `lambda text: text` compares what is not sealed yet exactly.
        options: As for `mapped_column`, in a dataclass.

    Raises:
        ConfigurationError: When the classes are configured: if the columns are not such a pair, or
            have defaults that would fill one of them alone.
    """
    taken = mapped_column(**options)._attribute_options  # noqa: SLF001
    return cast("Mapped[Any]", Both(sealed, plain, alike, taken))
