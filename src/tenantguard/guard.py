"""TenantGuard: the only place where the parts meet."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, cast
from weakref import WeakSet

from sqlalchemy import Engine, event
from sqlalchemy.orm import Session

from tenantguard import rls
from tenantguard.binding import (
    AHEAD,
    Binding,
    bind_engine,
    refuse_driver,
    registry_query,
    sql_literal,
)
from tenantguard.caching import tenant_key
from tenantguard.catalog import Catalog, Roles
from tenantguard.columns.execution import attach_encryption
from tenantguard.columns.guarded import GuardedReading, Unopened
from tenantguard.columns.masks import UNREADABLE
from tenantguard.columns.reading import reading_now
from tenantguard.columns.restricted import forget_restricted, has_restricted
from tenantguard.columns.row_keys import check_row_keys
from tenantguard.context import (
    TenantId,
    active_tenant,
    in_system_access,
    in_unscoped_text,
    system_context,
    tenant_context,
    unscoped_text,
)
from tenantguard.engines import engines_of, hide_parameters, translate_refusals
from tenantguard.errors import (
    ConfigurationError,
    CrossTenantError,
    PolicyDriftError,
    TenantNotSetError,
    UnknownTenantError,
    UnsafeRoleError,
)
from tenantguard.following import GuardedKeys
from tenantguard.identity import IdentityQuery, TenantQuery, declare_lookup, declare_tenant_lookup
from tenantguard.jobs.guarded import GuardedJobs
from tenantguard.keystore import Keystore
from tenantguard.registry import Registry
from tenantguard.scoping import (
    Scope,
    attach,
    forget_compiled,
    set_scope,
    watch_sessions,
    watch_streams,
)
from tenantguard.scoping.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, MetaData
    from sqlalchemy.ext.asyncio import AsyncEngine

    from tenantguard.caching import CacheKeyPart
    from tenantguard.catalog import Dialect
    from tenantguard.crypto.keyfile import KeyProvider
    from tenantguard.crypto.signing import SigningFile

__all__ = ["Mode", "TenantGuard"]

Mode = Literal["off", "observe", "enforce"]

_LOG = logging.getLogger("tenantguard")
_GUARDED = "_tenantguard"


class TenantGuard(GuardedJobs, GuardedKeys, GuardedReading):
    """The tenant isolation of one application.

    Args:
        metadata: The application's tables; read, never changed.
        tenants: The registry table: one row a tenant, primary key of one column.
        tenant_column: Name of the tenant column in the database.
        tenant_columns: The same for tables that differ, by table name.
        shared: Tables that all tenants read and none writes, each with the reason.
        untenanted: Tables that no tenant needs, each with the reason.
        roles: Names of the PostgreSQL roles.
        mode: `enforce`; `observe` binds the tenant, counts and logs, but changes and refuses
            nothing; `off` does nothing at all.
        system_engine: An engine of a login of its own, for `system_access`.
        suspended: A condition on the registry's columns that says which tenants are suspended,
            such as `Practice.suspended_at.is_not(None)`; their transactions are refused, at the
            latest 30 seconds after the registry says so.
        keys: Where the key-encryption key of encrypted columns is, such as `KeyFile(…)`.
        signing: The keys that sign what the application tells its workers and PostgreSQL, such as
            `SigningFile(…)`.
        signed_setting: Let row-level security believe a tenant only with a signature, so that
            injected SQL cannot change it.
        dialect: `citus` for a database that Citus distributes by tenant; it has no signed setting.

    Raises:
        ConfigurationError: If a role has no name of its own, the mode or the dialect is unknown, or
            there is no key for a signed setting, or nothing that could verify it. What depends on
            the MetaData is checked by `protect`, when all models are imported.
    """

    def __init__(
        self,
        metadata: MetaData,
        *,
        tenants: str,
        tenant_column: str = "tenant_id",
        tenant_columns: Mapping[str, str] | None = None,
        shared: Mapping[str, str] | None = None,
        untenanted: Mapping[str, str] | None = None,
        roles: Roles | None = None,
        mode: Mode = "enforce",
        system_engine: Engine | AsyncEngine | None = None,
        suspended: ColumnElement[bool] | None = None,
        keys: KeyProvider | None = None,
        signing: SigningFile | None = None,
        signed_setting: bool = False,
        dialect: Dialect = "postgres",
    ) -> None:
        if mode not in ("off", "observe", "enforce"):
            raise ConfigurationError("TenantGuard(mode=…) takes 'off', 'observe' or 'enforce'.")
        if signed_setting and signing is None:
            raise ConfigurationError(
                "TenantGuard(signed_setting=True) needs signing=SigningFile(FILE, "
                "environment=NAME). `tenantguard keys signing init FILE --environment NAME` makes "
                "the file."
            )
        self.catalog = Catalog(
            metadata,
            tenants,
            tenant_column,
            dict(tenant_columns or {}),
            dict(shared or {}),
            dict(untenanted or {}),
        )
        self.roles = roles or Roles()
        self.mode: Mode = mode
        self.observations = Observer()
        self.counts: Counter[str] = Counter()
        self._lock = Lock()
        self._listeners, self._unopened = [], Unopened()
        self._keystores = WeakSet()
        self._registry = Registry(suspends=suspended is not None)
        self._suspended = suspended
        self.keys = keys
        self.signing = signing
        self.catalog.signed, self.catalog.dialect = signed_setting, dialect
        self.catalog.check_dialect()
        self._system_engine = system_engine
        if system_engine is not None and mode != "off":
            self._guard_system(*engines_of(system_engine))

    def __repr__(self) -> str:
        return f"<TenantGuard tenants={self.catalog.tenants!r} mode={self.mode!r}>"

    # -- tenants ------------------------------------------------------------------------------

    @contextmanager
    def tenant_context(
        self, tenant: TenantId, *, actor: str | None = None, purpose: str | None = None
    ) -> Iterator[None]:
        """Act for *tenant* inside the block; a malformed id is refused at once.

        *actor* and *purpose* are those of `tenantguard.tenant_context`.

        Raises:
            UnknownTenantError: If *tenant* does not have the type of the registry's primary key.
        """
        try:
            canonical = self.catalog.canonical(tenant)
        except UnknownTenantError as error:
            if self.refuses(str(error)):
                raise
            canonical = tenant
        with tenant_context(canonical, actor=actor, purpose=purpose):
            yield

    def refuses(self, message: str) -> bool:
        """Return whether to refuse what *message* says; when observing, count it instead."""
        if self.mode == "observe":
            self.observations("refused", message)
        return self.mode == "enforce"

    def cache_key(self, *parts: CacheKeyPart) -> str:
        """Return a key for a cache that tenants share: that of *parts* for the active tenant.

        Keys of different tenants are never the same. The key shows neither the tenant nor the
        parts; who knows them can compute it, so it is no secret. The keys of one tenant begin
        alike. It serves as dogpile.cache's key mangler: `make_region(key_mangler=guard.cache_key)`.

        Raises:
            TenantNotSetError: If no tenant is active.
            UnknownTenantError: If the tenant does not have the type of the registry's primary key.
            ConfigurationError: If a part is not a str, bytes, int or UUID.
        """
        tenant = self._tenant_text()
        if tenant is None:
            message = (
                "A cache key was asked for and no tenant is active. Wrap the work in "
                "`with tenant_context(tenant_id):`; what all tenants may see belongs into a cache "
                "of its own."
            )
            if self.refuses(message):
                raise TenantNotSetError(message)
        return tenant_key(tenant or "", parts)

    @contextmanager
    def system_access(self, *, reason: str) -> Iterator[Any]:
        """Yield the system engine as it was given; inside the block no tenant can be active.

        Raises:
            ConfigurationError: If the guard has no system engine, or *reason* is empty.
            CrossTenantError: If a tenant is active.
        """
        if self._system_engine is None:
            raise ConfigurationError(
                "system_access() needs TenantGuard(system_engine=…): an engine of a login of its "
                "own that is granted the maintenance role."
            )
        with system_context(reason):
            self._count("system_access")
            _LOG.info("System access: %s", reason)
            yield self._system_engine

    @contextmanager
    def unscoped_text(self, *, reason: str) -> Iterator[None]:
        """Let SQL text and driver cursors pass inside the block where nothing can hold them.

        That is where a table has no tenant column of its own, so that row-level security does not
        cover it. Elsewhere it changes nothing.

        Raises:
            ConfigurationError: If *reason* is empty.
        """
        with unscoped_text(reason):
            self._count("unscoped_text")
            _LOG.info("SQL text beside row-level security: %s", reason)
            yield

    def identity_lookup(
        self,
        model: Any,
        *,
        by: str,
        secret: str = "password_hash",  # noqa: S107  (a column's name)
    ) -> IdentityQuery:
        """Declare the one question that sign-in asks before a tenant is known.

        `tenantguard rls sql` then contains a function that answers one key of *by* with the row's
        primary key, tenant and secret, and nothing else.

        Args:
            model: A mapped class or Table with a tenant column.
            by: The column asked for; unique over all tenants.
            secret: The column with the password's hash.

        Raises:
            ConfigurationError: If a column is missing, or *by* is not unique.
        """
        lookup = declare_lookup(self.catalog, model, by=by, secret=secret)
        self.catalog.lookups.append(lookup)
        return IdentityQuery(lookup, lambda: self._count("identity_lookup"))

    def tenant_lookup(self, model: Any, *, by: str) -> TenantQuery:
        """Declare the question which tenant a name means, such as a subdomain's.

        `tenantguard rls sql` then contains a function that answers one key of *by* with the
        tenant's id, and nothing else.

        Args:
            model: The mapped class or Table of the registry.
            by: The column asked for; unique.

        Raises:
            ConfigurationError: If *model* is not the registry, or *by* is missing or not unique.
        """
        lookup = declare_tenant_lookup(self.catalog, model, by=by)
        self.catalog.lookups.append(lookup)
        return TenantQuery(lookup, lambda: self._count("tenant_lookup"))

    def create_keys(self, connection: Connection | Session, tenant: TenantId) -> bool:
        """Make the keys of *tenant*, unless it has them; return whether they were made.

        Without it they are made with the tenant's first encrypted value, at the cost of a few round
        trips then. Call it in the transaction that adds the tenant to the registry:
        `with guard.system_access(reason=…) as engine, engine.begin() as connection:`.

        Raises:
            ConfigurationError: If the guard has no keys=.
            UnknownTenantError: If *tenant* does not have the type of the registry's primary key.
            KeyUnavailableError: If the keys cannot be made; the message says why.
        """
        text = self.catalog.text(self.catalog.canonical(tenant))
        bound = connection.connection() if isinstance(connection, Session) else connection
        options = {"no_parameters": True}

        def run(query: str) -> Sequence[Any]:
            result = bound.exec_driver_sql(query, execution_options=options)
            return result.fetchall() if result.returns_rows else ()

        return self._open_keystore().create(run, text)

    def _open_keystore(self) -> Keystore:
        """Return a keystore, once the key-encryption key was read; each database has its own."""
        if self.keys is None:
            raise ConfigurationError(
                "Encrypted columns need a key, and TenantGuard has no keys=. Make one with "
                "`tenantguard keys init FILE --environment NAME`, and pass "
                "keys=KeyFile(FILE, environment=NAME)."
            )
        _ = self.keys.kek, self.keys.uri
        return self._noted(Keystore(self.keys, catalog=self.catalog, tenant=self._tenant_text))

    def _count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1

    # -- engines ------------------------------------------------------------------------------

    def protect(self, target: Any, *, show_parameters: bool = False) -> None:
        """Put the first and second lock onto *target*. Calling it again changes nothing.

        Args:
            target: An Engine or AsyncEngine, a sessionmaker that has a bind, or
                Flask-SQLAlchemy's `db` (inside an application context).
            show_parameters: Let SQLAlchemy's errors and logs show parameters, values included.

        Raises:
            ConfigurationError: If *target* is not protectable, its driver is not supported, the
                configuration does not fit the MetaData, or another guard protects it already.
        """
        if self.mode == "off":
            return
        self.catalog.check()
        check_row_keys(self.catalog.metadata)
        if self.mode == "observe" and self.catalog.encrypts:
            raise ConfigurationError(
                "Encrypted columns need mode='enforce': observing, a tenant's statement could "
                "reach another's row and seal it with the wrong key. Isolate the application first."
            )
        for engine in engines_of(target):
            self._protect_engine(engine, show_parameters=show_parameters)

    def protects(self, engine: Engine | AsyncEngine) -> bool:
        """Return whether *engine* has this guard's locks."""
        return all(getattr(each.dialect, _GUARDED, None) is self for each in engines_of(engine))

    def _works_with(self, engine: Engine) -> bool:
        system = getattr(self._system_engine, "sync_engine", self._system_engine)
        return engine is system or hasattr(engine.dialect, _GUARDED)

    def _protect_engine(self, engine: Engine, *, show_parameters: bool) -> None:
        owner = getattr(engine.dialect, _GUARDED, None)
        if owner is self:
            return
        if owner is not None:
            raise ConfigurationError(
                "Another TenantGuard protects this engine already. One engine has one guard."
            )
        if self._works_with(engine):
            raise ConfigurationError(
                "The system engine cannot be protected: it exists to act without a tenant."
            )
        keystore = self._open_keystore() if self.keys or self.catalog.encrypts else None
        proof = _Proof()

        def verify(connection: Any, first: bool) -> None:  # noqa: FBT001
            if first and keystore is not None:
                # Another server, perhaps, or another state of the same.
                keystore.forget()
            self._verify(connection, first, proof=proof)

        refuse_driver(engine)
        if keystore is not None:
            event.listen(engine, "invalidate", lambda *_: keystore.forget())
            attach_encryption(engine.dialect, keystore.keys_for)
            setattr(engine.dialect, UNREADABLE, self._note_unopened)
        self._bind(engine, verify=verify, text_allowed=self._text_allowed)
        self._scope(engine, text_allowed=lambda: proof.holds and self._text_allowed())
        setattr(engine.dialect, _GUARDED, self)
        hide_parameters(engine, hide=not show_parameters, guarded=self._is_guarded)

    def _bind(
        self,
        engine: Engine,
        *,
        verify: Callable[[Any, bool], None],
        text_allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        table, key = self.catalog.registry_key()
        binding = Binding(
            tenant=self._tenant_text,
            unknown=lambda tenant: self.mode == "enforce" and self._registry.is_unknown(tenant),
            answered=self._registry.answered,
            registry_query=registry_query(table, key, self._suspended),
            vouches=lambda context: not getattr(context.compiled, "has_text", True),
            text_allowed=text_allowed,
            observe=self.observations if self.mode == "observe" else None,
            entering=self._entering(),
            ahead=AHEAD[self.catalog.dialect],
        )
        bind_engine(engine, binding, verify=verify)

    def _entering(self) -> Callable[[str, int, int], str] | None:
        """Return how a tenant is entered by a signature, once the keys were read."""
        # Observing, the database need not have what verifies a signature.
        if not self.catalog.signed or self.mode == "observe":
            return None
        key, function = self.signing_keys().primary, rls.enter_function(self.catalog)

        def entering(tenant: str, process: int, at: int) -> str:
            token = rls.entry_token(key, tenant, process=process, at=at)
            return f"SELECT {function}({sql_literal(token)})"

        return entering

    def _scope(self, engine: Engine, *, text_allowed: Callable[[], bool]) -> None:
        scope = Scope(
            catalog=self.catalog,
            tenant=self._tenant,
            text_allowed=text_allowed,
            observe=self.observations if self.mode == "observe" else None,
            reading=reading_now if has_restricted(self.catalog.metadata) else None,
            forget=forget_restricted,
        )
        attach(engine.dialect, scope)
        forget_compiled(engine)
        watch_sessions()
        if self.mode == "enforce":
            translate_refusals(engine)

    def _guard_system(self, engine: Engine) -> None:
        """Refuse *engine* outside system access: connections, statements and sessions."""
        hide_parameters(engine, hide=True)
        event.listen(engine, "checkout", _require_system_access)
        event.listen(engine, "before_cursor_execute", _require_system_access)
        scope = Scope(self.catalog, tenant=_require_system_access, text_allowed=bool, system=True)
        set_scope(engine.dialect, scope)
        watch_sessions()
        watch_streams(engine.dialect, scope)

    def _verify(self, connection: Any, first: bool, *, proof: _Proof) -> None:  # noqa: FBT001
        """Raise unless the second lock holds for *connection*'s role."""
        if first:
            key = self.signing_keys().primary.id if self.catalog.signed else None
            findings = rls.verify(connection, self.catalog, self.roles, key)
        else:
            findings = rls.verify_role(connection, self.catalog, self.roles)
        if not findings:
            proof.holds = True
            return
        if self.mode == "observe":
            for finding in findings:
                self.observations(finding.code, finding.message)
            return
        text = "; ".join(f"{finding.message} Mend: {finding.mend}" for finding in findings[:5])
        more = f" … and {len(findings) - 5} more" if len(findings) > 5 else ""  # noqa: PLR2004
        unsafe = any(finding.code.startswith(("role-", "setting-")) for finding in findings)
        error = UnsafeRoleError if unsafe else PolicyDriftError
        raise error(f"Row-level security does not hold on this connection: {text}{more}")

    def _text_allowed(self) -> bool:
        return not self.catalog.application_only or in_unscoped_text()

    def _is_guarded(self, table: str) -> bool:
        return any(entry.name == table and entry.owned for entry in self.catalog)

    def _tenant(self) -> TenantId:
        active = active_tenant()
        if active is None:
            if in_system_access():
                raise CrossTenantError(
                    "A protected engine was used inside system_access(). Use the engine that "
                    "system_access() yields."
                )
            raise TenantNotSetError(
                "Tenant data, or SQL text that may ask for it, was sent and no tenant is active. "
                "Wrap the work in `with tenant_context(tenant_id):`, or let the framework adapter "
                "resolve it. A health check needs none when it sends select(1)."
            )
        if active.owner is not self:
            canonical = self.catalog.canonical(active.given)
            active.canonical, active.text = canonical, self.catalog.text(canonical)
            active.owner = self
        return cast("TenantId", active.canonical)

    def _tenant_text(self) -> str | None:
        active = active_tenant()
        if active is None:
            return None
        try:
            self._tenant()
        except UnknownTenantError as error:
            if self.refuses(str(error)):
                raise
            return None
        return active.text


class _Proof:
    """Whether the second lock was proven to hold on one engine."""

    holds = False


def _require_system_access(*_: Any) -> str:
    if not in_system_access():
        raise CrossTenantError(
            "The system engine was used outside system_access(). Wrap the work in "
            "`with guard.system_access(reason=…) as engine:`."
        )
    return "system"
