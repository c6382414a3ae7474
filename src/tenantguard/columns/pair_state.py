"""The two columns of an attribute that is both, on an object of a session."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.ext.mutable import Mutable
from sqlalchemy.orm.attributes import History, flag_modified
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE

from tenantguard.errors import EncryptedQueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tenantguard.columns.pair_attribute import Both

__all__ = ["copied", "history_of_both", "merge_both", "write_both"]

_Keys = tuple[str, str]


def write_both(instance: Any, keys: _Keys) -> None:
    """Let the flush write both if one has changed: alone, each would empty the other."""
    state = instance._sa_instance_state  # noqa: SLF001
    same = [key for key in keys if not _history(state, key).has_changes()]
    if len(same) == 1:
        flag_modified(instance, same[0])


def merge_both(pair: Both, given: Mapping[str, Any], state: Any, row: dict[str, Any]) -> None:
    """Write what an object that is merged has into both columns of the one in the session.

    Its row may have been sealed since it was loaded: its None would forget what is sealed, and by
    the trigger the plaintext too.

    Args:
        pair: The attribute.
        given: What the given object has loaded.
        state: The state of the object in the session, to which each column was merged by itself.
        row: What that one has loaded.

    Raises:
        EncryptedQueryError: If None would empty plaintext that the given object has not loaded.
        MaskedError: If it has a mask.
    """
    sealed, plain = pair.keys
    if sealed not in given:
        return
    value = pair.value(given[sealed], given.get(plain))
    if value is None and plain not in given:
        if _history(state, sealed).has_changes():
            raise EncryptedQueryError(
                f"An object was merged that has {sealed} as None, and {plain} not loaded: both "
                f"would be emptied. Load both of them, or set {pair} before it is merged."
            )
        return
    for key, each in zip(pair.keys, pair.written(value), strict=True):
        state.get_impl(key).set(state, row, each, None, None)
    write_both(state.obj(), pair.keys)


def history_of_both(state: Any, keys: _Keys, value: Callable[[Any, Any], Any]) -> History:
    """Return the history of what *value* makes of the two.

    Args:
        state: The object's state.
        keys: The names of the two attributes: the sealed, and the plain one.
        value: Returns what is read of the two.
    """
    histories = [_history(state, key) for key in keys]
    now = _made([each.added or each.unchanged for each in histories], value)
    if not any(each.has_changes() for each in histories):
        return History((), now, ())
    before = _made([each.deleted or each.unchanged for each in histories], value)
    return History(now, (), before)


def copied(value: Any) -> Any:
    """Return *value* so that no change inside of it changes the other column's."""
    if isinstance(value, Mutable):
        return dict(value) if isinstance(value, dict) else copy(value)
    return value


def _made(parts: list[Any], value: Callable[[Any, Any], Any]) -> Any:
    """Return what *value* makes of the first of each of two parts; nothing of none."""
    if not any(parts):
        return ()
    sealed, plain = (part[0] if part else None for part in parts)
    return [value(sealed, plain)]


def _history(state: Any, key: str) -> History:
    return cast("History", state.get_history(key, PASSIVE_NO_INITIALIZE))
