"""What every attack needs: a stage with two tenants, and a word for how the work ended.

An attack is a piece of work that tenant A does, aimed at one tenant's rows. Aimed at A's own rows
it is the positive control; at B's it is the attack; without any lock, the proof that the attack is
real.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from drivers import DRIVERS
from locks import Locks, fill
from practice import A, B
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from tenantguard import tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from locks import World

LOCKS = ("both", "first_alone", "second_alone")
SCOPING = ("both", "first_alone")
BINDING = ("both", "second_alone")

CROSSED = "CrossTenantError"
UNSCOPED = "UnscopedStatementError"
NO_TENANT = "TenantNotSetError"
ROW_SECURITY = "42501"
FOREIGN_KEY = "23503"
UNIQUE = "23505"
STALE = "StaleDataError"
GONE = "ObjectDeletedError"
UNMATCHED = "SAWarning"  # a DELETE that matched no row

COUNTING = tuple(driver for driver in DRIVERS if driver != "asyncpg")
"""The drivers that count the rows of a batch."""

_TABLES = ("practices", "users", "tags", "patients", "orders", "order_tags")
_EVERYTHING = " UNION ALL ".join(
    f"SELECT '{table}', {'id' if table == 'practices' else 'tenant_id'}, to_jsonb(t)::text "
    f"FROM {table} t"
    for table in _TABLES
)


@dataclass(frozen=True, slots=True)
class Target:
    """One tenant's rows, at which work is aimed; *loose* is a tag that no order has."""

    tenant: UUID
    user: int
    patient: int
    order: int
    tag: int
    loose: int
    name: str


@dataclass(frozen=True, slots=True)
class Attack:
    """Work, and how it has to end at B's rows under each lock.

    *control* is how it ends at A's own rows, under each lock. *real* is how it ends at B's rows
    without a lock, where that differs. *drivers* are those that tell how it ended.
    """

    name: str
    work: Callable[[Session, Any], object]
    first: str
    second: str
    both: str | None = None
    control: str = "1"
    real: str | None = None
    drivers: tuple[str, ...] = DRIVERS

    def refusal(self, lock: str) -> str:
        both = self.first if self.both is None else self.both
        return {"both": both, "first_alone": self.first, "second_alone": self.second}[lock]


def cases(attacks: list[Attack]) -> list[Any]:
    """Return *attacks* as parameters, each for the drivers that tell how it ended."""
    return [
        pytest.param(each, marks=pytest.mark.drivers(*each.drivers), id=each.name)
        for each in attacks
    ]


@dataclass(slots=True)
class Stage:
    """The world, engines that live as long as the module, and both tenants' rows.

    *mine* and *theirs* are a `Target` each, or what another world aims at.
    """

    world: World
    locks: Locks
    mine: Any
    theirs: Any
    engines: dict[str, Engine] = field(default_factory=dict)

    def engine(self, lock: str) -> Engine:
        if lock not in self.engines:
            self.engines[lock] = getattr(self.locks, lock)()
        return self.engines[lock]

    def ends(self, attack: Attack, lock: str) -> None:
        """Assert that *attack* works on A's rows and is refused, as declared, on B's."""
        engine = self.engine(lock)
        own = outcome(engine, attack.work, self.mine)
        assert own == attack.control, f"on own rows: {own}, expected {attack.control}"
        found = self.attacked(attack, lock)
        wanted = attack.refusal(lock)
        assert found == wanted, f"on the other's rows: {found}, expected {wanted}"

    def attacked(self, attack: Attack, lock: str) -> str:
        """Return how *attack* ends on B's rows."""
        return outcome(self.engine(lock), attack.work, self.theirs, keep=True)

    def is_real(self, attack: Attack) -> None:
        """Assert that *attack* reaches B's rows when nothing stops it."""
        found = outcome(self.engine("none"), attack.work, self.theirs)
        wanted = attack.control if attack.real is None else attack.real
        assert found == wanted, f"without locks: {found}, expected {wanted}"

    def rows(self) -> dict[UUID, list[str]]:
        """Every tenant's rows, whatever the locks say."""
        found: dict[UUID, list[str]] = {A: [], B: []}
        with self.world.admin.connect() as connection:
            for table, tenant, row in connection.execute(text(f"{_EVERYTHING} ORDER BY 1, 3")):
                found.setdefault(tenant, []).append(f"{table}: {row}")
        return found

    def restore(self) -> None:
        """Make the database as it was filled."""
        with self.world.admin.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '5s'"))
            tables = ", ".join((*_TABLES, "materials", "schema_versions"))
            connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
        fill(self.world.admin)
        loose_tags(self.world)


def loose_tags(world: World) -> None:
    """Give each tenant a tag that no order has."""
    with world.admin.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO tags (tenant_id, name) "
                "SELECT id, 'loose ' || lower(right(name, 1)) FROM practices ORDER BY name"
            )
        )


def target(world: World, tenant: UUID) -> Target:
    def first(table: str, column: int) -> Any:
        return world.rows(table, tenant)[0][column]

    return Target(
        tenant=tenant,
        user=first("users", 0),
        patient=first("patients", 0),
        order=first("orders", 0),
        tag=first("tags", 0),
        loose=world.rows("tags", tenant)[-1][0],
        name=first("patients", 2),
    )


def outcome(
    engine: Engine,
    work: Callable[[Session, Any], object],
    at: Any,
    *,
    keep: bool = False,
    tenant: UUID | None = A,
) -> str:
    """Do *work* as *tenant* and say how it ended: the result, or the kind of the refusal."""
    session = Session(engine)
    try:
        with tenant_context(tenant or A):
            result = repr(work(session, at))
            session.flush()
            (session.commit if keep else session.rollback)()
    except Exception as error:  # noqa: BLE001  (the kind is what is asserted)
        return kind(error)
    finally:
        with tenant_context(tenant or A):
            session.close()
    return result


def kind(error: BaseException) -> str:
    """PostgreSQL's code for its own errors, the class's name for others."""
    original = getattr(error, "orig", None) or error
    code = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    return code or type(error).__name__
