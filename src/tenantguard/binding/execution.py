"""The execution context that tells a connection what SQLAlchemy is about to send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import event

from tenantguard.binding.autocommit import begin_alone

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine.default import DefaultExecutionContext

    from tenantguard.binding.autocommit import Alone
    from tenantguard.binding.driver import Driver
    from tenantguard.binding.state import Binding, ConnectionState

__all__ = ["ask", "note_statements", "state_of"]


def ask(connection: Connection, query: str) -> list[Any]:
    """Run *query*, which is tenantguard's own, in *connection*'s transaction; return its rows.

    It passes by SQLAlchemy's events and logs.

    Raises:
        DBAPIError: If it fails, as SQLAlchemy would raise it for a statement; its text does not
            show the query, but the driver's error may.
    """
    state = state_of(connection)
    dialect = connection.dialect
    cursor: Any = cast("Any", connection.connection).cursor()
    # The statement that it is asked for comes next.
    noted = (state.vouched, state.caller) if state is not None else None
    try:
        if state is not None:
            if dialect.is_async:
                state.caller = state.binding.tenant()
            state.vouched = True
        cursor.execute(query)
        return list(cursor.fetchall()) if cursor.description else []
    except dialect.loaded_dbapi.Error as error:
        connection._handle_dbapi_exception(error, "tenantguard", (), cursor, None)  # noqa: SLF001
    finally:
        if state is not None and noted is not None:
            state.vouched, state.caller = noted
        cursor.close()


class Noting:
    """Mixed into the execution context: tells the connection what SQLAlchemy is about to send."""

    binding: Binding
    switch: Callable[[Any, bool], None]
    # None until pre_exec: SQLAlchemy runs a column's sequence before it.
    _noted: ConnectionState | None = None
    _alone: Alone | None = None

    def pre_exec(self) -> None:
        context = cast("DefaultExecutionContext", self)
        state = self._noted = state_of(context.root_connection)
        try:
            if state is not None:
                if context.dialect.is_async:
                    # SQLAlchemy's greenlet may be in another context than the driver, which is in
                    # the task's.
                    state.caller = self.binding.tenant()
                state.vouched = self.binding.vouches(context)
                self._alone = begin_alone(state, context, self.switch)
            super().pre_exec()  # type: ignore[misc]  # sealing, or SQLAlchemy's own, is next
        except BaseException:
            self.fails()
            raise

    def post_exec(self) -> None:
        super().post_exec()  # type: ignore[misc]
        self._is_over()
        if self._alone is not None:
            self._alone.commit()
            self._alone = None

    def handle_dbapi_exception(self, error: BaseException) -> None:
        self.fails()
        super().handle_dbapi_exception(error)  # type: ignore[misc]

    def _execute_scalar(self, *args: Any, **kwargs: Any) -> Any:
        """Run a column's sequence or default, which comes before the statement's execution."""
        context = cast("DefaultExecutionContext", self)
        state = None if self._alone else state_of(context.root_connection)
        alone = state and begin_alone(state, context, self.switch)
        if not alone:
            return super()._execute_scalar(*args, **kwargs)  # type: ignore[misc]
        try:
            value = super()._execute_scalar(*args, **kwargs)  # type: ignore[misc]
            alone.commit()
        except BaseException:
            alone.roll_back()
            raise
        return value

    def fails(self) -> None:
        """Note that the execution has failed, and roll back its own transaction, if it has one."""
        self._is_over()
        alone, self._alone = self._alone, None
        if alone is not None:
            alone.roll_back()

    def _is_over(self) -> None:
        if self._noted is not None:
            self._noted.vouched = False


def note_statements(engine: Engine, binding: Binding, driver: Driver) -> None:
    """Let *engine*'s connections be told what SQLAlchemy sends.

    Not by events of the engine: with one, SQLAlchemy dispatches all of them for each statement.
    """
    base = engine.dialect.execution_ctx_cls
    noted = {"binding": binding, "switch": staticmethod(driver.switch)}
    engine.dialect.execution_ctx_cls = type(base.__name__, (Noting, base), noted)
    event.listen(engine, "handle_error", _end_execution, insert=True)


def _end_execution(context: Any) -> None:
    """Let an execution fail also by an error that SQLAlchemy does not tell it of."""
    execution = context.execution_context
    # A connection that is lost, or was broken off, is not spoken to.
    if isinstance(execution, Noting) and not context.is_disconnect:
        execution.fails()


def state_of(connection: Connection) -> ConnectionState | None:
    """Return the state of *connection*'s driver connection, if it has one."""
    # An invalidated connection has none.
    fairy = connection._dbapi_connection  # noqa: SLF001
    return getattr(fairy and fairy.driver_connection, "tenantguard", None)
