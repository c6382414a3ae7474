"""The execution context that lets only scoped statements, or proven text, reach the driver."""

from __future__ import annotations

import re
from copy import copy
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.orm.mapper import _all_registries
from sqlalchemy.pool.base import _AdhocProxiedConnection

from tenantguard.errors import IsolationError, UnscopedStatementError
from tenantguard.scoping.compiler import TenantCompiler, scoping_compiler
from tenantguard.scoping.scope import Scope, set_scope
from tenantguard.scoping.streams import watch_streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Dialect, Engine
    from sqlalchemy.engine.default import DefaultExecutionContext

__all__ = ["attach", "forget_compiled"]

_PLAIN_NAME = re.compile(r"[a-z_][a-z0-9_$]*")


class TenantExecution:
    """Mixed in before a dialect's own execution context by `attach`."""

    tenantguard: Scope

    def pre_exec(self) -> None:
        """Refuse what the first lock cannot scope unless the second was proven to hold."""
        context = cast("DefaultExecutionContext", self)
        compiled = context.compiled
        if isinstance(compiled, TenantCompiler) and compiled.tenantguard is self.tenantguard:
            if self.tenantguard.observe is not None:
                self._observe(compiled, self.tenantguard.observe)
            elif compiled.has_text:
                self._allow_text(context)
        elif context.isddl:
            self._refuse(
                "schema change",
                "A protected engine does not change the schema. Run migrations and create_all() "
                "with the owner's engine.",
            )
        elif compiled is not None:
            self._refuse(
                "compiled elsewhere",
                "A statement compiled without the guard was about to run on a protected engine. "
                "Compile statements with the protected engine, or execute them uncompiled.",
            )
        else:
            self._allow_text(context)
        super().pre_exec()  # type: ignore[misc]  # DefaultExecutionContext comes next in the MRO

    def _allow_text(self, context: DefaultExecutionContext) -> None:
        # SQLAlchemy asks a new server for its version before the pool hands out a connection.
        if isinstance(context.root_connection._dbapi_connection, _AdhocProxiedConnection):  # noqa: SLF001
            return
        scope = self.tenantguard
        if scope.observe is not None:
            scope.observe("text", "SQL given as text cannot be scoped")
            return
        scope.tenant()
        if not scope.text_allowed():
            raise UnscopedStatementError(
                "SQL given as text cannot be scoped, and row-level security does not hold it: "
                "either it was not proven on this engine, or a table has no tenant column of its "
                "own, which `tenantguard tables` lists as a child. Use a select() construct, give "
                "the table its column (`tenantguard migrate sql TABLE`), or wrap the statement in "
                "`with guard.unscoped_text(reason=…):`."
            )

    def _refuse(self, kind: str, message: str) -> None:
        if self.tenantguard.observe is None:
            raise UnscopedStatementError(message)
        self.tenantguard.observe(kind, message)

    def _observe(self, compiled: TenantCompiler, observe: Callable[[str, str], None]) -> None:
        for kind, message in compiled.notes:
            observe(kind, message)
        if compiled.has_text:
            observe("text", "SQL given as text cannot be scoped")
        if not compiled.touches_tenants:
            return
        context = cast("DefaultExecutionContext", self)
        try:
            tenant = self.tenantguard.tenant()
            # A statement from the cache holds the values of when it was compiled.
            given = context.extracted_parameters
            for params in context.compiled_parameters:
                compiled.writes.check(compiled, params, given, self.tenantguard, tenant)
        except IsolationError as refusal:
            observe("refused", str(refusal))


def attach(dialect: Dialect, scope: Scope) -> None:
    """Make *dialect* compile and execute under *scope*; it must not have one yet."""
    dialect.statement_compiler = scoping_compiler(dialect.statement_compiler, scope)
    base = dialect.execution_ctx_cls
    dialect.execution_ctx_cls = type(
        f"Tenant{base.__name__}", (TenantExecution, base), {"tenantguard": scope}
    )
    if scope.observe is None:
        dialect.identifier_preparer = _quoting(dialect.identifier_preparer)
        watch_streams(dialect, scope)
    set_scope(dialect, scope)


class _Quoting:
    """Mixed into the dialect's identifier preparer, so that a name is a name.

    `quoted_name(…, quote=False)` would else be SQL, or fold to the tenant column.
    """

    def quote(self, ident: str, *args: Any, **kwargs: Any) -> str:
        if getattr(ident, "quote", None) is False and not _PLAIN_NAME.fullmatch(ident):
            return str(self.quote_identifier(str(ident)))  # type: ignore[attr-defined]
        return str(super().quote(ident, *args, **kwargs))  # type: ignore[misc]


def _quoting(preparer: Any) -> Any:
    guarded = copy(preparer)
    base = type(preparer)
    guarded.__class__ = type(f"Tenant{base.__name__}", (_Quoting, base), {})
    return guarded


def forget_compiled(engine: Engine) -> None:
    """Empty the caches of *engine* and of the mappers, so that nothing unscoped is left in them.

    Other threads may execute meanwhile: what they compiled before and add after is refused.
    """
    _empty(engine._compiled_cache)  # noqa: SLF001
    for registry in _all_registries():
        for manager in list(registry._managers):  # noqa: SLF001
            # Not registry.mappers, which raises where mapping a class has failed.
            if manager.is_mapped:
                _empty(manager.mapper.__dict__.get("_compiled_cache"))


def _empty(cache: Any) -> None:
    if cache is not None:
        # LRUCache.clear() raises when another thread adds or drops a statement.
        cache._data.clear()  # noqa: SLF001
