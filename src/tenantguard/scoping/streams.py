"""Results that are still being fetched: rows come out for the tenant that asked, or not at all.

A streamed result (`stream_results`, `yield_per`, `stream()`) is read long after its statement was
checked, perhaps when another tenant is active. The driver's connection checks what is fetched from
the server; here it is what SQLAlchemy has fetched ahead, and the objects of a chunk.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.engine.cursor import ResultFetchStrategy
from sqlalchemy.engine.result import ChunkedIteratorResult
from sqlalchemy.orm import loading

from tenantguard.context import active_tenant
from tenantguard.errors import ConfigurationError, CrossTenantError, TenantNotSetError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Dialect

    from tenantguard.context import TenantId
    from tenantguard.scoping.scope import Scope

__all__ = ["watch_streams"]

_HOOKS = ("create_server_side_cursor", "_setup_result_proxy")
_WATCHES = "_tenantguard_watches"


def watch_streams(dialect: Dialect, scope: Scope) -> None:
    """Let the rows of *dialect*'s streamed results out only for the tenant that executed them.

    Results that are not streamed are left alone, and cost nothing.

    Raises:
        ConfigurationError: If this version of SQLAlchemy lacks a hook.
    """
    base = dialect.execution_ctx_cls
    if not all(callable(getattr(base, name, None)) for name in _HOOKS):
        raise ConfigurationError(
            "This version of SQLAlchemy has no hook for streamed results; tenantguard supports "
            "SQLAlchemy 2.0.30 to 2.1."
        )
    dialect.execution_ctx_cls = type(base.__name__, (_Opening, base), {"stream_scope": scope})
    _watch_objects()


class _Stream:
    """Who executed a streamed statement."""

    __slots__ = ("_active", "_scope", "_tenant")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._active = active_tenant()
        self._tenant = _tenant(scope)

    def check(self) -> None:
        """Raise unless the stream's own tenant is active."""
        active = active_tenant()
        # Without a tenant it may be system access that is left.
        if active is None or active is not self._active:
            self._compare()

    def _compare(self) -> None:
        tenant = _tenant(self._scope)
        if tenant == self._tenant:
            return
        if tenant is None:
            raise TenantNotSetError(
                "A streamed result (stream_results, yield_per, stream()) was read after its "
                "tenant's block was left. Read it inside the block, enter the tenant again where "
                "it is read, or fetch all rows before leaving."
            )
        raise CrossTenantError(
            "A streamed result (stream_results, yield_per, stream()) was read for another tenant "
            "than the one that executed it, or was executed for none. Read it where its own "
            "tenant is active."
        )


def _tenant(scope: Scope) -> TenantId | None:
    try:
        return scope.tenant()
    except TenantNotSetError:
        return None


class _Opening:
    """Mixed into the execution context: notices that a statement's result is streamed."""

    stream_scope: Scope

    def create_server_side_cursor(self) -> Any:
        self.__class__ = _streaming(cast("Any", type(self)))
        return super().create_server_side_cursor()  # type: ignore[misc]  # SQLAlchemy's is next


class _Streaming:
    """Mixed into the execution context of a streamed statement."""

    stream_scope: Scope

    def _setup_result_proxy(self) -> Any:
        result = super()._setup_result_proxy()  # type: ignore[misc]
        if not result._soft_closed:  # noqa: SLF001
            result.cursor_strategy = _WatchedRows(
                result.cursor_strategy, _Stream(self.stream_scope)
            )
        return result


@cache
def _streaming(base: type[Any]) -> Any:
    return type(base.__name__, (_Streaming, base), {})


class _WatchedRows(ResultFetchStrategy):
    """The rows of a streamed result, as another strategy fetches them."""

    __slots__ = ("_rows", "stream")

    def __init__(self, rows: ResultFetchStrategy, stream: _Stream) -> None:
        self._rows = rows
        self.stream = stream

    def fetchone(self, *args: Any, **kwargs: Any) -> Any:
        self.stream.check()
        return self._rows.fetchone(*args, **kwargs)

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        self.stream.check()
        return self._rows.fetchmany(*args, **kwargs)

    def fetchall(self, *args: Any, **kwargs: Any) -> Any:
        self.stream.check()
        return self._rows.fetchall(*args, **kwargs)

    def yield_per(self, *args: Any, **kwargs: Any) -> None:
        self._rows.yield_per(*args, **kwargs)

    def soft_close(self, *args: Any, **kwargs: Any) -> None:
        self._rows.soft_close(*args, **kwargs)

    def hard_close(self, *args: Any, **kwargs: Any) -> None:
        self._rows.hard_close(*args, **kwargs)

    def handle_exception(self, *args: Any, **kwargs: Any) -> Any:
        return self._rows.handle_exception(*args, **kwargs)


class _WatchedObjects(ChunkedIteratorResult[Any]):
    """The objects of a streamed result; a chunk of them is loaded at a time."""

    __slots__ = ()
    stream: _Stream

    def _raw_row_iterator(self) -> Any:
        return _Watched(super()._raw_row_iterator(), self.stream)

    def _fetchiter_impl(self) -> Any:
        return _Watched(super()._fetchiter_impl(), self.stream)

    def _fetchone_impl(self, *args: Any, **kwargs: Any) -> Any:
        self.stream.check()
        return super()._fetchone_impl(*args, **kwargs)

    def _fetchmany_impl(self, *args: Any, **kwargs: Any) -> Any:
        self.stream.check()
        return super()._fetchmany_impl(*args, **kwargs)

    def _fetchall_impl(self) -> Any:
        self.stream.check()
        return super()._fetchall_impl()


class _Watched:
    """An iterator that is checked before each step; not a generator, which a refusal would end."""

    __slots__ = ("_rows", "_stream")

    def __init__(self, rows: Iterator[Any], stream: _Stream) -> None:
        self._rows = rows
        self._stream = stream

    def __iter__(self) -> _Watched:
        return self

    def __next__(self) -> Any:
        self._stream.check()
        return next(self._rows)


def _watch_objects() -> None:
    """Watch the objects that the ORM makes of a streamed result's rows."""
    # SQLAlchemy has no event for it that would not be dispatched for every statement.
    unwatched: Any = loading.instances
    if hasattr(unwatched, _WATCHES):
        return

    def instances(cursor: Any, context: Any) -> Any:
        result = unwatched(cursor, context)
        rows = getattr(cursor, "cursor_strategy", None)
        if type(rows) is _WatchedRows:
            result.__class__ = _WatchedObjects
            result.stream = rows.stream
        return result

    setattr(instances, _WATCHES, True)
    loading.instances = instances
