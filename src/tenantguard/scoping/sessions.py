"""Sessions serve one tenant, and a flush writes that tenant's objects only.

A session is pinned when it first takes a connection of a protected engine. From then on its
identity map refuses to hand out objects to another tenant, also where no SQL is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from sqlalchemy import event, inspect
from sqlalchemy.orm import Session
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE
from sqlalchemy.orm.exc import UnmappedColumnError

from tenantguard.catalog import Kind
from tenantguard.errors import (
    CrossTenantError,
    IsolationError,
    TenantNotSetError,
    UnknownTenantError,
)
from tenantguard.scoping.scope import Scope, scope_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection
    from sqlalchemy.orm import Mapper

    from tenantguard.context import TenantId

__all__ = ["watch_sessions"]

_pinned_classes: dict[type[Any], type[Any]] = {}


def watch_sessions() -> None:
    """Watch every `Session`; those on engines without a guard are left alone."""
    if not event.contains(Session, "after_begin", _pin):
        event.listen(Session, "after_begin", _pin)
        event.listen(Session, "before_flush", _check_flush)


class _Pinned:
    """Mixed into the class of a session's identity map while it holds a tenant's objects.

    A session that takes its connection before a tenant is active is pinned by its first use for
    one: the transaction itself begins with the first statement, not with the connection.
    """

    tenantguard: Scope
    tenantguard_tenant: TenantId | None
    tenantguard_reading: object

    def _check(self) -> None:
        tenant = self.tenantguard.tenant()
        if self.tenantguard_tenant is None:
            self.tenantguard_tenant = tenant
        elif tenant != self.tenantguard_tenant:
            raise CrossTenantError(
                "This session already served another tenant. Use one session a tenant, or call "
                "session.close() before the next."
            )
        self._check_reading()

    def _check_reading(self) -> None:
        asked = self.tenantguard.reading
        if asked is not None and (reading := asked()) != self.tenantguard_reading:
            self._forget(reading)

    def _forget(self, reading: object) -> None:
        """Forget the values that were loaded with another right to read than *reading*."""
        # First of all: forgetting asks this map.
        self.tenantguard_reading = reading
        self.tenantguard.forget(list(super().values()))  # type: ignore[misc]

    def __getitem__(self, key: Any) -> Any:
        self._check()
        return super().__getitem__(key)  # type: ignore[misc]  # the identity map comes next

    def __contains__(self, key: Any) -> bool:
        self._check()
        return bool(super().__contains__(key))  # type: ignore[misc]

    def get(self, key: Any, default: Any = None) -> Any:
        self._check()
        return super().get(key, default)  # type: ignore[misc]

    def check_modified(self) -> bool:
        # Of all that asks this map, a query of columns only asks this, for its flush. A flush of
        # nothing is nobody's: a commit may come after the tenant was left.
        if self.tenantguard.reading is not None and self._is_own():
            self._check_reading()
        return bool(super().check_modified())  # type: ignore[misc]

    def _is_own(self) -> bool:
        try:
            return self.tenantguard.tenant() == self.tenantguard_tenant
        except IsolationError:
            return False

    def _dirty_states(self) -> Any:
        self._check()
        return super()._dirty_states()  # type: ignore[misc]

    def items(self) -> Any:
        self._check()
        return super().items()  # type: ignore[misc]

    def keys(self) -> Any:
        self._check()
        return super().keys()  # type: ignore[misc]

    def values(self) -> Any:
        self._check()
        return super().values()  # type: ignore[misc]

    def add(self, state: Any) -> bool:
        self._check()
        return bool(super().add(state))  # type: ignore[misc]

    def replace(self, state: Any) -> Any:
        self._check()
        return super().replace(state)  # type: ignore[misc]

    def _add_unpresent(self, state: Any, key: Any) -> None:
        self._check()
        super()._add_unpresent(state, key)  # type: ignore[misc]


def _pin(session: Session, _transaction: Any, connection: Connection) -> None:
    scope = scope_of(connection.dialect)
    if scope is None or scope.observe is not None:
        return
    identity_map: Any = session.identity_map
    if not isinstance(identity_map, _Pinned):
        _watch_map(session, scope)
        _keep_watching(session, scope)
    try:
        identity_map._check()  # noqa: SLF001  (the mixin's own method)
    except TenantNotSetError:
        # Without a tenant no tenant's object can be loaded; the first one that is pins the session.
        return


def _watch_map(session: Session, scope: Scope) -> None:
    identity_map: Any = session.identity_map
    identity_map.tenantguard = scope
    identity_map.tenantguard_tenant = identity_map.tenantguard_reading = None
    identity_map.__class__ = _pinned_class(type(identity_map))


def _keep_watching(session: Session, scope: Scope) -> None:
    """Watch the new identity map as well that `expunge_all()`, and so `close()`, begins with.

    The map is empty then, and may serve another tenant; but it may get its first objects from a
    transaction that is open already.
    """
    watched = ref(session)

    def expunge_all() -> None:
        current = watched()
        if current is not None:
            type(current).expunge_all(current)
            _watch_map(current, scope)

    session.expunge_all = expunge_all  # type: ignore[method-assign]


def _pinned_class(base: type[Any]) -> type[Any]:
    if base not in _pinned_classes:
        _pinned_classes[base] = type(f"Pinned{base.__name__}", (_Pinned, base), {})
    return _pinned_classes[base]


def _check_flush(session: Session, _context: Any, _instances: Any) -> None:
    scope = _session_scope(session)
    if scope is None or scope.system or scope.observe is not None:
        return
    for obj in session.new:
        _stamp(scope, obj)
        _check_references(scope, obj)
    for obj in session.dirty:
        _check_unchanged(scope, obj)
        _check_references(scope, obj)
    for obj in session.deleted:
        _check_unchanged(scope, obj)


def _session_scope(session: Session) -> Scope | None:
    identity_map = session.identity_map
    if isinstance(identity_map, _Pinned):
        return identity_map.tenantguard
    objects: Iterable[Any] = (*session.new, *session.dirty, *session.deleted)
    for obj in objects:
        scope = scope_of(session.get_bind(type(obj)).dialect)
        if scope is not None:
            return scope
    return None


def _stamp(scope: Scope, obj: Any) -> None:
    """Give a new object the active tenant, and refuse one that claims another."""
    key = _tenant_key(scope, inspect(obj).mapper)
    if key is None:
        return
    value = getattr(obj, key)
    if value is None:
        setattr(obj, key, scope.tenant())
    else:
        _require_own(scope, obj, value)


def _check_unchanged(scope: Scope, obj: Any) -> None:
    """Refuse an object that was loaded as another tenant's, or is about to become one.

    Both values are compared: a foreign object that was re-attached and given the own tenant would
    otherwise be stolen.
    """
    state = inspect(obj)
    key = _tenant_key(scope, state.mapper)
    if key is None:
        return
    history = state.attrs[key].history
    for value in (*history.deleted, *history.unchanged, *history.added):
        if value is not None:
            _require_own(scope, obj, value)
    if history.deleted and history.deleted[0] is not None and None in history.added:
        raise _changed(obj)


def _check_references(scope: Scope, obj: Any) -> None:
    """Refuse a reference to an object that is known as another tenant's.

    One by its key alone is left to the database, or to the statement.
    """
    state = inspect(obj)
    for name, key in _references(scope, state.mapper):
        added = state.get_history(name, PASSIVE_NO_INITIALIZE).added or ()
        values = [inspect(other).dict.get(key) for other in added if other is not None]
        if not all(value is None or _is_own(scope, value) for value in values):
            raise CrossTenantError(
                f"{type(obj).__name__}.{name} refers to an object of another tenant. Load what it "
                "is to refer to under the active tenant."
            )


def _is_own(scope: Scope, value: Any) -> bool:
    tenant = scope.tenant()
    try:
        return bool(value == tenant or scope.canonical(value) == tenant)
    except UnknownTenantError:
        return False


def _require_own(scope: Scope, obj: Any, value: Any) -> None:
    if not _is_own(scope, value):
        raise CrossTenantError(
            f"A {type(obj).__name__} of another tenant is in this session's flush. Objects are "
            "written under the tenant they were loaded for, and never change it."
        )


def _tenant_key(scope: Scope, mapper: Mapper[Any]) -> str | None:
    """Return the attribute that holds *mapper*'s tenant, or None if it has none of its own."""
    if mapper not in scope.tenant_keys:
        scope.tenant_keys[mapper] = _find_tenant_key(scope, mapper)
    return scope.tenant_keys[mapper]


def _references(scope: Scope, mapper: Mapper[Any]) -> list[tuple[str, str]]:
    """Return *mapper*'s relationships to tenants' objects, each with the key of their tenant."""
    if mapper not in scope.references:
        scope.references[mapper] = [
            (each.key, key)
            for each in mapper.relationships
            if not each.viewonly and (key := _tenant_key(scope, each.mapper)) is not None
        ]
    return scope.references[mapper]


def _find_tenant_key(scope: Scope, mapper: Mapper[Any]) -> str | None:
    for table in mapper.tables:
        entry = scope.catalog.entry(table)
        if entry.column is None or entry.kind is not Kind.SCOPED:
            continue
        try:
            return mapper.get_property_by_column(entry.column).key
        except UnmappedColumnError:  # the model leaves the column to the compiled statement
            continue
    return None


def _changed(obj: Any) -> CrossTenantError:
    return CrossTenantError(
        f"The tenant of a {type(obj).__name__} was changed; it never changes after insert."
    )
