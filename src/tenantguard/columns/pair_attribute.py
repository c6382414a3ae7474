"""One attribute for a column of plaintext and the encrypted one that takes its place.

It is a composite attribute of SQLAlchemy, of two columns and one value: the unit of work, bulk
writes by attributes' names and `values()` ask such an attribute what to write, in each version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, cast

from sqlalchemy import event
from sqlalchemy.orm import Composite, Mapper
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.orm.base import LoaderCallableStatus

from tenantguard.columns.masks import Masked, is_masked, unmasked
from tenantguard.columns.pair import PairComparator, named_alone
from tenantguard.columns.pair_checks import checked_pair
from tenantguard.columns.pair_state import copied, history_of_both, merge_both, write_both
from tenantguard.columns.reading import may_read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy.orm.attributes import History
    from sqlalchemy.orm.state import InstanceState

    from tenantguard.columns.field import Field

__all__ = ["Both"]


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
        options: Any,
    ) -> None:
        self.alike = alike
        super().__init__(
            _NoClass,
            sealed,
            plain,
            attribute_options=options,
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
        return value, copied(value)

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
        write_both(instance, self.keys)

    def merge(self, *args: Any, **_: Any) -> None:
        """Write what the given object has into both, after each column was merged by itself."""
        _session, _state, given, state, row, load, *_rest = args
        if load:
            merge_both(self, given, state, row)

    def _follow(self, instance: Any, _token: object) -> None:
        """Write the sealed value into the plain column too when it was changed inside."""
        sealed, plain = self.keys
        value = instance._sa_instance_state.dict.get(sealed)  # noqa: SLF001
        if value is not None and not is_masked(value):
            setattr(instance, plain, copied(value))
            flag_modified(instance, plain)

    def get_history(self, state: InstanceState[Any], dict_: Any, passive: Any = None) -> History:  # noqa: ARG002
        """Return the history of the value that the two make."""
        return history_of_both(state, self.keys, self.value)

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
        event.listen(self.parent, "expire", self._expire, raw=True, propagate=True)

    def setup(self, *_: Any, only_load_props: Iterable[str] | None = None, **__: Any) -> None:
        """Refuse a refresh that names nothing but such attributes: it would load nothing.

        Raises:
            EncryptedQueryError: If it does.
        """
        # A subclass has attributes that are not known here.
        named = [self.parent.attrs.get(key) for key in only_load_props or ()]
        if named and all(isinstance(each, Both) for each in named):
            raise named_alone(self)

    @property
    def _wildcard_token(self) -> NoReturn:
        """Refuse what an option of a query cannot do: `load_only` and the like in 2.0."""
        raise named_alone(self)

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


@event.listens_for(Mapper, "mapper_configured")
def _merge_last(mapper: Mapper[Any], _class: type[Any]) -> None:
    """Let `Session.merge` come to the columns first: what is both of them corrects them."""
    properties = mapper._props  # noqa: SLF001
    for each in [each for each in properties.values() if isinstance(each, Both)]:
        properties[each.key] = properties.pop(each.key)
