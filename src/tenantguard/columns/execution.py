"""The execution context that seals values, when the transaction has begun and the keys are there.

A type's processor only notes a value as `Unsealed`; what is forgotten here no driver accepts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from tenantguard.columns.compiler import EncryptionCompiler, encryption_compiler
from tenantguard.columns.field import Unsealed
from tenantguard.columns.pair import two_columns
from tenantguard.columns.types import SEALS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection, Dialect
    from sqlalchemy.engine.default import DefaultExecutionContext

    from tenantguard.crypto.tenant_keys import TenantKeys

    Keys = Callable[[Connection, bool], TenantKeys]

__all__ = ["attach_encryption"]


_BY_SESSION = "_result_disable_adapt_to_context"


class Sealing:
    """Mixed in before a dialect's own execution context by `attach_encryption`."""

    keys: Keys

    def pre_exec(self) -> None:
        """Seal the statement's values, and make sure that those it fetches can be opened."""
        context = cast("DefaultExecutionContext", self)
        compiled: Any = context.compiled
        if isinstance(compiled, EncryptionCompiler) and (
            compiled.seals or compiled.searches or compiled.opens
        ):
            _check_pairs(compiled, context)
            keys = self.keys(context.root_connection, compiled.seals)
            if compiled.seals or compiled.searches:
                given = context.compiled_parameters
                context.parameters = [
                    _sealed(row, keys, values)
                    for row, values in zip(context.parameters, given, strict=True)
                ]
        super().pre_exec()  # type: ignore[misc]  # DefaultExecutionContext comes next in the MRO


def _check_pairs(compiled: EncryptionCompiler, context: DefaultExecutionContext) -> None:
    """Refuse what writes plaintext alone, or reads two columns as one where nobody puts them so."""
    for pair in compiled.pairs:
        for given in context.compiled_parameters:
            pair.check(given)
    # What a session gives along when it makes values of a SELECT's rows.
    if compiled.pair is not None and _BY_SESSION not in context.execution_options:
        raise two_columns(compiled.pair)


def _sealed(row: Any, keys: TenantKeys, given: Mapping[str, Any]) -> Any:
    """Return *row* as it is sent; *given* are its values by their names, before all processing."""
    if isinstance(row, dict):
        # SQLAlchemy has made the row for this execution, so it is changed where it is.
        for name, value in row.items():
            if type(value) is Unsealed:
                row[name] = value(keys, given)
        return row
    sent = (each(keys, given) if type(each) is Unsealed else each for each in row)
    return type(row)(sent)


def attach_encryption(dialect: Dialect, keys: Keys) -> None:
    """Let *dialect* seal and open encrypted columns.

    Args:
        dialect: A dialect that neither the binding nor the first lock has been attached to yet:
            they refuse a statement, and see to its transaction, before its values are sealed.
        keys: Returns the active tenant's keys, given the connection and whether to make them if
            they do not exist.

    Raises:
        ConfigurationError: If this version of SQLAlchemy lacks a hook.
    """
    dialect.statement_compiler = encryption_compiler(dialect.statement_compiler)
    base = dialect.execution_ctx_cls
    dialect.execution_ctx_cls = type(base.__name__, (Sealing, base), {"keys": staticmethod(keys)})
    setattr(dialect, SEALS, True)
    # What the types have refused for this dialect, while it had no keys, is remembered there.
    dialect._type_memos.clear()  # noqa: SLF001
