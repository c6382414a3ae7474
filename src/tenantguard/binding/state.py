"""What a driver's connection needs to know to bind the tenant, and the SQL that it sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnClause
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql import visitors

from tenantguard.binding.entry import CLOCK, PROCESS, READABLE, SERVER
from tenantguard.binding.literal import sql_literal
from tenantguard.catalog import SETTING
from tenantguard.errors import ConfigurationError, CrossTenantError, UnscopedStatementError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column, ColumnElement, Table

    from tenantguard.binding.entry import Entry
    from tenantguard.catalog import Dialect

__all__ = [
    "AHEAD",
    "SNAPSHOT_QUERY",
    "UNBOUND",
    "Beginning",
    "Binding",
    "ConnectionState",
    "registry_query",
    "scrub_sql",
]

AHEAD: dict[Dialect, tuple[str, ...]] = {
    "postgres": (),
    # Without it the setting stays on the coordinator, and the shards' policies show no row.
    "citus": ("SET LOCAL citus.propagate_set_commands = 'local'",),
}
"""What a database has to be told before the tenant, in the same message."""

UNBOUND = object()
"""What a transaction is bound to while its BEGIN has not come back: to nobody's tenant."""

SNAPSHOT_QUERY = (
    f"SELECT '{PROCESS}', pg_catalog.pg_backend_pid()::text UNION ALL "  # noqa: S608  (constants)
    f"SELECT '{CLOCK}', (EXTRACT(epoch FROM pg_catalog.clock_timestamp()) * 1000000)::bigint::text "
    f"UNION ALL SELECT '{READABLE}', setting FROM pg_catalog.pg_settings "
    f"WHERE name = '{READABLE}' UNION ALL "
    "SELECT name, setting FROM pg_catalog.pg_settings WHERE source = 'session' "
    "AND name NOT IN ('transaction_isolation', 'transaction_read_only', 'transaction_deferrable') "
    "UNION ALL SELECT 'role', pg_catalog.current_setting('role') ORDER BY 1"
)
"""What the server says of itself, and what the application's `connect` listeners have set."""

_FAILING = "SELECT 1 / (count(*) = 1)::int FROM ({}) AS answer"

# Drivers run what they have prepared by its name: PREPARE can put something else in its place.
_NOTHING_PREPARED_BY_SQL = (
    "SELECT 1 / (NOT EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql))::int"
)

# Sequences keep their values: DISCARD SEQUENCES forgets only this session's cached currval.
# The settings come first, so that a timeout left behind does not end the rest.
_SCRUB = (
    "RESET ALL",
    "RESET SESSION AUTHORIZATION",
    "CLOSE ALL",
    "UNLISTEN *",
    "SELECT pg_catalog.pg_advisory_unlock_all()",
    "DISCARD TEMP",
    "DISCARD SEQUENCES",
)


_ANEW = "COMMIT AND CHAIN"


@dataclass(frozen=True, slots=True)
class Binding:
    """What the guard tells the driver's connections of one engine.

    Attributes:
        tenant: Returns the active tenant's id as text, or None when no tenant is active.
        unknown: Whether the tenant, as text, still has to be looked up in the registry.
        answered: Told how many rows the registry query gave for the tenant; raises unless the
            tenant may be served.
        registry_query: Returns the query that finds the tenant's row, given its SQL literal.
        vouches: Whether the first lock has compiled a statement whole, given its execution context;
            nothing else can prepare a statement by name.
        text_allowed: Whether row-level security holds whatever else is sent.
        observe: Told what would be refused; None refuses.
        entering: Returns the SQL that enters a tenant by a signature, given the tenant, the id of
            the server's process and its time in microseconds since 1970; None names the tenant.
        ahead: Commands that come before the one that names the tenant.
    """

    tenant: Callable[[], str | None]
    unknown: Callable[[str], bool]
    answered: Callable[[str, int], None]
    registry_query: Callable[[str], str]
    vouches: Callable[[Any], bool]
    text_allowed: Callable[[], bool] = lambda: True
    observe: Callable[[str, str], None] | None = None
    entering: Callable[[str, int, int], str] | None = None
    ahead: tuple[str, ...] = ()

    def refuse_autocommit(self) -> None:
        """Raise `UnscopedStatementError`: nothing begins the transaction to bind a tenant to."""
        self._refuse(
            "autocommit",
            UnscopedStatementError(
                "The connection is in AUTOCOMMIT, where only a statement of SQLAlchemy's gets a "
                "transaction that carries the tenant, each its own. Driver cursors, COPY, "
                "savepoints and two-phase need the engine's normal isolation level; asyncpg's own "
                "connection takes `async with connection.transaction():`."
            ),
        )

    def refuse_stream(self) -> None:
        """Raise `UnscopedStatementError`: rows would be fetched after their transaction."""
        self._refuse(
            "autocommit",
            UnscopedStatementError(
                "A server-side cursor (stream_results, yield_per, stream()) needs a transaction "
                "for as long as it is read, and the connection is in AUTOCOMMIT. Leave the option "
                "out, or use a connection with "
                "execution_options(isolation_level='READ COMMITTED')."
            ),
        )

    def refuse_another(self) -> None:
        """Raise `UnscopedStatementError`: an execution in AUTOCOMMIT has not ended."""
        self._refuse(
            "autocommit",
            UnscopedStatementError(
                "In AUTOCOMMIT, the connection's last execution has not ended: an event listener "
                "raised or executes a statement itself, or another thread or task uses the "
                "connection. Close it, and use one connection a task."
            ),
        )

    def refuse_text(self) -> None:
        """Raise `UnscopedStatementError`: neither lock holds what is sent."""
        self._refuse(
            "text",
            UnscopedStatementError(
                "A driver cursor cannot be scoped, and a table has no tenant column of its own, so "
                "that row-level security does not hold it; `tenantguard tables` lists it as a "
                "child. Use a select() construct, give the table its column (`tenantguard migrate "
                "sql TABLE`), or wrap the command in `with guard.unscoped_text(reason=…):`."
            ),
        )

    def refuse_switch(self) -> None:
        """Raise `CrossTenantError`: the open transaction belongs to another context."""
        self._refuse(
            "tenant switch",
            CrossTenantError(
                "The open transaction was begun for another tenant, or for none. Commit or roll "
                "back before the tenant changes."
            ),
        )

    def refuse_context(self) -> None:
        """Raise `CrossTenantError`: the statement's author and its sender differ."""
        self._refuse(
            "context",
            CrossTenantError(
                "A statement was made in another context (`contextvars`) than its task runs in, "
                "for another tenant. Enter the tenant in the task, or start a task with "
                "create_task(…, context=…)."
            ),
        )

    def refuse_unbound_cursor(self) -> None:
        """Raise `UnscopedStatementError`: a cursor's class has passed by the binding."""
        self._refuse(
            "unbound cursor",
            UnscopedStatementError(
                "A cursor_factory called psycopg2's cursor by its name, which passes by the "
                "tenant's binding. Use super() in that class."
            ),
        )

    def refuse_open_transaction(self) -> None:
        """Raise `UnscopedStatementError`: the pool handed out a connection in a transaction."""
        self._refuse(
            "open transaction",
            UnscopedStatementError(
                "The pool handed out a connection whose transaction is still open. Leave the "
                "pool's reset_on_return at its default, 'rollback'."
            ),
        )

    def refuse_foreign_connection(self) -> None:
        """Raise `ConfigurationError`: the engine got a connection that cannot bind a tenant."""
        self._refuse(
            "foreign connection",
            ConfigurationError(
                "A protected engine got a connection that tenantguard did not make. Remove "
                "create_engine(creator=…) and `do_connect` listeners that return connections; "
                "pass connect_args instead."
            ),
        )

    def _refuse(self, kind: str, error: Exception) -> None:
        if self.observe is None:
            raise error
        self.observe(kind, str(error))


@dataclass(frozen=True, slots=True, repr=False)
class Beginning:
    """What to send to begin a transaction.

    Attributes:
        tenant: The tenant to bind.
        commands: SQL, one command each.
        asks: Whether the last command is the registry query.
        scrubs: Whether the commands clean the connection.
    """

    tenant: str | None
    commands: list[str]
    asks: bool
    scrubs: bool


@dataclass(slots=True, repr=False)
class ConnectionState:
    """One driver connection's part.

    Attributes:
        binding: What the guard says.
        scrub: The commands that clean the connection, inside a transaction.
        pooled: Whether a pooler such as PgBouncer is between; it may give each transaction another
            connection to the server, so each one scrubs.
        check_outs: How often the pool has handed it out at this moment (StaticPool does so more
            than once); what the pool itself does is not bound.
        dirty: Whether the next BEGIN has to scrub.
        vouched: Whether the first lock vouches for the statement that is sent at this moment.
        strange: Whether this check-out has sent anything that it does not vouch for.
        suspect: Whether an earlier one has, and nobody has looked yet for what it prepared.
        again: What begins the transaction once more, for a driver that had begun before the scrub.
        bound: The tenant of the transaction begun last; UNBOUND while that is not certain.
        caller: The tenant where SQLAlchemy was given the statement that comes next, which with an
            asynchronous driver may be another context than the one that sends it.
        ends: Whether SQLAlchemy is ending a prepared transaction, which it does outside of any
            transaction, or a savepoint; neither reads or writes anything of a tenant's.
        alone: Whether an execution in AUTOCOMMIT has a transaction of its own at this moment.
        entry: How to enter a tenant by a signature; None names the tenant.
    """

    binding: Binding
    scrub: list[str]
    pooled: bool = False
    check_outs: int = 0
    dirty: bool = False
    vouched: bool = False
    strange: bool = False
    suspect: bool = False
    again: str = "BEGIN"
    bound: object = UNBOUND
    caller: object = UNBOUND
    ends: bool = False
    alone: bool = False
    entry: Entry | None = None

    def check_out(self) -> None:
        """Note that the pool hands the connection out."""
        self.check_outs += 1
        self.dirty = True
        self.suspect = self.suspect or self.strange
        self.strange = self.vouched = False
        self.caller = UNBOUND

    def tenant(self) -> str | None:
        """Return the tenant to act for, which must be that of the statement's author too."""
        tenant = self.binding.tenant()
        caller, self.caller = self.caller, UNBOUND
        if caller not in (tenant, UNBOUND):
            self.binding.refuse_context()
        return tenant

    def check(self, *, in_transaction: bool, autocommit: bool, begins: bool = False) -> None:
        """Refuse a command outside its tenant's transaction, and one that no lock holds.

        *begins* is a command that only begins a transaction.
        """
        if self.ends:
            self.caller = UNBOUND
            return
        self.strange = self.strange or not self.vouched
        if not (self.vouched or begins or self.binding.text_allowed()):
            self.binding.refuse_text()
        tenant = self.tenant()
        if in_transaction:
            if tenant != self.bound:
                self.binding.refuse_switch()
        elif autocommit:
            self.binding.refuse_autocommit()

    def begin(self, command: str | None, *, answered: bool = True, apart: bool = True) -> Beginning:
        """Return what to send for *command*, the driver's BEGIN.

        None is for a driver that has already sent its BEGIN, *apart* from what comes now; the scrub
        then ends the transaction and starts another of the same kind. Without being *answered*,
        what asks the registry fails by itself for a tenant that may not be served: by a division by
        zero.
        """
        tenant = self.tenant()
        unclean = self.dirty or self.pooled or tenant != self.bound
        scrubs = unclean and self.binding.observe is None
        commands = self._scrubbing(begun=command is None) if scrubs else []
        if command is not None:
            commands.append(command)
        elif self.entry is not None and apart and not scrubs:
            # A signature is believed in the message that begins its transaction.
            commands.append(_ANEW)
        commands += [*self.binding.ahead, self._binding_command(tenant)]
        asks = tenant is not None and self.binding.unknown(tenant)
        if asks:
            query = self.registry_query(tenant or "")
            commands.append(query if answered else _FAILING.format(query))
        self.bound = UNBOUND
        return Beginning(tenant, commands, asks, scrubs)

    def _binding_command(self, tenant: str | None) -> str:
        if self.entry is None or tenant is None:
            return f"SET LOCAL {SETTING} = {sql_literal(tenant or '')}"
        return self.entry(tenant)

    def _scrubbing(self, *, begun: bool) -> list[str]:
        # With a COMMIT of its own: a later ROLLBACK would bring the old state back.
        if begun:
            # psycopg2, the driver that has begun, runs nothing by a name. AND CHAIN fails where
            # text has ended its transaction; what it begins is still as the defaults were that
            # somebody has left behind, such as read only.
            return [*self.scrub, _ANEW, "COMMIT", self.again]
        if self.suspect or self.pooled or (self.strange and not self.dirty):
            return ["BEGIN", *self.scrub, _NOTHING_PREPARED_BY_SQL, "COMMIT"]
        return ["BEGIN", *self.scrub, "COMMIT"]

    def registry_query(self, tenant: str) -> str:
        """Return the query whose number of rows says what the registry knows of *tenant*."""
        return self.binding.registry_query(sql_literal(tenant))

    def begun(self, beginning: Beginning, rows: int) -> None:
        """Note that *beginning* was carried out; *rows* is the registry's answer, if asked.

        Raises:
            UnknownTenantError: If the registry does not have the tenant.
            TenantSuspendedError: If it says that the tenant is suspended.
        """
        self.dirty = self.suspect = False
        if beginning.asks:
            self.binding.answered(beginning.tenant or "", rows)
        self.bound = beginning.tenant


def scrub_sql(settings: dict[str, str]) -> list[str]:
    """Return the commands that bring a connection back to how its `connect` listeners left it."""
    restore = [
        f"SELECT pg_catalog.set_config({sql_literal(name)}, {sql_literal(value)}, false)"
        for name, value in settings.items()
        if name not in (SETTING, *SERVER) and (name, value) != ("role", "none")
    ]
    return [*_SCRUB, *restore]


def registry_query(
    table: Table, key: Column[Any], suspended: ColumnElement[bool] | None
) -> Callable[[str], str]:
    """Return a function from a tenant's literal to the query that asks the registry.

    The number of rows is the answer, because that is what every driver tells of a message with
    several commands: none, unknown; one, known; two, suspended.

    Raises:
        ConfigurationError: If *suspended* looks at anything but the registry's columns.
    """
    # Without percent signs doubled: what is sent here is not formatted by a driver.
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    # Off in SQLAlchemy 2.1; 2.0 doubles backslashes until it has asked a server.
    dialect._backslash_escapes = False  # noqa: SLF001
    preparer = dialect.identifier_preparer
    start = f"SELECT 1 FROM {preparer.format_table(table)} WHERE {preparer.format_column(key)} = "  # noqa: S608
    if suspended is None:
        return lambda literal: start + literal
    for element in visitors.iterate(suspended):
        if isinstance(element, ColumnClause) and not _is_of(table, element):
            raise ConfigurationError(
                f"TenantGuard(suspended=…) may look at the columns of {table.fullname} only."
            )
    condition = suspended.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    return lambda literal: f"{start}{literal} UNION ALL {start}{literal} AND ({condition})"


def _is_of(table: Table, column: ColumnClause[Any]) -> bool:
    # By name, because the attributes of mapped classes have annotated copies of the table.
    return getattr(column.table, "fullname", None) == table.fullname
