"""One attribute for a column of plaintext and the encrypted one that takes its place.

It is a composite attribute of SQLAlchemy, of two columns and one value: the unit of work, bulk
writes by attributes' names and `values()` ask such an attribute what to write, in each version.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, cast, overload

from sqlalchemy import event
from sqlalchemy.ext.mutable import Mutable
from sqlalchemy.orm import Composite, mapped_column
from sqlalchemy.orm.attributes import History, flag_modified
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE, LoaderCallableStatus

from tenantguard.columns.masks import Masked, is_masked, unmasked
from tenantguard.columns.pair import PairComparator
from tenantguard.columns.pair_checks import checked_pair
from tenantguard.columns.reading import may_read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.orm import Mapped
    from sqlalchemy.orm.state import InstanceState

    from tenantguard.columns.field import Field

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
    return cast("Mapped[Any]", Both(sealed, plain, alike, options))


class Both(Composite[Any]):
    """What `both()` declares.

    Attributes:
        alike: As `both()` was given it.
        sealed: The encrypted column's field; known when the classes are configured.
    """

    sealed: Field

    def __init__(
        self,
        sealed: Any,
        plain: Any,
        alike: Callable[[Any], Any] | None,
        options: DataclassOptions,
    ) -> None:
        self.alike = alike
        super().__init__(
            _NoClass,
            sealed,
            plain,
            attribute_options=mapped_column(**options)._attribute_options,  # noqa: SLF001
            comparator_factory=cast("Any", PairComparator),
        )

    @property
    def keys(self) -> tuple[str, str]:
        """The names of the two attributes: the sealed, and the plain one."""
        sealed, plain = self._attribute_keys
        return sealed, plain

    def value(self, sealed: Any, plain: Any) -> Any:
        """Return what a row has.

        A mask is never replaced by the plaintext, and plaintext alone is masked for whom its
        encrypted column would be.
        """
        if sealed is not None or plain is None:
            return sealed
        purposes = self.sealed.reading.purposes
        if purposes is not None and not may_read(self.sealed, purposes):
            return Masked(self.sealed.name)
        return plain

    def written(self, value: Any) -> tuple[Any, Any]:
        """Return what is written into the two columns.

        Raises:
            MaskedError: If *value* is a mask.
        """
        if is_masked(value):
            raise unmasked(self.sealed.name)
        return value, _copied(value)

    def spread(self, row: dict[str, Any]) -> None:
        """Replace the attribute in *row*, a dictionary of attributes, by the two."""
        row.update(zip(self.keys, self.written(row.pop(self.key)), strict=True))

    # -- instances ----------------------------------------------------------------------------

    def _create_descriptor(self) -> None:
        self.descriptor = property(self._get, self._set)

    def _get(self, instance: Any) -> Any:
        sealed, plain = self.keys
        return self.value(getattr(instance, sealed), getattr(instance, plain))

    def _set(self, instance: Any, value: Any) -> None:
        if value is getattr(LoaderCallableStatus, "DONT_SET", _NoClass):
            return
        state = cast("InstanceState[Any]", instance._sa_instance_state)  # noqa: SLF001
        attribute = state.manager[self.key]
        for listener in attribute.dispatch.set:
            value = listener(state, value, LoaderCallableStatus.NO_VALUE, attribute.impl)
        for validate, _ in filter(None, [self.parent.validators.get(self.key)]):
            value = cast("Any", validate)(instance, self.key, value)
        for key, each in zip(self.keys, self.written(value), strict=True):
            setattr(instance, key, each)
        self._write_both(instance)

    def _write_both(self, instance: Any) -> None:
        """Let the flush write both if one has changed: alone, each would empty the other."""
        state = instance._sa_instance_state  # noqa: SLF001
        same = [key for key in self.keys if not _history(state, key).has_changes()]
        if len(same) == 1:
            flag_modified(instance, same[0])

    def _keep_both(self, _mapper: Any, _connection: Any, instance: Any) -> None:
        """Write both of what is the same in both: `merge` changes each column by itself."""
        row = instance._sa_instance_state.dict  # noqa: SLF001
        sealed, plain = self.keys
        if sealed in row and plain in row and row[sealed] == row[plain]:
            self._write_both(instance)

    def _follow(self, instance: Any, _token: object) -> None:
        """Write the sealed value into the plain column too when it was changed inside."""
        sealed, plain = self.keys
        value = instance._sa_instance_state.dict.get(sealed)  # noqa: SLF001
        if value is not None and not is_masked(value):
            setattr(instance, plain, _copied(value))
            flag_modified(instance, plain)

    def get_history(self, state: InstanceState[Any], dict_: Any, passive: Any = None) -> History:  # noqa: ARG002
        """Return the sealed value's history; the plaintext's where there is none."""
        sealed, plain = (_history(state, key) for key in self.keys)
        if any(each is not None for each in sealed.sum()):
            return sealed
        return History(*([self.value(None, each) for each in part or ()] for part in plain))

    # -- what SQLAlchemy asks of a composite ----------------------------------------------------

    @property
    def columns(self) -> Any:
        """None: both are declared as attributes of their own."""
        return []

    def declarative_scan(self, *_: Any, **__: Any) -> None:
        """Take any annotation: type checkers know which fits."""

    def do_init(self) -> None:
        """Check the two columns, once all are known."""
        self.sealed = checked_pair(str(self), *self.props, alike=self.alike)
        attribute = getattr(self.parent.class_, self.keys[0])
        event.listen(attribute, "modified", self._follow, propagate=True)
        event.listen(self.parent, "before_update", self._keep_both, propagate=True)
        event.listen(self.parent, "expire", self._expire, raw=True, propagate=True)

    def _expire(self, state: Any, keys: Iterable[str] | None) -> None:
        """Expire the two when the attribute is named."""
        if keys is not None and self.key in keys:
            state.session.expire(state.obj(), self.keys)

    def _init_accessor(self) -> None:
        """Leave this out: there is no class whose instances have the two values."""

    def _setup_event_handlers(self) -> None:
        """Leave these out: the value is not kept beside the two."""

    def _populate_composite_bulk_save_mappings_fn(self) -> Callable[[dict[str, Any]], None]:
        """Return what SQLAlchemy 2.0 calls for each row that is written in bulk."""
        return self.spread


class _NoClass:
    """Stands where a composite attribute has the class of its values."""


def _history(state: Any, key: str) -> History:
    return cast("History", state.get_history(key, PASSIVE_NO_INITIALIZE))


def _copied(value: Any) -> Any:
    """Return *value* so that no change inside of it changes the other column's."""
    if isinstance(value, Mutable):
        return dict(value) if isinstance(value, dict) else copy(value)
    return value
