"""The tables of one database, tried one after the other on one connection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tenantguard.catalog import SETTING, Kind
from tenantguard.findings import Finding
from tenantguard.prove.admin import check_admin, reason_with_mend
from tenantguard.prove.case import Case
from tenantguard.prove.invent import Inventor, NotProvableError, Owned
from tenantguard.prove.proof import State, TableProof, summed
from tenantguard.prove.shape import read_shape
from tenantguard.prove.tenants import KEPT, entering, existing_tenants
from tenantguard.prove.trial import tried
from tenantguard.rls.generate import entries
from tenantguard.rls.names import target_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Catalog, Entry, Roles
    from tenantguard.prove.proof import Samples
    from tenantguard.prove.session import Session
    from tenantguard.prove.shape import Table
    from tenantguard.prove.trial import Tried
    from tenantguard.rls.signed import SigningKey
    from tenantguard.rls.step import Target

__all__ = ["Database"]


class Database:
    """The tables of one database, tried one after the other on one connection."""

    def __init__(
        self,
        session: Session,
        catalog: Catalog,
        roles: Roles,
        samples: Samples,
        signing_key: SigningKey | None,
    ) -> None:
        self._session = session
        self._catalog = catalog
        self._roles = roles
        self._samples = samples
        self._key = signing_key
        self._registry = target_of(catalog.registry)
        self._owned = _owned(catalog)
        self._left: set[str] = set()
        self._chosen: tuple[str, ...] = ()
        with session.transaction("SET LOCAL search_path = pg_catalog;"):
            check_admin(session, roles.application, list(self._owned.columns))
            self._shape = read_shape(session.run, roles.application)

    def of(self, entry: Entry) -> TableProof:
        """Return what is known of *entry*'s table."""
        name = ".".join(target_of(entry))
        if entry.kind is Kind.CHILD:
            return TableProof(name, State.APPLICATION_ONLY, reasons=(entry.reason,))
        if entry.column is None:
            return TableProof(
                name,
                State.NOT_PROVEN,
                reasons=("It is unclassified. `tenantguard tables` says how to classify it.",),
            )
        start = time.perf_counter()
        result, reasons = self._tried(target_of(entry), entry.column.name)
        return summed(name, result, reasons, time.perf_counter() - start)

    def left_over(self) -> Iterator[Finding]:
        """Yield a finding if a tenant was set before any was, or after a transaction had ended."""
        self._look_for_rest()
        for each in sorted(self._left):
            yield Finding(
                "prove-left-over",
                None,
                f"{each.capitalize()} a transaction the setting of the tenant has a value.",
                "Reset it where it is set: ALTER ROLE … RESET, ALTER DATABASE … RESET, or the "
                "address's options=.",
            )

    def _tried(self, target: Target, column: str) -> tuple[Tried | None, tuple[str, ...]]:
        try:
            return self._try(target, column), ()
        except NotProvableError as error:
            return None, (str(error),)
        except Exception as error:  # noqa: BLE001  (whatever it is, it must not look green)
            return None, (reason_with_mend(error),)

    def _try(self, target: Target, column: str) -> Tried:
        session, table = self._session, self._table(target)
        self._look_for_rest()
        tenants = self._tenants(table, column)
        begin = entering(session, self._catalog, self._key, tenants)
        session.proofs = dict(zip(tenants, KEPT, strict=True)) if begin else {}
        with session.transaction(begin):
            case = self._case(table, column, tenants)
            return tried(case, self._roles.application, self._registry)

    def _table(self, target: Target) -> Table:
        table = self._shape.tables.get(target)
        if table is None:
            raise NotProvableError("The database has no such table. Run the migrations first.")
        if self._lifts and table.owned:
            raise NotProvableError(
                "The application has the owner's privileges on it, so it can only be tried with a "
                "superuser's address."
            )
        return table

    @property
    def _lifts(self) -> bool:
        """Whether FORCE, which only holds the owner, is in the admin's way."""
        return not self._session.bypasses

    def _tenants(self, table: Table, column: str) -> tuple[str, ...]:
        """Return two tenants for *table*, and one without rows."""
        with self._session.transaction():
            if not self._chosen:
                inventor = self._inventor()
                self._chosen = tuple(inventor.chosen_tenant(self._registry) for _ in range(3))
            if self._samples == "existing":
                return (*existing_tenants(self._session, table, column), self._chosen[2])
            return self._chosen

    def _inventor(self) -> Inventor:
        return Inventor(
            self._session, self._shape, self._owned, self._samples == "existing", self._lifts
        )

    def _case(self, table: Table, column: str, tenants: tuple[str, ...]) -> Case:
        inventor, (a, b, stranger) = self._inventor(), tenants
        for tenant in (a, b):
            inventor.row(self._registry, tenant)
        view = table.kind not in ("r", "p")
        first, second = (
            inventor.shown(table, each) if view else inventor.row(table.target, each)
            for each in (a, b)
        )
        kept = [each for each in table.reads if self._owned.is_owned(each)]
        tables = tuple(self._shape.tables[each] for each in kept) if view else (table,)
        return Case(self._session, table, column, a, b, stranger, first, second, inventor, tables)

    def _look_for_rest(self) -> None:
        when = "after" if self._chosen or self._left else "before"
        if not self._session.one(f"SELECT nullif(current_setting('{SETTING}', true), '') IS NULL"):
            self._left.add(when)


def _owned(catalog: Catalog) -> Owned:
    known = entries(catalog)
    return Owned(
        {target_of(each): each.column.name for each in known if each.column is not None},
        frozenset(target_of(each) for each in known if each.kind is Kind.CHILD),
    )
