"""Each guard, how to take it away, and a test that has to go red without it.

Loaded as a pytest plugin (`-p controls`) in a process of its own, it takes away the guard that
TENANTGUARD_REMOVED names. Only the tests do this; the library reads no such variable.
"""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

if TYPE_CHECKING:
    from collections.abc import Callable

AUTOCOMMIT = "tests/db/test_autocommit.py"
AUTOCOMMIT_PARTS = "tenantguard.binding.autocommit"
BINDING = "tests/db/test_binding.py"
DRIVER = "tests/db/test_drivers.py"
ERRORS = "tests/db/test_error_texts.py"
WITH_ASYNCPG = "tests/db/test_asyncpg.py"
WITH_PSYCOPG = "tests/db/test_psycopg.py"
WITH_PSYCOPG2 = "tests/db/test_psycopg2.py"
SUSPENDED = "tests/db/test_suspended.py"
GUARD = "tests/db/test_guard.py"
ORM = "tests/attacks/test_orm_reads.py"
CORE = "tests/attacks/test_core_reads.py"
TEXT = "tests/attacks/test_text.py"
WRITES = "tests/attacks/test_core_writes.py"
SESSIONS = "tests/attacks/test_sessions.py"
STREAMS = "tests/attacks/test_streams.py"
DRIVERS_STREAMS = "tests/db/test_driver_streams.py"
REFUSALS = "tests/db/test_refusals.py"
IDENTITY = "tests/db/test_identity.py"
CONTEXT = "tests/unit/test_context.py"
FLASK = "tests/integrations/test_flask.py"
STARLETTE = "tests/integrations/test_starlette.py"
VERIFY = "tests/db/test_rls_verify.py"
WAYS = "tests/attacks/test_ways.py"
SHAPES = "tests/attacks/test_shapes.py"
APPLY = "tests/db/test_rls_apply.py"
ENCRYPTED = "tests/db/test_rls_encrypted.py"
FIELD_WRITES = "tests/db/test_encrypted_writes.py"
FIELD_QUERIES = "tests/db/test_encrypted_queries.py"
FIELD_REFUSALS = "tests/db/test_encrypted_refusals.py"
FIELD_KEYS = "tests/db/test_encrypted_keys.py"
FOLLOWING = "tests/db/test_following_keys.py"
KEY_FOLLOWER = "tenantguard.following.follower:KeyFollower"
KEYS_INDEX = "tests/db/test_keys_index.py"
MASKS = "tests/db/test_masks.py"
SEARCHABLE = "tests/db/test_rls_searchable.py"
ROW_BINDING = "tests/db/test_row_binding.py"
BOTH = "tests/encrypt/test_both.py"
KEPT = "tests/encrypt/test_kept.py"
KEY_TABLE = "tests/db/test_rls_keys.py"
KEY_FILE = "tests/unit/test_keyfile.py"
KEY_SERVICES = "tests/kms/test_in_database.py"
KEY_ENVELOPE = "tests/kms/test_kms_envelope.py"
KEY_VAULT = "tests/kms/test_vault.py"
KEYS = "tests/db/test_keys_cli.py"
POOLS = "tests/db/test_pools.py"
CHILDREN = "tests/attacks/test_children.py"
ENVELOPE = "tests/unit/test_envelope.py"
JOBS = "tests/db/test_jobs.py"
CELERY = "tests/integrations/test_celery.py"
RQ = "tests/integrations/test_rq.py"
SIGNED = "tests/db/test_signed.py"
INJECTION = "tests/attacks/test_injection.py"
REPORT = "tests/report/test_formats.py"
ACCEPTANCE = "tests/report/test_acceptance.py"
RLS_DIFF = "tests/report/test_diff.py"
RLS_CHECK = "tests/check/test_cli_check.py"
ENCRYPT_REVISIONS = "tests/encrypt/test_revision.py"
MIGRATIONS = "tests/integrations/test_alembic_operations.py"
MIGRATED_DATA = "tests/integrations/test_alembic_data.py"
AUTOGENERATE = "tests/integrations/test_alembic_autogenerate.py"
REVISION = "tests/integrations/test_alembic_revision.py"
DATA_STATEMENTS = "tests/unit/test_data_statements.py"
ALEMBIC = "tenantguard.integrations.alembic"
CHECK_ENCRYPTED = "tests/check/test_encrypted.py"
CHECK_FUNCTIONS = "tests/check/test_functions.py"
CHECK_GRANTS = "tests/check/test_grants.py"
CHECK_INDEXES = "tests/check/test_indexes.py"
CHECK_KEYS = "tests/check/test_keys.py"
CHECK_POLICIES = "tests/check/test_policies.py"
CHECK_RELATIONS = "tests/check/test_relations.py"
CHECK_ROLES = "tests/check/test_role_rules.py"
CHECK_SERVER = "tests/check/test_server.py"
CHECK_SYSTEM = "tests/check/test_system.py"
PROVE = "tests/prove/test_prove.py"
PROVE_FAULTS = "tests/prove/test_prove_faults.py"
PROVE_ZOO = "tests/prove/test_zoo.py"
CITUS = "tests/db/test_citus.py"
CITUS_MODELS = "tests/unit/test_rls_citus.py"
RLS_FILES = "tests/unit/test_rls_files.py"
LEAKS = "tests/encrypt/test_leaks.py"


_NOTHING_OPEN = "SELECT c.role, '', '' FROM confined c WHERE false"
_NO_ANCESTORS = "ancestors(oid) AS (SELECT 0::oid WHERE false)"


@dataclass(frozen=True, slots=True)
class Control:
    """A guard: *remove* takes it away, *test* (a path, and words for -k) then fails."""

    remove: Callable[[], None]
    test: str
    words: str = ""


def _attribute(path: str, name: str, value: Any) -> Callable[[], None]:
    """Return a function that sets *name* of the class or module at *path*."""

    def remove() -> None:
        from pkgutil import resolve_name  # noqa: PLC0415

        owner = resolve_name(path)
        if not hasattr(owner, name):
            raise AttributeError(f"{path} has no {name}: the control is out of date")
        setattr(owner, name, value)

    return remove


def _reworded(path: str, name: str, part: str, without: str) -> Callable[[], None]:
    """Return a function that puts *without* in the place of *part* of the text *name*."""

    def remove() -> None:
        from pkgutil import resolve_name  # noqa: PLC0415

        text = getattr(resolve_name(path), name)
        if part not in text:
            raise AttributeError(f"{path}.{name} lacks {part}: the control is out of date")
        setattr(resolve_name(path), name, text.replace(part, without))

    return remove


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _drops_no_check() -> None:
    from dataclasses import replace  # noqa: PLC0415

    from tenantguard.cli.encrypt import changing  # noqa: PLC0415

    vars(changing)["replace"] = lambda each, **_: replace(each, sql=(), undo=())


def _no_check(*_: Any) -> Any:
    from sqlalchemy import CheckConstraint  # noqa: PLC0415

    return CheckConstraint("true")


def _set_up_first(_plugin: Any, registered: Any) -> None:
    from tenantguard.integrations.alembic_plugin import NAME, compare  # noqa: PLC0415

    registered.add_autogenerate_comparator(compare, "schema", NAME)


def _first(first: Any, *_: Any) -> Any:
    return first


def _believes(check: str) -> None:
    """Let a block of a migration go on whatever *check* finds."""
    from tenantguard.integrations.alembic import data  # noqa: PLC0415

    if check not in data._EACH:
        raise AttributeError(f"there is no {check}: the control is out of date")
    data._EACH = data._EACH.replace(check, f"false AND {check}")


def _rolls_back(alone: Any) -> None:
    alone.roll_back()


def _keep_unfinished() -> None:
    """Return connections to the pool whatever may be left on them."""
    from tenantguard.binding.engine import _PoolEvents  # noqa: PLC0415

    check_in = _PoolEvents.check_in

    def keep(self: Any, connection: Any, record: Any) -> None:
        state = record.driver_connection.tenantguard
        alone, state.alone = state.alone, False
        check_in(self, connection, record)
        state.alone = alone

    _PoolEvents.check_in = keep  # type: ignore[assignment, method-assign]


def _leave_out(name: str) -> None:
    """Prove without the probe *name*."""
    from importlib import import_module  # noqa: PLC0415

    trial: Any = import_module("tenantguard.prove.trial")
    rest = tuple(each for each in trial.PROBES if each.name != name)
    if rest == trial.PROBES:
        raise AttributeError(f"There is no probe {name}: the control is out of date")
    trial.PROBES = rest


def _all_good() -> Any:
    from tenantguard.findings import Result  # noqa: PLC0415

    return Result(("everything",), ())


def _keep_what_was_tried() -> None:
    """Commit what was tried."""
    from contextlib import contextmanager  # noqa: PLC0415

    from tenantguard.prove.session import Session  # noqa: PLC0415

    rolled_back = Session.transaction

    @contextmanager
    def committed(self: Any, entering: str = "") -> Any:
        with rolled_back(self, entering):
            yield
            self.run("COMMIT")

    Session.transaction = committed  # type: ignore[method-assign]


def _passes_query(self: Any) -> Any:
    """Return psycopg's own generator, without ours in between."""
    import psycopg  # noqa: PLC0415

    return psycopg.Connection._start_query(self)


def _passes_command(self: Any, *args: Any, **kwargs: Any) -> Any:
    import psycopg  # noqa: PLC0415

    return psycopg.Connection._exec_command(self, *args, **kwargs)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _settings_last() -> tuple[str, ...]:
    from tenantguard.binding.state import _SCRUB  # noqa: PLC0415

    return (*_SCRUB[1:], _SCRUB[0])


def _begun(connection: Any, state: Any, beginning: Any, rows: int) -> None:
    connection.begins += 1
    state.begun(beginning, rows)


def _passes_named_cursors() -> None:
    from tenantguard.binding import psycopg2  # noqa: PLC0415

    psycopg2.NamedCursorBinding = psycopg2.CursorBinding  # type: ignore[misc]


def _takes_argument(cls: Any, connection_class: Any, name: str, value: Any) -> Any:
    def connect(dialect: Any, args: Any, given: dict[str, Any]) -> Any:
        return dialect.connect(*args, **{**given, name: value})

    return cls(connection_class, connect)


def _never_suspended(table: Any, key: Any, _suspended: Any) -> Any:
    from tenantguard.binding import registry_query  # noqa: PLC0415

    return registry_query(table, key, None)


def _signed_body(name: str, check: str, without: str) -> Callable[[], None]:
    """Return a function that takes *check* out of the source of a function in the database."""

    def remove() -> None:
        from tenantguard.rls import signed  # noqa: PLC0415

        source = getattr(signed, name)
        if check not in source:
            raise AttributeError(f"{name} has no {check}: the control is out of date")
        setattr(signed, name, source.replace(check, without))

    return remove


def _signs_less(part: str) -> Callable[[], None]:
    """Return a function that takes *part* out of what the proof signs."""

    def remove() -> None:
        from tenantguard.rls import signed  # noqa: PLC0415

        hmac = signed._hmac
        signed._hmac = lambda purpose, message: hmac(purpose, message.replace(part, ""))

    return remove


def _any_process() -> None:
    from functools import partial  # noqa: PLC0415

    from tenantguard import rls  # noqa: PLC0415

    hmac, entry_token = rls.signed._hmac, rls.entry_token

    def unbound(purpose: str, message: str) -> str:
        return hmac(purpose, message).replace("pg_backend_pid()", "0")

    def token(*args: Any, **options: Any) -> str:
        return partial(entry_token, *args)(**{**options, "process": 0})

    rls.signed._hmac, rls.entry_token = unbound, token


def _unsigned_floor() -> None:
    for module in ("generate", "plan", "verify"):
        _attribute(f"tenantguard.rls.{module}", "verified_call", _nothing)()


def _sends_plaintext_back() -> None:
    """Compare the plaintext when it is written, as what is sealed is compared."""
    from dataclasses import replace  # noqa: PLC0415

    from tenantguard.encrypt.backfilling import Backfilling  # noqa: PLC0415

    cells: Any = Backfilling.cells

    def compared(self: Any) -> Any:
        plain, *others = cells.fget(self)
        return [replace(plain, type="text"), *others]

    Backfilling.cells = property(compared)  # type: ignore[method-assign, assignment]


def _callers_path() -> None:
    from dataclasses import replace  # noqa: PLC0415

    from tenantguard.rls import signed  # noqa: PLC0415

    made = signed._function_step
    path = "    SET search_path = pg_catalog, pg_temp\n"

    def step(*args: Any) -> Any:
        found = made(*args)
        return replace(found, up=tuple(each.replace(path, "") for each in found.up))

    _attribute("tenantguard.rls.signed", "_function_step", step)()
    _attribute("tenantguard.rls.signing_keys", "_CONFIG", None)()


def _unpadded(self: Any, tenant: str) -> str:
    from tenantguard.binding.entry import _now  # noqa: PLC0415

    return str(self.statement(tenant, self.process, _now() + self.ahead))


def _passes_prefixes(self: Any, stmt: Any, prefixes: Any, **kwargs: Any) -> Any:
    from sqlalchemy.sql.compiler import SQLCompiler  # noqa: PLC0415

    unwatched: Any = SQLCompiler._generate_prefixes
    return unwatched(self, stmt, prefixes, **kwargs)


async def _passes_message(self: Any, message: Any) -> None:
    await self._send(message)


def _any_user(view: Any) -> Any:
    return view._user(view._connection)


def _where_as_it_was(statement: Any, _predicates: Any) -> Any:
    return statement


def _signed_without(part: str) -> Callable[..., bytes]:
    def message(payload: str, task: str, signing: Any) -> bytes:
        parts = {"payload": payload, "task": task, "environment": signing.environment}
        text = "|".join(value for name, value in parts.items() if name != part)
        return text.encode(errors="surrogatepass")

    return message


class _SameContext:
    """Stands for a copy of the context, and is none."""

    def run(self, function: Any, *args: Any) -> Any:
        return function(*args)


def _performs(self: Any) -> Any:
    from rq.job import Job  # noqa: PLC0415

    return Job.perform(self)


def _support_reads(_kind: Any, roles: Any, **_: Any) -> dict[str, frozenset[str]]:
    return dict.fromkeys(
        (roles.application, roles.support, roles.maintenance, roles.backup), frozenset({"SELECT"})
    )


class _Alone(bytes):
    """Bytes that nothing is added to."""

    __slots__ = ()

    def __add__(self, _other: Any) -> bytes:
        return bytes(self)


class _AnyLayout(dict[bytes, Any]):
    """Takes each header for that of a value without blind indexes."""

    def get(self, _header: Any, _default: Any = None) -> Any:
        from tenantguard.crypto.format import LAYOUTS, PLAIN  # noqa: PLC0415

        return LAYOUTS[PLAIN]


def _of_any_length(_self: Any, index: Any, keys: Any, value: Any) -> Any:
    return keys.candidates(index.prefix, index.of(value))


def _without_index(self: Any, context: Any) -> bytes:
    return _Alone(context.associated_data(self._tenant, self._header))


def _opening_first(field: Any, open_value: Any, dialect: Any) -> Callable[[Any], Any]:
    """Show what *field* would show, once the value was opened."""
    from tenantguard.columns.masks import showing  # noqa: PLC0415
    from tenantguard.context import active_tenant  # noqa: PLC0415

    shown = showing(field, open_value, dialect)

    def show(stored: Any) -> Any:
        active: Any = active_tenant()
        if stored is not None:
            active.keys.open(field.attached, stored)
        return shown(stored)

    return show


def _packing_texts(field: Any) -> Callable[[Any], bytes]:
    """Take a mask for the text that it shows, as an untyped column would."""
    from tenantguard.columns.masks import is_masked  # noqa: PLC0415

    return lambda value: bytes(field.kind.pack(str(value) if is_masked(value) else value))


def _keys_query(settled: str, state: str) -> Callable[[Any, str], str]:
    """Return a query that says of each keyset that it is *settled*, and its *state*."""
    columns = f"purpose, kek_uri, wrapped, check_value, {state}, {settled}, 0"

    def query(self: Any, tenant: str) -> str:
        return f"SELECT {columns} FROM {self._table} WHERE tenant_id = '{tenant}'"

    return query


def _forgets_unnoted(self: Any, *, changed: bool = False) -> None:
    """Forget keys, but not those that are being read."""
    from time import monotonic  # noqa: PLC0415

    self._changed = monotonic() if changed else self._changed
    self._cache = type(self._cache)()


def _forgets_as_ever(self: Any, **_: Any) -> None:
    """Forget keys, but not those that an older snapshot has."""
    self._generation += 1
    self._cache = type(self._cache)()


def _follows_on(self: Any) -> None:
    """Follow without having forgotten what was missed."""
    from tenantguard.following.listener import listening  # noqa: PLC0415

    with listening(self._engine, self._channel, self._sockets[0]) as listener:
        self._following.set()
        self._serve(listener)


def _context_without(part: str) -> Callable[[str, bytes, str], bytes]:
    from tenantguard.crypto.format import keyset_context  # noqa: PLC0415

    def context(environment: str, tenant: bytes, purpose: str) -> bytes:
        given = {"environment": environment, "tenant": tenant, "purpose": purpose}
        given[part] = b"" if part == "tenant" else ""
        return keyset_context(**given)  # type: ignore[arg-type]

    return context


def _show_generated() -> None:
    from vault import Base  # noqa: PLC0415

    from tenantguard.keytable import SEARCHES  # noqa: PLC0415

    for table in Base.metadata.tables.values():
        for column in table.columns:
            if SEARCHES in column.info:
                column._omit_from_statements = False


def _asking_for_values(statement: Any, state: Any) -> Any:
    """Let SQLAlchemy take a parameter for each column of a statement without values."""
    from tenantguard.scoping.statements import compiled_as  # noqa: PLC0415

    state._no_parameters = not state._dict_parameters
    return compiled_as(statement, state)


def _open(criteria: Any) -> list[Any]:
    return [clause for clause in criteria if clause is not None]


def _without_parents(self: Any, entry: Any, source: Any) -> list[Any]:
    from sqlalchemy.sql.elements import ColumnClause  # noqa: PLC0415

    if entry.column is None:
        return []
    type_ = self.tenantguard.catalog.tenant_type
    return [ColumnClause(entry.column.name, type_, _selectable=source) == self._tenant()]


MIDDLEWARE = "tenantguard.integrations.starlette"
COMPILER = "tenantguard.scoping.compiler:TenantCompiler"
FIELD_COMPILER = "tenantguard.columns.compiler:EncryptionCompiler"
FIELD_TYPES = "tenantguard.columns.types"
FIELD_ATTACKS = "tests/db/test_encrypted_attacks.py"
FIELD_SEARCHES = "tests/db/test_encrypted_searches.py"
COMPOUND = "tests/db/test_compound.py"
COMPOUND_WRITES = "tenantguard.columns.compound_writes"
MODULE = "tenantguard.scoping.compiler"
SAVED = "tenantguard.scoping.writes:Writes"
PINNED = "tenantguard.scoping.sessions:_Pinned"
STREAM = "tenantguard.scoping.streams:_Stream"
STATE = "tenantguard.binding.state:Binding"
CONNECTION = "tenantguard.binding.state:ConnectionState"
PSYCOPG = "tenantguard.binding.psycopg:TenantBinding"
BOUND = "tenantguard.binding"
PSYCOPG2 = "tenantguard.binding.psycopg2:TenantConnection"
ASYNCPG = "tenantguard.binding.asyncpg"


def _overwriting() -> None:
    """Let commands change a keyset whatever became of it since they read it."""
    from tenantguard.cli.keys.writing import update_sql  # noqa: PLC0415

    seen = " AND k.generation = v.seen AND k.wrapped = v.old"

    def written(*given: Any) -> str:
        statement = update_sql(*given)
        if seen not in statement:
            raise AttributeError("the statement does not compare: the control is out of date")
        return statement.replace(seen, "")

    _attribute("tenantguard.cli.keys.changing", "update_sql", written)()


def _without_tombstones() -> None:
    """Let keys be destroyed by deleting their rows."""

    def deleting(table: str, condition: str) -> str:
        return f"DELETE FROM {table} k WHERE {condition}"

    _attribute("tenantguard.cli.keys.destroy", "_destroying", deleting)()
    _attribute("tenantguard.cli.keys.destroy:_Tenant", "_tombstones", lambda _: "SELECT")()


def _one_tenants_keys() -> None:
    """Let the cache of keys answer with whatever it has."""
    from tenantguard.keystore import Keystore  # noqa: PLC0415

    def cached(self: Keystore, _tenant: str) -> Any:
        return next(iter(self._cache.values()), None)

    Keystore._cached = cached  # type: ignore[method-assign,assignment]


CONTROLS = {
    "children are read through their parent": Control(
        _attribute(COMPILER, "_predicates", _without_parents), CHILDREN, "test_read_ends"
    ),
    "references of children are checked": Control(
        _attribute(
            "tenantguard.scoping.references:Reference", "checked", lambda _, value, *__: value
        ),
        CHILDREN,
        "test_write_ends",
    ),
    "references are checked where ON CONFLICT sets them": Control(
        _attribute("tenantguard.scoping.writes:Writes", "_conflicting", lambda _, pair, __: pair),
        CHILDREN,
        "test_write_ends and upsert",
    ),
    "defaults of references are refused": Control(
        _attribute("tenantguard.scoping.references:Reference", "refuse_default", _nothing),
        CHILDREN,
        "test_default_of",
    ),
    "references to known foreign objects are refused early": Control(
        _attribute("tenantguard.scoping.sessions", "_check_references", _nothing),
        CHILDREN,
        "before_the_database",
    ),
    "a CTE does not stand for a parent": Control(
        _attribute(COMPILER, "_refuse_shadows", _nothing), CHILDREN, "stand_for_the_parent"
    ),
    "statistics are refused beside a child": Control(
        _attribute("tenantguard.scoping.compiler", "_STATISTICS", "\0"), CHILDREN, "statistics"
    ),
    "columns under another name are refused": Control(
        _attribute("tenantguard.scoping.writes", "_refuse_hidden", _nothing),
        CHILDREN,
        "under_another_name",
    ),
    "no parent is guessed beside the registry": Control(
        _attribute("tenantguard.catalog:Catalog", "_is_registry", lambda *_: False),
        "tests/unit/test_catalog_children.py",
        "refers_to_the_registry",
    ),
    "a parent's key is unique": Control(
        _attribute("tenantguard.catalog", "_names_one_row", lambda _: True),
        "tests/unit/test_catalog_children.py",
        "what_is_not_unique",
    ),
    "blocks that are left out of order leave no tenant": Control(
        _attribute("tenantguard.context", "leave_block", lambda token, _: token.var.reset(token)),
        "tests/unit/test_context.py",
        "out_of_order",
    ),
    "text is refused beside a child": Control(
        _attribute("tenantguard.catalog:Catalog", "application_only", ()),
        CHILDREN,
        "text_is_refused",
    ),
    "driver cursors are refused beside a child": Control(
        _attribute("tenantguard.binding.state:Binding", "refuse_text", _nothing),
        CHILDREN,
        "driver_cursor",
    ),
    "savepoints end whoever is active": Control(
        _attribute("tenantguard.binding.engine", "_let_end", _nothing),
        POOLS,
        "after_its_tenants_block",
    ),
    # The first lock, reads.
    "predicate in WHERE": Control(
        _attribute(MODULE, "with_where", _where_as_it_was), ORM, "first_alone and own_rows"
    ),
    "parentheses around WHERE": Control(
        _attribute("tenantguard.scoping.statements", "closed", _open), GUARD, "or_in_a_text"
    ),
    "predicate in ON": Control(
        _attribute(MODULE, "nullable_leaves", lambda _join: _reads()), CORE, "first_alone"
    ),
    "tables under a FULL JOIN are filtered": Control(
        _attribute(COMPILER, "_filtered", lambda _self, _table, rendered, **_: rendered),
        CORE,
        "first_alone",
    ),
    "unplaced, undecided and read-only tables are refused": Control(
        _attribute(COMPILER, "_refuse", _nothing), REFUSALS, "cannot_be_scoped"
    ),
    # The first lock, writes.
    "rows are stamped": Control(
        _attribute(SAVED, "stamped_insert", lambda _self, _compiler, statement, *_: statement),
        WRITES,
        "first_alone",
    ),
    "expressions are refused": Control(
        _attribute(SAVED, "_take_supplied", _nothing), REFUSALS, "expression"
    ),
    "supplied tenant is compared": Control(
        _attribute(SAVED, "check", _nothing), GUARD, "errors_show or observe_never"
    ),
    "tenant column is kept": Control(
        _attribute(SAVED, "keep_tenant", _nothing), WRITES, "first_alone"
    ),
    "upsert is guarded": Control(
        _attribute(SAVED, "guarded_upsert", lambda _self, clause, *_: clause),
        WRITES,
        "first_alone",
    ),
    # Sessions.
    "session is pinned": Control(_attribute(PINNED, "_check", _nothing), SESSIONS),
    "flush is checked": Control(
        _attribute("tenantguard.scoping.sessions", "_check_unchanged", _nothing), SESSIONS
    ),
    "new identity maps are watched": Control(
        _attribute("tenantguard.scoping.sessions", "_keep_watching", _nothing), REFUSALS, "expunge"
    ),
    # Streamed results.
    "streamed rows stay with their tenant": Control(
        _attribute(STREAM, "_compare", _nothing), STREAMS, "change_hands and rows"
    ),
    "streamed objects stay with their tenant": Control(
        _attribute("tenantguard.scoping.streams", "_watch_objects", _nothing),
        STREAMS,
        "change_hands and objects",
    ),
    "system access keeps its streams": Control(
        _attribute("tenantguard.guard", "watch_streams", _nothing), DRIVERS_STREAMS, "system"
    ),
    "psycopg's cursors fetch for their tenant": Control(
        _attribute("tenantguard.binding.psycopg", "_FETCHES", ()), DRIVERS_STREAMS, "psycopg"
    ),
    "psycopg2's cursors fetch for their tenant": Control(
        _passes_named_cursors, DRIVERS_STREAMS, "drivers_cursor and psycopg2"
    ),
    # Caches.
    "cache keys carry the tenant": Control(
        _attribute("tenantguard.guard", "tenant_key", lambda _tenant, parts: repr(parts)),
        "tests/db/test_caching.py",
        "own_rows",
    ),
    # Text.
    "text needs the second lock": Control(
        _attribute("tenantguard.scoping.execution:TenantExecution", "_allow_text", _nothing), TEXT
    ),
    "text inside constructs is noted": Control(
        _attribute(COMPILER, "_note_text", _nothing), TEXT, "refused_by_the_first"
    ),
    "operators given as text are noted": Control(
        _attribute(COMPILER, "_note_operator", _nothing), TEXT, "refused_by_the_first"
    ),
    "types given as text are noted": Control(
        _attribute(COMPILER, "_note_type", _nothing), TEXT, "refused_by_the_first"
    ),
    "functions that run text are noted": Control(
        _attribute("tenantguard.scoping.text", "_TEXT_FUNCTIONS", re.compile("x^")),
        TEXT,
        "refused_by_the_first",
    ),
    "prefixes are noted": Control(
        _attribute("tenantguard.scoping.text:TextWatch", "_generate_prefixes", _passes_prefixes),
        TEXT,
        "refused_by_the_first",
    ),
    "names are quoted": Control(
        _attribute("tenantguard.scoping.execution", "_quoting", lambda preparer: preparer), TEXT
    ),
    "schema changes are refused": Control(
        _attribute("tenantguard.scoping.execution:TenantExecution", "_refuse", _nothing),
        GUARD,
        "schema_changes",
    ),
    # The binding.
    "the tenant is bound": Control(
        _attribute(PSYCOPG, "_exec_command", _passes_command), BINDING, "raw_connection_knows"
    ),
    "a driver's commands in autocommit are refused": Control(
        _attribute(STATE, "refuse_autocommit", _nothing), AUTOCOMMIT, "raw_cursor or two_phase"
    ),
    "an execution in autocommit has a transaction": Control(
        _attribute(AUTOCOMMIT_PARTS, "_is_bound", lambda *_: False), AUTOCOMMIT, "run_for_the"
    ),
    "an execution in autocommit is committed": Control(
        _attribute(f"{AUTOCOMMIT_PARTS}:Alone", "commit", _rolls_back), AUTOCOMMIT, "by_itself"
    ),
    "an execution that fails in autocommit is rolled back": Control(
        _attribute(f"{AUTOCOMMIT_PARTS}:Alone", "roll_back", _nothing), AUTOCOMMIT, "usable"
    ),
    "an execution learns of every error": Control(
        _attribute("tenantguard.binding.execution", "_end_execution", _nothing),
        AUTOCOMMIT,
        "unknown_tenant",
    ),
    "server-side cursors in autocommit are refused": Control(
        _attribute(STATE, "refuse_stream", _nothing), AUTOCOMMIT, "server_side"
    ),
    "without values a statement takes no parameters": Control(
        _attribute("tenantguard.scoping.writes", "compiled_as", _asking_for_values),
        "tests/unit/test_compiled.py",
        "takes_none",
    ),
    "executions in autocommit do not share a transaction": Control(
        _attribute(STATE, "refuse_another", _nothing), AUTOCOMMIT, "listener_that_executes"
    ),
    "savepoints in autocommit are refused": Control(
        _attribute(AUTOCOMMIT_PARTS, "_IdentifiedClause", ()), AUTOCOMMIT, "savepoints"
    ),
    "what may be left in autocommit is not pooled": Control(
        _keep_unfinished, AUTOCOMMIT, "unfinished"
    ),
    "a changed tenant is refused": Control(
        _attribute(STATE, "refuse_switch", _nothing), BINDING, "open_transaction"
    ),
    "queries are watched": Control(
        _attribute(PSYCOPG, "_start_query", _passes_query), BINDING, "open_transaction"
    ),
    "foreign connections are refused": Control(
        _attribute(STATE, "refuse_foreign_connection", _nothing), BINDING, "not_ours"
    ),
    "connections are scrubbed": Control(
        _attribute("tenantguard.binding.engine", "scrub_sql", lambda *_: ["SELECT 1"]),
        BINDING,
        "survives_check_in",
    ),
    "the scrub commits": Control(
        _attribute(CONNECTION, "_scrubbing", lambda state, **_: ["BEGIN", *state.scrub]),
        BINDING,
        "survives_check_in",
    ),
    "what SQL has prepared is looked for": Control(
        _attribute("tenantguard.binding.state", "_NOTHING_PREPARED_BY_SQL", "SELECT 1"),
        DRIVER,
        "planted",
    ),
    "what fails vouches for nothing": Control(
        _attribute("tenantguard.binding.execution:Noting", "_is_over", _nothing),
        DRIVER,
        "vouches_for_nothing",
    ),
    "a pooler is noticed": Control(
        _attribute("tenantguard.binding.engine", "_is_pooled", lambda *_: False),
        BINDING,
        "pooler",
    ),
    "settings are restored": Control(
        _attribute("tenantguard.binding.engine", "_snapshot", lambda _connection: {}),
        BINDING,
        "connect_listeners",
    ),
    "the registry is asked": Control(
        _attribute("tenantguard.registry:Registry", "is_unknown", lambda *_: False),
        BINDING,
        "unknown_tenant",
    ),
    "a tenant's text is ASCII": Control(
        _attribute("tenantguard.binding.state", "sql_literal", _quoted), DRIVER, "encoding"
    ),
    "settings are reset first": Control(
        _attribute("tenantguard.binding.state", "_SCRUB", _settings_last()),
        DRIVER,
        "timeout_left",
    ),
    "what cannot be cleaned is closed": Control(
        _attribute(PSYCOPG, "discard", _nothing), DRIVER, "cannot_be_cleaned"
    ),
    "another connection class is refused": Control(
        _attribute(
            "tenantguard.binding.driver:Driver", "by_argument", classmethod(_takes_argument)
        ),
        DRIVER,
        "connection_class",
    ),
    "a pipeline fails for who is unknown": Control(
        _attribute("tenantguard.binding.state", "_FAILING", "SELECT 1 FROM ({}) AS answer"),
        WITH_PSYCOPG,
        "unknown",
    ),
    "asyncpg's commands are checked": Control(
        _attribute(f"{ASYNCPG}:TenantProtocol", "_check", _nothing), WITH_ASYNCPG, "outside"
    ),
    "asyncpg's BEGIN is one": Control(
        _attribute(f"{ASYNCPG}:TenantConnection", "in_transaction", lambda _self: False),
        WITH_ASYNCPG,
        "does_not_end",
    ),
    "psycopg2's threads are kept apart": Control(
        _attribute("tenantguard.binding.psycopg2", "RLock", nullcontext),
        WITH_PSYCOPG2,
        "nothing_comes_between",
    ),
    "psycopg2's first statement is read anew": Control(
        _attribute(PSYCOPG2, "fits_together", lambda _self, beginning: not beginning.asks),
        WITH_PSYCOPG2,
        "what_was_left",
    ),
    "psycopg2's notifications are dropped": Control(
        _attribute(PSYCOPG2, "begun", _begun), WITH_PSYCOPG2, "notices"
    ),
    "psycopg2's errors are without the statement": Control(
        _attribute("tenantguard.binding.psycopg2", "_without_statement", lambda error: error),
        WITH_PSYCOPG2,
        "registry",
    ),
    "cursors that pass by are refused": Control(
        _attribute(STATE, "refuse_unbound_cursor", _nothing), WITH_PSYCOPG2, "passes_by"
    ),
    "the suspended are asked for": Control(
        _attribute("tenantguard.guard", "registry_query", _never_suspended), SUSPENDED
    ),
    "the registry is asked again": Control(
        _attribute("tenantguard.registry", "_RECHECK", 1e9), SUSPENDED, "while"
    ),
    "open transactions are refused": Control(
        _attribute(STATE, "refuse_open_transaction", _nothing), REFUSALS, "open_transaction"
    ),
    # The guard.
    "parameters are hidden": Control(
        _attribute("tenantguard.guard", "hide_parameters", _nothing), REFUSALS, "hide_parameters"
    ),
    "tenant and system exclude each other": Control(
        _attribute("tenantguard.context", "in_system_access", lambda: True), CONTEXT, "exclude"
    ),
    "lookups have names of their own": Control(
        _attribute("tenantguard.identity", "object_name", lambda *_: "tg_identity"), IDENTITY
    ),
    "lookups need a unique key": Control(
        _attribute("tenantguard.identity", "has_unique_key", lambda _column: True),
        IDENTITY,
        "partial",
    ),
    # The second lock.
    "the role is looked at": Control(
        _attribute("tenantguard.rls.role", "_attributes", lambda *_: ()), GUARD, "is_refused"
    ),
    "memberships are looked at": Control(
        _attribute("tenantguard.rls.role", "_memberships", lambda *_: ()), REFUSALS, "support_role"
    ),
    "ownership is looked at": Control(
        _attribute("tenantguard.rls.role", "_ownership", lambda *_: ()), GUARD, "owner"
    ),
    "replication is looked at": Control(
        _attribute("tenantguard.rls.role", "_replication", lambda *_: ()), VERIFY, "replication"
    ),
    "owners of what tables are in are looked at": Control(
        _attribute("tenantguard.rls.role", "_owned_around", lambda *_: ()), VERIFY, "schema"
    ),
    "defaults of the setting are looked at": Control(
        _attribute("tenantguard.rls.role", "_settings", lambda *_: ()), VERIFY
    ),
    "switches are looked at on new connections": Control(
        _attribute("tenantguard.rls.role", "_switched_off", lambda *_: ()), REFUSALS, "switched_off"
    ),
    "privileges are looked at": Control(
        _attribute("tenantguard.rls.verify", "_privileges", lambda *_: ()), VERIFY
    ),
    "policies are compared": Control(
        _attribute("tenantguard.rls.verify", "policy_findings", lambda *_: ()), VERIFY
    ),
    "the check compares policies": Control(
        _attribute("tenantguard.check.policies", "policy_findings", lambda *_: ()),
        CHECK_POLICIES,
        "fault_is_found and changed",
    ),
    "owners with a policy of their own are not held": Control(
        _attribute("tenantguard.check.reach", "unheld", lambda *_: "false"),
        CHECK_FUNCTIONS,
        "fault_is_found and own",
    ),
    "owners of tables that run commands are found": Control(
        _attribute("tenantguard.check.reach", "rules_over", lambda *_: "false"),
        CHECK_FUNCTIONS,
        "fault_is_found and owner",
    ),
    "event triggers are looked at": Control(
        _attribute("tenantguard.check.firing", "_event_triggers", lambda *_: ()),
        CHECK_RELATIONS,
        "fault_is_found and events",
    ),
    "triggers on views are looked at": Control(
        _attribute(
            "tenantguard.check.firing", "_WRITTEN", "written(oid) AS (SELECT 0::oid WHERE false)"
        ),
        CHECK_RELATIONS,
        "fault_is_found and view",
    ),
    "policies of parts are read": Control(
        _attribute("tenantguard.check.relations", "_LOOSE", "false"),
        CHECK_RELATIONS,
        "fault_is_found and shows",
    ),
    "copies by functions are found": Control(
        _attribute("tenantguard.check.relations", "_CALLS", "false"),
        CHECK_RELATIONS,
        "fault_is_found and through",
    ),
    "secret catalogs are looked at": Control(
        _attribute("tenantguard.check.system", "_CATALOGS", _NOTHING_OPEN),
        CHECK_SYSTEM,
        "fault_is_found and statistics",
    ),
    "functions of the server's files are looked at": Control(
        _attribute("tenantguard.check.system", "_FUNCTIONS", _NOTHING_OPEN),
        CHECK_SYSTEM,
        "fault_is_found and files",
    ),
    "built-in functions are compared": Control(
        _attribute("tenantguard.check.reach", "FIRST_OWN", 0),
        CHECK_SYSTEM,
        "fault_is_found and replaced",
    ),
    "parameters of the server are looked at": Control(
        _attribute("tenantguard.check.reach", "PARAMETER_PRIVILEGES", 10**9),
        CHECK_SYSTEM,
        "fault_is_found and parameter",
    ),
    "large objects without privileges are looked at": Control(
        _attribute("tenantguard.check.making", "_unprotected_objects", lambda *_: ()),
        CHECK_GRANTS,
        "fault_is_found and without",
    ),
    "what policies call is looked at": Control(
        _attribute("tenantguard.check.reach", "FIRST_OWN", 4294967295),
        CHECK_SYSTEM,
        "fault_is_found and cast",
    ),
    "the check compares encrypted columns": Control(
        _attribute("tenantguard.check.encrypted", "drift", lambda *_: ()),
        CHECK_ENCRYPTED,
        "fault_is_found",
    ),
    "the check finds tables that no model knows": Control(
        _attribute("tenantguard.check.undecided", "_unknown", lambda _: ()),
        CHECK_POLICIES,
        "fault_is_found and relation",
    ),
    "the check finds policies beside ours": Control(
        _attribute("tenantguard.check.policies", "_strangers", lambda _: ()),
        CHECK_POLICIES,
        "fault_is_found and extra",
    ),
    "the check judges roles by name": Control(
        _attribute("tenantguard.check.roles", "judge_roles", lambda *_: ()),
        CHECK_ROLES,
        "fault_is_found and superuser",
    ),
    "the check judges the server": Control(
        _attribute("tenantguard.check.server", "_coded", lambda *_: ()),
        CHECK_SERVER,
        "fault_is_found",
    ),
    "ways beside the policies are looked for": Control(
        _attribute("tenantguard.rls.verify", "way_findings", lambda *_: ()), WAYS, "way_around"
    ),
    "views of the models are looked at": Control(
        _attribute("tenantguard.rls.verify", "view_findings", lambda *_: ()),
        WAYS,
        "way_around and models",
    ),
    "a relation is what the models say": Control(
        _attribute("tenantguard.rls.plan", "refuse_other_relation", _nothing),
        WAYS,
        "cannot_protect",
    ),
    "views ask as their caller": Control(
        _attribute("tenantguard.rls.generate", "view_steps", lambda _entry: ()),
        SHAPES,
        "both and own_rows_of_every_shape and view",
    ),
    "stray policies are found": Control(
        _attribute("tenantguard.rls.verify", "_strangers", lambda *_, **__: ()), GUARD, "extra"
    ),
    # Encrypted columns in the second lock.
    "keys are added and never changed": Control(
        _attribute(
            "tenantguard.rls.grants", "_ADD", frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
        ),
        KEY_TABLE,
        "changes_none",
    ),
    "support has no privilege on keys": Control(
        _attribute("tenantguard.rls.grants", "_on_table", _support_reads), KEY_TABLE, "support"
    ),
    "searched columns are compared": Control(
        _attribute("tenantguard.rls.drift", "is_search_column", lambda *_, **__: True),
        ENCRYPTED,
        "planted_fault",
    ),
    "the table of keys is compared": Control(
        _attribute("tenantguard.rls.drift", "_of_keys", lambda *_: ()), ENCRYPTED, "planted_fault"
    ),
    "what differs is refused": Control(
        _attribute("tenantguard.rls.plan", "refuse_drift", _nothing), ENCRYPTED, "never_altered"
    ),
    "checks of encrypted columns are verified": Control(
        _attribute("tenantguard.rls.drift", "_of_formats", lambda *_: ()),
        ENCRYPTED,
        "planted_fault",
    ),
    "a searchable value has an index": Control(
        _attribute("tenantguard.columns.storage", "_with_indexes", lambda *_: "true"),
        SEARCHABLE,
        "does_not_become",
    ),
    "a write past the trigger of a search column is refused": Control(
        _attribute("tenantguard.columns.storage", "_kept_check", _no_check),
        KEPT,
        "without_the_trigger",
    ),
    "a partition's disabled trigger is found": Control(
        _attribute("tenantguard.rls.drift", "is_keeper", lambda *_: True),
        "tests/encrypt/test_kept_parts.py",
        "one_partition",
    ),
    "what partitions generate is compared": Control(
        _reworded("tenantguard.rls.state", "_COLUMNS", "< 2", "> 0"),
        "tests/encrypt/test_kept_parts.py",
        "generates_something_else",
    ),
    "a check that children do not inherit is none": Control(
        _reworded("tenantguard.rls.state", "_CHECKS", "AND NOT c.connoinherit", ""),
        "tests/encrypt/test_kept_parts.py",
        "do_not_inherit",
    ),
    "unique indexes that only the database knows are seen": Control(
        _attribute(
            "tenantguard.cli.keys.uniqueness", "_unique_sql", lambda _: "SELECT WHERE false"
        ),
        KEYS_INDEX,
        "only_the_database",
    ),
    "a forked process has a lock of its own": Control(
        _attribute("tenantguard.following.guarded:GuardedKeys", "_unlock", _nothing),
        FOLLOWING,
        "wait_for_the_thread",
    ),
    "a contract that was ended leaves no check": Control(
        _attribute("tenantguard.encrypt.schema", "left_by_contract", lambda *_: ()),
        "tests/encrypt/test_migrate.py",
        "ended_in_between and expand",
    ),
    "keys wait for transactions that may have copied values": Control(
        _reworded("tenantguard.cli.keys.retire", "_OLDEST", ", min(a.xact_start)", ""),
        KEYS_INDEX,
        "copies_values",
    ),
    "a storm of messages is read at once": Control(
        _attribute("tenantguard.following.listener", "_READS", 1),
        FOLLOWING,
        "taken_together",
    ),
    "expand compares what a trigger does": Control(
        _attribute("tenantguard.encrypt.schema", "is_keeper", lambda found, _body: bool(found)),
        "tests/encrypt/test_migrate.py",
        "trigger_again",
    ),
    "create_all makes what keeps a search column": Control(
        _attribute("tenantguard.columns.storage", "_keep_when_made", _nothing), KEPT, "create_all"
    ),
    "the trigger of a search column is compared": Control(
        _attribute("tenantguard.rls.drift", "is_keeper", lambda *_: True),
        CHECK_ENCRYPTED,
        "search-trigger-changed",
    ),
    "what a trigger has not filled is filled": Control(
        _attribute("tenantguard.cli.encrypt.rewrite", "unfilled", lambda *_: ()),
        KEPT,
        "not_filled",
    ),
    "a key stays while a search column is not in step": Control(
        _attribute("tenantguard.cli.keys.needing", "unfilled", lambda *_: ()),
        KEPT,
        "not_in_step",
    ),
    # Keys.
    "a key file that others may use is refused": Control(
        _attribute("tenantguard.crypto.secret_file", "_refuse_open_to_others", _nothing),
        KEY_FILE,
        "others_may_use",
    ),
    "a key file is not overwritten": Control(
        _attribute("os", "O_EXCL", 0), KEY_FILE, "existing_file_stays"
    ),
    "hidden rows are no empty answer": Control(
        _attribute("tenantguard.doctor.eyes:Eyes", "missed", lambda _eyes: []), KEYS, "under_force"
    ),
    "keysets of another key are found": Control(
        _attribute("tenantguard.cli.keys.judging", "_is_foreign", lambda *_: False),
        KEYS,
        "wrong_key",
    ),
    "keysets are opened": Control(
        _attribute("tenantguard.cli.keys.judging", "_opens", lambda *_: True), KEYS, "are_verified"
    ),
    "changed keysets are not overwritten": Control(
        _overwriting, "tests/db/test_keys_rewrap.py", "restored_row"
    ),
    "new keys wait for all processes": Control(
        _attribute("tenantguard.cli.keys.rotate", "_KNOWN", "true"),
        "tests/db/test_keys_rotate.py",
        "nothing_fails",
    ),
    "keys of old snapshots are not kept": Control(
        _attribute("tenantguard.keystore", "_AGE", "0"),
        "tests/db/test_keys_rotate.py",
        "sees_old_rows",
    ),
    "needed keys are not retired": Control(
        _attribute("tenantguard.cli.keys.needing", "rows_by_key", lambda *_, **__: ()),
        "tests/db/test_keys_retire.py",
        "needed_keys",
    ),
    "searches ask for every key's index": Control(
        _attribute(
            "tenantguard.crypto.keysets:IndexKeyset",
            "candidates",
            lambda self, data: [self.compute(data)],
        ),
        KEYS_INDEX,
        "everybody_finds",
    ),
    "keys for indexes wait until every process has them": Control(
        _attribute("tenantguard.cli.keys.rotate", "_KNOWN", "true"), KEYS_INDEX, "everybody_finds"
    ),
    "no third key for indexes is added": Control(
        _attribute("tenantguard.crypto.rotation", "_is_full", lambda *_: False),
        KEYS_INDEX,
        "no_third_key",
    ),
    "unique blind indexes are not rotated": Control(
        _attribute("tenantguard.cli.keys.rotate", "require_no_unique_index", _nothing),
        KEYS_INDEX,
        "unique_indexes",
    ),
    "rewritten indexes are compared": Control(
        _attribute("tenantguard.encrypt.forms:Indexed", "has", lambda *_: True),
        KEYS_INDEX,
        "of_the_new_key",
    ),
    "keys that indexes need are not retired": Control(
        _attribute("tenantguard.encrypt.forms:Indexed", "has", lambda *_: True),
        KEYS_INDEX,
        "that_an_index_needs",
    ),
    "keys are not retired beside values that nobody has compared": Control(
        _attribute("tenantguard.cli.keys.needing", "_counted", lambda *_: ()),
        KEYS_INDEX,
        "cannot_be_compared",
    ),
    "keys are not retired beside open transactions": Control(
        _attribute("tenantguard.cli.keys.retire:_Retirement", "_settled", lambda _: "true"),
        "tests/db/test_keys_retire.py",
        "transaction_is_open",
    ),
    "destroyed keys leave tombstones": Control(
        _without_tombstones, "tests/db/test_keys_destroy.py", "never_made_again"
    ),
    "keys that are being made are destroyed": Control(
        _attribute("tenantguard.cli.keys.destroy:_Tenant", "_tombstones", lambda _: "SELECT"),
        "tests/db/test_keys_destroy.py",
        "being_made",
    ),
    "destroyed tenants are not imported": Control(
        _attribute("tenantguard.cli.keys.transfer", "_DESTROYED", "false"),
        "tests/db/test_keys_transfer.py",
        "no_destroyed_tenant",
    ),
    "lost keysets are found": Control(
        _attribute("tenantguard.rls.values", "_any_filled", lambda *_: "false"),
        KEYS,
        "values_without_keysets",
    ),
    "a terminal obeys no row": Control(
        _attribute("tenantguard.cli.keys.report", "printable", lambda text: text), KEYS, "terminal"
    ),
    # Encrypted columns.
    "values are bound to their column": Control(
        _attribute("tenantguard.crypto.format:FieldContext", "associated_data", lambda *_: b"same"),
        FIELD_WRITES,
        "moved",
    ),
    "values are bound to their blind index": Control(
        _attribute("tenantguard.crypto.tenant_keys:_Associated", "__missing__", _without_index),
        FIELD_WRITES,
        "moved",
    ),
    "flags that are not known are refused": Control(
        _attribute("tenantguard.crypto.tenant_keys", "LAYOUTS", _AnyLayout()),
        "tests/unit/test_format.py",
        "unknown_versions",
    ),
    "each search has blind indexes of its own": Control(
        _attribute(
            "tenantguard.crypto.format:FieldContext",
            "search_prefix",
            lambda *_: b"same",
        ),
        "tests/unit/test_field.py",
        "no_two_indexes",
    ),
    "a part that is looked for is a whole one": Control(
        _attribute("tenantguard.columns.field:Field", "sought", _of_any_length),
        FIELD_SEARCHES,
        "wrong_number",
    ),
    "one parameter is for one search": Control(
        _attribute("tenantguard.columns.types:SearchValue", "same_as", lambda *_: True),
        FIELD_SEARCHES,
        "two_searches",
    ),
    "a compound is not left behind": Control(
        _attribute(COMPOUND_WRITES, "_follows", lambda *_: False),
        COMPOUND,
        "compound_behind and bulk",
    ),
    "in ON CONFLICT a compound follows what was proposed": Control(
        _attribute(COMPOUND_WRITES, "_are_excluded", lambda _, values: bool(values)),
        COMPOUND,
        "compound_behind and exchanged",
    ),
    "a compound is made of what is sent": Control(
        _attribute(COMPOUND_WRITES, "_is_sent_as_given", lambda *_: True),
        COMPOUND,
        "computes and converted",
    ),
    "a compound hides what its parts hide": Control(
        _attribute("tenantguard.columns.compound_parts", "_check_as_hidden", _nothing),
        "tests/unit/test_compound_kind.py",
        "gives_away",
    ),
    "values are sealed": Control(
        _attribute(FIELD_TYPES, "noting", lambda *_: None), FIELD_WRITES, "every_insert_seals"
    ),
    "tables without a key to bind to are refused at the start": Control(
        _attribute("tenantguard.guard", "check_row_keys", lambda _: None),
        "tests/unit/test_row_bound.py",
        "refused_when_the_engine_is_protected",
    ),
    "values are bound to their row": Control(
        _attribute("tenantguard.crypto.tenant_keys", "bound_to", lambda _: b""),
        ROW_BINDING,
        "every_read and aliased",
    ),
    "a value is sealed for a row that the statement names": Control(
        _attribute("tenantguard.columns.field:Field", "refuse_unplaced", _nothing),
        ROW_BINDING,
        "without_its_row_is_refused and all",
    ),
    "keys that values are bound to are not changed": Control(
        _attribute("tenantguard.columns.writes_compiler", "refuse_moved", _nothing),
        ROW_BINDING,
        "is_not_changed and core",
    ),
    "excluded is the same row only by its primary key": Control(
        _attribute("tenantguard.columns.writes_compiler", "is_same_row", lambda *_: True),
        ROW_BINDING,
        "of_another_row and excluded",
    ),
    "text has no rows to bind to": Control(
        _attribute("tenantguard.columns.compiler", "refuse_text", _nothing),
        ROW_BINDING,
        "comes_without and union",
    ),
    "who may not read gets masks": Control(
        _attribute(FIELD_TYPES, "showing", lambda _field, open_value, _dialect: open_value),
        MASKS,
        "psycopg and gets_masks",
    ),
    "what is masked is not opened": Control(
        _attribute(FIELD_TYPES, "showing", _opening_first), MASKS, "psycopg and not_opened"
    ),
    "masks are not written": Control(
        _attribute("tenantguard.columns.field", "packing", _packing_texts),
        MASKS,
        "psycopg and written_back",
    ),
    "the texts of masks are not written": Control(
        _attribute("tenantguard.columns.masks", "_TEXTS", ()), MASKS, "psycopg and written_back"
    ),
    "who may not read may not search": Control(
        _attribute("tenantguard.columns.sending", "searching", lambda _field, note: note),
        MASKS,
        "psycopg and not_search",
    ),
    "masks are not compared": Control(
        _attribute("tenantguard.columns.masks:Masked", "__eq__", object.__eq__),
        MASKS,
        "would_answer",
    ),
    "a revealing block serves its tenant context": Control(
        _attribute("tenantguard.columns.reading:_Revealed", "to", lambda self, _: self.fields),
        MASKS,
        "serves_the_tenant_context",
    ),
    "sessions forget what may not be read any more": Control(
        _attribute("tenantguard.guard", "has_restricted", _nothing), MASKS, "psycopg and forgets"
    ),
    "queries of columns let sessions forget too": Control(
        _attribute("tenantguard.scoping.sessions:_Pinned", "_is_own", _nothing),
        MASKS,
        "psycopg and query_of_columns",
    ),
    "engines without keys are refused": Control(
        _attribute("tenantguard.columns.types:Encrypted", "bind_processor", _nothing),
        FIELD_KEYS,
        "without_keys",
    ),
    "the generated column is left out": Control(
        _show_generated, FIELD_WRITES, "costs_no_statement"
    ),
    "aliases have the generated column": Control(
        _attribute(FIELD_TYPES, "searched_column", _nothing), FIELD_QUERIES, "uses_the_index"
    ),
    "ciphertext stands only where it may": Control(
        _attribute(FIELD_COMPILER, "_may_stand", lambda *_: True), FIELD_REFUSALS, "questions"
    ),
    "ciphertext is not told apart": Control(
        _attribute("tenantguard.columns.compiler", "refuse_equality", _nothing),
        FIELD_REFUSALS,
        "questions",
    ),
    "columns are not mixed": Control(
        _attribute("tenantguard.columns.compiler", "refuse_mixture", _nothing),
        FIELD_REFUSALS,
        "questions",
    ),
    "written values are values": Control(
        _attribute("tenantguard.columns.written", "_value", lambda _table, _key, value, **_: value),
        FIELD_REFUSALS,
        "would_compute",
    ),
    "copied values are of the same column": Control(
        _attribute("tenantguard.columns.writes_compiler", "check_selected", _nothing),
        FIELD_REFUSALS,
        "would_compute",
    ),
    "one parameter is for one column": Control(
        _attribute("tenantguard.columns.compiler", "_refuse_two_uses", _nothing),
        FIELD_ATTACKS,
        "two_columns",
    ),
    "unknown names are refused": Control(
        _attribute("tenantguard.columns.writes_compiler", "refuse_unknown", _nothing),
        FIELD_ATTACKS,
        "unknown_name",
    ),
    "a key is known by its name in the database": Control(
        _attribute("tenantguard.columns.row_writes", "means", lambda key, own: key == own.key),
        "tests/unit/test_row_bound.py",
        "both_their_names",
    ),
    "keys over ciphertext are refused": Control(
        _attribute("tenantguard.catalog", "check_encrypted", _nothing),
        FIELD_ATTACKS,
        "key_over_ciphertext",
    ),
    "keys are forgotten with the connections": Control(
        _attribute("tenantguard.keystore:Keystore", "forget", _nothing),
        FIELD_ATTACKS,
        "before_the_pool",
    ),
    "lost keys are not made again": Control(
        _attribute("tenantguard.keystore", "has_values", lambda *_: "false"),
        FIELD_ATTACKS,
        "has_lost_them",
    ),
    "a lost keyset is not made again": Control(
        _attribute("tenantguard.keystore", "PURPOSES", ("data",)),
        FIELD_ATTACKS,
        "lost_keyset",
    ),
    "keys are the active tenant's": Control(
        _one_tenants_keys, "tests/db/test_encrypted_race.py", "another_tenants"
    ),
    "PostgreSQL's messages are shortened": Control(
        _attribute("tenantguard.engines.driver_errors", "without_values", _first),
        ERRORS,
        "no_value",
    ),
    "PostgreSQL's details are hidden": Control(
        _attribute("tenantguard.engines", "hide_values", _nothing), ERRORS, "no_value"
    ),
    "what functions raise is hidden": Control(
        _attribute("tenantguard.engines.texts", "_RAISING", frozenset()), ERRORS, "no_value"
    ),
    "psycopg2's diagnostics are hidden": Control(
        _attribute("tenantguard.engines.driver_errors", "_with_own_diagnostics", lambda kind: kind),
        ERRORS,
        "no_value and first_alone",
    ),
    "SQLAlchemy's error around asyncpg's is hidden": Control(
        _attribute("tenantguard.engines.driver_errors", "_hide_in_adapter", _nothing),
        ERRORS,
        "no_value",
    ),
    "drivers' own errors of data are hidden": Control(
        _attribute("tenantguard.engines.driver_errors", "_hide_in_client_error", _nothing),
        ERRORS,
        "cannot_read",
    ),
    "foreign keys are explained": Control(
        _attribute("tenantguard.engines", "explain", _nothing), ERRORS, "foreign_key"
    ),
    "asyncpg's errors hide the value": Control(
        _attribute("tenantguard.engines", "hide_values", _nothing),
        "tests/db/test_canaries.py",
        "plaintext and asyncpg",
    ),
    "keysets are checked": Control(
        _attribute("tenantguard.crypto.keysets", "_checked", lambda keyset, **_: keyset),
        FIELD_KEYS,
        "damaged and check",
    ),
    "keysets are bound to their tenant": Control(
        _attribute("tenantguard.keystore", "keyset_context", _context_without("tenant")),
        FIELD_KEYS,
        "damaged and tenant",
    ),
    "keysets are bound to their environment": Control(
        _attribute("tenantguard.keystore", "keyset_context", _context_without("environment")),
        FIELD_KEYS,
        "environment",
    ),
    "keys that may not last are not cached": Control(
        _attribute("tenantguard.keystore:Keystore", "_query", _keys_query("true", "state")),
        FIELD_KEYS,
        "rolled_back",
    ),
    "destroyed keys are destroyed": Control(
        _attribute(
            "tenantguard.keystore:Keystore", "_query", _keys_query("true", "'active' AS state")
        ),
        FIELD_KEYS,
        "stay_destroyed",
    ),
    "keys are read again": Control(
        _attribute("tenantguard.keystore", "_SECONDS", 1e9), FIELD_KEYS, "forgets_in_time"
    ),
    "a forked child forgets": Control(
        _attribute("tenantguard.keystore:Keystore", "forget", _nothing), FIELD_KEYS, "forked"
    ),
    "changes of keys are told": Control(
        _attribute("tenantguard.cli.keys.changing", "telling", lambda _: "SELECT 1"),
        FOLLOWING,
        "commands_tell and destroy",
    ),
    "keys that are being read are forgotten too": Control(
        _attribute("tenantguard.keystore:Keystore", "forget", _forgets_unnoted),
        FOLLOWING,
        "read_just_before",
    ),
    "keys of an older snapshot are not kept": Control(
        _attribute("tenantguard.keystore:Keystore", "forget", _forgets_as_ever),
        FOLLOWING,
        "older_snapshot",
    ),
    "who follows again forgets": Control(
        _attribute(KEY_FOLLOWER, "_follow", _follows_on), FOLLOWING, "lost_connection"
    ),
    "a forked process does not follow": Control(
        _attribute(KEY_FOLLOWER, "lose_thread", _nothing), FOLLOWING, "forked"
    ),
    "what PostgreSQL says of keys is not shown": Control(
        _attribute("tenantguard.keystore", "_asked", lambda run, query: run(query)),
        FIELD_KEYS,
        "obstacles",
    ),
    # Jobs.
    "an envelope's signature is checked": Control(
        _attribute("tenantguard.crypto.signing:SigningKey", "verifies", lambda *_: True),
        ENVELOPE,
        "another_tenant or another_keys",
    ),
    "an envelope is of one task": Control(
        _attribute("tenantguard.jobs.envelope", "_message", _signed_without("task")),
        ENVELOPE,
        "its_task_only",
    ),
    "an envelope is of one environment": Control(
        _attribute("tenantguard.jobs.envelope", "_message", _signed_without("environment")),
        ENVELOPE,
        "another_environments",
    ),
    "an envelope expires": Control(
        _attribute("tenantguard.jobs.envelope", "_unexpired", lambda envelope: envelope),
        ENVELOPE,
        "expires",
    ),
    "a job starts without the worker's tenant": Control(
        _attribute("tenantguard.jobs.guarded", "no_tenant", nullcontext), JOBS, "observing"
    ),
    "a generator is no task of a job": Control(
        _attribute("tenantguard.jobs.declared", "refuse_generators", _nothing), JOBS, "generator"
    ),
    "work for each tenant has a context of its own": Control(
        _attribute("tenantguard.jobs.tenants", "copy_context", _SameContext),
        JOBS,
        "nothing_is_left",
    ),
    "work for each tenant leaves suspended ones out": Control(
        _attribute(
            "tenantguard.jobs.registered:RegisteredTenants", "_where", lambda _, query: query
        ),
        JOBS,
        "suspended_tenants",
    ),
    "a Celery task of nobody is refused": Control(
        _attribute("tenantguard.integrations.celery:TenantTask", "before_start", _nothing),
        CELERY,
        "message_for_nobody",
    ),
    "a Celery task starts without a tenant": Control(
        _attribute("tenantguard.integrations.celery", "no_tenant", nullcontext), CELERY, "eager"
    ),
    "a Celery task leaves its tenant": Control(
        _attribute("tenantguard.integrations.celery", "_leave", _nothing), CELERY, "ends_with"
    ),
    "an RQ job of nobody is refused": Control(
        _attribute("tenantguard.integrations.rq:TenantJob", "perform", _performs),
        RQ,
        "job_for_nobody",
    ),
    "a tenantless RQ job has no tenant": Control(
        _attribute("tenantguard.integrations.rq", "no_tenant", nullcontext), RQ, "without_a_worker"
    ),
    # The signed setting.
    "a signature is good at the start only": Control(
        _signed_body(
            "_ENTER_BODY",
            "statement_timestamp() IS DISTINCT FROM transaction_timestamp()",
            "false",
        ),
        INJECTION,
        "stolen and later",
    ),
    "a signature is good for seconds": Control(
        _attribute("tenantguard.rls.signed", "_WINDOW", 1000), INJECTION, "stolen and expired"
    ),
    "a signature is one server process's": Control(_any_process, INJECTION, "stolen and process"),
    "a proof is one transaction's": Control(
        _signs_less("timestamptz_send(transaction_timestamp()) || "), INJECTION, "carry_over"
    ),
    "a proof is one tenant's": Control(
        _signs_less(" || convert_to(tenant, 'UTF8')"), INJECTION, "only_named and savepoint"
    ),
    "the floor believes signatures only": Control(
        _unsigned_floor, INJECTION, "only_named and set_config"
    ),
    "the functions have a search path of their own": Control(
        _callers_path, INJECTION, "forged and schema"
    ),
    "the functions' search path is compared": Control(
        _attribute("tenantguard.rls.signing_keys", "_CONFIG", ANY), SIGNED, "differs and search"
    ),
    "the functions' text is compared": Control(
        _attribute("tenantguard.rls.signing_keys", "_same_function", lambda *_: True),
        SIGNED,
        "differs and body",
    ),
    "keys that can be read are found": Control(
        _attribute("tenantguard.rls.signing_keys", "_REACHED", "false"),
        SIGNED,
        "differs and column",
    ),
    "the key that signs is asked for": Control(
        _attribute("tenantguard.rls.verify", "unknown_key", lambda *_: ()),
        SIGNED,
        "differs and without",
    ),
    "a signature is not shown": Control(
        _attribute("tenantguard.binding.entry:Entry", "__call__", _unpadded),
        INJECTION,
        "shows_no_signature",
    ),
    "a signature needs its own connection": Control(
        _attribute("tenantguard.binding.engine", "_is_pooled", lambda *_: False),
        SIGNED,
        "pooler and psycopg2",
    ),
    # Citus.
    "Citus passes the tenant on to its nodes": Control(
        _attribute("tenantguard.guard", "AHEAD", {"postgres": (), "citus": ()}),
        CITUS,
        "pair_rides",
    ),
    "Citus's keys contain the tenant": Control(
        _attribute("tenantguard.rls.citus", "key_faults", lambda *_: ()),
        CITUS_MODELS,
        "keys_without",
    ),
    "Citus has no signed tenants": Control(
        _attribute("tenantguard.catalog:Catalog", "check_dialect", _nothing),
        CITUS_MODELS,
        "citus_cannot_do",
    ),
    "Citus spreads tables by the tenant": Control(
        _attribute("tenantguard.rls.compare", "is_distributed", lambda *_: True),
        CITUS,
        "another_distribution",
    ),
    # Files of generated SQL.
    "files of others are not written over": Control(
        _attribute("tenantguard.cli.rls_files", "is_ours", lambda *_, **__: True),
        RLS_FILES,
        "files_of_others",
    ),
    # The live probe.
    "proving counts no probe whose control stays green": Control(
        _attribute("tenantguard.prove.trial", "_went_red", lambda _: True),
        PROVE,
        "never_goes_red or takes_nothing_away",
    ),
    "proving inserts into the other tenant": Control(
        lambda: _leave_out("insert"), PROVE_FAULTS, "CHECK"
    ),
    "proving upserts onto the other's row": Control(
        lambda: _leave_out("upsert"), PROVE_FAULTS, "upsert"
    ),
    "proving runs a prepared statement for the other": Control(
        lambda: _leave_out("prepared"), PROVE_FAULTS, "IMMUTABLE"
    ),
    "proving reads while no tenant is set": Control(
        lambda: _leave_out("unset"), PROVE_FAULTS, "no and tenant and means"
    ),
    "proving points a foreign key at the other's row": Control(
        _attribute("tenantguard.prove.trial", "_try_crossing", _nothing), PROVE_FAULTS, "foreign"
    ),
    "proving truncates": Control(
        _attribute("tenantguard.prove.trial", "_try_truncate", _nothing), PROVE_FAULTS, "TRUNCATE"
    ),
    "proving names what is not proven": Control(
        _attribute("tenantguard.prove.proof:Proof", "result", property(lambda _: _all_good())),
        PROVE,
        "valid_row",
    ),
    "proving fills the key that an upsert meets": Control(
        _attribute("tenantguard.prove.invent", "open_key", lambda *_: frozenset()),
        PROVE_ZOO,
        "invented and associated",
    ),
    "proving takes the key that can conflict": Control(
        _attribute("tenantguard.prove.probes", "_has_null", lambda *_: False),
        PROVE_ZOO,
        "invented and nullable_circle_a",
    ),
    "proving refuses a login that can prove nothing": Control(
        _attribute("tenantguard.prove.database", "check_admin", _nothing),
        PROVE,
        "application_itself",
    ),
    "proving ends with 2 when the connection is lost": Control(
        _attribute("tenantguard.prove.prove", "_unpooled", lambda _: nullcontext()),
        PROVE,
        "lost_connection",
    ),
    "proving keeps nothing": Control(_keep_what_was_tried, PROVE_ZOO, "remains"),
    # What goes past policies.
    "who reaches a view is asked by name": Control(
        _attribute("tenantguard.check.relations", "_REACHES", "false"),
        CHECK_RELATIONS,
        "is_found and view",
    ),
    "a parent of a guarded table is looked at": Control(
        _attribute("tenantguard.check.relations", "_ANCESTORS", _NO_ANCESTORS),
        CHECK_RELATIONS,
        "is_found and parent",
    ),
    "a function's search path is looked at": Control(
        _attribute("tenantguard.check.functions", "is_pinned", lambda *_: True),
        CHECK_FUNCTIONS,
        "is_found and temporary",
    ),
    "names in policies' functions are read": Control(
        _attribute("tenantguard.check.helpers", "unqualified", lambda _: []),
        CHECK_FUNCTIONS,
        "is_found and helper-search-path",
    ),
    "generated lookups are compared": Control(
        _attribute("tenantguard.check.own_functions", "is_lookup", lambda *_: True),
        CHECK_FUNCTIONS,
        "is_found and lookup-changed and owner",
    ),
    "privileges on columns count": Control(
        _attribute("tenantguard.check.grants", "_OF_COLUMNS", "('')"),
        CHECK_GRANTS,
        "is_found and excess and column",
    ),
    # Migrations.
    "a downgrade keeps protection without its flag": Control(
        _attribute(f"{ALEMBIC}.operation", "_refuse", _nothing), MIGRATIONS, "needs_the_flag"
    ),
    "a migration's data statement for nobody is an error": Control(
        _attribute(f"{ALEMBIC}.configure", "_watch", _nothing), MIGRATED_DATA, "for_nobody"
    ),
    "also outside of a transaction": Control(
        _attribute(f"{ALEMBIC}.configure", "autocommits", lambda _: False),
        MIGRATED_DATA,
        "for_nobody and autocommit",
    ),
    "the script of a migration has the same": Control(
        _attribute(f"{ALEMBIC}.configure", "_watch_script", _nothing), MIGRATED_DATA, "script_has"
    ),
    "a tenant of a migration sees itself alone": Control(
        partial(_believes, "seen IS DISTINCT FROM ARRAY[tenant]"), MIGRATED_DATA, "shows_more"
    ),
    "a migration finds the tenants": Control(
        partial(_believes, "cardinality(tenants) = 0"), MIGRATED_DATA, "sees_no_tenant"
    ),
    "a failed block does not stay the maintenance role": Control(
        _attribute(f"{ALEMBIC}.data", "_undone_on_error", nullcontext),
        MIGRATED_DATA,
        "does_not_leave",
    ),
    "the maintenance role of a migration takes a reason": Control(
        _attribute(f"{ALEMBIC}.data", "_require", _nothing), MIGRATED_DATA, "needs_a_reason"
    ),
    "autogenerate sees the second lock": Control(
        _attribute(f"{ALEMBIC}.compare", "missing_operations", lambda *_, **__: []),
        AUTOGENERATE,
        "is_seen",
    ),
    "autogenerate compares after Alembic's own": Control(
        _attribute(f"{ALEMBIC}_plugin:_Plugin", "setup", _set_up_first),
        AUTOGENERATE,
        "nothing_is_left",
    ),
    "a migration is not written for a database that is behind": Control(
        _attribute(f"{ALEMBIC}.revision", "_refuse_old", _nothing), REVISION, "behind"
    ),
    "a migration's data statements are found": Control(
        _attribute("tenantguard.migrate.data_statements", "written_by", _nothing),
        DATA_STATEMENTS,
        "statement_is_found",
    ),
    # The check of keys and indexes.
    "the check counts the rows that cross": Control(
        _attribute("tenantguard.check.keys", "crossing_findings", lambda *_: ()),
        CHECK_KEYS,
        "validated_under_force",
    ),
    "rows that the check cannot see are no zero": Control(
        _attribute("tenantguard.check.sight", "_hidden_from", lambda *_: set()),
        CHECK_KEYS,
        "nobody_sees",
    ),
    "unique keys are looked for the tenant": Control(
        _attribute(
            "tenantguard.check.uniques", "_distinct", lambda _, entry: set(entry.table.c.keys())
        ),
        CHECK_KEYS,
        "fault_is_found and unique and constraint",
    ),
    "a plan is made as the application": Control(
        _attribute("tenantguard.check.leakproof", "as_application", lambda *_: nullcontext()),
        CHECK_INDEXES,
        "fault_is_found and enum",
    ),
    "an index is known by what it looks up": Control(
        _attribute("tenantguard.check.leakproof", "_serves_as_well", lambda *_: False),
        CHECK_INDEXES,
        "no_policy_applies",
    ),
    "a policy's comparison stands alone": Control(
        _attribute("tenantguard.check.predicates", "_is_served", lambda _: True),
        CHECK_INDEXES,
        "fault_is_found and OR",
    ),
    # Key-encryption keys in a service.
    "an envelope is bound to its tenant": Control(
        _attribute("tenantguard.kms.envelope", "_bound", lambda head, _: head),
        KEY_ENVELOPE,
        "other_associated_data",
    ),
    "a service does not stop the event loop": Control(
        _attribute("tenantguard.kms.flights", "_on_loop", lambda: False),
        KEY_SERVICES,
        "event_loop_goes_on and asyncpg",
    ),
    "a forked process waits for no thread of its parent": Control(
        _attribute("tenantguard.kms.flights", "forget_after_fork", _nothing),
        KEY_ENVELOPE,
        "forked_process_asks",
    ),
    "a service that is down is no lost keyset": Control(
        _attribute("tenantguard.cli.keys.opening", "require_answer", _nothing),
        KEY_SERVICES,
        "no_finding and rewrap",
    ),
    "a token goes to the right server": Control(
        _attribute("tenantguard.kms.vault", "require_address", lambda _, address: address),
        KEY_VAULT,
        "has_to_be_encrypted",
    ),
    # Reports, and what is accepted.
    "what was not looked at is not green": Control(
        _attribute("tenantguard.report.report:Report", "complete", property(lambda _: True)),
        REPORT,
        "counts_for_more",
    ),
    "an exemption ends": Control(
        _attribute("tenantguard.report.exemptions:Exemption", "ended", lambda *_: False),
        ACCEPTANCE,
        "last_day",
    ),
    "an exemption is of one object": Control(
        _attribute("tenantguard.report.exemptions:Exemption", "fits", lambda *_: True),
        ACCEPTANCE,
        "one_rule_at_one_object",
    ),
    "a name does not speak to the terminal": Control(
        _attribute("tenantguard.report.as_text", "_line", str), REPORT, "control_character"
    ),
    "what a diff does not understand is weaker": Control(
        _attribute("tenantguard.report.script_changes", "_unread", lambda *_: ()),
        RLS_DIFF,
        "weakens_is_weaker",
    ),
    "a policy of a diff is the generator's": Control(
        _attribute("tenantguard.report.script_policies", "_compared", lambda *_: None),
        RLS_DIFF,
        "weakens_is_weaker",
    ),
    "a new table of a diff is held": Control(
        _attribute("tenantguard.report.script_new:New", "judged", lambda *_: ()),
        RLS_DIFF,
        "new_table",
    ),
    "a check migrates its own server": Control(
        _attribute("tenantguard.integrations.alembic_upgrade", "_OTHER_WAYS", set()),
        RLS_CHECK,
        "only_the_socket",
    ),
    "a lost connection ends the check": Control(
        _attribute("tenantguard.check.examine", "is_lost", lambda _: False),
        RLS_CHECK,
        "lost_connection",
    ),
    "a lost connection is lost for every rule": Control(
        _attribute("tenantguard.check.subject", "is_lost", lambda _: False),
        RLS_CHECK,
        "lost_connection and unnoticed",
    ),
    "a lock is waited for once": Control(
        _attribute("tenantguard.check.subject", "LOCK_NOT_AVAILABLE", "none"),
        RLS_CHECK,
        "waited_for_once",
    ),
    "a changed floor does not hold": Control(
        _attribute("tenantguard.check.policies", "floors_hold", lambda *_: True),
        CHECK_POLICIES,
        "said_to_hold",
    ),
    "committed SQL is compared": Control(
        _attribute("tenantguard.cli.committed", "_differences", lambda *_: ()),
        RLS_CHECK,
        "differs_names_the_table",
    ),
    # Encrypting what exists.
    "long runs look their keys up again": Control(
        _attribute("tenantguard.encrypt.passes", "is_fresh", lambda _: True),
        "tests/encrypt/test_migrate.py",
        "looked_up_again",
    ),
    "hidden rows are missed": Control(
        _attribute("tenantguard.encrypt.verifying", "_hidden", lambda *_: 0),
        "tests/encrypt/test_migrate.py",
        "not_seen",
    ),
    "a value that was changed meanwhile is not overwritten": Control(
        _attribute("tenantguard.encrypt.batches", "_unchanged", lambda *_: ()),
        "tests/encrypt/test_rewrite.py",
        "changed_since",
    ),
    "values are written under policies only": Control(
        _attribute("tenantguard.encrypt.entering:Access", "_require_policies", _nothing),
        "tests/encrypt/test_rewrite.py",
        "row_level_security",
    ),
    "plaintext that changes alone is sealed anew": Control(
        _attribute("tenantguard.encrypt.triggers", "_forgetting", lambda *_: ""),
        "tests/encrypt/test_migrate.py",
        "applications_change",
    ),
    "plaintext is written with its sealed value": Control(
        _attribute("tenantguard.columns.pair_writes", "refuse_plaintext_alone", _nothing),
        BOTH,
        "plaintext_alone and update",
    ),
    "plaintext has a value to seal beside it": Control(
        _attribute("tenantguard.columns.pair_writes:PairBinds", "check", _nothing),
        BOTH,
        "plaintext_alone and constructor",
    ),
    "plaintext that is not sealed yet is masked": Control(
        _attribute("tenantguard.columns.pair_attribute", "may_read", lambda *_: True),
        BOTH,
        "mask_is_not_replaced",
    ),
    "a flush writes both columns of a migration": Control(
        _attribute("tenantguard.columns.pair_attribute", "write_both", _nothing),
        BOTH,
        "writes_both_or_nothing",
    ),
    "what is merged is written into both columns": Control(
        _attribute("tenantguard.columns.pair_attribute", "merge_both", _nothing),
        "tests/encrypt/test_both_objects.py",
        "object_of_before",
    ),
    "a compound of before is not merged": Control(
        _attribute("tenantguard.columns.compound_objects:_Compound", "is_given", lambda *_: True),
        COMPOUND,
        "merged_when_a_part",
    ),
    "a compound does not outlast its parts": Control(
        _attribute("tenantguard.columns.compound_objects:_Follower", "_forget_with", _nothing),
        COMPOUND,
        "forgotten_with",
    ),
    "each table of a bulk write is its own": Control(
        _attribute("tenantguard.columns.writes_compiler", "written_table", lambda each: each.table),
        COMPOUND,
        "subclasses_in_bulk",
    ),
    "a check that does not hold is dropped again": Control(
        _drops_no_check,
        "tests/encrypt/test_migrate.py",
        "leaves_no_check",
    ),
    "plaintext is compared before it is dropped": Control(
        _attribute("tenantguard.cli.encrypt.migrate", "failures", lambda *_: 0),
        "tests/encrypt/test_migrate.py",
        "verify_finds",
    ),
    "rows that stay locked are told": Control(
        _attribute("tenantguard.encrypt.batches:Batch", "count", lambda *_: 0),
        "tests/encrypt/test_migrate.py",
        "stays_locked",
    ),
    "plaintext is not sent back": Control(
        _sends_plaintext_back, "tests/encrypt/test_migrate.py", "not_sent_back"
    ),
    "frequencies that tell values are a finding": Control(
        _attribute("tenantguard.encrypt.leaks", "frequencies_tell", lambda *_: False),
        LEAKS,
        "frequent_names",
    ),
    "old statistics are not believed": Control(
        _attribute("tenantguard.encrypt.statistics", "_unusable", _nothing), LEAKS, "old_statistics"
    ),
    "plaintext is compared before a migration that drops it is written": Control(
        _attribute("tenantguard.cli.encrypt.revision", "failures", lambda *_: 0),
        ENCRYPT_REVISIONS,
        "not_written_unless",
    ),
    "a migration drops no plaintext that is not sealed": Control(
        _attribute(f"{ALEMBIC}.requiring:RequireSealed", "statements", lambda _: ()),
        ENCRYPT_REVISIONS,
        "is_not_sealed",
    ),
    "a migration drops no column that no trigger has watched": Control(
        _attribute(f"{ALEMBIC}.requiring:_WithTriggers", "_without_triggers", lambda *_: ""),
        ENCRYPT_REVISIONS,
        "no_trigger_has",
    ),
    "a downgrade drops no value that is sealed alone": Control(
        _attribute(f"{ALEMBIC}.requiring:RequirePlaintext", "statements", lambda _: ()),
        ENCRYPT_REVISIONS,
        "does_not_lose",
    ),
    "a migration's steps are transactions of their own": Control(
        _attribute(f"{ALEMBIC}.transactions", "_commit", _nothing),
        ENCRYPT_REVISIONS,
        "holds_the_lock",
    ),
    # Flask.
    "a request without a tenant is refused": Control(
        _attribute("tenantguard.guard:TenantGuard", "refuses", lambda *_: False), FLASK
    ),
    "a request leaves its tenant": Control(
        _attribute("tenantguard.integrations.flask", "_own_context", lambda app: app), FLASK
    ),
    # Starlette.
    "a Starlette request starts without a tenant": Control(
        _attribute(MIDDLEWARE, "no_tenant", nullcontext), STARLETTE, "starts_without"
    ),
    "a Starlette request without a tenant is refused": Control(
        _attribute("tenantguard.guard:TenantGuard", "refuses", lambda *_: False),
        STARLETTE,
        "refused_before",
    ),
    "only public paths are public": Control(
        _attribute(f"{MIDDLEWARE}:TenantMiddleware", "_is_public", lambda *_: True),
        STARLETTE,
        "looks_public",
    ),
    "Starlette answers what the guard refuses": Control(
        _attribute(MIDDLEWARE, "_FORBIDDEN", ()), STARLETTE, "become_answers"
    ),
    "an answer that has begun is the last": Control(
        _attribute(f"{MIDDLEWARE}:_Answering", "__call__", _passes_message), STARLETTE, "begun"
    ),
    "a user who is not authenticated is nobody": Control(
        _attribute(f"{MIDDLEWARE}:_RequestView", "user", property(_any_user)), STARLETTE, "user_of"
    ),
    "the database is verified": Control(
        _attribute("tenantguard.guard:TenantGuard", "_verify", _nothing), GUARD, "is_refused"
    ),
    "compiled statements are forgotten": Control(
        _attribute("tenantguard.guard", "forget_compiled", _nothing), GUARD, "compiled_before"
    ),
    "the system engine is guarded": Control(
        _attribute("tenantguard.guard", "_require_system_access", _nothing), GUARD, "system_access"
    ),
    "PostgreSQL's refusals are translated": Control(
        _attribute("tenantguard.guard", "translate_refusals", _nothing), WRITES
    ),
}


def _reads() -> Any:
    from tenantguard.scoping.reads import Reads  # noqa: PLC0415

    return Reads()


def pytest_configure() -> None:
    name = os.environ.get("TENANTGUARD_REMOVED")
    if name:
        CONTROLS[name].remove()
