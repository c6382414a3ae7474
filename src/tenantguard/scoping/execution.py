"""The execution context that lets only scoped statements, or proven text, reach the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.orm import Mapper
from sqlalchemy.orm.mapper import _all_registries
from sqlalchemy.pool.base import _AdhocProxiedConnection

from tenantguard.errors import UnscopedStatementError
from tenantguard.scoping.compiler import TenantCompiler, scoping_compiler
from tenantguard.scoping.scope import Scope, set_scope

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.engine.default import DefaultExecutionContext

__all__ = ["attach", "forget_compiled"]


class TenantExecution:
    """Mixed in before a dialect's own execution context by `attach`."""

    tenantguard: Scope

    def pre_exec(self) -> None:
        """Refuse what the first lock cannot scope unless the second was proven to hold."""
        context = cast("DefaultExecutionContext", self)
        compiled = context.compiled
        if isinstance(compiled, TenantCompiler):
            if compiled.has_text:
                self._allow_text(context)
        elif context.isddl:
            self._refuse_schema_change()
        elif compiled is not None:
            raise UnscopedStatementError(
                "A statement compiled without the guard was about to run on a protected engine. "
                "Compile statements with the protected engine, or execute them uncompiled."
            )
        else:
            self._allow_text(context)
        super().pre_exec()  # type: ignore[misc]  # DefaultExecutionContext comes next in the MRO

    def _refuse_schema_change(self) -> None:
        message = (
            "A protected engine does not change the schema. Run migrations and create_all() with "
            "the owner's engine."
        )
        if self.tenantguard.observe is not None:
            self.tenantguard.observe("schema change", message)
            return
        raise UnscopedStatementError(message)

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
                "SQL given as text cannot be scoped, and row-level security was not proven on this "
                "engine. Use a select() construct, or protect an engine on PostgreSQL after "
                "`tenantguard rls apply`."
            )


def attach(dialect: Dialect, scope: Scope) -> None:
    """Make *dialect* compile and execute under *scope*; it must not have one yet."""
    dialect.statement_compiler = scoping_compiler(dialect.statement_compiler, scope)
    base = dialect.execution_ctx_cls
    dialect.execution_ctx_cls = type(
        f"Tenant{base.__name__}", (TenantExecution, base), {"tenantguard": scope}
    )
    set_scope(dialect, scope)


def forget_compiled() -> None:
    """Clear what mappers have compiled, so that nothing unscoped is left in their caches."""
    for registry in _all_registries():
        for mapper in registry.mappers:
            _forget(mapper)


def _forget(mapper: Mapper[Any]) -> None:
    cache = mapper.__dict__.get("_compiled_cache")
    if cache is not None:
        cache.clear()
